"""The state of a run, from its last event and how long ago that was."""

from __future__ import annotations

from gatewatch.collector.schema import DIED_SECONDS, GOING_EVENTS


def current_state(state: str, silent_seconds: float) -> str:
    """Return `live`, `died`, or how the run ended: `completed`, `failed`, `interrupted`.

    Args:
        state: the last event of the run.
        silent_seconds: seconds since that event.
    """
    if state not in GOING_EVENTS:
        return state
    return "live" if silent_seconds <= DIED_SECONDS else "died"

"""The state of a run, from its last event and how long ago that was."""

from __future__ import annotations

from typing import Final

from gatewatch.collector.schema import GOING_EVENTS, HEARTBEAT_SECONDS

DIED_SECONDS: Final = 4 * HEARTBEAT_SECONDS
"""A run without an event for longer, and without a final one, has died or cannot reach the store."""


def current_state(state: str, silent_seconds: float) -> str:
    """Return `live`, `died`, or how the run ended: `completed`, `failed`, `interrupted`.

    Args:
        state: the last event of the run.
        silent_seconds: seconds since that event.
    """
    if state not in GOING_EVENTS:
        return state
    return "live" if silent_seconds <= DIED_SECONDS else "died"

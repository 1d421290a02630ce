"""Whether a run lives, has ended or has died, by what was last heard of it."""

from __future__ import annotations

from typing import Final

from gatewatch.collector.schema import HEARTBEAT_SECONDS

DIED_SECONDS: Final = 4 * HEARTBEAT_SECONDS
"""A run that was not heard of for longer, and has not said how it ended, is dead, or cannot reach the store."""
_GOING: Final = ("started", "heartbeat")


def life(state: str, silent_seconds: float) -> str:
    """live, died, or how it ended: completed, failed, interrupted.

    Args:
        state: the last event of the run.
        silent_seconds: since then.
    """
    if state not in _GOING:
        return state
    return "live" if silent_seconds <= DIED_SECONDS else "died"

"""The row of a run, and its state: from its last event and how long ago that was."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.schema import DIED_SECONDS, GOING_EVENTS
from gatewatch.collector.store.runs import find_run

if TYPE_CHECKING:
    from gatewatch.collector.store.base import Store


def run_row(store: Store, run: str | None) -> dict[str, Any]:
    """Return a run's row of `store.runs()`, None where it has no value.

    Args:
        store: where its points are.
        run: its name; None: the run with the newest event.

    Raises:
        ConfigError: there is no such run, or no run at all.
        WriteUnavailable: the store does not answer.
    """
    runs = store.runs()
    if runs.empty:
        raise ConfigError(
            f"{store.url} has no runs yet: train with a GateMonitor that writes there, or `gatewatch demo`"
        )
    names = [str(name) for name in runs["run"]]
    row = runs.iloc[0 if run is None else names.index(find_run(run, names, store.url))]
    return {str(name): value for name, value in row.astype(object).where(row.notna(), None).items()}


def state_of(about: Mapping[str, Any], now: datetime) -> str:
    """Return the state of a run: live, died, completed, failed or interrupted.

    Args:
        about: the run's row of `store.runs()`.
        now: with a zone.
    """
    seen = about.get("last_seen")
    return current_state(str(about.get("state")), (now - seen).total_seconds() if seen else math.inf)


def current_state(state: str, silent_seconds: float) -> str:
    """Return `live`, `died`, or how the run ended: `completed`, `failed`, `interrupted`.

    Args:
        state: the last event of the run.
        silent_seconds: seconds since that event.
    """
    if state not in GOING_EVENTS:
        return state
    return "live" if silent_seconds <= DIED_SECONDS else "died"

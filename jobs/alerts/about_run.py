"""What a mail says of the run itself: how it goes or how it ended, and what was set in it just before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gatewatch.collector.errors import GatewatchError
from gatewatch.collector.schema import TRAIN_METRICS
from gatewatch.collector.times import nanoseconds
from gatewatch.jobs.alerts.lifecycle import Item
from gatewatch.jobs.findings.run_state import current_state
from gatewatch.jobs.findings.series import config_of, layer_order
from gatewatch.jobs.findings.settings import Jump, jumps, set_before

if TYPE_CHECKING:
    from gatewatch.collector.store import Store

_BEFORE: Final = 6 * 3600 * 10**9
"""How far before an alert, and after it, the settings of a run are looked at: nanoseconds."""
_FEWEST: Final = 16
"""Where there are fewer points in that time, as in a market's, the whole run is looked at."""


@dataclass(frozen=True, slots=True)
class AboutRun:
    """The run of a mail.

    Attributes:
        state: live, died, or how it ended; empty where that is not known, or where it is about no run.
        last_seen: time of its last event; nanoseconds, None as above.
        layers: names of its layers, in the network's order.
        settings: what was set and jumped just before its alerts began or became as bad as they are.
    """

    state: str = ""
    last_seen: int | None = None
    layers: Sequence[str] = ()
    settings: Sequence[Jump] = ()

    @property
    def goes_on(self) -> bool:
        """Whether it may still be stopped; so too where nothing is known of it."""
        return self.state in ("live", "")


def about_run(store: Store, run: str, row: Mapping[str, Any], items: Sequence[Item], now: int) -> AboutRun:
    """Read what a mail says of a run. What cannot be read is left out.

    Args:
        store: of the run.
        run: its name.
        row: of `store.runs()`; empty where it could not be read.
        items: the alerts of the mail.
        now: nanoseconds.
    """
    if not row:
        return AboutRun()
    last_seen = nanoseconds(row["last_seen"])
    # A run that was copied in may be heard of for the first time long after its last event.
    state = current_state(str(row["state"]), max(0.0, (now - last_seen) / 1e9))
    layers = layer_order([config_of(row.get("config"))])
    try:
        return AboutRun(state, last_seen, layers, _settings(store, run, items))
    except GatewatchError:
        return AboutRun(state, last_seen, layers)


def _settings(store: Store, run: str, items: Sequence[Item]) -> list[Jump]:
    firings = [item.entry.firing for item in items if item.entry.tags.get("layer")]
    since = [firing.since for firing in firings] + [
        firing.worst_at for firing in firings if firing.worst_at is not None
    ]
    if not since:
        return []
    start, stop = min(since) - _BEFORE, max(since) + _BEFORE
    frame = store.find(TRAIN_METRICS, run=run, start=start, stop=stop, prefix_tags=True)
    if len(frame) < _FEWEST:
        frame = store.find(TRAIN_METRICS, run=run, prefix_tags=True)
    return set_before(jumps(frame), [np.datetime64(time, "ns") for time in since])

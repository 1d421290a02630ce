"""Reads the runs that somebody looks at, and keeps what was read until there is something new."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gatewatch.collector.store.runs import find_run
from gatewatch.jobs.findings.axis import Axis, EpochScale
from gatewatch.jobs.findings.run_points import RunPoints, read_points, with_units
from gatewatch.jobs.findings.run_state import state_of
from gatewatch.jobs.frames import numbers
from gatewatch.jobs.report.content import Drawn

if TYPE_CHECKING:
    import pandas as pd

    from gatewatch.collector.store import Store

_KEPT: Final = 8
_KEPT_LONG: Final = 2
"""How many runs are kept, those that were looked at last: fewer where one was too long to be read whole."""
_PATIENCE: Final = 5
"""A run that goes on is read again after this many times as long as that takes: its training runs beside."""
AXES: Final = ("step", "epoch", "time")


@dataclass(frozen=True, slots=True)
class Current:
    """A run as it is now.

    Attributes:
        about: its row of `store.runs()`.
        state: from `state_of`.
        revision: changes when something of it is written.
    """

    about: Mapping[str, Any]
    state: str
    revision: str


@dataclass(slots=True)
class _Kept:
    """Points of a run, which revision they are of, when they were read, and how many seconds that took.

    The last two are of a clock that never goes back.
    """

    revision: str
    points: RunPoints
    at: float
    took: float


class RunReader:
    """Gives the points of a run, read anew only where something of it was written since.

    Args:
        store: holds the runs. It is used by one thread at a time.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._runs: tuple[dict[str, str], dict[str, dict[str, Any]]] = ({}, {})

    def current(self, run: str, now: datetime) -> Current:
        """Return what a run is now, by one small query where it has not changed.

        Raises:
            ConfigError: there is no such run.
            WriteUnavailable: the store does not answer.
        """
        with self._lock:
            revisions = self._store.revisions(run)
            known, rows = self._runs
            if run not in rows or known.get(run) != revisions.get(run):
                frame = self._store.runs()
                records = frame.astype(object).where(frame.notna(), None).to_dict("records")
                rows = {str(row["run"]): {str(key): value for key, value in row.items()} for row in records}
                find_run(run, [*rows], self._store.url)
                self._runs = (known | revisions, rows)
            about = rows[find_run(run, [*rows], self._store.url)]
            kept, revision = self._kept.get(run), revisions.get(run, "")
            if kept is not None and monotonic() - kept.at < _PATIENCE * kept.took:
                revision = kept.revision
        return Current(about, state_of(about, now), revision)

    def drawn(self, run: Current, *, units: bool = False, by_epoch: bool = True) -> Drawn:
        """Return a run to be drawn.

        Args:
            run: as it is now.
            units: whether its units are needed, which is much more to read.
            by_epoch: see `Drawn`.
        """
        name = str(run.about["run"])
        with self._lock:
            kept = self._kept.get(name)
            if kept is None or kept.revision != run.revision:
                begin = monotonic()
                points = read_points(self._store, run.about)
                kept = self._kept[name] = _Kept(run.revision, points, monotonic(), monotonic() - begin)
            if units and not kept.points.units:
                kept.points = with_units(self._store, name, kept.points)
            self._kept.move_to_end(name)
            most = _KEPT_LONG if any(each.points.drawn for each in self._kept.values()) else _KEPT
            while len(self._kept) > most:
                self._kept.popitem(last=False)
        return Drawn(run.about, run.state, kept.points, by_epoch)


def on_axis(run: Drawn, unit: str) -> Drawn:
    """Return a run whose charts are over another axis. Phases in market time stay there.

    Args:
        run: over steps, or the market's time.
        unit: `step`, `epoch` or `time`, the clock's.
    """
    if unit not in AXES or unit == "step":
        return run
    points = run.points
    axes = [
        axis
        if axis.market
        else replace(axis, market=True, clock=True)
        if unit == "time"
        else replace(axis, scale=epoch_scale(axis, points.captures, points.metrics))
        for axis in points.axes
    ]
    return replace(run, points=replace(points, axes=axes))


def epoch_scale(axis: Axis, *frames: pd.DataFrame) -> EpochScale | None:
    """Return at which steps the epochs of some phases begin; None where no point has an epoch.

    Args:
        axis: of the phases.
        frames: points of the run, of any measurements, read with `prefix_tags`.
    """
    first: dict[float, float] = {}
    last = 0.0
    for frame in frames:
        own = frame[frame["phase"].fillna("").isin(axis.phases)] if "phase" in frame else frame
        epochs, at = numbers(own, "epoch"), numbers(own, "step")
        for epoch, step in zip(epochs.tolist(), at.tolist(), strict=True):
            if np.isfinite(epoch) and np.isfinite(step):
                first[epoch] = min(first.get(epoch, step), step)
                last = max(last, step)
    if not first:
        return None
    numbered = np.array(sorted(first))
    begins = np.maximum.accumulate([first[epoch] for epoch in numbered.tolist()])
    length = float(np.median(np.diff(begins) / np.diff(numbered))) if len(begins) > 1 else last - begins[0] + 1
    return EpochScale(begins, numbered, max(length, 1.0))

"""The captures of a run: which series it has, in groups that are scored together, and their points as arrays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.names import PHASES
from gatewatch.collector.schema import (
    GATE_STATS,
    GATE_STATS_FIELDS,
    GATE_UNITS,
    HISTOGRAM_FIELDS,
    LAYER_UPDATES,
    LAYER_UPDATES_FIELDS,
    TRAIN_METRICS,
)
from gatewatch.collector.store import Store
from gatewatch.collector.store.columns import field_columns
from gatewatch.jobs.frames import numbers, rank, times

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.floating[Any]]
Times = NDArray[np.int64]
Pair = tuple[str, str]
"""A layer and its gate, or a layer and its parameter."""

NEVER: Final = -(2**63)
"""Before any time."""
MEASUREMENTS: Final = (GATE_STATS, GATE_UNITS, LAYER_UPDATES, TRAIN_METRICS)
"""The measurements that captures are made of, in the order in which `captures` takes them."""
_BINS: Final = [GATE_STATS_FIELDS.index(name) for name in HISTOGRAM_FIELDS]
_OF_SERIES: Final = ("layer", "gate")
_NOT_METRICS: Final = frozenset({"step", "epoch"})


@dataclass(frozen=True, slots=True)
class Captures:
    """The n captures of one run, phase and combination of the user's tags; NaN where a capture has no value.

    Attributes:
        tags: run, phase and the user's own, without layer and gate.
        time: (n,), nanoseconds, ascending.
        step: (n,), of the training.
        gates: (layer, gate) → (n, fields), in the order of `GATE_STATS_FIELDS`.
        units: (layer, gate) → (n, units), mean activations; units without any value are left out.
        updates: (layer, param) → (n, fields), in the order of `LAYER_UPDATES_FIELDS`.
        metrics: name → (n,), the first value that was logged at the capture's step, at the capture's time or later;
            where there is none, the last value that was logged at that step before.
    """

    tags: Mapping[str, str]
    time: Times
    step: Array
    gates: Mapping[Pair, Array]
    units: Mapping[Pair, Array]
    updates: Mapping[Pair, Array]
    metrics: Mapping[str, Array]

    def statistic(self, series: Pair, name: str) -> Array:
        """Return (n,), a field of `gate_stats` of a layer's gate."""
        return np.asarray(self.gates[series][:, GATE_STATS_FIELDS.index(name)])

    def update(self, series: Pair, name: str) -> Array:
        """Return (n,), a field of `layer_updates` of a layer's parameter."""
        return np.asarray(self.updates[series][:, LAYER_UPDATES_FIELDS.index(name)])

    def histograms(self, series: Pair) -> Array:
        """Return (n, bins), the histograms of a layer's gate: shares of its activations."""
        return self.gates[series][:, _BINS]

    def part(self, first: int, stop: int | None = None) -> Captures:
        """Return the captures from index `first` up to, not including, `stop`."""
        chosen = slice(first, stop)
        gates, units, updates = (
            {series: values[chosen] for series, values in table.items()}
            for table in (self.gates, self.units, self.updates)
        )
        metrics = {name: values[chosen] for name, values in self.metrics.items()}
        return Captures(self.tags, self.time[chosen], self.step[chosen], gates, units, updates, metrics)

    def captured(self, series: Pair) -> NDArray[np.bool_]:
        """Return (n,), whether a capture has a point of this layer's gate."""
        return np.isfinite(self.statistic(series, "step"))


def captures(
    tags: Mapping[str, str], stats: pd.DataFrame, units: pd.DataFrame, updates: pd.DataFrame, metrics: pd.DataFrame
) -> Captures | None:
    """Return the captures of a group of series; None where its points make none.

    Args:
        tags: the tags that the group shares.
        stats, units, updates, metrics: its points of `gate_stats`, `gate_units`, `layer_updates` and `train_metrics`,
            read with `prefix_tags`.
    """
    if not {"layer", "gate", "step"} <= set(stats.columns) or (stats := stats[stats["step"].notna()]).empty:
        return None
    time = np.unique(times(stats))
    gates = _pivoted(stats, time, "gate", GATE_STATS_FIELDS)
    steps = np.stack([values[:, GATE_STATS_FIELDS.index("step")] for values in gates.values()])
    step = np.max(np.where(np.isfinite(steps), steps, -np.inf), axis=0)
    by_unit = sorted(name for name in map(str, units.columns) if name[0] == "u" and name[1:].isdigit())
    return Captures(
        tags=tags,
        time=time,
        step=step,
        gates=gates,
        units={
            series: values[:, present]
            for series, values in _pivoted(units, time, "gate", by_unit).items()
            if (present := np.isfinite(values).any(axis=0)).any()
        },
        updates=_pivoted(updates, time, "param", LAYER_UPDATES_FIELDS),
        metrics=_metrics(metrics, time, step),
    )


def _pivoted(frame: pd.DataFrame, time: Times, part: str, names: Sequence[str]) -> dict[Pair, Array]:
    """Return (layer, `part`) → (n, fields): the values of some fields at n times."""
    if not {"layer", part} <= set(frame.columns) or not names:
        return {}
    values = np.stack([numbers(frame, name) for name in names], axis=1)
    moments = times(frame)
    at = np.minimum(np.searchsorted(time, moments), len(time) - 1)
    of_capture = time[at] == moments
    tables: dict[Pair, Array] = {}
    for (layer, name), numbers_of in frame.assign(row=np.arange(len(frame))).groupby(["layer", part])["row"]:
        rows = numbers_of.to_numpy()
        rows = rows[of_capture[rows]]
        table = np.full((len(time), len(names)), np.nan)
        table[at[rows]] = values[rows]
        tables[str(layer), str(name)] = table
    return tables


def _metrics(frame: pd.DataFrame, time: Times, step: Array) -> dict[str, Array]:
    """Return metric → (n,): the first value that was logged at a capture's step, at its time or later.

    Where there is none, it is the last value that was logged at that step before: a later value of the same step, such
    as at the end of an epoch, may not be stored yet when a capture is scored.
    """
    metrics: dict[str, Array] = {}
    logged_at, moments = numbers(frame, "step"), times(frame)
    for column, name in field_columns(frame.columns).items():
        values = numbers(frame, column)
        finite = np.isfinite(values) & np.isfinite(logged_at)
        if name in _NOT_METRICS or not finite.any():
            continue
        logged: dict[float, list[tuple[int, float]]] = defaultdict(list)
        for at, moment, value in zip(*(each[finite].tolist() for each in (logged_at, moments, values)), strict=True):
            logged[at].append((moment, value))
        taken = zip(step.tolist(), time.tolist(), strict=True)
        metrics[name] = np.array([_first_since(moment, logged.get(at, ())) for at, moment in taken])
    return metrics


def _first_since(time: int, logged: Sequence[tuple[int, float]]) -> float:
    return next((value for moment, value in logged if moment >= time), logged[-1][1] if logged else np.nan)


@dataclass(slots=True)
class SeriesGroup:
    """The series of a run that share phase and the user's tags.

    Attributes:
        tags: the tags that they share.
        only: these tags, and an empty value for each tag that only other series of the run have.
        series: tags and number of points of each series.
        points: number of points of all series together.
        newest: time of the newest point.
    """

    tags: Mapping[str, str]
    only: dict[str, str]
    series: list[tuple[Mapping[str, str], int]] = field(default_factory=list)
    points: int = 0
    newest: int = NEVER

    @property
    def phase(self) -> str:
        """The phase, empty for none."""
        return self.tags.get("phase", "")

    @property
    def gates(self) -> tuple[Pair, ...]:
        """The layers and gates of the network."""
        return tuple(sorted({(tags.get("layer", ""), tags.get("gate", "")) for tags, _ in self.series}))

    def in_phase(self, phase: str) -> str:
        """Return the name of the group that differs from this one only in its phase."""
        return repr(sorted((self.only | {"phase": phase}).items()))


def series_groups(store: Store, run: str) -> list[SeriesGroup]:
    """Return the groups of a run, in the order of their phases."""
    tallies = store.series(GATE_STATS, "step", run)
    names = sorted({name for tally in tallies for name in tally.tags if name not in _OF_SERIES})
    groups: dict[tuple[str, ...], SeriesGroup] = {}
    for tally in tallies:
        shared = {name: value for name, value in tally.tags.items() if name not in _OF_SERIES}
        only = {name: shared.get(name, "") for name in names}
        group = groups.setdefault(tuple(only.values()), SeriesGroup(shared, only))
        group.series.append((tally.tags, tally.points))
        group.points += tally.points
        group.newest = max(group.newest, tally.newest)
    return sorted(groups.values(), key=lambda group: (rank(group.phase, PHASES), sorted(group.only.items())))

"""The points of a run as arrays: one row a capture, oldest first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.names import PHASES
from gatewatch.collector.schema import GATE_STATS_FIELDS, LAYER_UPDATES_FIELDS
from gatewatch.collector.store.columns import field_columns, tag_columns
from gatewatch.jobs.frames import numbers, times

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.floating[Any]]
Times = NDArray[np.int64]
Pair = tuple[str, str]
"""A layer and its gate, or a layer and its parameter."""

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
        metrics: name → (n,), the value logged first at the capture's step and not before the capture.
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
        column: Array = self.gates[series][:, GATE_STATS_FIELDS.index(name)]
        return column

    def update(self, series: Pair, name: str) -> Array:
        """Return (n,), a field of `layer_updates` of a layer's parameter."""
        column: Array = self.updates[series][:, LAYER_UPDATES_FIELDS.index(name)]
        return column

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
    stats: pd.DataFrame, units: pd.DataFrame, updates: pd.DataFrame, metrics: pd.DataFrame
) -> Iterator[Captures]:
    """Yield the captures of a run, for each phase and combination of the user's tags.

    Args:
        stats, units, updates, metrics: points of `gate_stats`, `gate_units`, `layer_updates` and `train_metrics` of
            one run, read with `prefix_tags`.
    """
    if not {"layer", "gate", "step"} <= set(stats.columns) or (stats := stats[stats["step"].notna()]).empty:
        return
    names = tag_columns(stats.columns)
    shared = [column for column in names if column not in ("layer", "gate")]
    by_unit = sorted(name for name in map(str, units.columns) if name[0] == "u" and name[1:].isdigit())
    parts = {
        name: dict(_groups(frame, shared))
        for name, frame in (("units", units), ("updates", updates), ("metrics", metrics))
    }
    for key, rows in sorted(_groups(stats, shared), key=lambda item: _order(shared, item[0])):
        moments = times(rows)
        time = np.unique(moments)
        gates = _pivoted(rows, time, "gate", GATE_STATS_FIELDS)
        units_of = _pivoted(parts["units"].get(key), time, "gate", by_unit)
        steps = np.stack([values[:, GATE_STATS_FIELDS.index("step")] for values in gates.values()])
        step = np.max(np.where(np.isfinite(steps), steps, -np.inf), axis=0)
        yield Captures(
            tags={names[column]: value for column, value in zip(shared, key, strict=True) if value},
            time=time,
            step=step,
            gates=gates,
            units={
                series: values[:, present]
                for series, values in units_of.items()
                if (present := np.isfinite(values).any(axis=0)).any()
            },
            updates=_pivoted(parts["updates"].get(key), time, "param", LAYER_UPDATES_FIELDS),
            metrics=_metrics(parts["metrics"].get(key), time, step),
        )


def _order(shared: Sequence[str], key: tuple[str, ...]) -> tuple[object, ...]:
    phase = dict(zip(shared, key, strict=True)).get("phase", "")
    return (PHASES.index(phase) if phase in PHASES else len(PHASES), key)


def _groups(frame: pd.DataFrame, shared: Sequence[str]) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    if frame.empty:
        return
    present = [name for name in shared if name in frame.columns]
    if not present:
        yield ("",) * len(shared), frame
        return
    for values, rows in frame.groupby(present, dropna=False, sort=False):
        named = {name: value if isinstance(value, str) else "" for name, value in zip(present, values, strict=True)}
        yield tuple(named.get(name, "") for name in shared), rows


def _pivoted(frame: pd.DataFrame | None, time: Times, part: str, names: Sequence[str]) -> dict[Pair, Array]:
    if frame is None or frame.empty or not {"layer", part} <= set(frame.columns) or not names:
        return {}
    values = np.stack([numbers(frame, name) for name in names], axis=1)
    moments = times(frame)
    at = np.minimum(np.searchsorted(time, moments), len(time) - 1)
    of_capture = time[at] == moments
    tables: dict[Pair, Array] = {}
    for (layer, name), rows in frame.assign(row=np.arange(len(frame))).groupby(["layer", part], sort=True)["row"]:
        chosen = rows.to_numpy()[of_capture[rows.to_numpy()]]
        table = np.full((len(time), len(names)), np.nan)
        table[at[chosen]] = values[chosen]
        tables[str(layer), str(name)] = table
    return tables


def _metrics(frame: pd.DataFrame | None, time: Times, step: Array) -> dict[str, Array]:
    if frame is None or frame.empty or "step" not in frame:
        return {}
    metrics: dict[str, Array] = {}
    at, moments = numbers(frame, "step"), times(frame)
    for column, name in field_columns(frame.columns).items():
        if name in _NOT_METRICS:
            continue
        values = numbers(frame, column)
        finite = np.isfinite(values) & np.isfinite(at)
        if finite.any():
            logged: dict[float, list[tuple[int, float]]] = {}
            for of, moment, value in zip(
                at[finite].tolist(), moments[finite].tolist(), values[finite].tolist(), strict=True
            ):
                logged.setdefault(of, []).append((moment, value))
            taken = zip(step.tolist(), time.tolist(), strict=True)
            metrics[name] = np.array([_logged(logged.get(of, []), moment) for of, moment in taken])
    return metrics


def _logged(values: Sequence[tuple[int, float]], time: int) -> float:
    """Return the first value that was logged at a time or later; where there is none, the last before it.

    A later value of the same step, such as at the end of an epoch, may not be there yet when a capture is scored.
    """
    return next((value for moment, value in values if moment >= time), values[-1][1] if values else np.nan)

"""From the points of a measurement to arrays: a row for each capture, whose moment a point shares."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.store.columns import field_columns
from gatewatch.jobs.frames import numbers, times

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.floating[Any]]
Times = NDArray[np.int64]
Pair = tuple[str, str]
"""A layer and its gate, or a layer and its parameter."""

_NOT_METRICS: Final = frozenset({"step", "epoch"})
_OF_LOOK: Final = ("mean", "std", "p05", "p50", "p95")
_NOT_FINITE: Final = ("nan_count", "inf_count")


def numbered(frame: pd.DataFrame | None, letter: str) -> list[str]:
    """Return the fields that are a letter and a number, such as `u000`, in order."""
    names = [] if frame is None else map(str, frame.columns)
    return sorted(name for name in names if name[0] == letter and name[1:].isdigit())


def by_field(frame: pd.DataFrame | None, time: Times, names: Sequence[str]) -> dict[str, Array]:
    """Return field → (n,): the values of a measurement of one series, of the fields that have any."""
    if frame is None or frame.empty:
        return {}
    table = by_tag(frame.assign(series=""), time, "series", names).get("", np.empty((len(time), 0)))
    return {name: values for name, values in zip(names, table.T, strict=False) if np.isfinite(values).any()}


def by_tag(frame: pd.DataFrame | None, time: Times, tag: str, names: Sequence[str]) -> dict[str, Array]:
    """Return tag → (n, fields): the values of some fields at n times."""
    if frame is None or tag not in frame:
        return {}
    tables = by_pair(frame.assign(layer=frame[tag], series=""), time, "series", names)
    return {name: table for (name, _), table in tables.items()}


def by_pair(frame: pd.DataFrame | None, time: Times, part: str, names: Sequence[str]) -> dict[Pair, Array]:
    """Return (layer, `part`) → (n, fields): the values of some fields at n times."""
    if frame is None or not {"layer", part} <= set(frame.columns) or not names:
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


def reference_look(time: Times, stats: pd.DataFrame, units: pd.DataFrame) -> dict[Pair, Array]:
    """Return (layer, gate) → (n, F), as `Captures.reference_look` has it.

    Args:
        time: of the captures.
        stats, units: the points of the look, of `gate_stats` and `gate_units`.
    """
    tables = by_pair(stats, time, "gate", (*_OF_LOOK, *_NOT_FINITE))
    of_units = by_pair(units, time, "gate", numbered(units, "u"))
    looks = {}
    for series, table in tables.items():
        levels, counts = table[:, : len(_OF_LOOK)], table[:, len(_OF_LOOK) :].sum(axis=1, keepdims=True)
        is_broken = np.where(np.isfinite(counts), counts > 0, np.nan)
        looks[series] = np.concatenate([levels, is_broken, of_units.get(series, levels[:, :0])], axis=1)
    return looks


def logged_metrics(frame: pd.DataFrame | None, time: Times, step: Array) -> dict[str, Array]:
    """Return metric → (n,): the first value that was logged at a capture's step, at its time or later.

    Where there is none, it is the last value that was logged at that step before: a later value of the same step, such
    as at the end of an epoch, may not be stored yet when a capture is scored.
    """
    metrics: dict[str, Array] = {}
    if frame is None:
        return metrics
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

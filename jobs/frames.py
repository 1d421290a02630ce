"""Columns of the frames that a store gives, as NumPy arrays, and the order of names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.store.columns import field_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

NOT_METRICS: Final = frozenset({"step", "epoch", "nan_count", "inf_count"})
"""Fields of `train_metrics` that say where a point belongs and what it lacks."""


def times(frame: pd.DataFrame) -> NDArray[np.int64]:
    """Return the time of each point, shape (points,), in nanoseconds since the Unix epoch."""
    return frame["time"].to_numpy(dtype="datetime64[ns]").astype(np.int64)


def numbers(frame: pd.DataFrame, field: str) -> NDArray[np.float64]:
    """Return a field of each point, shape (points,); NaN where a point has none, or where the field is text."""
    if field not in frame or frame[field].dtype == object:
        return np.full(len(frame), np.nan)
    return np.asarray(frame[field].to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)


def not_finite(frame: pd.DataFrame) -> NDArray[np.float64]:
    """Return how many values of each point were NaN or infinite, shape (points,); 0 where it does not say."""
    return np.nan_to_num(numbers(frame, "nan_count")) + np.nan_to_num(numbers(frame, "inf_count"))


def metric_columns(metrics: pd.DataFrame) -> dict[str, str]:
    """Return column → name of the metrics of `train_metrics` points, read with `prefix_tags`."""
    return {column: name for column, name in field_columns(metrics.columns).items() if name not in NOT_METRICS}


def by_phase(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return each phase and its points, in the order in which phases appear; the phase is empty where there is none."""
    if frame.empty:
        return []
    if "phase" not in frame:
        return [("", frame)]
    return [(str(phase), rows) for phase, rows in frame.groupby(frame["phase"].fillna(""), sort=False)]


def rank(name: str, order: Sequence[str]) -> tuple[int, str]:
    """Return a key to sort by: the names of `order` come first, as they are there, then all others by name."""
    return (order.index(name) if name in order else len(order), name)

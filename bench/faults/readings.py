"""A recorded run as arrays, a row for each capture."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gatewatch.collector.schema import GATE_STATS, LAYER_UPDATES
from gatewatch.collector.store import Store, open_store

ValuesBySeries = Mapping[tuple[str, ...], NDArray[np.float64]]


@dataclass(frozen=True)
class Readings:
    """What was recorded of a run.

    Attributes:
        times: (captures,), ascending.
        steps: (captures,).
        gates: (layer, gate, field) → (captures,), NaN where a capture has none.
        updates: (layer, param, field) → (captures,), NaN where a capture has none.
    """

    times: NDArray[Any]
    steps: NDArray[np.int64]
    gates: ValuesBySeries
    updates: ValuesBySeries

    def capture_of(self, step: int | None) -> int | None:
        """The first capture at a step or after it."""
        return None if step is None else int(np.searchsorted(self.steps, step))


def open_copy(path: Path) -> closing[Store]:
    """The store in a file, to be closed."""
    return closing(open_store(f"sqlite:///{path}"))


def read(path: Path, run: str) -> Readings:
    """The readings of a run in a sqlite file."""
    with open_copy(path) as store:
        stats, updates = store.read(GATE_STATS, run=run), store.read(LAYER_UPDATES, run=run)
    # A capture whose gates could not be replayed has updates alone, one of a backtest has gates alone.
    steps = pd.concat([part.groupby("time")["step"].first() for part in (stats, updates) if len(part)])
    steps = steps[~steps.index.duplicated()].sort_index()
    times = steps.index
    return Readings(
        times=times.to_numpy("datetime64[ns]"),
        steps=steps.to_numpy(np.int64),
        gates=_series(stats, times, "gate"),
        updates=_series(updates, times, "param") if len(updates) else {},
    )


def _series(frame: pd.DataFrame, times: pd.Index, second: str) -> dict[tuple[str, ...], NDArray[np.float64]]:
    found: dict[tuple[str, ...], NDArray[np.float64]] = {}
    for (layer, other), rows in frame.groupby(["layer", second]):
        aligned = rows.set_index("time").select_dtypes("number").reindex(times)
        for name in aligned.columns:
            found[str(layer), str(other), str(name)] = aligned[name].to_numpy(float, na_value=np.nan)
    return found

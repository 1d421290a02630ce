"""Captures of healthy runs, made up: what a store holds before the jobs look at it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.cells import GRU
from gatewatch.collector.schema import (
    GATE_STATS,
    GATE_UNITS,
    HISTOGRAM_BINS,
    HISTOGRAM_FIELDS,
    LAYER_UPDATES,
    RUNS,
    TRAIN_METRICS,
    FieldValue,
    Point,
)
from gatewatch.collector.store import Store

LAYERS: Final = 5
SERIES: Final = LAYERS * len(GRU.gate_names)
"""Series of a run."""
UNITS: Final = 16
_FIRST: Final = 1_700_000_000_000_000_000
_APART: Final = 10**9
_STEPS: Final = 10
_WRITTEN_AT_ONCE: Final = 20_000
_WALKS: Final = ("mean", "std", "p05", "p50", "p95", "saturated_low", "saturated_high", "entropy", "zero_crossing_rate")

Array = NDArray[np.floating[Any]]


def fill(store: Store, series: int, captures: int) -> None:
    """Write the points of so many series, `SERIES` to a run."""
    batch: list[Point] = []
    for number in range(series // SERIES):
        batch += run(number, captures)
        if len(batch) >= _WRITTEN_AT_ONCE:
            store.write(batch)
            batch = []
    store.write(batch)


def run(number: int, captures: int) -> Iterator[Point]:
    """All points of one run that has ended."""
    random = np.random.default_rng(number)
    tags = {"run": f"run-{number:04d}", "phase": "train"}
    times = [_FIRST + k * _APART for k in range(captures)]
    steps = [k * _STEPS for k in range(captures)]
    yield Point(RUNS, tags, {"event": "started", "framework": "keras", "model": "gru", "step": 0}, times[0] - 1)
    yield Point(RUNS, tags, {"event": "completed", "step": steps[-1]}, times[-1] + 1)
    loss = np.exp(-np.arange(captures) / captures) + random.normal(0, 0.02, captures)
    for time, step, value in zip(times, steps, loss.tolist(), strict=True):
        yield Point(TRAIN_METRICS, tags, {"loss": value, "step": step}, time)
    for layer in range(LAYERS):
        here = {**tags, "layer": f"gru_{layer}"}
        for gate in GRU.gate_names:
            yield from _gate(random, {**here, "gate": gate}, times, steps)
        for param in ("kernel", "recurrent"):
            yield from _updates(random, {**here, "param": param}, times, steps)


def _gate(random: np.random.Generator, tags: dict[str, str], times: list[int], steps: list[int]) -> Iterator[Point]:
    captures = len(times)
    walks = np.abs(_walk(random, captures, len(_WALKS), 0.005) + 0.3)
    shares = random.dirichlet(np.full(HISTOGRAM_BINS, 50.0), captures)
    units = _walk(random, captures, UNITS, 0.01) + 0.5
    names = (*_WALKS, *HISTOGRAM_FIELDS)
    rows = np.concatenate([walks, shares], axis=1).tolist()
    for time, step, row, profile in zip(times, steps, rows, units.tolist(), strict=True):
        counts: dict[str, FieldValue] = {"dead_units": 0, "nan_count": 0, "inf_count": 0, "step": step, "epoch": 0}
        yield Point(GATE_STATS, tags, dict(zip(names, row, strict=True)) | counts, time)
        yield Point(GATE_UNITS, tags, {f"u{i:03d}": mean for i, mean in enumerate(profile)} | {"step": step}, time)


def _updates(random: np.random.Generator, tags: dict[str, str], times: list[int], steps: list[int]) -> Iterator[Point]:
    names = ("gradient_norm", "gradient_norm_clipped", "weight_norm", "update_norm", "update_ratio", "update_frequency")
    rows = (10.0 ** np.array([-1, -1, 1, -2, -3, 0]) * random.lognormal(0, 0.1, (len(times), len(names)))).tolist()
    for time, step, row in zip(times, steps, rows, strict=True):
        yield Point(LAYER_UPDATES, tags, dict(zip(names, row, strict=True)) | {"nan_count": 0, "step": step}, time)


def _walk(random: np.random.Generator, captures: int, wide: int, pace: float) -> Array:
    """(captures, wide): each goes its way, and trembles on it."""
    walk: Array = random.normal(0, pace, (captures, wide)).cumsum(axis=0) + random.normal(0, pace, (captures, wide))
    return walk

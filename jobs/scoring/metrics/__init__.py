"""Derived metrics: one row for each, computed by functions over captures.

The value of a capture depends on it and on as many captures before it as the metric declares.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.cells import MEMORY_GATES, gate_scale
from gatewatch.collector.schema import GATE_STATS_FIELDS, HISTOGRAM_FIELDS
from gatewatch.jobs.scoring.captures import Captures, Pair
from gatewatch.jobs.scoring.metrics import gates, learning, units
from gatewatch.jobs.scoring.metrics.base import Metric, Series

Array = NDArray[np.floating[Any]]

ALL_UNITS: Final = 64
"""`gate_units` holds each unit of a layer that has fewer; of a larger one it holds groups, and the layer's size is not
known."""
_BINS: Final = [GATE_STATS_FIELDS.index(name) for name in HISTOGRAM_FIELDS]


def _histograms(captures: Captures, pair: Pair) -> Array:
    return captures.gates[pair][:, _BINS]


def _saturated(captures: Captures, pair: Pair) -> tuple[Array, Array]:
    return captures.statistic(pair, "saturated_low"), captures.statistic(pair, "saturated_high")


def _window_seconds(of: Series) -> Array:
    first = len(of.captures.time) - of.new
    begins = of.captures.time[np.maximum(np.arange(first, first + of.new) - units.RANK_CAPTURES + 1, 0)]
    return (of.newest.time - begins) / 1e9


def _drift_baseline(of: Series) -> Array | None:
    usual = of.normal.histograms(of.pair, of.newest.step) if of.normal is not None else None
    return None if usual is None else gates.drift_from(_histograms(of.newest, of.pair), usual)


def _memory_timescale(of: Series) -> Array | None:
    return gates.memory_timescale(of.newest.statistic(of.pair, "mean")) if of.pair[1] in MEMORY_GATES else None


def _effective_rank(of: Series) -> Array | None:
    values = of.captures.units.get(of.pair)
    return None if values is None else units.effective_ranks(values, newest=of.new)


def _frozen_units(of: Series) -> Array | None:
    scale, values = gate_scale(of.pair[1]), of.captures.units.get(of.pair)
    return None if values is None else units.frozen_share(values, scale.high - scale.low, newest=of.new)


def _dead_share(of: Series) -> Array | None:
    if (values := of.newest.units.get(of.pair)) is None:
        return None
    size = np.isfinite(values).sum(axis=1)
    return units.dead_share(of.newest.statistic(of.pair, "dead_units"), np.where(size < ALL_UNITS, size, 0))


def _input_forget_coupling(of: Series) -> Array | None:
    layer, gate = of.pair
    given, kept = of.newest.units.get((layer, "input")), of.newest.units.get(of.pair)
    if gate != "forget" or given is None or kept is None:
        return None
    return gates.input_forget_coupling(given, kept)


def _regime_sensitivity(of: Series) -> Array | None:
    if (price := of.captures.metrics.get("price")) is None:
        return None
    return gates.regime_sensitivity(of.captures.statistic(of.pair, "mean"), gates.volatility(price), newest=of.new)


def _norm(of: Series) -> Array:
    return of.captures.update(of.pair, "gradient_norm")


METRICS: Final = (
    Metric("saturation", "share", "gate", lambda of: gates.saturation(*_saturated(of.newest, of.pair))),
    Metric(
        "saturation_change",
        "share",
        "gate",
        lambda of: gates.saturation_change(*_saturated(of.captures, of.pair), newest=of.new),
        look_back=gates.SATURATION_CAPTURES,
    ),
    Metric(
        "drift",
        "distance, 0 to 1",
        "gate",
        lambda of: gates.drift(_histograms(of.captures, of.pair), newest=of.new),
        look_back=gates.DRIFT_CAPTURES,
    ),
    Metric(
        "entropy_trend",
        "bits per capture",
        "gate",
        lambda of: gates.entropy_trend(of.captures.statistic(of.pair, "entropy"), newest=of.new),
        look_back=gates.TREND_CAPTURES - 1,
    ),
    Metric("drift_baseline", "distance, 0 to 1", "gate", _drift_baseline),
    Metric("memory_timescale", "steps", "gate", _memory_timescale),
    Metric("effective_rank", "directions", "gate", _effective_rank, look_back=units.RANK_CAPTURES - 1),
    Metric("frozen_units", "share", "gate", _frozen_units, look_back=units.FROZEN_CAPTURES - 1),
    Metric("dead_share", "share", "gate", _dead_share),
    Metric("input_forget_coupling", "correlation", "gate", _input_forget_coupling),
    Metric(
        "regime_sensitivity",
        "correlation",
        "gate",
        _regime_sensitivity,
        look_back=gates.REGIME_CAPTURES - 1 + gates.VOLATILITY_STEPS,
    ),
    Metric("window_s", "s", "gate", _window_seconds, look_back=units.RANK_CAPTURES - 1),
    Metric("dead_units", "units", "gate", lambda of: of.newest.statistic(of.pair, "dead_units"), whole=True),
    Metric(
        "gradient_ratio",
        "times the median",
        "parameter",
        lambda of: learning.gradient_ratio(_norm(of), newest=of.new),
        look_back=learning.GRADIENT_CAPTURES,
    ),
    Metric(
        "update_band",
        "-1, 0 or 1",
        "parameter",
        lambda of: learning.update_band(of.newest.update(of.pair, "update_ratio")),
    ),
    Metric(
        "gradient_state",
        "-1, 0 or 1",
        "parameter",
        lambda of: learning.gradient_state(_norm(of), newest=of.new),
        look_back=learning.GRADIENT_CAPTURES,
    ),
)

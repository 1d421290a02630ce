"""Derived metrics: one row per metric, computed by functions over captures.

A value depends on its capture and on as many earlier captures as the metric declares.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from gatewatch.collector.cells import MEMORY_GATES, gate_scale
from gatewatch.jobs.scoring.captures import Array
from gatewatch.jobs.scoring.metrics import gates, learning, units
from gatewatch.jobs.scoring.metrics.base import Metric, Series

ALL_UNITS: Final = 64
"""`gate_units` holds each unit of a layer that has fewer than this many. Otherwise it may hold groups of units, and the
size of the layer is unknown."""


def _saturation(of: Series) -> Array:
    return gates.saturation(of.statistic("saturated_low"), of.statistic("saturated_high"))


def _saturation_change(of: Series) -> Array:
    return gates.saturation_change(of.statistic("saturated_low"), of.statistic("saturated_high"), of.new)


def _drift(of: Series) -> Array:
    return gates.drift(of.captures.histograms(of.pair), of.new)


def _drift_baseline(of: Series) -> Array | None:
    usual = of.normal.histograms(of.pair, of.captures.step) if of.normal is not None else None
    return None if usual is None else gates.drift_from(of.captures.histograms(of.pair), usual)


def _entropy_trend(of: Series) -> Array:
    return gates.entropy_trend(of.statistic("entropy"), of.new)


def _memory_timescale(of: Series) -> Array | None:
    return gates.memory_timescale(of.statistic("mean")) if of.pair[1] in MEMORY_GATES else None


def _effective_rank(of: Series) -> Array | None:
    return None if of.units is None else units.effective_ranks(of.units, of.new)


def _frozen_units(of: Series) -> Array | None:
    scale = gate_scale(of.pair[1])
    return None if of.units is None else units.frozen_share(of.units, scale.high - scale.low, of.new)


def _dead_share(of: Series) -> Array | None:
    if of.units is None:
        return None
    size = np.isfinite(of.units).sum(axis=1)
    return units.dead_share(of.statistic("dead_units"), np.where(size < ALL_UNITS, size, 0))


def _input_forget_coupling(of: Series) -> Array | None:
    layer, gate = of.pair
    given = of.captures.units.get((layer, "input"))
    if gate != "forget" or given is None or of.units is None:
        return None
    return gates.input_forget_coupling(given, of.units)


def _regime_sensitivity(of: Series) -> Array | None:
    if (price := of.captures.metrics.get("price")) is None:
        return None
    return gates.regime_sensitivity(of.statistic("mean"), gates.volatility(price), of.new)


def _window_seconds(of: Series) -> Array:
    newest = np.arange(len(of.captures.time))[-of.new :]
    begins = of.captures.time[np.maximum(newest - units.RANK_CAPTURES + 1, 0)]
    return (of.captures.time[newest] - begins) / 1e9


def _gradient_ratio(of: Series) -> Array:
    return learning.gradient_ratio(of.update("gradient_norm"), of.new)


def _gradient_state(of: Series) -> Array:
    return learning.gradient_state(of.update("gradient_norm"), of.new)


_REGIME_LOOK_BACK: Final = gates.REGIME_CAPTURES - 1 + gates.VOLATILITY_STEPS
METRICS: Final = (
    Metric("saturation", "share", "gate", _saturation),
    Metric("saturation_change", "share", "gate", _saturation_change, look_back=gates.SATURATION_CAPTURES),
    Metric("drift", "distance, 0 to 1", "gate", _drift, look_back=gates.DRIFT_CAPTURES),
    Metric("entropy_trend", "bits per capture", "gate", _entropy_trend, look_back=gates.TREND_CAPTURES - 1),
    Metric("drift_baseline", "distance, 0 to 1", "gate", _drift_baseline),
    Metric("memory_timescale", "steps", "gate", _memory_timescale),
    Metric("effective_rank", "directions", "gate", _effective_rank, look_back=units.RANK_CAPTURES - 1),
    Metric("frozen_units", "share", "gate", _frozen_units, look_back=units.FROZEN_CAPTURES - 1),
    Metric("dead_share", "share", "gate", _dead_share),
    Metric("input_forget_coupling", "correlation", "gate", _input_forget_coupling),
    Metric("regime_sensitivity", "correlation", "gate", _regime_sensitivity, look_back=_REGIME_LOOK_BACK),
    Metric("window_s", "s", "gate", _window_seconds, look_back=units.RANK_CAPTURES - 1),
    Metric("dead_units", "units", "gate", lambda of: of.statistic("dead_units"), whole=True),
    Metric("gradient_ratio", "times the median", "parameter", _gradient_ratio, look_back=learning.GRADIENT_CAPTURES),
    Metric("update_band", "-1, 0 or 1", "parameter", lambda of: learning.update_band(of.update("update_ratio"))),
    Metric("gradient_state", "-1, 0 or 1", "parameter", _gradient_state, look_back=learning.GRADIENT_CAPTURES),
)

"""Derived metrics: pure functions over the captures of any number of series, oldest first.

What is said of a capture depends on it and on at most `LOOK_BACK` captures before it.
"""

from typing import Final

from gatewatch.jobs.scoring.metrics.gates import (
    DRIFT_CAPTURES,
    REGIME_CAPTURES,
    SATURATION_CAPTURES,
    TREND_CAPTURES,
    VOLATILITY_STEPS,
    drift,
    drift_from,
    entropy_trend,
    input_forget_coupling,
    memory_timescale,
    regime_sensitivity,
    saturation,
    saturation_change,
    volatility,
)
from gatewatch.jobs.scoring.metrics.learning import (
    GAP_POINTS,
    GRADIENT_CAPTURES,
    generalisation_gap,
    gradient_ratio,
    gradient_state,
    update_band,
)
from gatewatch.jobs.scoring.metrics.units import (
    FROZEN_CAPTURES,
    RANK_CAPTURES,
    dead_share,
    effective_ranks,
    frozen_share,
)

LOOK_BACK: Final = max(
    DRIFT_CAPTURES,
    SATURATION_CAPTURES,
    TREND_CAPTURES - 1,
    REGIME_CAPTURES - 1,
    GRADIENT_CAPTURES,
    FROZEN_CAPTURES - 1,
    RANK_CAPTURES - 1,
)
"""The most captures before the one that is spoken of. Of a price it is `VOLATILITY_STEPS` steps more, of a loss
`GAP_POINTS` points."""

__all__ = [
    "DRIFT_CAPTURES",
    "FROZEN_CAPTURES",
    "GAP_POINTS",
    "GRADIENT_CAPTURES",
    "LOOK_BACK",
    "RANK_CAPTURES",
    "REGIME_CAPTURES",
    "SATURATION_CAPTURES",
    "TREND_CAPTURES",
    "VOLATILITY_STEPS",
    "dead_share",
    "drift",
    "drift_from",
    "effective_ranks",
    "entropy_trend",
    "frozen_share",
    "generalisation_gap",
    "gradient_ratio",
    "gradient_state",
    "input_forget_coupling",
    "memory_timescale",
    "regime_sensitivity",
    "saturation",
    "saturation_change",
    "update_band",
    "volatility",
]

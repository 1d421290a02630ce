"""All faults, by name."""

from __future__ import annotations

from typing import Final

from bench.faults.fault import Fault
from bench.faults.feed_faults import (
    ExplodingGradient,
    LabelLeak,
    Overfit,
    RawFeed,
    ShuffledTime,
    StateKept,
    StuckFeed,
    VanishingGradient,
)
from bench.faults.network_faults import (
    DeadUnits,
    ForgetOpen,
    ForgetShut,
    FrozenLayer,
    GateScale,
    HeadSaturated,
    NanWeight,
    OptimizerReset,
    RateHundredfold,
    RateZero,
)

FAULTS: Final[dict[str, type[Fault]]] = {
    "forget-shut": ForgetShut,
    "forget-open": ForgetOpen,
    "gate-scale": GateScale,
    "dead-units": DeadUnits,
    "exploding-gradient": ExplodingGradient,
    "vanishing-gradient": VanishingGradient,
    "head-saturated": HeadSaturated,
    "rate-x100": RateHundredfold,
    "rate-zero": RateZero,
    "frozen-layer": FrozenLayer,
    "nan-weight": NanWeight,
    "stuck-feed": StuckFeed,
    "raw-feed": RawFeed,
    "shuffled-time": ShuffledTime,
    "label-leak": LabelLeak,
    "overfit": Overfit,
    "optimizer-reset": OptimizerReset,
    "state-kept": StateKept,
}
"""By the name that the table gives it."""

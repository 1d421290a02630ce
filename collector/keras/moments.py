"""What a Keras optimizer says of a variable: its second moments, its count of steps, how far a step can move it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from gatewatch.collector.keras.optimizers import READABLE, index_of, inner_of, is_known, numpy_of, steps_of
from gatewatch.collector.reach import ADAGRAD_REACH, Reach, adam_reach, rmsprop_reach
from gatewatch.collector.travel import Moments, OptimizerFacts


def optimizer_facts(optimizer: Any, variable: Any, steps: int) -> OptimizerFacts:
    """Return what an optimizer says of a variable that it trains, as it is now; `steps` is of `updates_of`."""
    return OptimizerFacts(second_moments(optimizer, variable), steps, reach(optimizer, variable))


def updates_of(optimizer: Any) -> int:
    """Return how many times an optimizer has updated its variables: gradients may be accumulated over several steps."""
    return steps_of(optimizer) // (inner_of(optimizer).gradient_accumulation_steps or 1)


def reach(optimizer: Any, variable: Any) -> Reach | None:
    """Return how far a step of an optimizer moves a variable at most; None where no bound is known.

    Where a constraint moves the variable, or the optimizer writes averages over it (`use_ema`), there is none.
    """
    inner = inner_of(optimizer)
    of_kind = _REACHES.get(type(inner).__name__) if is_known(inner) else None
    if of_kind is None or inner.use_ema or variable.constraint is not None or variable.dtype not in _ROUNDING:
        return None
    per_rate = of_kind(inner)
    return None if per_rate is None else Reach(per_rate, float(inner.weight_decay or 0.0), _ROUNDING[variable.dtype])


def second_moments(optimizer: Any, variable: Any) -> Moments | None:
    """Return the sum of an optimizer's second moments for a variable as they are now, and their decay.

    None for an optimizer without them, of an unknown kind, or whose state is of less than single precision.
    """
    inner = inner_of(optimizer)
    rule = _RULES.get(type(inner).__name__) if is_known(inner) else None
    index = index_of(inner, variable)
    if rule is None or index is None:
        return None
    slots, decay = rule
    moments = numpy_of(getattr(inner, slots)[index])
    if moments.dtype not in READABLE or moments.shape != variable.shape:
        return None
    return Moments(float(moments.sum(dtype=np.float64)), float(getattr(inner, decay)))


_RULES: Final[Mapping[str, tuple[str, str]]] = {
    **dict.fromkeys(("Adam", "AdamW", "Nadam", "Lamb", "ScheduleFreeAdamW"), ("_velocities", "beta_2")),
    "RMSprop": ("_velocities", "rho"),
    "Adadelta": ("_accumulated_grads", "rho"),
}
"""Optimizer → where its state has v_t = decay·v_{t−1} + (1 − decay)·g², and the decay.

AMSGrad's maximum of v is beside it. Adamax holds a maximum of |g|, Adagrad and Ftrl a sum of g² without decay.
"""
_ROUNDING: Final = {"float32": 2.0**-24, "float64": 2.0**-53}
"""Type → by which share of itself a value of it may be rounded (IEEE 754)."""
_REACHES: Final[Mapping[str, Callable[[Any], float | None]]] = {
    **dict.fromkeys(("Adam", "AdamW"), lambda inner: adam_reach(float(inner.beta_1), float(inner.beta_2))),
    "RMSprop": lambda inner: None if inner.centered else rmsprop_reach(float(inner.rho), float(inner.momentum)),
    "Adagrad": lambda inner: ADAGRAD_REACH,
}
"""Optimizer → how far a step moves a value at most, as a multiple of the learning rate."""

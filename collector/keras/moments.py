"""The second moments that a Keras optimizer holds for a variable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from gatewatch.collector.keras.optimizers import READABLE, index_of, inner_of, is_known, numpy_of
from gatewatch.collector.travel import Moments


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

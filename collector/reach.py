"""How far an optimizer's steps can move a parameter, whatever its gradients are: pure functions.

The rules of the Adam family divide a mean of gradients by the root of a mean of their squares, so that a step moves no
value by more than the learning rate times a constant. What a parameter has moved beyond that, something else has moved.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

_ROOM: Final = 1.001
"""The rules' own numbers are rounded to single precision, a few times in a step."""


class Reach(NamedTuple):
    """What a step can do to each value of a parameter.

    Attributes:
        per_rate: how far it moves at most, as a multiple of the learning rate.
        decay: the share of itself that it loses besides, as a multiple of the learning rate.
        rounding: by which share of itself it may be rounded.
    """

    per_rate: float
    decay: float
    rounding: float


def adam_reach(beta_1: float, beta_2: float) -> float | None:
    """Return how far a step of Adam moves a value at most, as a multiple of the learning rate; None for no bound.

    m = (1−β₁)·Σβ₁^i·g_i and v = (1−β₂)·Σβ₂^i·g_i², so |m|/√v is by the inequality of Cauchy and Schwarz at most
    (1−β₁)/√((1−β₂)(1−β₁²/β₂)), for β₁² < β₂: 7.27 at 0.9 and 0.999. Corrected for its bias the first step is 1, and
    later ones are below the larger of the two. AMSGrad divides by more.
    """
    if not (0 <= beta_1 < 1 and 0 < beta_2 < 1 and beta_1**2 < beta_2):
        return None
    return max(1.0, (1 - beta_1) / math.sqrt((1 - beta_2) * (1 - beta_1**2 / beta_2)))


def rmsprop_reach(decay: float, momentum: float = 0.0) -> float | None:
    """Return how far a step of RMSprop moves a value at most, as a multiple of the learning rate; None for no bound.

    v is at least (1−ρ)·g², so |g|/√v is at most 1/√(1−ρ): 10 at 0.99. Momentum μ adds up to 1/(1−μ) such steps.
    """
    if not (0 <= decay < 1 and 0 <= momentum < 1):
        return None
    return 1 / ((1 - momentum) * math.sqrt(1 - decay))


ADAGRAD_REACH: Final = 1.0
"""Adagrad divides g by the root of a sum that contains g²."""


def travel_limit(reach: Reach, *, steps: int, rate_sum: float, size: int, norm: float) -> float:
    """Return how far some steps can have moved a parameter: an L2 norm.

    Each of `size` values moves by `per_rate`·`rate_sum` or less. Decay takes a share of a norm that is never larger
    than that at the beginning and these moves. Each step rounds twice.

    Args:
        reach: of a step.
        steps: how many.
        rate_sum: the sum of their learning rates.
        size: how many values the parameter has.
        norm: its L2 norm before the first of the steps.
    """
    moved = reach.per_rate * rate_sum * math.sqrt(size)
    return _ROOM * (moved + (norm + moved) * (reach.decay * rate_sum + 2 * steps * reach.rounding))

"""Checks of the optimizer: its second moments and its count of steps."""

from __future__ import annotations

from typing import Final

import numpy as np

from gatewatch.jobs.scoring.captures import Array, Captures, Pair
from gatewatch.jobs.scoring.checks.base import Check, shifted, verdicts

_ROUNDINGS: Final = 4 * 2.0**-24
"""By how much a step may round v = decay·v + (1 − decay)·g²: the decay, two products and a sum, each to half a spacing
of single precision (IEEE 754)."""
_VANISHED: Final = 1e-30
"""Below this sum the moments of a hundred million values may be subnormal, which devices flush to zero."""


def moments_fell(captures: Captures) -> dict[Pair, Array]:
    """Judge whether second moments fell further than their decay allows.

    An optimizer of the Adam family holds v_t = d·v_{t−1} + (1 − d)·g², and g² is never negative. So k steps leave
    v at d^k times what it was or more, whatever the gradients are, and so does the sum over a parameter. Rounding may
    take 4·2⁻²⁴ of it in a step. Where moments were dropped, (1 − d^j) of their usual size is back after j steps: the
    statement tells that from a sound training while d^k is above about a half, which is 690 steps between two
    captures at d = 0.999 and 6 at RMSprop's 0.9. Later it is true of either.
    """
    scores = {}
    for series in captures.updates:
        total, decay, steps = (captures.update(series, name) for name in ("moment_sum", "moment_decay", "travel_steps"))
        least = shifted(total) * (decay * (1 - _ROUNDINGS)) ** steps
        known = np.isfinite(least) & np.isfinite(total) & (shifted(decay) == decay)
        if known.any():
            scores[series] = verdicts(known & (least > _VANISHED) & (total < least), known)
    return scores


CHECKS: Final = (
    Check(
        name="moments_fell",
        sentence="the optimizer's second moments fell further than they decay: was its state dropped or exchanged?",
        source="optimizer",
        errors="never",
        needs="two captures in a row with the moments of Adam, RMSprop or their like",
        judge=moments_fell,
    ),
)

"""Checks of the optimizer: its second moments and its count of steps."""

from __future__ import annotations

from typing import Final

import numpy as np

from gatewatch.jobs.scoring.captures import Array, Captures, Pair
from gatewatch.jobs.scoring.checks.base import OPTIMIZER, WINDOW, Check, previous, verdicts

STEPS: Final = "steps"
"""Stands for the gate in points about the optimizer's count of steps."""
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
    records at d = 0.999 and 6 at RMSprop's 0.9. Later it is true of either.

    The steps are those that the collector has seen, or those by which the optimizer's own count has grown: so moments
    that a resumed run has lost are found at its first record. Where either is larger it counts; where the count went
    back and the steps were not seen, as after an earlier checkpoint, nothing is said.
    """
    scores = {}
    for series in captures.updates:
        recorded = np.isfinite(captures.update(series, "step"))
        total, decay, count = (captures.update(series, name) for name in ("moment_sum", "moment_decay", "step_count"))
        counted = count - previous(count, recorded)
        steps = np.fmax(captures.update(series, "travel_steps"), np.where(counted >= 0, counted, np.nan))
        least = previous(total, recorded) * (decay * (1 - _ROUNDINGS)) ** steps
        known = np.isfinite(least) & np.isfinite(total) & (previous(decay, recorded) == decay)
        if known.any():
            scores[series] = verdicts(known & (least > _VANISHED) & (total < least), known)
    return scores


def steps_went_back(captures: Captures) -> dict[Pair, Array]:
    """Judge whether the optimizer's own count of steps went back.

    An optimizer adds one to its count at each step. Within a process it only grows, unless its state is dropped or an
    earlier one is put in its place. A run that goes on in another process may go on from an earlier checkpoint, and
    then its count is smaller, but not near zero: it has begun anew only where all that it counts fits into the time
    since the record before, at the pace until then and one step a training step at least.
    """
    every: list[Array] = []
    for series in captures.updates:
        recorded = np.isfinite(captures.update(series, "step"))
        count = captures.update(series, "step_count")
        before, step_before = previous(count, recorded), previous(captures.step, recorded)
        pace = np.maximum(1.0, before / np.maximum(step_before, 1.0))
        begins_anew = count <= pace * (captures.step - step_before)
        same_process = np.isfinite(captures.update(series, "travel"))
        known = np.isfinite(count) & np.isfinite(before)
        every.append(verdicts(known & (count < before) & (same_process | begins_anew), known))
    return {(OPTIMIZER, STEPS): np.fmax.reduce(every)} if every else {}


CHECKS: Final = (
    Check(
        name="moments_fell",
        sentence="the optimizer's second moments fell further than they decay: was its state dropped or exchanged?",
        source="optimizer",
        errors="never",
        needs="two records of a parameter with second moments, as of Adam or RMSprop",
        judge=moments_fell,
        look_back=WINDOW,
    ),
    Check(
        name="steps_went_back",
        sentence="the optimizer counts its steps anew: its state was dropped, or an earlier one was put in its place",
        source="optimizer",
        errors="never",
        needs="two records of an optimizer that counts its steps",
        judge=steps_went_back,
        look_back=WINDOW,
    ),
)

"""Checks of the optimizer: its second moments, what they say of the gradient, and its count of steps."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.jobs.scoring.captures import Array, Captures, Pair
from gatewatch.jobs.scoring.checks.base import OPTIMIZER, VIOLATED, WINDOW, Check, previous, verdicts

STEPS: Final = "steps"
"""Stands for the gate in points about the optimizer's count of steps."""
_ROUNDINGS: Final = 4 * 2.0**-24
"""By how much a step may round v = decay·v + (1 − decay)·g²: the decay, two products and a sum, each to half a spacing
of single precision (IEEE 754)."""
FAR_BELOW: Final = 0.01
FAR_ABOVE: Final = 3.0
"""Between the two a gradient's squared norm is, as a multiple of the second moments: see `moments_astray`."""
MEMORIES: Final = 3.0
"""How long is long, as a multiple of 1/(1 − decay) steps, which is how long second moments remember."""
_FEWEST: Final = 8
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


def optimizer_exchanged(captures: Captures) -> dict[Pair, Array]:
    """Judge whether another optimizer has taken over, and counts anew.

    The record of the capture after an exchange says nothing of the optimizer, since two of them made its steps. Where
    the count at the next one is smaller than that of before, the first optimizer's state is gone with it. That is a
    warning: an optimizer may be exchanged on purpose, and then its moments are lost all the same.
    """
    every: list[Array] = []
    for series in captures.updates:
        recorded, count = np.isfinite(captures.update(series, "step")), captures.update(series, "step_count")
        counted, index = np.isfinite(count), np.arange(len(count), dtype=float)
        before = previous(count, counted)
        has_gap = previous(index, recorded) != previous(index, counted)
        same_process = np.isfinite(captures.update(series, "travel"))
        known = counted & np.isfinite(before)
        every.append(verdicts(known & has_gap & same_process & (count < before), known))
    return {(OPTIMIZER, STEPS): np.fmax.reduce(every)} if every else {}


def moments_astray(captures: Captures) -> dict[Pair, Array]:
    """Judge whether gradients have for long been far smaller or far larger than second moments say.

    v is a mean of squared gradients, of weight 1 − d^t after t steps. So while gradients stay alike ‖g‖² is 1 on
    average, as a multiple of Σv/(1 − d^t); g is the gradient as the optimizer used it, clipped. A single batch may be
    far off. Over three memories of v, 3/(1 − d) steps, a ratio that is always

    - below 0.01 means that v falls as fast as it can, to 0.37 of itself in a memory, and gradients stay a hundred times
      below it. v then remembers gradients that are long over, a state that precedes spikes of the loss
      (arXiv 2506.04805);
    - above 3 means that v grows by d/(1 − 3·(1 − d)) a step: e²-fold in a memory, 400-fold in three.

    It is a warning. Of 12 sound trainings of an LSTM on six tasks (d of 0.95 and 0.99, 1,500 steps) two had it, both on
    data of which one batch in fifty has targets thirty times as large. In the others the largest ratio of such a
    stretch was 0.16 or more, and the smallest 1.55 or less. Decay that is added to the gradient (L2, as in torch's
    Adam) is in v and not in ‖g‖.
    """
    scores = {}
    for series in captures.updates:
        norm, total, decay, count = (
            captures.update(series, name)
            for name in ("gradient_norm_clipped", "moment_sum", "moment_decay", "step_count")
        )
        known = np.isfinite(norm + total + decay + count) & (total > _VANISHED) & (count > 0) & (decay < 1)
        if known.any():
            squares, weight = norm[known] ** 2, 1 - decay[known] ** count[known]
            ratio = squares * weight / total[known]
            side = np.where(ratio < FAR_BELOW, -1, np.where(ratio > FAR_ABOVE, 1, 0))
            long = MEMORIES / (1 - decay[known])
            scores[series] = np.full(len(norm), np.nan)
            scores[series][known] = _long_on_one_side(side, count[known], np.flatnonzero(known), long)
    return {series: values for series, values in scores.items() if np.isfinite(values).any()}


def _long_on_one_side(side: NDArray[np.int_], count: Array, at: NDArray[np.intp], long: Array) -> Array:
    """Return the scores of n records: whether those of late were all on one side; NaN where they are too few.

    Args:
        side: (n,), -1 below, 1 above, 0 neither.
        count: (n,), of the optimizer's steps.
        at: (n,), which capture has the record.
        long: (n,), how many steps they must span.
    """
    values = np.full(len(side), np.nan)
    oldest = begin = since = 0
    for k in range(len(side)):
        if k and count[k] < count[k - 1]:
            oldest = begin = k
        while at[k] - at[oldest] > WINDOW:
            oldest += 1
        if k and side[k] != side[k - 1]:
            begin = k
        since = max(begin, oldest)
        if count[k] - count[oldest] >= long[k]:
            is_long = count[k] - count[since] >= long[k] and k - since + 1 >= _FEWEST
            values[k] = VIOLATED if side[k] and is_long else 0.0
    return values


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
    Check(
        name="optimizer_exchanged",
        sentence="another optimizer has taken over and counts its steps anew: was it meant to, with the moments lost?",
        source="optimizer",
        errors="a warning: optimizers may be exchanged on purpose",
        needs="two records of optimizers that count their steps, with one between them in which both made steps",
        judge=optimizer_exchanged,
        look_back=WINDOW,
        alarms=False,
    ),
    Check(
        name="moments_astray",
        sentence="gradients have long been far from what the second moments say: a spike of the loss may follow",
        source="optimizer",
        errors="a warning: in 2 of 12 sound trainings, both on data with rare outliers",
        needs=f"{_FEWEST} captures that span {MEMORIES:g}/(1 - decay) steps, within {WINDOW}",
        judge=moments_astray,
        look_back=WINDOW,
        alarms=False,
    ),
)

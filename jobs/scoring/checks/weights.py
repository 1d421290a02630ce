"""Checks of the weights: whether they moved further than their optimizer can have moved them, or were rounded."""

from __future__ import annotations

from typing import Final

import numpy as np

from gatewatch.jobs.scoring.captures import Array, Captures, Pair
from gatewatch.jobs.scoring.checks.base import MEASURED, WINDOW, Check, just_begun, up_to, verdicts, windows

UPDATES_EXCEEDED: Final = 5.0
"""Travel above so many times what as many steps as the largest recent update would have moved is no step's doing."""
USUAL_EXCEEDED: Final = 3.0
"""And above so many times the largest such ratio of late."""
RECENT: Final = 16
"""Captures whose largest update counts."""
_FEWEST: Final = 4
EXACT: Final = 0.5
ROUNDED: Final = 0.9
"""Share of the values that a lower precision holds exactly: below the first they were trained in their own, above the
second they were rounded. It is one in 8,192 by chance."""


def moved_too_far(captures: Captures) -> dict[Pair, Array]:
    """Judge whether a parameter moved further than the optimizer's rule lets any gradients move it.

    The collector derives `travel_limit` from the rule, the learning rates and the number of steps (`collector.reach`).
    What lies beyond was not the optimizer: a checkpoint of another run, a layer that was reset, a flipped sign. Some
    sound code moves weights itself, such as weight averages that are swapped in. So only the first excess within 65
    captures counts: a layer that is moved again and again does not alarm on and on.
    """
    scores = {}
    for series in captures.updates:
        travel, limit = captures.update(series, "travel"), captures.update(series, "travel_limit")
        known = np.isfinite(travel) & np.isfinite(limit)
        if known.any():
            scores[series] = verdicts(just_begun(known & (travel > limit)), known)
    return scores


def moved_beyond_updates(captures: Captures) -> dict[Pair, Array]:
    """Judge whether a parameter moved much further than its updates of late explain.

    By the triangle inequality it moves no further than the sum of its updates. One update of each capture is
    recorded, and k steps as large as the largest of the last 17 are a sum that gradients exceed by `UPDATES_EXCEEDED`
    only if they were larger by as much in steps that nobody looked at. As with
    `moved_too_far`, only an excess counts before which there was none for some time, here 32 captures. Where captures
    fall into step with a cyclic rate they always meet small updates, so the ratio must also be three times its largest
    of late.
    """
    scores = {}
    for series in captures.updates:
        travel, steps, update = (captures.update(series, name) for name in ("travel", "travel_steps", "update_norm"))
        largest = np.fmax.reduce(up_to(update, RECENT), axis=1)
        enough = np.isfinite(windows(update, RECENT)).sum(axis=1) >= _FEWEST
        is_explained = (steps > 0) & (largest > 0)
        ratio = np.where(is_explained, travel / np.where(is_explained, steps * largest, 1.0), np.nan)
        usual = np.nan_to_num(np.fmax.reduce(windows(ratio, RECENT), axis=1))
        known = np.isfinite(ratio) & enough
        if known.any():
            beyond = known & (ratio > np.maximum(UPDATES_EXCEEDED, USUAL_EXCEEDED * usual))
            scores[series] = verdicts(just_begun(beyond, WINDOW - 2 * RECENT), known)
    return scores


def rounded(captures: Captures) -> dict[Pair, Array]:
    """Judge whether the weights have been rounded to half precision (of double precision: to single).

    A step adds a number of 24 bits to each weight, so that its last bits are as good as random: the 13 that half
    precision leaves out are all zero once in 8,192 values. Of the 8 values at least that `rounded_share` counts
    nine in ten have that by chance less than once in 10³⁰ records. Weights that are of half precision all along were
    never anything else, and are no violation; nor are those that begin as round numbers.

    It holds of the weights that a recorded step begins with, and of those that a process begins with. Where rounding
    happened once, earlier, a step has ended it.
    """
    scores = {}
    for series in captures.updates:
        share = captures.update(series, "rounded_share")
        least = np.fmin.reduce(windows(share, WINDOW // 2), axis=1)
        known = np.isfinite(share) & np.isfinite(least)
        if known.any():
            scores[series] = verdicts(just_begun((least < EXACT) & (share > ROUNDED), WINDOW // 2), known)
    return scores


_NEEDS_STEPS: Final = "two records of a parameter, the steps and the learning rates between them"
CHECKS: Final = (
    Check(
        name="moved_too_far",
        sentence="the weights moved further than the optimizer's steps can: was something loaded or reset?",
        source="network",
        errors="never where the optimizer alone moves the weights",
        needs=f"{_NEEDS_STEPS}, of Adam, AdamW, RMSprop or Adagrad",
        judge=moved_too_far,
        look_back=WINDOW,
    ),
    Check(
        name="moved_beyond_updates",
        sentence="the weights moved much further than their updates explain: was something loaded or reset?",
        source="network",
        errors=MEASURED,
        needs=f"two records of a parameter, the steps between them, and {_FEWEST} earlier updates",
        judge=moved_beyond_updates,
        look_back=WINDOW,
    ),
    Check(
        name="rounded",
        sentence="the weights were rounded to a lower precision: a checkpoint, a cast, or a copy in half precision?",
        source="network",
        errors="never",
        needs="two records of a parameter of 8 values or more",
        judge=rounded,
        look_back=WINDOW,
    ),
)

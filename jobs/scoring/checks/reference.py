"""Checks of the feed of a backtest or a live phase against the training that it is compared with.

A normaliser that was lost before the phase began has no past there: only the training shows what is missing. A market
changes too, so the limit is that of `scale_jumped`, and a feature must have left the training as a whole: a crash, a
flag that is set or a quiet hour does not count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.jobs.scoring.captures import Array, Captures, Pair
from gatewatch.jobs.scoring.checks.base import Check, up_to
from gatewatch.jobs.scoring.checks.feed import AFTERWARDS, SCALE, by_feature

VALUES: Final = 16
"""Values of a feature from which its size is known: of fewer, as of single bars, one outlier makes it."""
FEWEST_SMALL: Final = 2
SMALL_SHARE: Final = 3
"""One feature in three must be too small, two at least: a feature may be near zero by itself for as long as nothing
happens, as a drawdown is while prices rise. In calm markets it was one feature of 13 at most (`bench.reference`)."""
ERRORS: Final = "none in 72 backtests of real prices, see docs/detection.md"
_NEEDS: Final = (
    f"the feed of a training, and {VALUES} values of the phase: one capture of windows, {VALUES} of single bars"
)


def larger_than_training(captures: Captures) -> dict[Pair, Array]:
    """Judge whether a feature is more than `SCALE` times as large as in the training's largest batch.

    What counts is the smaller of its percentiles 1 and 99, without their signs: both ends of it must be far out. A
    crash moves one end only, as does a flag that is set. A score of 1 is `SCALE` times.
    """
    times = _against(captures, "largest", np.minimum, lambda size, largest: size / largest)
    return by_feature(captures, [_score(each, each > SCALE) for each in times])


def smaller_than_training(captures: Captures) -> dict[Pair, Array]:
    """Judge whether features are less than a part of 1/`SCALE` of the training's smallest, as raw returns are.

    What counts is the larger of the percentiles 1 and 99, without their signs. A calm market makes all that depends on
    its volatility smaller by one factor, of 3 to 5, and leaves alone what does not; a lost normaliser has a factor
    of its own for each feature, so that some are far below the limit and others are not. So it is enough if one
    feature in `SMALL_SHARE` of those that move is that small, `FEWEST_SMALL` at least; of fewer features all must be.
    A score of 1 is a part of 1/`SCALE`.
    """
    parts = _against(captures, "smallest", np.maximum, lambda size, smallest: smallest / size)
    if not parts:
        return {}
    small, moving = (np.stack(parts) > SCALE).sum(axis=0), np.isfinite(np.stack(parts)).sum(axis=0)
    is_several = (small >= np.minimum(FEWEST_SMALL, moving)) & (SMALL_SHARE * small >= moving)
    return by_feature(captures, [_score(each, is_several & (each > SCALE)) for each in parts])


def _against(
    captures: Captures, key: str, end: Callable[[Array, Array], Array], ratio: Callable[[Array, Array], Array]
) -> list[Array]:
    """Return for each feature (n,), the ratio of its size and that of the training; NaN where it is not known.

    The size is taken over as many captures, up to this one, as have `VALUES` values together: from the smallest of
    their percentiles 1 to the largest of their percentiles 99, so that single bars are seen as a window of them is. A
    feature that stands still in all of them has none: a flag does so, whatever its size is.

    Args:
        captures: n of them.
        key: of the training's sizes.
        end: which of the percentiles 1 and 99 counts.
        ratio: of both sizes, above `SCALE` where they differ by too much.
    """
    reference = captures.reference.get(key)
    tables = [captures.features.get(name) for name in ("p01", "p99", "mean", "std")]
    if reference is None or any(each is None or each.shape[1] != len(reference) for each in tables):
        return []
    given = [each for each in tables if each is not None]
    sequences, positions = (captures.feed.get(name, np.full(len(given[0]), 1.0)) for name in ("sequences", "positions"))
    values = np.nan_to_num(np.maximum(sequences * positions, 1.0), nan=1.0)
    is_left_out = np.arange(VALUES) < VALUES - np.ceil(VALUES / np.minimum(values, VALUES))[:, None]
    ratios = []
    for index, of_training in enumerate(reference):
        # What is left out is replaced by the capture itself: it moves neither end, and is no other value.
        low, high, mean, std = (
            np.where(is_left_out, table[:, [index]], up_to(table[:, index], VALUES - 1)) for table in given
        )
        moves = (std > 0).any(axis=1) | (mean != mean[:, -1:]).any(axis=1)
        is_whole = np.isfinite(low + high + mean + std).all(axis=1)
        size = end(np.abs(low.min(axis=1)), np.abs(high.max(axis=1)))
        known = moves & is_whole & (size > 0) & (of_training > 0)
        ratios.append(np.where(known, ratio(np.where(known, size, 1.0), np.where(known, of_training, 1.0)), np.nan))
    return ratios


def _score(ratio: Array, violated: NDArray[np.bool_]) -> Array:
    """Return (n,), 0 where the statement holds, above 1 where it does not, and NaN where the ratio is not known."""
    return np.where(violated, ratio / SCALE, np.where(np.isfinite(ratio), 0.0, np.nan))


CHECKS: Final = (
    Check(
        name="larger_than_training",
        sentence="a feature is far larger than in the training it is compared with: was it normalised?",
        source="data",
        errors=ERRORS,
        needs=_NEEDS,
        judge=larger_than_training,
        look_back=VALUES - 1 + AFTERWARDS,
        times=SCALE,
    ),
    Check(
        name="smaller_than_training",
        sentence="features are far smaller than in the training they are compared with: were they normalised?",
        source="data",
        errors=ERRORS,
        needs=_NEEDS,
        judge=smaller_than_training,
        look_back=VALUES - 1 + AFTERWARDS,
        times=SCALE,
    ),
)

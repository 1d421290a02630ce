"""Checks of what features look like, against the training that a backtest or a live phase is compared with.

Single windows say little: a slow feature hardly moves within one. So what is compared are all captures of late
together, and of the training all its batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.jobs.scoring.captures import Array, Captures, Pair
from gatewatch.jobs.scoring.checks.base import WINDOW, Check, verdicts
from gatewatch.jobs.scoring.checks.feed import AFTERWARDS, HISTORY, SCALE, by_feature
from gatewatch.jobs.scoring.checks.reference import FEWEST_SMALL, SMALL_SHARE
from gatewatch.jobs.scoring.feature_profile import FeatureProfile, profile_of

LATE: Final = WINDOW - AFTERWARDS
"""Captures that are taken together."""
VALUES: Final = 256
"""Values of a feature, in `HISTORY` captures or more, from which it is known what the feature looks like. Where they
are fewer in `LATE` captures, as of single bars, these have to do."""
MEAN: Final = 1.0
LOG_STD: Final = 0.5
PERSISTENCE: Final = 0.2
"""How far a market moves a feature: its mean by a deviation, the logarithm of its deviation by a half, its persistence
by 0.2. Distances are in these units."""
TIMES: Final = 2.5
"""How many times nearer columns must be to what others looked like than to what they did themselves. In order they were
nearer by less than 1/1.25 of that in all comparisons of `python -m bench.reference`: halves of real markets, regimes
with their opposites, 13 features and random choices of them."""
SMALLEST: Final = 0.5
"""Units below which it does not matter how near a column is: by chance alone it is hardly ever nearer."""
_MOST: Final = 1e12
"""The largest square of a distance, so that their sum is finite."""
_LOOKS: Final = ("mean", "std", "persistence")


def columns_permuted(captures: Captures) -> dict[Pair, Array]:
    """Judge whether columns look like what others looked like in the training: whether their order is another.

    A market moves columns; it does not make one look like a second and the second like the first. So what counts is
    not how far a column is from what it was, but how much better another order explains all of them: see `places`.
    A market that calms down makes all columns that depend on its volatility smaller at once. The distances are
    taken with that factor removed, which no order of the columns changes, and without; both must agree.
    """
    usual = _training(captures)
    if usual is None:
        return {}
    size, width = len(captures.time), len(usual.mean)
    own = np.arange(width)
    scores = np.full((width, size), np.nan)
    for k, profile in _profiles(captures):
        known = _is_known(profile) & _is_known(usual)
        if known.sum() >= 2:
            scores[:, k] = verdicts(places(profile, usual, known) != own, known)
    return by_feature(captures, list(scores)) if np.isfinite(scores).any() else {}


def moves_less_than_training(captures: Captures) -> dict[Pair, Array]:
    """Judge whether features move less than a part of 1/`SCALE` of what they did in any batch of the training.

    Raw prices near 1 have the size of a scaled feature, but not its movement. As in `smaller_than_training`, one
    feature in `SMALL_SHARE` must do so, `FEWEST_SMALL` at least, of fewer features all: a calm market makes features
    move less by one factor of 3 to 5, and a slow one may stand nearly still for long. 1/`SCALE` is a score of 1.
    """
    least = captures.reference.get("least_std")
    if least is None:
        return {}
    parts = np.full((len(least), len(captures.time)), np.nan)
    for k, profile in _profiles(captures):
        if len(profile.std) == len(least):
            known = (profile.std > 0) & (least > 0)
            parts[:, k] = np.where(known, least / np.where(known, profile.std, 1.0), np.nan)
    if not np.isfinite(parts).any():
        return {}
    still, moving = (parts > SCALE).sum(axis=0), np.isfinite(parts).sum(axis=0)
    is_several = (still >= np.minimum(FEWEST_SMALL, moving)) & (SMALL_SHARE * still >= moving)
    scores = np.where(is_several & (parts > SCALE), parts / SCALE, np.where(np.isfinite(parts), 0.0, np.nan))
    return by_feature(captures, list(scores))


def places(now: FeatureProfile, usual: FeatureProfile, known: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return (F,), the column of the training that each looks like, where another order explains them; else its own.

    The distance of a column from another is the root mean square of what mean, logarithm of the deviation and
    persistence differ by. Columns are given to those of the training so that the sum of the squared distances is
    smallest (Kuhn 1955, "The Hungarian method for the assignment problem"). Another order explains them where those
    that it moves are `TIMES` as near to what they are given to as to their own.

    Args:
        now, usual: what the features look like in the phase, and did in the training.
        known: (F,), of which features both are known.
    """
    found = np.arange(len(known))
    columns = np.flatnonzero(known)
    factor = np.log(now.std[columns]).mean() - np.log(usual.std[columns]).mean()
    given = np.arange(len(columns))
    for removed in (factor, 0.0):
        distance = _squared_distances(now, usual, columns, np.exp(removed))
        if distance.diagonal().max() < (TIMES * SMALLEST) ** 2:
            return found
        from scipy.optimize import linear_sum_assignment  # noqa: PLC0415 - loads slowly, and columns are hardly ever far

        _, given = linear_sum_assignment(distance)
        moved = np.flatnonzero(given != np.arange(len(columns)))
        if not len(moved):
            return found
        own, others = distance[moved, moved].mean(), distance[moved, given[moved]].mean()
        if own < TIMES**2 * max(others, SMALLEST**2):
            return found
    found[columns] = columns[given]
    return found


def _squared_distances(now: FeatureProfile, usual: FeatureProfile, columns: NDArray[np.intp], factor: float) -> Array:
    """Return (columns of the phase, columns of the training).

    Args:
        now, usual: see `places`.
        columns: those that are compared.
        factor: by which all columns of the phase are larger.
    """
    mean, std = now.mean[columns, None] / factor, now.std[columns, None] / factor
    mean_before, std_before = usual.mean[columns], usual.std[columns]
    apart = (mean - mean_before) / (MEAN * np.sqrt((std**2 + std_before**2) / 2))
    larger = (np.log(std) - np.log(std_before)) / LOG_STD
    kept = (now.persistence[columns, None] - usual.persistence[columns]) / PERSISTENCE
    squares: Array = np.minimum((apart**2 + larger**2 + kept**2) / 3, _MOST)
    return squares


def _is_known(profile: FeatureProfile) -> NDArray[np.bool_]:
    known: NDArray[np.bool_] = np.isfinite(np.sum(profile, axis=0)) & (profile.std > 0)
    return known


def _training(captures: Captures) -> FeatureProfile | None:
    """Return what the features looked like in the training; None where that, or what they are fed, is not known."""
    if not {*_LOOKS} <= captures.reference.keys() or not {"mean", "std", "lag1"} <= captures.features.keys():
        return None
    usual = FeatureProfile(*(captures.reference[name] for name in _LOOKS))
    return usual if captures.features["mean"].shape[1] == len(usual.mean) else None


def _profiles(captures: Captures) -> Iterator[tuple[int, FeatureProfile]]:
    """Yield each capture from which on enough is known, and what the features look like in it and those before it."""
    mean, std = captures.features.get("mean"), captures.features.get("std")
    if mean is None or std is None or mean.shape != std.shape:
        return
    lag1 = captures.features.get("lag1", np.full(mean.shape, np.nan))
    size = len(mean)
    sequences, positions = (captures.feed.get(name, np.full(size, np.nan)) for name in ("sequences", "positions"))
    values = np.nan_to_num(sequences * positions, nan=1.0) * np.isfinite(mean + std).any(axis=1)
    for k in range(size):
        late = slice(max(0, k - LATE + 1), k + 1)
        has_any = values[late] > 0
        if (has_any.sum() >= HISTORY and values[late].sum() >= VALUES) or has_any.sum() == LATE:
            yield k, profile_of(mean[late], std[late], lag1[late], sequences[late], positions[late])


CHECKS: Final = (
    Check(
        name="columns_permuted",
        sentence="columns look like other columns of the training they are compared with: is their order another?",
        source="data",
        errors="none in 4,392 comparisons of real prices, see docs/detection.md",
        needs=f"the feed of a training, and {HISTORY} captures of sequences with {VALUES} values, or {LATE}",
        judge=columns_permuted,
        look_back=WINDOW - 1,
    ),
    Check(
        name="moves_less_than_training",
        sentence="features move far less than in the training they are compared with: were they normalised?",
        source="data",
        errors="none in 4,392 comparisons of real prices, see docs/detection.md",
        needs=f"the feed of a training, and {HISTORY} captures with {VALUES} values of a feature, or {LATE}",
        judge=moves_less_than_training,
        look_back=WINDOW - 1,
        times=SCALE,
    ),
)

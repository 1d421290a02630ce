"""Checks of what is fed: broken values, features that stand still or change their scale, lost order, repeats, leaks.

A market changes too: each limit lies far outside of what a change of regime does, and whoever compares with earlier
captures needs enough of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.jobs.scoring.captures import Array, Captures, Pair
from gatewatch.jobs.scoring.checks.base import (
    DATA,
    FEED,
    MEASURED,
    TARGETS,
    VIOLATED,
    WINDOW,
    Check,
    any_of_late,
    last_median,
    up_to,
    verdicts,
    windows,
)
from gatewatch.jobs.scoring.checks.pools import CHANCE, is_smaller_pool, smallest_pool
from gatewatch.jobs.scoring.metrics.windows import median

HISTORY: Final = 16
"""Earlier captures that a comparison needs."""
AFTERWARDS: Final = 8
"""A feature has scores from a violation on, for so many captures; the feed as a whole has them all the time."""
_PAST: Final = WINDOW - 3 - AFTERWARDS
"""Earlier captures that a comparison looks at, at most; the newest are compared with them."""
SCALE: Final = 10.0
"""A scale that is so many times its largest of late, or so small a part of its smallest, has jumped. The volatility of
a market multiplies by three to five from its calmest to its wildest months; a normaliser that is lost is a factor of
30 and more for returns of a percent, and of thousands for prices."""
ORDER_KEPT: Final = 0.7
"""Share of the autocorrelation that is left. Shuffled sequences of averages over 5 to 20 bars keep 0 to 0.56 of it;
healthy ones 0.97 and more (measured, batches of 32 sequences of 24 bars)."""
REVERSED: Final = -0.3
"""Below this share of it sequences revert where they went on: another market, which no shuffling makes."""
ORDERED: Final = 0.3
"""Below this autocorrelation, shuffling could not be told from noise."""
SHRUNK: Final = 5.0
"""How many times smaller a pool must have become. A regime, or a curriculum, is a third or a quarter of the data."""
SEQUENCES: Final = 16
"""Sequences in a batch from which a share of distinct ones, or an autocorrelation, says something."""
LEAK: Final = 1 - 1e-6
"""Correlation with the target of a feature that is the target: a copy in single precision has it. Levels of a price a
bar apart correlate by 0.9999 where a batch spans many years."""
LEAK_USUAL: Final = 0.8
LEAK_RISEN: Final = 0.98
"""A correlation that was below the first and is above the second tells the target. By chance the largest of four
features comes to 0.58 in a batch of 32 sequences, once in a thousand."""
LEAK_SEQUENCES: Final = 32


def not_finite_fed(captures: Captures) -> dict[Pair, Array]:
    """Judge whether NaN or infinite values are fed: a network has no use for one. Padding does not count."""
    scores: dict[Pair, Array] = {}
    nan, infinite = (captures.feed.get(name) for name in ("nan_share", "inf_share"))
    shares = [share for share in (nan, infinite) if share is not None]
    if shares:
        share = np.fmax.reduce(shares)
        scores[DATA, FEED] = verdicts(share > 0, np.isfinite(share))
    share_of_each = captures.features.get("nan_share")
    named = _judge_features(captures, share_of_each, lambda column: verdicts(column > 0, np.isfinite(column)))
    return named | scores


def targets_not_finite(captures: Captures) -> dict[Pair, Array]:
    """Judge whether targets that are NaN or infinite have broken the network: both are so in one capture.

    A loss of the user's own may leave such targets out, as labels that are not there: then the network stays finite.
    """
    share = captures.feed.get("targets_not_finite")
    if share is None:
        return {}
    counts = [
        of(series, field)
        for table, of in ((captures.gates, captures.statistic), (captures.updates, captures.update))
        for series in table
        for field in ("nan_count", "inf_count")
    ]
    is_broken = np.fmax.reduce(counts) > 0
    return {(DATA, TARGETS): verdicts((share > 0) & is_broken, np.isfinite(share))}


def stands_still(captures: Captures) -> dict[Pair, Array]:
    """Judge whether a feature is constant that never was: in two captures in a row, after 16 in which it moved."""

    def judge(column: Array) -> Array:
        past = windows(column, _PAST)
        moved = (past > 0).sum(axis=1)
        # Those that stand still come after all that moved.
        newest_moved = np.where(past > 0, np.arange(_PAST), -1).max(axis=1)
        oldest_still = np.where(past == 0, np.arange(_PAST), _PAST).min(axis=1)
        known = np.isfinite(column) & np.isfinite(past[:, -1]) & (moved >= HISTORY)
        return verdicts(known & (column == 0) & (past[:, -1] == 0) & (oldest_still > newest_moved), known)

    return _judge_features(captures, captures.features.get("std"), judge)


def scale_jumped(captures: Captures) -> dict[Pair, Array]:
    """Judge whether the scale of a feature left its range of late: the median of three captures, `SCALE` times.

    The scale is the root of the mean square, so it moves too where a mean is no longer taken off.
    """

    def judge(scale: Array) -> Array:
        past, now = windows(scale, _PAST)[:, :-2], last_median(scale)
        known = np.isfinite(now) & (np.isfinite(past).sum(axis=1) >= HISTORY)
        high, low = np.fmax.reduce(past, axis=1), np.fmin.reduce(past, axis=1)
        return verdicts(known & (((now > SCALE * high) & (high > 0)) | ((now < low / SCALE) & (low > 0))), known)

    deviation, mean = captures.features.get("std"), captures.features.get("mean")
    if deviation is None or mean is None or deviation.shape != mean.shape:
        return {}
    return _judge_features(captures, np.hypot(deviation, mean), judge)


def order_lost(captures: Captures) -> dict[Pair, Array]:
    """Judge whether the bars within sequences have lost their order.

    `lag1` is the autocorrelation within sequences, of which shuffling leaves −1/T on average. What a feature has above
    that is compared with the median of late, over the features that have any: white noise says nothing, nor does a
    single window of a backtest.
    """
    lag, positions, sequences = captures.features.get("lag1"), *map(captures.feed.get, ("positions", "sequences"))
    if lag is None or positions is None or sequences is None:
        return {}
    above = lag + 1 / np.maximum(positions, 1)[:, None]
    kept = []
    for column in above.T:
        past = windows(column, _PAST)[:, :-2]
        enough = np.isfinite(past).sum(axis=1) >= HISTORY
        usual = median(past, fewest=1)
        is_ordered = enough & (usual >= ORDERED)
        kept.append(np.where(is_ordered, last_median(column) / np.where(is_ordered, usual, 1.0), np.nan))
    share = median(np.stack(kept, axis=1), fewest=1)
    same_length = np.array([len({*part[np.isfinite(part)]}) == 1 for part in up_to(positions, _PAST)])
    known = np.isfinite(share) & same_length & (sequences >= SEQUENCES)
    return {(DATA, FEED): verdicts(known & (share > REVERSED) & (share < ORDER_KEPT), known)}


def few_sequences(captures: Captures) -> dict[Pair, Array]:
    """Judge whether batches are drawn from a pool of sequences that has become much smaller than it was.

    The repeats of the earlier batches tell how large their pool was at least. A fifth of that explains the repeats of
    the newest three batches, or it does not: then the pool has become smaller by more than `SHRUNK` times. Batches of
    another size change nothing, nor does a data set that has always been small. By chance (`CHANCE`, for each of the
    two) a pool that fell to just a fifth is called smaller; one that fell to a third or a quarter hardly ever is.
    """
    share, sequences = captures.feed.get("distinct_share"), captures.feed.get("sequences")
    if share is None or sequences is None:
        return {}
    has_any = np.isfinite(share * sequences)
    drawn, repeated = (
        up_to(np.where(has_any, each, np.nan), _PAST) for each in (sequences, np.rint(sequences * (1 - share)))
    )
    known = has_any & (sequences >= SEQUENCES) & (np.isfinite(drawn[:, :-3]).sum(axis=1) >= HISTORY)
    few = np.zeros(len(share), dtype=bool)
    for k in np.flatnonzero(known & (np.nansum(repeated[:, -3:], axis=1) > 0)):
        past, newest = (part[np.isfinite(part)] for part in (drawn[k, :-3], drawn[k, -3:]))
        pool = smallest_pool(past, float(np.nansum(repeated[k, :-3])))
        few[k] = is_smaller_pool(newest, float(np.nansum(repeated[k, -3:])), pool / SHRUNK)
    return {(DATA, FEED): verdicts(few, known)}


def batch_repeated(captures: Captures) -> dict[Pair, Array]:
    """Judge whether the same batch is fed again and again.

    Two batches that differ do not agree in the mean and deviation of every feature to the last bit. Three captures in a
    row that do saw one batch. A training that always steps on one batch does so from the beginning, and one that goes
    through its data in the same order may meet a batch again: so the captures before, 16 at least, must all differ.
    """
    if not {"mean", "std"} <= captures.features.keys():
        return {}
    tables = [captures.features[name] for name in ("mean", "std")]
    rows = np.column_stack(tables)
    known: NDArray[np.bool_] = np.any(np.nan_to_num(tables[-1]) > 0, axis=1)
    prints = [row.tobytes() for row in rows]
    values = np.full(len(rows), np.nan)
    for k in range(len(rows)):
        past = [prints[i] for i in range(max(0, k - _PAST), k - 2) if known[i]]
        if known[k] and k > 2 and len(past) >= HISTORY:
            is_one = prints[k] == prints[k - 1] == prints[k - 2]
            values[k] = VIOLATED if is_one and len({*past}) == len(past) and prints[k] not in past else 0.0
    return {(DATA, FEED): values} if np.isfinite(values).any() else {}


def target_told(captures: Captures) -> dict[Pair, Array]:
    """Judge whether a feature tells the target: it is the target, or it has come to correlate with it."""
    correlation, sequences = captures.feed.get("target_correlation"), captures.feed.get("sequences")
    if correlation is None or sequences is None:
        return {}

    def judge(values: Array) -> Array:
        size = np.abs(values)
        past = windows(size, _PAST)[:, :-2]
        was_low = (np.isfinite(past).sum(axis=1) >= HISTORY) & (np.fmax.reduce(past, axis=1) < LEAK_USUAL)
        known = np.isfinite(size) & (sequences >= LEAK_SEQUENCES)
        return verdicts(known & ((size > LEAK) | (was_low & (last_median(size) > LEAK_RISEN))), known)

    named = _judge_features(captures, captures.features.get("target_correlation"), judge)
    return {**named, (DATA, FEED): judge(correlation)}


def _judge_features(captures: Captures, table: Array | None, judge: Callable[[Array], Array]) -> dict[Pair, Array]:
    """Judge each feature and return what `by_feature` does; nothing where the statistic is not recorded.

    Args:
        captures: n of them.
        table: (n, features).
        judge: the values of one feature → their scores, (n,) each.
    """
    if table is None or not table.shape[1]:
        return {}
    return by_feature(captures, [judge(column) for column in table.T])


def by_feature(captures: Captures, every: Sequence[Array]) -> dict[Pair, Array]:
    """Return the scores of each feature that violates a statement, and of the feed as a whole the largest.

    Args:
        captures: n of them.
        every: the scores of each feature, (n,).
    """
    if not every:
        return {}
    scores: dict[Pair, Array] = {(DATA, FEED): np.fmax.reduce(every)}
    for index, score in enumerate(every):
        recent = any_of_late(score > 1, AFTERWARDS)
        if recent.any():
            scores[DATA, captures.feature_name(index)] = np.where(recent, score, np.nan)
    return scores


CHECKS: Final = (
    Check(
        name="not_finite_fed",
        sentence="values that are NaN or infinite are fed",
        source="data",
        errors="never",
        needs="the feed",
        judge=not_finite_fed,
        look_back=AFTERWARDS,
    ),
    Check(
        name="targets_not_finite",
        sentence="targets that are NaN or infinite are fed, and the network has become so with them",
        source="data",
        errors="never",
        needs="targets, from `step(targets=)` or `monitor.feed`",
        judge=targets_not_finite,
    ),
    Check(
        name="stands_still",
        sentence="a feature is constant that never was",
        source="data",
        errors=MEASURED,
        needs=f"{HISTORY} earlier captures in which the feature moved",
        judge=stands_still,
        look_back=WINDOW,
    ),
    Check(
        name="scale_jumped",
        sentence="the scale of a feature jumped by more than ten times: was its normalisation lost or changed?",
        source="data",
        errors=MEASURED,
        needs=f"{HISTORY} earlier captures",
        judge=scale_jumped,
        look_back=WINDOW,
    ),
    Check(
        name="order_lost",
        sentence="the bars within sequences no longer follow each other: was their order shuffled?",
        source="data",
        errors=MEASURED,
        needs=f"{HISTORY} earlier captures of sequences as long, with features that are autocorrelated",
        judge=order_lost,
        look_back=WINDOW,
    ),
    Check(
        name="few_sequences",
        sentence="batches come from far fewer sequences than before: is the pool small, or the sampler broken?",
        source="data",
        errors=f"by chance in {2 * CHANCE:g} of the captures of a pool that fell to a fifth; a larger one hardly ever",
        needs=f"{HISTORY} earlier captures of batches of {SEQUENCES} sequences or more",
        judge=few_sequences,
        look_back=WINDOW,
    ),
    Check(
        name="batch_repeated",
        sentence="the same batch is fed again and again",
        source="data",
        errors="never, but where data comes round in the same order and captures fall into its step",
        needs=f"{HISTORY} earlier captures whose batches all differ",
        judge=batch_repeated,
        look_back=WINDOW,
    ),
    Check(
        name="target_told",
        sentence="a feature tells the target: does it look ahead?",
        source="data",
        errors=MEASURED,
        needs=f"targets of {LEAK_SEQUENCES} sequences or more; {HISTORY} earlier captures for what is no exact copy",
        judge=target_told,
        look_back=WINDOW,
    ),
)

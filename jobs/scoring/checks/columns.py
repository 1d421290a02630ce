"""Checks of the order of the columns: has each feature come to look like what another one was?

A market moves features; it does not make one look like a second and the second like the first. So what is compared is
not how far a column went, but whether it is far from its own past and near to that of another column at once.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gatewatch.jobs.scoring.captures import Array, Captures, Pair
from gatewatch.jobs.scoring.checks.base import WINDOW, Check, verdicts
from gatewatch.jobs.scoring.checks.feed import AFTERWARDS, HISTORY, by_feature
from gatewatch.jobs.scoring.metrics.windows import median

NEWEST: Final = 3
"""Captures whose median is compared."""
_PAST: Final = WINDOW - NEWEST - AFTERWARDS
"""Captures that it is compared with, at most."""
FAR: Final = 2.0
"""Spreads of its own past by which a column is unlike itself."""
TIMES: Final = 3.0
"""How many times nearer columns must be to the past of others than to their own. In 141 runs of the benchmark's develop
split they were 1.5 times nearer at most while they were in order, and 4.7 to 22 times once rolled by one place."""
SMALLEST: Final = 0.5
"""Spreads below which it does not matter how near a column is: by chance alone it is hardly ever nearer."""
LEAST_SPREAD: Final = 0.02
"""The smallest spread that counts, as a share of the column's deviation."""
_MOST: Final = 1e12
"""The largest square of a distance, so that their sum is finite."""
_STATISTICS: Final = ("mean", "p01", "p99", "std", "lag1")
_SCALED: Final = 3
"""The first so many of these are in units of the column."""


class Profile(NamedTuple):
    """What columns usually look like.

    Attributes:
        centre: (F, 5), the median of each statistic; NaN where it is not known.
        spread: (F, 5), 1.4826 times the median absolute deviation from it, positive.
    """

    centre: Array
    spread: Array


def profile_of(statistics: Array) -> Profile:
    """Return what columns looked like in some captures.

    Args:
        statistics: (F, 5, captures), as `statistics_of` gives them; NaN where a capture has no value.
    """
    centre = median(statistics, fewest=1)
    spread = 1.4826 * median(np.abs(statistics - centre[:, :, None]), fewest=1)
    unit = np.ones_like(centre)
    unit[:, :_SCALED] = np.exp(centre[:, [_SCALED]])
    return Profile(centre, np.maximum(spread, LEAST_SPREAD * unit))


def statistics_of(captures: Captures) -> Array | None:
    """Return (n, F, 5): mean, percentiles 1 and 99, logarithm of the deviation, and autocorrelation of each column.

    A column that stands still has no values. None where the feed has no such statistics.
    """
    mean = captures.features.get("mean")
    if mean is None:
        return None
    tables = [captures.features.get(name, np.full(mean.shape, np.nan)) for name in _STATISTICS]
    if any(table.shape != mean.shape for table in tables):
        return None
    moves = tables[_SCALED] > 0
    tables[_SCALED] = np.log(np.where(moves, tables[_SCALED], 1.0))
    return np.where(moves[..., None], np.stack(tables, axis=-1), np.nan)


def places(now: Array, usual: Profile) -> NDArray[np.int64]:
    """Return (F,), the column whose past each column looks like, where they have been exchanged; else its own.

    The distance of a column from a past is the root mean square of what its statistics differ by, in spreads. Columns
    are given to pasts so that the sum of the squared distances is smallest (Kuhn 1955, "The Hungarian method for the
    assignment problem"). They have been exchanged where at least two are `FAR` from their own past, and those together
    are `TIMES` as near to the pasts that they are given to.

    Args:
        now: (F, 5), the statistics.
        usual: what columns looked like before.
    """
    found = np.arange(len(now))
    known = np.flatnonzero(np.isfinite(now[:, _SCALED]) & np.isfinite(usual.centre[:, _SCALED]))
    if len(known) < 2:
        return found
    difference = (now[known, None] - usual.centre[None, known]) / usual.spread[None, known]
    there = np.isfinite(difference)
    squares = np.where(there, difference, 0.0) ** 2
    distance = np.minimum(squares.sum(axis=-1) / there.sum(axis=-1), _MOST)
    is_far = np.diag(distance) >= FAR**2
    if is_far.sum() < 2:
        return found
    from scipy.optimize import linear_sum_assignment  # noqa: PLC0415 - loads slowly, and columns are hardly ever far

    _, given = linear_sum_assignment(distance)
    far = np.flatnonzero(is_far & (given != np.arange(len(known))))
    if len(far) < 2:
        return found
    own, others = distance[far, far].mean(), distance[far, given[far]].mean()
    if own >= TIMES**2 * max(others, SMALLEST**2):
        found[known[far]] = known[given[far]]
    return found


def columns_exchanged(captures: Captures) -> dict[Pair, Array]:
    """Judge whether columns have come to look like others that were there: in two captures in a row, alike."""
    statistics = statistics_of(captures)
    if statistics is None:
        return {}
    size, width, _ = statistics.shape
    own, before = np.arange(width), np.arange(width)
    scores = np.full((width, size), np.nan)
    for k in range(HISTORY + NEWEST - 1, size):
        newest = statistics[k - NEWEST + 1 : k + 1]
        past = statistics[max(0, k - NEWEST + 1 - _PAST) : k - NEWEST + 1]
        enough = np.isfinite(past[:, :, _SCALED]).sum(axis=0) >= HISTORY
        now = np.where(enough[:, None], np.median(newest, axis=0), np.nan)
        found = places(now, profile_of(np.moveaxis(past, 0, -1)))
        is_exchanged = (found != own) & (found == before)
        scores[:, k] = verdicts(is_exchanged, np.isfinite(now[:, _SCALED]))
        before = found
    return by_feature(captures, list(scores)) if width and np.isfinite(scores).any() else {}


CHECKS: Final = (
    Check(
        name="columns_exchanged",
        sentence="columns have come to look like other columns: did their order change?",
        source="data",
        errors="none in 141 runs whose columns were in order, see docs/detection.md",
        needs=f"{HISTORY} earlier captures, and columns that differ",
        judge=columns_exchanged,
        look_back=WINDOW,
    ),
)

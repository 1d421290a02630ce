"""Points in batches for writing, and how many of their values another store has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Final

from gatewatch.collector.store.selection import series_of

if TYPE_CHECKING:
    from gatewatch.collector.schema import FieldValue, Point

BATCH: Final = 5_000
"""Points of a batch at most: see `gatewatch.collector.store.influxdb.store.BATCH`."""
LISTS: Final = 32
"""Lists of a batch at most. A list of large texts is short: so what is in memory is bounded by bytes too."""


class Piece:
    """Points of one series that follow each other in time. A value is one field of one point.

    Args:
        points: at least one.

    Attributes:
        points: the points; none any more when they are being written, since they would fill the memory.
        series: its tags, sorted.
        whole: whether they are all that was read of the series.
        first: time of the first point, nanoseconds since the Unix epoch.
        stop: the nanosecond after the last point.
        counts: name of each field → how many points have it.
    """

    def __init__(self, points: list[Point], *, whole: bool = True) -> None:
        self.points: list[Point] = []
        self.series = series_of(points[0].tags)
        self.whole = whole
        self.first = points[0].time
        self.counts: Counter[str] = Counter()
        self.extend(points)

    def extend(self, points: list[Point]) -> None:
        """Add the points that follow in the same series."""
        self.points += points
        self.stop = points[-1].time + 1
        self.counts.update(chain.from_iterable(point.fields for point in points))


def batches(lists: Iterable[list[Point]], size: int = BATCH) -> Iterator[list[Piece]]:
    """Yield the points of `History.points` in batches of pieces.

    Args:
        lists: each of points of one series.
        size: points of a batch at most, where no list is longer.
    """
    batch: list[Piece] = []
    points = lists_held = 0
    for each in filter(None, lists):
        goes_on = bool(batch) and batch[-1].points[0].tags == each[0].tags
        if batch and (points + len(each) > size or lists_held == LISTS):
            batch[-1].whole &= not goes_on
            yield batch
            batch, points, lists_held = [Piece(each, whole=not goes_on)], 0, 0
        elif goes_on:
            batch[-1].extend(each)
        else:
            batch.append(Piece(each))
        points += len(each)
        lists_held += 1
    if batch:
        yield batch


def matching(points: Iterable[Point], others: Iterable[Point], *, by_value: bool) -> int:
    """Count the values of points that others have too, under the same time and name of the field.

    Args:
        points: of one series.
        others: of the same series in another store.
        by_value: whether the values must be equal, and of one type.
    """
    by_time = {point.time: point.fields for point in points}
    return sum(
        not by_value or _same(value, fields[name])
        for other in others
        if (fields := by_time.get(other.time))
        for name, value in other.fields.items()
        if name in fields
    )


def _same(one: FieldValue, other: FieldValue) -> bool:
    return type(one) is type(other) and one == other

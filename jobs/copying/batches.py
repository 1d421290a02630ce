"""Points of a series in batches, and how many values each batch has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gatewatch.collector.store.history import by_field

if TYPE_CHECKING:
    from gatewatch.collector.schema import Point

BATCH: Final = 5_000
"""Points of a batch at most: as many as InfluxDB likes best in a write, and what a question about them costs is little
beside reading them."""
LISTS: Final = 8
"""Lists of a batch at most. A list of large texts is short: so what is in memory is bounded by bytes too."""

Series = tuple[tuple[str, str], ...]
"""The tags of a series, sorted: what a mapping may be looked up by."""


@dataclass(slots=True)
class Span:
    """Values of one series between two times; a value is one field of one point.

    Attributes:
        tags: of the series.
        first: time of the first point, nanoseconds since the Unix epoch.
        stop: the nanosecond after the last point.
        fields: name of each field → how many points have it.
    """

    tags: Mapping[str, str]
    first: int
    stop: int
    fields: Counter[str] = field(default_factory=Counter)

    @property
    def series(self) -> Series:
        """The tags, sorted."""
        return series_of(self.tags)

    @property
    def values(self) -> int:
        """How many values there are."""
        return self.fields.total()

    def extend(self, other: Span) -> None:
        """Add the values that follow in the same series."""
        self.stop = other.stop
        self.fields.update(other.fields)


@dataclass(frozen=True, slots=True)
class Batch:
    """Points of one series that follow each other in time.

    Attributes:
        points: at least one.
        whole: whether they are all that was read of the series.
        span: their times and how many values they have.
    """

    points: list[Point]
    whole: bool
    span: Span


def series_of(tags: Mapping[str, str]) -> Series:
    """Return the tags of a series, sorted."""
    return tuple(sorted(tags.items()))


def batches(lists: Iterable[list[Point]], size: int = BATCH) -> Iterator[Batch]:
    """Yield the points of `History.points` in batches.

    Args:
        lists: each of points of one series.
        size: points of a batch at most, where no list is longer.
    """
    held: list[Point] = []
    held_lists = 0
    begins = True  # what is held begins its series
    for points in filter(None, lists):
        goes_on = bool(held) and held[0].tags == points[0].tags
        if held and (not goes_on or len(held) + len(points) > size or held_lists == LISTS):
            yield _batch(held, begins and not goes_on)
            held, held_lists, begins = [], 0, not goes_on
        held = [*held, *points]
        held_lists += 1
    if held:
        yield _batch(held, begins)


def _batch(points: list[Point], whole: bool) -> Batch:
    fields = Counter(by_field(tuple(point.fields) for point in points))
    return Batch(points, whole, Span(points[0].tags, points[0].time, points[-1].time + 1, fields))

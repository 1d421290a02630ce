"""The points of a series, some thousands at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gatewatch.collector.store.history import by_field

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatewatch.collector.schema import Point

SLICE: Final = 5_000
"""Points of a slice at most: as many as InfluxDB likes best in a write, and what a question about them costs is little
beside reading them."""
LISTS: Final = 8
"""Lists of a slice at most. A list of large texts is short: so what is in memory is bounded by bytes too."""

Series = tuple[tuple[str, str], ...]
"""The tags of a series, sorted: what a mapping may be looked up by."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Points of one series that follow each other in time.

    Attributes:
        points: at least one.
        whole: it is all that was read of the series.
    """

    points: list[Point]
    whole: bool

    @property
    def tags(self) -> Mapping[str, str]:
        """The tags that the points share."""
        return self.points[0].tags

    @property
    def first(self) -> int:
        """The time of the first point."""
        return self.points[0].time

    @property
    def stop(self) -> int:
        """The time after that of the last point."""
        return self.points[-1].time + 1

    def counts(self) -> dict[str, int]:
        """Of each field how many of the points have it."""
        return by_field(tuple(point.fields) for point in self.points)


def series_of(tags: Mapping[str, str]) -> Series:
    """The series that has these tags."""
    return tuple(sorted(tags.items()))


def slices(lists: Iterable[list[Point]], size: int = SLICE) -> Iterator[Slice]:
    """The points of `History.points` as slices.

    Args:
        lists: each of points of one series.
        size: points of a slice at most, where no list is longer.
    """
    held: list[Point] = []
    held_lists = 0
    begins = True  # what is held begins its series
    for points in lists:
        if not points:
            continue
        goes_on = bool(held) and held[0].tags == points[0].tags
        if held and (not goes_on or len(held) + len(points) > size or held_lists == LISTS):
            yield Slice(held, begins and not goes_on)
            held, held_lists, begins = [], 0, not goes_on
        held = [*held, *points]
        held_lists += 1
    if held:
        yield Slice(held, begins)

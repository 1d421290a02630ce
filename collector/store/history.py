"""All points of a store, to be read from end to end, such as for a copy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from gatewatch.collector.schema import Point
from gatewatch.collector.times import Time


class Values(NamedTuple):
    """Points that share their tags: the tags, and of each field how many of the points have it, at least one."""

    tags: Mapping[str, str]
    fields: Mapping[str, int]


class History(Protocol):
    """What a store holds, as points rather than frames: every field of every point, and no more of them in memory than
    a list.

    A `run` of "" stands for the points without one. `series` are tags: only points that have these and no others.

    Every method, and every step of an iterator, raises:
        WriteUnavailable: the store does not answer.
        ConfigError: reading is not allowed, or the file is not a store.
    """

    def measurements(self) -> list[str]:
        """Return the measurements; some of a server's may have no points any more."""
        ...

    def runs(self, measurement: str) -> list[str]:
        """Return the runs that a measurement has points of; the last is "" where it may have points without a run."""
        ...

    def points(
        self,
        measurement: str,
        run: str,
        *,
        start: Time | None = None,
        stop: Time | None = None,
        series: Mapping[str, str] | None = None,
    ) -> Iterator[list[Point]]:
        """Yield the points of a run in lists, series after series, ordered by time; a list holds points of one series.

        Args:
            measurement: which points.
            run: only those of this run.
            start: only those at this time or later.
            stop: only those before this time.
            series: only those of this series.
        """
        ...

    def counts(
        self,
        measurement: str,
        run: str,
        *,
        start: Time | None = None,
        stop: Time | None = None,
        series: Mapping[str, str] | None = None,
    ) -> list[Values]:
        """Count the values of the points of a run, by series and field.

        Args:
            measurement: which points.
            run: only those of this run.
            start: only those at this time or later.
            stop: only those before this time.
            series: only those of this series.
        """
        ...

    def close(self) -> None:
        """Close files. Calling it again does nothing."""
        ...


def by_field(together: Iterable[tuple[str, ...]]) -> dict[str, int]:
    """Count the points that have each field.

    Args:
        together: the names of the fields that a point has, for each point.
    """
    counted: Counter[str] = Counter()
    for names, points in Counter(together).items():
        for name in names:
            counted[name] += points
    return dict(counted)

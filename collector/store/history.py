"""The interface of what reads all points of a store, from end to end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TypedDict, Unpack

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.schema import SCHEMA, Point
from gatewatch.collector.store.selection import Selection, SeriesKey, Tags, select
from gatewatch.collector.text import nearest, safe_repr
from gatewatch.collector.times import Time


class RunBounds(TypedDict, total=False):
    """Which points of a run to read; see `History.points`."""

    start: Time | None
    stop: Time | None
    series: Tags | None


def _of_run(
    measurement: str, run: str, start: Time | None = None, stop: Time | None = None, series: Tags | None = None
) -> Selection:
    return select(measurement, run, start, stop, series)._replace(exactly=series is not None)


class History(ABC):
    """What a store holds, as points rather than frames: every field of every point, and no more of them in memory than
    a list. For reading from end to end, such as for a copy.

    A `run` of "" stands for the points without one.

    Every method, and every step of an iterator, raises:
        WriteUnavailable: the store does not answer.
        ConfigError: reading is not allowed, or the file is not a store.
    """

    def points(self, measurement: str, run: str, **bounds: Unpack[RunBounds]) -> Iterator[list[Point]]:
        """Yield the points of a run in lists, series after series, ordered by time; a list holds points of one series.

        Args:
            measurement: which points.
            run: only those of this run.
            **bounds: only those at `start` or later, before `stop`, and of the `series` that has these tags and no
                others.
        """
        return self._points(_of_run(measurement, run, **bounds))

    def counts(self, measurement: str, run: str, **bounds: Unpack[RunBounds]) -> Mapping[SeriesKey, Mapping[str, int]]:
        """Count the values of the points that `points` would yield.

        Returns:
            Series → field → how many of its points have the field, at least one.
        """
        return self._counts(_of_run(measurement, run, **bounds))

    @abstractmethod
    def measurements(self) -> list[str]:
        """Return the measurements; some of a server's may have no points any more."""

    @abstractmethod
    def runs(self, measurement: str | None = None) -> list[str]:
        """Return the runs that a measurement has points of; the last is "" where it may have points without a run.

        Args:
            measurement: None: any measurement.
        """

    @abstractmethod
    def types(self, measurement: str) -> Mapping[str, type]:
        """Return field → float, int, bool or str, of all fields of a measurement in whatever run."""

    @abstractmethod
    def _points(self, selection: Selection) -> Iterator[list[Point]]: ...

    @abstractmethod
    def _counts(self, selection: Selection) -> Mapping[SeriesKey, Mapping[str, int]]: ...

    @abstractmethod
    def close(self) -> None:
        """Close files. Calling it again does nothing."""


def check_measurement(measurement: str, history: History, url: str) -> None:
    """Check that a measurement is one of Gatewatch's own, or one that the store has points of.

    Raises:
        ConfigError: it is not; names what is alike, else which there are.
    """
    if measurement in SCHEMA:
        return
    own = [name for name in history.measurements() if name not in SCHEMA]
    if measurement not in own:
        names = [*SCHEMA, *own]
        there = nearest(measurement, names) or f"; there are {', '.join(names)}"
        raise ConfigError(f"no measurement {safe_repr(measurement)} in {url}{there}")

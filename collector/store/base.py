"""The interface of a store, and what all stores share. Subclasses write, read and count the points."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypedDict, Unpack

from gatewatch.collector.schema import Point
from gatewatch.collector.store.frame import Block, frame
from gatewatch.collector.store.runs import RunEvent, runs_frame
from gatewatch.collector.times import Time, nanoseconds

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from gatewatch.collector.store.influxdb.client import Client

Tags = Mapping[str, str]
"""Name → value."""
SeriesKey = tuple[tuple[str, str], ...]
"""The tags of a series, sorted by name: hashable, as the key of a mapping."""


def series_of(tags: Tags) -> SeriesKey:
    """Return the tags that have a value, sorted by name."""
    return tuple(sorted((name, value) for name, value in tags.items() if value))


class Tally(NamedTuple):
    """Points that share their tags: the tags, how many points have a field, and the time of the newest, nanoseconds."""

    tags: Tags
    points: int
    newest: int


class Selection(NamedTuple):
    """Which points to read.

    Attributes:
        measurement: their measurement.
        tags: tag → the value that the points have; empty: the points must not have the tag.
        start: earliest time, in nanoseconds since the Unix epoch; None: no bound.
        stop: the time before which the points lie, likewise.
        exactly: whether the points have no other tags than these.
    """

    measurement: str
    tags: Tags
    start: int | None = None
    stop: int | None = None
    exactly: bool = False


class Bounds(TypedDict, total=False):
    """Which points to read; see `Store.read`."""

    run: str | None
    start: Time | None
    stop: Time | None
    tags: Tags | None


def select(
    measurement: str,
    run: str | None = None,
    start: Time | None = None,
    stop: Time | None = None,
    tags: Tags | None = None,
) -> Selection:
    """Return the selection for the arguments of a caller.

    Raises:
        ConfigError: `start` or `stop` is not a time.
    """
    wanted = dict(tags or {}) | ({} if run is None else {"run": run})
    first, last = (None if time is None else nanoseconds(time) for time in (start, stop))
    return Selection(measurement, wanted, first, last)


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
    def runs(self, measurement: str) -> list[str]:
        """Return the runs that a measurement has points of; the last is "" where it may have points without a run."""

    @abstractmethod
    def _points(self, selection: Selection) -> Iterator[list[Point]]: ...

    @abstractmethod
    def _counts(self, selection: Selection) -> Mapping[SeriesKey, Mapping[str, int]]: ...

    @abstractmethod
    def close(self) -> None:
        """Close files. Calling it again does nothing."""


class Store(ABC):
    """A database of points.

    A point is identified by measurement, tags and time. Writing it again merges the fields, and the last value wins, so
    writes are idempotent. A field keeps the type it was first written with.
    """

    url: str
    """The address, without secrets."""
    destination: Mapping[str, str]
    """What `reopen_store` opens it by again, from any folder and without secrets: `url`, absolute where it is a file;
    for an InfluxDB `org` and `bucket` too."""
    path: Path | None = None
    """The file that holds the points, absolute; None where a server does."""
    influxdb: Client | None = None
    """The client of the InfluxDB that holds the points, which Flux needs; None where it is a file."""

    @abstractmethod
    def ping(self, seconds: float | None = None) -> None:
        """Check that a server answers, which is faster than reading; a file always answers.

        Args:
            seconds: timeout; None: the timeout of short queries.

        Raises:
            WriteUnavailable: it does not answer, or not in time.
        """

    def exists(self) -> bool:
        """Return whether the store can be read: a file that was never written does not exist yet."""
        return True

    @abstractmethod
    def check(self) -> None:
        """Check that points can be written.

        Raises:
            ConfigError: they cannot with these settings: the token is refused, the bucket or the folder is missing, or
                the file is not a store.
            WriteUnavailable: they cannot be written now: the server does not answer.
        """

    @abstractmethod
    def write(self, points: Iterable[Point]) -> None:
        """Store all valid points. The write is idempotent: it can be retried with the same points.

        Raises:
            WriteRejected: some points are invalid: a field is not finite, a name is one that no store can hold, or a
                field has another type than it was first written with. The valid points are stored.
            WriteUnavailable: nothing or not everything was stored; retry later with the same points.
        """

    @abstractmethod
    def write_lines(self, lines: bytes) -> None:
        """Store points that are already encoded, by `line_protocol.encode`.

        Raises:
            WriteRejected: as from `write`; its `lines` are the refused lines, each with the reason.
            WriteUnavailable: as from `write`.
        """

    def read(
        self,
        measurement: str,
        *,
        run: str | None = None,
        start: Time | None = None,
        stop: Time | None = None,
        tags: Tags | None = None,
        fields: Sequence[str] | None = None,
        prefix_tags: bool = False,
    ) -> pd.DataFrame:
        """Return the points of a measurement as a frame, ordered by time, then by tags.

        Columns: `time` (datetime64[ns, UTC]), the tags by name (text; None where a point has none), then the fields
        by name: float64 with NaN where a point has none; int64, or Int64 where some point has none; bool or
        boolean likewise; text. A frame without points still has the column `time`.

        A tag and a field may have the same name. Then the field keeps it, and the tag's column is called `tag:NAME`.
        Gatewatch's own tags (`names.OWN_TAGS`: run, phase, layer…) always keep theirs; then it is the field's column
        that is called `field:NAME`. Where that name is taken too, the prefix is repeated.

        Args:
            measurement: which points.
            run: only those of this run.
            start: only those at this time or later.
            stop: only those before this time.
            tags: only those whose tags have these values.
            fields: only these, of the points that have one of them: which is quicker. None: all of them.
            prefix_tags: call the column of every tag but Gatewatch's own `tag:NAME`, whatever fields there are, and
                that of a field that is named like one of Gatewatch's own tags, or begins with `tag:` or `field:`,
                `field:NAME`. Then the name of a column alone says what it is, as `columns.tag_columns` and
                `columns.field_columns` read it: for programs, where a tag must never be taken for a field.

        Raises:
            WriteUnavailable: the store does not answer.
            ConfigError: reading is not allowed.
        """
        types, blocks = self._read(select(measurement, run, start, stop, tags), fields)
        return frame(blocks, types, prefix_tags)

    def count(self, measurement: str, field: str, **bounds: Unpack[Bounds]) -> int:
        """Count the points of a measurement that have a field, of those that `read` would return.

        Raises:
            WriteUnavailable: the store does not answer.
            ConfigError: reading is not allowed.
        """
        return self._count(select(measurement, **bounds), field)

    def tallies(self, measurement: str, field: str) -> dict[str, tuple[int, int]]:
        """Count, for each run, the points of a measurement that have a field, and find the time of the newest.

        It is one query for all runs, so that a job that waits for new points need not read them.

        Returns:
            run → (points, nanoseconds since the Unix epoch). Points without a run are left out.

        Raises:
            WriteUnavailable: the store does not answer.
            ConfigError: reading is not allowed.
        """
        by_run: dict[str, tuple[int, int]] = {}
        for tags, points, newest in self._tallies(measurement, field, None):
            if run := tags.get("run"):
                total, last = by_run.get(run, (0, newest))
                by_run[run] = (total + points, max(last, newest))
        return by_run

    def series(self, measurement: str, field: str, run: str) -> list[Tally]:
        """Count, for each series of one run, the points that have a field, and find the time of the newest.

        Raises:
            WriteUnavailable: the store does not answer.
            ConfigError: reading is not allowed.
        """
        return self._tallies(measurement, field, run)

    def runs(self) -> pd.DataFrame:
        """Return every run, the one with the newest event first.

        Several phases of a run may go on side by side. Columns: `run`; `state` (the last event of a phase that is
        going on: started, heartbeat; where none is, the worst of their ends: failed, interrupted, completed);
        `phases` (text, separated by commas, in the order in which they began); `started` and `last_seen`
        (datetime64[ns, UTC]; the first start, the last event); `step` (of the last event); `error` (what a phase
        failed of, else None); `framework`; `model`; `config` (JSON text of the run's start).
        """
        return runs_frame(*self._run_events())

    @abstractmethod
    def history(self) -> History:
        """Return a reader of all points, which must be closed. Nothing is read before it is asked.

        Of a file it stays what it was when it was first asked; a server answers as of each moment.
        """

    @abstractmethod
    def close(self) -> None:
        """Close files and connections. Calling it again does nothing; the next use opens new ones."""

    @abstractmethod
    def _read(self, selection: Selection, fields: Sequence[str] | None) -> tuple[Mapping[str, type], Iterable[Block]]:
        """Return the type of each field, and the points."""

    @abstractmethod
    def _count(self, selection: Selection, field: str) -> int:
        """Count the points that have a field."""

    @abstractmethod
    def _tallies(self, measurement: str, field: str, run: str | None) -> list[Tally]:
        """Count the points that have a field, for each series of a run.

        If `run` is None, the points of all runs are counted; they may then be counted for each run, not each series.
        """

    @abstractmethod
    def _run_events(self) -> tuple[Iterable[RunEvent], Iterable[RunEvent]]:
        """Return the first event `started` and the last event of every phase of a run."""

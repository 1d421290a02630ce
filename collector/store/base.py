"""The interface of a store, and what all stores share. Subclasses write, read and count the points."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Unpack

from gatewatch.collector.schema import Point
from gatewatch.collector.store.frame import Block, frame
from gatewatch.collector.store.history import History, check_measurement
from gatewatch.collector.store.runs import RunEvent, find_run, runs_frame
from gatewatch.collector.store.selection import Bounds, Selection, Tags, require_utf8, select, without_reference_look
from gatewatch.collector.times import Time

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from gatewatch.collector.store.influxdb.client import Client
    from gatewatch.collector.store.selection import Reduction


class Tally(NamedTuple):
    """Points that share their tags: the tags, how many points have a field, and the time of the newest, nanoseconds."""

    tags: Tags
    points: int
    newest: int


class Store(ABC):
    """A database of points.

    A point is identified by measurement, tags and time. Writing it again merges the fields, and the last value wins, so
    writes are idempotent. A field keeps the type it was first written with.
    """

    url: str
    """The address, without secrets."""
    destination: Mapping[str, str]
    """What `reopen_store` opens it by again, from any folder and without secrets: `url`, absolute where it is a file;
    for an InfluxDB `org` and `bucket` too, and `bucket_id` once the server has told it."""
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

    def resolve_destination(self) -> Mapping[str, str]:
        """Return `destination`, with what the server has to tell of it, where it answers and may be asked."""
        return self.destination

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
            measurement: which points: one of Gatewatch's own, or one that the store has points of.
            run: only those of this run.
            start: only those at this time or later.
            stop: only those before this time.
            tags: only those whose tags have these values. The points of a reference look, the fixed probe of a backtest
                of windows, are read by `{"look": "reference"}` alone: otherwise those of `gate_stats`, `gate_units`
                and `gate_time` are the windows'.
            fields: only these, of the points that have one of them: which is quicker. None: all of them.
            prefix_tags: call the column of every tag but Gatewatch's own `tag:NAME`, whatever fields there are, and
                that of a field that is named like one of Gatewatch's own tags, or begins with `tag:` or `field:`,
                `field:NAME`. Then the name of a column alone says what it is, as `columns.tag_columns` and
                `columns.field_columns` read it: for programs, where a tag must never be taken for a field.

        Raises:
            WriteUnavailable: the store does not answer.
            ConfigError: reading is not allowed; or there is no such measurement or run: names what is alike.
        """
        look = partial(self.find, measurement, start=start, stop=stop, tags=tags)
        look = partial(look, fields=fields, prefix_tags=prefix_tags)
        found = look(run=run)
        if not found.empty:
            return found
        with closing(self.history()) as history:
            check_measurement(measurement, history, self.url)
            known = run if run is None else find_run(run, [name for name in history.runs() if name], self.url)
        if known == run:
            return found
        return look(run=known)

    def find(
        self,
        measurement: str,
        *,
        fields: Sequence[str] | None = None,
        prefix_tags: bool = False,
        at_least: tuple[str, float] | None = None,
        **bounds: Unpack[Bounds],
    ) -> pd.DataFrame:
        """Return what `read` does, and an empty frame where there is no such measurement or run: for programs.

        Of the points only those with `at_least` a value of a field, where that is given.

        Raises:
            WriteUnavailable: the store does not answer.
            ConfigError: reading is not allowed.
        """
        bounds["tags"] = without_reference_look(measurement, bounds.get("tags"))
        types, blocks = self._read(select(measurement, **bounds)._replace(at_least=at_least), fields)
        return frame(blocks, types, prefix_tags)

    def count(self, measurement: str, field: str, **bounds: Unpack[Bounds]) -> int:
        """Count the points of a measurement that have a field, of those that `read` would return.

        Raises:
            WriteUnavailable: the store does not answer.
            ConfigError: reading is not allowed.
        """
        require_utf8({"field": field})
        bounds["tags"] = without_reference_look(measurement, bounds.get("tags"))
        return self._count(select(measurement, **bounds), field)

    def tallies(self, measurement: str, field: str) -> dict[str, tuple[int, int]]:
        """Count, for each run, the points of a measurement that have a field, and find the time of the newest.

        Those of a reference look do not count, see `read`. It is one query for all runs, so that a job that waits for
        new points need not read them.

        Returns:
            run → (points, nanoseconds since the Unix epoch). Points without a run are left out.

        Raises:
            WriteUnavailable: the store does not answer.
            ConfigError: reading is not allowed.
        """
        by_run: dict[str, tuple[int, int]] = {}
        selection = Selection(measurement, without_reference_look(measurement, None))
        for tags, points, newest in self._tallies(selection, field):
            if run := tags.get("run"):
                total, last = by_run.get(run, (0, newest))
                by_run[run] = (total + points, max(last, newest))
        return by_run

    def series(self, measurement: str, field: str, run: str) -> list[Tally]:
        """Count, for each series of one run, the points that have a field, and find the time of the newest.

        Those of a reference look do not count, see `read`.

        Raises:
            WriteUnavailable: the store does not answer.
            ConfigError: reading is not allowed.
        """
        require_utf8({"measurement": measurement, "field": field, "run": run})
        tags = without_reference_look(measurement, {"run": run})
        return self._tallies(Selection(measurement, tags), field)

    def newest(
        self, measurement: str, *, run: str | None = None, tags: Tags | None = None, prefix_tags: bool = False
    ) -> pd.DataFrame:
        """Return the newest point of each series of a measurement that `read` would; the other points are not read.

        Args:
            measurement: which points.
            run: only those of this run.
            tags: only those whose tags have these values.
            prefix_tags: as of `read`.

        Raises:
            WriteUnavailable: the store does not answer.
            ConfigError: reading is not allowed.
        """
        types, blocks = self._newest(select(measurement, run, tags=without_reference_look(measurement, tags)))
        return frame(blocks, types, prefix_tags)

    def extremes(
        self,
        measurement: str,
        field: str,
        *,
        run: str,
        tags: Tags | None = None,
        start: Time | None = None,
        buckets: int = 100,
        width: int | None = None,
    ) -> tuple[int, pd.DataFrame]:
        """Return the smallest and the largest value of a field in equal spans of time, of each series of a run.

        The store looks for them, so that a long run is not read, and a single spike among its points is found.

        Args:
            measurement: which points.
            field: a number; of another type nothing is returned.
            run: the run.
            tags: only points whose tags have these values.
            start: only points at this time or later.
            buckets: into how many spans the time from the first to the last point is divided, one more at most.
            width: of a span, in nanoseconds, where it is to be as it was; `buckets` then does not count.

        Returns:
            The width of a span, in nanoseconds; each begins at a multiple of it since 1970. And a frame with columns as
            of `read` with `prefix_tags`: `time` (where a span begins), the tags, and `low` and `high`, float64. Spans
            without a value are left out.

        Raises:
            WriteUnavailable: the store does not answer.
            ConfigError: reading is not allowed.
        """
        require_utf8({"field": field})
        selection = select(measurement, run, start, tags=without_reference_look(measurement, tags))
        width, blocks = self._extremes(selection, field, buckets, width)
        return width, frame(blocks, {"low": float, "high": float}, prefix_tags=True)

    def summaries(
        self, measurement: str, fields: Mapping[str, Reduction], edges: Sequence[int], **bounds: Unpack[Bounds]
    ) -> pd.DataFrame:
        """Summarise the points of each series, of those that `read` would return, between each two moments.

        Args:
            measurement, bounds: which points; not bounded in time.
            fields: name → which number of its values is wanted; a field of another type is left out.
            edges: nanoseconds since the Unix epoch, ascending; a span reaches from one to before the next.

        Returns:
            Columns as of `extremes`, but `points`, which have the first of the fields, and the fields, float64.

        Raises:
            WriteUnavailable: the store does not answer.
            ConfigError: reading is not allowed.
        """
        require_utf8({name: name for name in fields})
        bounds["tags"] = without_reference_look(measurement, bounds.get("tags"))
        known, blocks = self._summaries(select(measurement, **bounds), fields, edges)
        return frame(blocks, {**dict.fromkeys(known, float), "points": int}, prefix_tags=True)

    def revisions(self, run: str | None = None) -> dict[str, str]:
        """Return run → a text that changes when new points of the run are written. It is one query, which reads none.

        Args:
            run: only this one.

        Raises:
            WriteUnavailable: the store does not answer.
            ConfigError: reading is not allowed.
        """
        if run is not None:
            require_utf8({"run": run})
        return self._revisions(run)

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
    def _tallies(self, selection: Selection, field: str) -> list[Tally]:
        """Count the points of a selection that have a field, for each series of a run.

        Where it names no run, the points of all runs are counted; they may then be counted for each run, not each
        series.
        """

    @abstractmethod
    def _newest(self, selection: Selection) -> tuple[Mapping[str, type], Iterable[Block]]:
        """Return the type of each field, and the newest point of each series."""

    @abstractmethod
    def _extremes(
        self, selection: Selection, field: str, buckets: int, width: int | None
    ) -> tuple[int, Iterable[Block]]:
        """Return the width of a span, and the fields `low` and `high`; see `extremes`."""

    @abstractmethod
    def _summaries(
        self, selection: Selection, fields: Mapping[str, Reduction], edges: Sequence[int]
    ) -> tuple[Iterable[str], Iterable[Block]]:
        """Return the fields that are numbers, and `points` and these fields in each span; see `summaries`."""

    @abstractmethod
    def _revisions(self, run: str | None) -> dict[str, str]:
        """See `revisions`."""

    @abstractmethod
    def _run_events(self) -> tuple[Iterable[RunEvent], Iterable[RunEvent]]:
        """Return the first event `started` and the last event of every phase of a run."""

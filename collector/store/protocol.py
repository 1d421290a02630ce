"""The protocol of a store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from gatewatch.collector.schema import Point
from gatewatch.collector.store.history import History
from gatewatch.collector.times import Time

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from gatewatch.collector.store.influxdb.client import Client


class Tally(NamedTuple):
    """Points that share their tags: the tags, how many points have a field, and the newest one's time, nanoseconds."""

    tags: Mapping[str, str]
    points: int
    newest: int


class Store(Protocol):
    """A database of points.

    A point is identified by measurement, tags and time; writing it again unites the fields, and the last value wins.
    So a write may be repeated. A field keeps the type it was first written with.
    """

    @property
    def url(self) -> str:
        """The address, without secrets."""
        ...

    @property
    def destination(self) -> Mapping[str, str]:
        """What `reopen_store` opens it by again, from any folder and without secrets: `url`, absolute where it is a
        file; for an InfluxDB `org` and `bucket` too."""
        ...

    @property
    def path(self) -> Path | None:
        """The file that holds the points, absolute; None where a server does."""
        ...

    @property
    def influxdb(self) -> Client | None:
        """The client of the InfluxDB that holds the points, which Flux needs; None where it is a file."""
        ...

    def check(self) -> None:
        """See whether points can be written.

        Raises:
            ConfigError: they never can as things are: the token is refused, the bucket or the folder is missing, the
                file is not a store.
            WriteUnavailable: they cannot now: the server does not answer.
        """
        ...

    def write(self, points: Iterable[Point]) -> None:
        """Store the points, all or, where some are wrong, all others.

        Raises:
            WriteRejected: some points are wrong: a field that is not finite, a name no store can hold, a field of
                another type than it was first written with. The others are stored.
            WriteUnavailable: nothing or not everything was stored: write the same points again later.
        """
        ...

    def write_lines(self, lines: bytes) -> None:
        """Store points as `line_protocol.encode` gives them.

        Raises:
            WriteRejected: as from `write`; its `lines` are those that were refused, each with the reason.
            WriteUnavailable: as from `write`.
        """
        ...

    def read(
        self,
        measurement: str,
        *,
        run: str | None = None,
        start: Time | None = None,
        stop: Time | None = None,
        tags: Mapping[str, str] | None = None,
        fields: Sequence[str] | None = None,
        prefix_tags: bool = False,
    ) -> pd.DataFrame:
        """Return the points of a measurement as a frame, ordered by time, then by tags.

        Columns: `time` (datetime64[ns, UTC]), the tags by name (text; None where a point has none), then the fields
        by name: float64 with NaN where a point has none; int64, or Int64 where some point has none; bool or
        boolean likewise; text. A frame without points still has the column `time`.

        A tag and a field may have the same name. Then the field keeps it, and the tag's column is called `tag:NAME`.
        Gatewatch's own tags (`schema.OWN_TAGS`: run, phase, layer…) always keep theirs; then it is the field's column
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
        ...

    def count(
        self,
        measurement: str,
        field: str,
        *,
        run: str | None = None,
        start: Time | None = None,
        stop: Time | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> int:
        """Count the points of a measurement that have a field, of those that `read` would return.

        Args:
            measurement: which points.
            field: the field's name.
            run: only those of this run.
            start: only those at this time or later.
            stop: only those before this time.
            tags: only those whose tags have these values.

        Raises:
            WriteUnavailable: the store does not answer.
            ConfigError: reading is not allowed.
        """
        ...

    def tallies(self, measurement: str, field: str) -> dict[str, tuple[int, int]]:
        """Count, for each run, the points of a measurement that have a field, and find the time of the newest.

        It is one query for all runs, so that a job that waits for new points need not read them.

        Returns:
            run → (points, nanoseconds since the Unix epoch). Points without a run are left out.

        Raises:
            WriteUnavailable: the store does not answer.
            ConfigError: reading is not allowed.
        """
        ...

    def series(self, measurement: str, field: str, run: str) -> list[Tally]:
        """Count the same for each series of one run.

        Raises:
            WriteUnavailable: the store does not answer.
            ConfigError: reading is not allowed.
        """
        ...

    def runs(self) -> pd.DataFrame:
        """Return every run, the one with the newest event first.

        Several phases of a run may go on side by side. Columns: `run`; `state` (the last event of a phase that is
        going on: started, heartbeat; where none is, the worst of their ends: failed, interrupted, completed);
        `phases` (text, separated by commas, in the order in which they began); `started` and `last_seen`
        (datetime64[ns, UTC]; the first start, the last event); `step` (of the last event); `error` (what a phase
        failed of, else None); `framework`; `model`; `config` (JSON text of the run's start).
        """
        ...

    def history(self) -> History:
        """Return a reader of all points, which must be closed. Nothing is read before it is asked.

        Of a file it stays what it was when it was first asked; a server answers as of each moment.
        """
        ...

    def close(self) -> None:
        """Close files and connections. Calling it again does nothing; the next use opens new ones."""
        ...

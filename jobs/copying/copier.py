"""Copies all points of one store into another.

A store unites what is written twice, so it is safe to interrupt a copy and to run it again. What the destination has
already is not written again, and counting says what it has: a batch of up to 5,000 points of one series is taken to be
there when the destination has as many values of each of its fields between its first and last point as the source;
where it has more, each point is looked at. Counting is wrong where values changed without their number (a past run that
was scored anew), or where the destination has as many other points in the same series and time; then `Check.AGAIN`
writes without asking, and `Check.VALUES` compares value by value.

A SQLite source is read as it was at the beginning; of a server, points that come while others are read may be copied or
not. In the end the destination must have every value that was read, by count; where it has others of the same series
too, by a look at each.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from gatewatch.collector.errors import ConfigError
from gatewatch.jobs.copying.batches import Series, Span, batches
from gatewatch.jobs.copying.compare import Destination
from gatewatch.jobs.copying.plan import Part, Selection, parts
from gatewatch.jobs.copying.statistics import Copied
from gatewatch.jobs.copying.writer import Writer

if TYPE_CHECKING:
    from gatewatch.collector.store import Store
    from gatewatch.collector.store.history import History
    from gatewatch.jobs.retry import Retry

UNVERIFIED: Final = 50_000
"""Points that may be written before they are counted in the destination: what is written must have arrived before that,
so small parts wait for one another."""


class Check(Enum):
    """How a copy finds out what the destination has already."""

    COUNTS = "by counting"
    VALUES = "by comparing every value"
    AGAIN = "not at all: everything is written"


class Progress(NamedTuple):
    """How far a copy is.

    Attributes:
        part: what is copied now.
        number: which one it is, from 1.
        parts: how many there are.
        points: points that were read so far.
        written: points that were written so far.
    """

    part: Part
    number: int
    parts: int
    points: int
    written: int


class Copier:
    """Copies points from one store to another.

    Args:
        source: is read.
        destination: is written, and read to see what it has.
        retry: of everything that is asked of the destination.
        check: how what is already there is found.
        on_progress: is called after every batch.

    Attributes:
        copied: measurement → what became of its points so far.
    """

    def __init__(
        self,
        source: Store,
        destination: Store,
        retry: Retry,
        check: Check = Check.COUNTS,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self.copied: dict[str, Copied] = {}
        self._source = source
        self._store = destination
        self._retry = retry
        self._check = check
        self._on_progress = on_progress
        self._destination = Destination(destination, retry, check is Check.VALUES)
        self._unverified: list[tuple[Part, list[Span]]] = []

    def run(self, selection: Selection, *, dry: bool = False) -> list[Copied]:
        """Copy the points of a selection.

        Args:
            selection: which points.
            dry: write nothing, only see what would be written.

        Returns:
            What became of the points, by measurement.

        Raises:
            ConfigError: something that was named is not in the source, or a store may not be read or written.
            WriteUnavailable: a store did not answer in time. What was written so far is not written again next time.
        """
        if self._source.influxdb is not None:
            self._source.influxdb.ping(self._retry.seconds)
        with closing(self._source.history()) as history, closing(Writer(self._store, self._retry)) as writer:
            todo = parts(history, selection)
            self._check_destination(dry)
            unverified = 0
            for number, part in enumerate(todo, 1):
                unverified += self._copy(part, history, None if dry else writer, selection.since, (number, len(todo)))
                if not dry and (unverified > UNVERIFIED or number == len(todo)):
                    self._verify(history, writer, selection.since)
                    unverified = 0
        return list(self.copied.values())

    def _check_destination(self, dry: bool) -> None:
        """See that the destination can be written and read, before anything is."""
        if (server := self._store.influxdb) is not None:
            self._retry(lambda: server.ping(self._retry.seconds))
        if not dry:
            self._retry(self._store.check)
        try:
            with closing(self._store.history()) as history:
                self._retry(history.measurements)
        except ConfigError as error:
            raise ConfigError(
                f"{error}; nothing was copied: what arrives is counted, so the token must be one that may read and"
                " write"
            ) from None

    def _copy(
        self, part: Part, history: History, writer: Writer | None, since: int | None, place: tuple[int, int]
    ) -> int:
        """Write what the destination lacks of a part, and return how many points that were."""
        counts = {} if self._check is Check.AGAIN else self._destination.counts(part, since)
        copied = self.copied.setdefault(part.measurement, Copied(part.measurement, found=None if writer is None else 0))
        spans: dict[Series, Span] = {}
        changed: set[Series] = set()
        written = 0
        for batch in batches(history.points(*part, start=since)):
            span, size = batch.span, len(batch.points)
            copied.points += size
            copied.values += span.values
            if self._destination.has(part, batch, counts.get(span.series, {})):
                copied.already_there += size
            else:
                changed.add(span.series)
                copied.written += size
                written += size
                if writer is not None:
                    writer.add(batch.points)
            if (before := spans.setdefault(span.series, span)) is not span:
                before.extend(span)
            points, sent = (sum(getattr(each, name) for each in self.copied.values()) for name in ("points", "written"))
            self._on_progress(Progress(part, *place, points, sent))
        if copied.found is not None:
            copied.found += sum(span.values for series, span in spans.items() if series not in changed)
            self._unverified.append((part, [spans[series] for series in changed]))
        return written

    def _verify(self, history: History, writer: Writer, since: int | None) -> None:
        """Count what has arrived of what was written."""
        writer.drain()
        for part, spans in self._unverified:
            copied = self.copied[part.measurement]
            copied.found = (copied.found or 0) + self._destination.found(part, spans, history, since)
        self._unverified.clear()
        for measurement, reasons in writer.refused.items():
            copied = self.copied[measurement]
            copied.reasons = dict(reasons)
            copied.written += copied.refused - reasons.total()
            copied.refused = reasons.total()

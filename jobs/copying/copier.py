"""Copies all points of one store into another.

A store unites what is written twice, so it is safe to interrupt a copy and to run it again. What the destination has
already is not written again, and counting says what it has: a piece of up to 5,000 points of one series is taken to be
there when the destination has as many values of each of its fields between its first and last point as the source;
where it has more, each point is compared. Counting is wrong where values changed without their number (a past run that
was scored anew), or where the destination has as many other points in the same series and time; then `Check.AGAIN`
writes without asking, and `Check.VALUES` compares value by value.

A SQLite source is read as it was at the beginning; of a server, points that come while others are read may be copied or
not. In the end the destination must have every value that was read, by count; where it has others of the same series
too, by comparing each.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar, Unpack

from gatewatch.collector.errors import ConfigError, WriteRejected
from gatewatch.collector.store.history import RunBounds
from gatewatch.jobs.copying.batches import Piece, batches, matching
from gatewatch.jobs.copying.counts import Copied
from gatewatch.jobs.copying.plan import CopyScope, Part, parts

if TYPE_CHECKING:
    from gatewatch.collector.schema import Point
    from gatewatch.collector.store import Store
    from gatewatch.collector.store.history import History
    from gatewatch.collector.store.selection import SeriesKey
    from gatewatch.jobs.retry import Retry

T = TypeVar("T")
Counts = Mapping["SeriesKey", Mapping[str, int]]
"""Of each series: name of each field → how many points have it."""

WRITES: Final = 2
"""Writes at once: while the server stores one, the next is on its way."""


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


@dataclass
class Copier:
    """Copies points from one store to another.

    Attributes:
        source: is read.
        destination: is written, and read to see what it has.
        retry: of everything that is asked of the destination.
        check: how what is already there is found.
        on_progress: is called after every batch.
        copied: measurement → what became of its points so far.
    """

    source: Store
    destination: Store
    retry: Retry
    check: Check = Check.COUNTS
    on_progress: Callable[[Progress], None] = lambda progress: None
    copied: dict[str, Copied] = field(default_factory=dict, init=False)

    def run(self, selection: CopyScope, *, dry: bool = False) -> list[Copied]:
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
        self.source.ping(self.retry.seconds)
        with closing(self.source.history()) as source, ThreadPoolExecutor(WRITES, "copying") as threads:
            todo = parts(source, selection)
            self._check_destination(dry)
            try:
                for number, part in enumerate(todo, 1):
                    for _ in self._copy(part, source, selection.since, None if dry else threads):
                        read, sent = (sum(getattr(of, n) for of in self.copied.values()) for n in ("points", "written"))
                        self.on_progress(Progress(part, number, len(todo), read, sent))
            finally:
                self.retry.end()
                threads.shutdown(cancel_futures=True)
        return list(self.copied.values())

    def _check_destination(self, dry: bool) -> None:
        """See that the destination can be written and read, before anything is."""
        self.retry(partial(self.destination.ping, self.retry.seconds))
        if not dry:
            self.retry(self.destination.check)
        try:
            self._ask(lambda there: there.measurements())
        except ConfigError as error:
            raise ConfigError(
                f"{error}; nothing was copied: what arrives is counted, so the token must be one that may read and"
                " write"
            ) from None

    def _copy(
        self, part: Part, source: History, since: int | None, threads: ThreadPoolExecutor | None
    ) -> Iterator[None]:
        """Write what the destination lacks of a part, and count what it has then; without threads write nothing.

        Yields:
            After every batch.
        """
        copied = self.copied.setdefault(part.measurement, Copied(part.measurement))
        found = 0
        counts: Counts = {} if self.check is Check.AGAIN else self._counts(part, start=since)
        writes: deque[Future[Counter[str]]] = deque()
        written: list[Piece] = []
        for batch in batches(source.points(*part, start=since)):
            lacking = []
            for piece in batch:
                size, values = len(piece.points), piece.counts.total()
                copied.points += size
                copied.values += values
                if self._found(part, piece, counts, source) < values:
                    copied.written += size
                    lacking.append(piece)
                else:
                    copied.already_there += size
                    found += values
            if lacking and threads:
                if len(writes) == WRITES:
                    copied.refuse(writes.popleft().result())
                points = [point for piece in lacking for point in piece.points]
                writes.append(threads.submit(self._write, points))
                for piece in lacking:
                    piece.points = []
                written += lacking
            yield
        for write in writes:
            copied.refuse(write.result())
        if written:
            counts = self._counts(part, start=since)
            found += sum(self._found(part, piece, counts, source) for piece in written)
        copied.found = (copied.found or 0) + found if threads else None

    def _write(self, points: Sequence[Point]) -> Counter[str]:
        """Write points, and return how many were refused for which reason."""
        try:
            self.retry(partial(self.destination.write, points))
        except WriteRejected as rejected:
            reasons = Counter(reason for _, reason in rejected.lines)
            others = [reason for reason in rejected.reasons if reason not in reasons]
            reasons.update(others[: rejected.count - reasons.total()])
            return reasons
        return Counter()

    def _found(self, part: Part, piece: Piece, counts: Counts, source: History) -> int:
        """Count the values of a piece that the destination has.

        Args:
            part: what the piece is of.
            piece: points of the source.
            counts: of the whole series of the part in the destination.
            source: where the points are read again.
        """
        if piece.series not in counts:
            return 0
        span = RunBounds(start=piece.first, stop=piece.stop, series=dict(piece.series))
        if self.check is not Check.VALUES:
            there = counts[piece.series]
            if not (piece.whole and there.items() >= piece.counts.items()):
                there = self._counts(part, **span).get(piece.series, {})
            if all(there.get(name, 0) <= number for name, number in piece.counts.items()):
                return sum(there.get(name, 0) for name in piece.counts)
        # The destination has other points of the series too: only a comparison says which are there.
        points = piece.points or [*chain.from_iterable(source.points(*part, **span))]
        number = self._ask(
            lambda there: matching(
                points, chain.from_iterable(there.points(*part, **span)), by_value=self.check is Check.VALUES
            )
        )
        return min(number, piece.counts.total())  # a source that is being written may have more by now

    def _counts(self, part: Part, **bounds: Unpack[RunBounds]) -> Counts:
        return self._ask(lambda there: there.counts(*part, **bounds))

    def _ask(self, question: Callable[[History], T]) -> T:
        def ask() -> T:
            with closing(self.destination.history()) as there:
                return question(there)

        return self.retry(ask)

"""All points of one store into another.

A store unites what is written twice, so a copy may be broken off at any moment and begun again. What is already there
is not written again, and that is known by counting: a slice of up to 5,000 points of one series is taken to be there
when the destination has as many values of each of its fields between its first and last point as the source; where it
has more, a look at each point says. So the next copy passes over what one that was killed had written. Counting is
wrong where values changed without their number (a past run that was scored anew), or where the destination has as many
other points in the same series and time; then `Check.AGAIN` writes without asking, and `Check.VALUES` compares value by
value.

What the source has is what was read of it: a SQLite file is read as it was at the beginning; of a server, points that
come while others are read may be copied or not. In the end the destination must have every value that was read, by
count; where it has others of the same series too, by a look at each.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from gatewatch.jobs.copying.batches import Series, series_of, slices
from gatewatch.jobs.copying.compare import Destination, Span
from gatewatch.jobs.copying.plan import Part, Wanted, parts
from gatewatch.jobs.copying.statistics import Copied
from gatewatch.jobs.copying.writer import Sender

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatewatch.collector.store import Store
    from gatewatch.collector.store.history import History
    from gatewatch.jobs.copying.retry import Patience

UNSEEN: Final = 50_000
"""Points that may be written before it is seen whether they are there: before that, what is written must come to rest,
so small parts wait for one another."""


class Check(Enum):
    """How it is known what is already there."""

    COUNTS = "by counting"
    VALUES = "by comparing every value"
    AGAIN = "not at all: everything is written"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a copy is.

    Attributes:
        part: what is copied now.
        number: which one it is, from 1.
        parts: how many there are.
        points: have been read so far.
        written: and written, of these.
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
        patience: with which the destination is asked.
        check: how it is known what is already there.
        tell: told how far it is, after every slice.

    Attributes:
        copied: measurement → what became of its points so far.
    """

    def __init__(
        self,
        source: Store,
        destination: Store,
        patience: Patience,
        check: Check = Check.COUNTS,
        tell: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self.copied: dict[str, Copied] = {}
        self._source = source
        self._store = destination
        self._patience = patience
        self._check = check
        self._tell = tell
        self._destination = Destination(destination, patience, check is Check.VALUES)
        self._unseen: list[tuple[Part, dict[Series, Span]]] = []

    def run(self, wanted: Wanted, *, dry: bool = False) -> list[Copied]:
        """Copy what is wanted.

        Args:
            wanted: which points.
            dry: only see what would be written.

        Raises:
            ConfigError: something that was named is not in the source, or a store may not be read.
            WriteUnavailable: a store did not answer in time. What was written so far is not written again next time.
        """
        with closing(self._source.history()) as history, closing(Sender(self._store, self._patience)) as sender:
            todo = parts(history, wanted)
            unseen = 0
            for number, part in enumerate(todo, 1):
                unseen += self._copy(part, history, None if dry else sender, wanted.since, (number, len(todo)))
                if not dry and (unseen > UNSEEN or number == len(todo)):
                    self._see(history, sender, wanted.since)
                    unseen = 0
        return list(self.copied.values())

    def _copy(
        self, part: Part, history: History, sender: Sender | None, since: int | None, place: tuple[int, int]
    ) -> int:
        """Write what is not there yet of a part; how many points that were."""
        known: Mapping[Series, Mapping[str, int]] = {}
        if self._check is not Check.AGAIN:
            known = self._destination.counts(part, since)
        tally = self.copied.setdefault(part.measurement, Copied(part.measurement, found=None if sender is None else 0))
        spans: dict[Series, Span] = {}
        written = 0
        for each in slices(history.points(*part, start=since)):
            series = series_of(each.tags)
            counts = each.counts()
            there = self._destination.has(part, each, counts, known.get(series, {}))
            spans.setdefault(series, Span(each.tags, each.first)).add(each, counts, there)
            size = len(each.points)
            tally.points += size
            tally.values += sum(counts.values())
            if there:
                tally.already_there += size
            else:
                written += size
                tally.written += size
                if sender is not None:
                    sender.add(each.points)
            read, sent = (sum(getattr(c, name) for c in self.copied.values()) for name in ("points", "written"))
            self._tell(Progress(part, *place, read, sent))
        if sender is not None:
            self._unseen.append((part, spans))
        return written

    def _see(self, history: History, sender: Sender, since: int | None) -> None:
        """Count what has arrived of the parts that were not seen yet."""
        sender.drain()
        for part, spans in self._unseen:
            found = self._destination.found(part, spans.values(), history, since)
            tally = self.copied[part.measurement]
            tally.found = (tally.found or 0) + found
        self._unseen.clear()
        for measurement, reasons in sender.refused.items():
            tally = self.copied[measurement]
            tally.reasons = dict(reasons)
            tally.written += tally.refused - reasons.total()
            tally.refused = reasons.total()

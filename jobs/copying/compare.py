"""What the destination has of what the source has."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from gatewatch.jobs.copying.batches import Series, Slice, series_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatewatch.collector.schema import FieldValue, Point
    from gatewatch.collector.store import Store
    from gatewatch.collector.store.history import History
    from gatewatch.jobs.copying.plan import Part
    from gatewatch.jobs.copying.retry import Patience

T = TypeVar("T")


@dataclass(slots=True)
class Span:
    """What was read of a series.

    Attributes:
        tags: of the series.
        first: the time of the first point.
        stop: the time after that of the last.
        fields: of each field how many points have it.
        there: whether the destination was seen to have all of it, so that nothing of it was written.
    """

    tags: Mapping[str, str]
    first: int
    stop: int = 0
    fields: dict[str, int] = field(default_factory=dict)
    there: bool = True

    @property
    def values(self) -> int:
        """How many values there are: each is one field of one point."""
        return sum(self.fields.values())

    def add(self, each: Slice, counts: Mapping[str, int], there: bool) -> None:
        """Take the next slice of the series."""
        self.stop = each.stop
        self.there &= there
        for name, number in counts.items():
            self.fields[name] = self.fields.get(name, 0) + number


class Destination:
    """What is asked of the destination.

    Args:
        store: the destination.
        patience: with which it is asked.
        by_value: whether values are compared, and not counted.
    """

    def __init__(self, store: Store, patience: Patience, by_value: bool) -> None:
        self._store = store
        self._patience = patience
        self._by_value = by_value

    def counts(
        self,
        part: Part,
        start: int | None = None,
        stop: int | None = None,
        series: Mapping[str, str] | None = None,
    ) -> dict[Series, Mapping[str, int]]:
        """Of each series and field, how many points have it."""
        found = self._ask(lambda history: history.counts(*part, start=start, stop=stop, series=series))
        return {series_of(each.tags): each.fields for each in found}

    def has(self, part: Part, each: Slice, counts: Mapping[str, int], known: Mapping[str, int]) -> bool:
        """Whether a slice is there.

        Args:
            part: what the slice is of.
            each: the slice.
            counts: of each of its fields how many points have it.
            known: how many of the whole series have it in the destination.
        """
        if not known:
            return False
        if not self._by_value:
            if not (each.whole and _compare(known, counts, operator.eq)):
                known = self.counts(part, each.first, each.stop, each.tags).get(series_of(each.tags), {})
            if _compare(known, counts, operator.eq):
                return True
            if not _compare(known, counts, operator.ge):
                return False
        return self._found(part, each, lambda: iter([each.points])) == sum(counts.values())

    def found(self, part: Part, spans: Iterable[Span], source: History, start: int | None) -> int:
        """How many values are there, of those that were read.

        Args:
            part: what was read.
            spans: its series.
            source: where they were read.
            start: from which time on they were.
        """
        total = 0
        counted: dict[Series, Mapping[str, int]] | None = None
        for span in spans:
            if span.there:
                total += span.values
                continue
            if not self._by_value:
                counted = self.counts(part, start) if counted is None else counted
                fields = counted.get(series_of(span.tags), {})
                if _compare(fields, span.fields, operator.le):
                    total += sum(fields.get(name, 0) for name in span.fields)
                    continue
            # The destination has other points of the series too: only a look at each says which are there.
            read = partial(source.points, *part, start=span.first, stop=span.stop, series=span.tags)
            total += min(self._found(part, span, read), span.values)  # a source that is written may have more by now
        return total

    def _found(self, part: Part, span: Span | Slice, points: Callable[[], Iterator[list[Point]]]) -> int:
        return self._ask(
            lambda history: matching(
                _each(points()),
                _each(history.points(*part, start=span.first, stop=span.stop, series=span.tags)),
                _same if self._by_value else _present,
            )
        )

    def _ask(self, question: Callable[[History], T]) -> T:
        def ask() -> T:
            with closing(self._store.history()) as history:
                return question(history)

        return self._patience(ask)


def matching(points: Iterable[Point], there: Iterable[Point], alike: Callable[[FieldValue, FieldValue], bool]) -> int:
    """How many values of points are there, by the name of the field and the time.

    Args:
        points: of one series, ordered by time.
        there: of the same, likewise.
        alike: whether two values are one.
    """
    found = 0
    others = iter(there)
    other = next(others, None)
    for point in points:
        while other is not None and other.time < point.time:
            other = next(others, None)
        if other is not None and other.time == point.time:
            fields = other.fields
            found += sum(name in fields and alike(value, fields[name]) for name, value in point.fields.items())
    return found


def _compare(there: Mapping[str, int], read: Mapping[str, int], how: Callable[[int, int], bool]) -> bool:
    """Compare the counts of the fields that were read; the destination may have others."""
    return all(how(there.get(name, 0), number) for name, number in read.items())


def _same(one: FieldValue, other: FieldValue) -> bool:
    return type(one) is type(other) and one == other


def _present(one: FieldValue, other: FieldValue) -> bool:
    return True


def _each(lists: Iterable[list[Point]]) -> Iterator[Point]:
    return (point for points in lists for point in points)

"""What the destination has of what was read from the source."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

from gatewatch.jobs.copying.batches import Batch, Series, Span, series_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatewatch.collector.schema import FieldValue, Point
    from gatewatch.collector.store import Store
    from gatewatch.collector.store.history import History
    from gatewatch.jobs.copying.plan import Part
    from gatewatch.jobs.retry import Retry

T = TypeVar("T")
Counts = dict[Series, "Mapping[str, int]"]
"""Of each series: name of each field → how many points have it."""


class Destination:
    """Asks the destination what it has.

    Args:
        store: the destination.
        retry: of each question.
        by_value: whether values are compared, and not counted.
    """

    def __init__(self, store: Store, retry: Retry, by_value: bool) -> None:
        self._store = store
        self._retry = retry
        self._by_value = by_value

    def counts(
        self, part: Part, start: int | None, stop: int | None = None, tags: Mapping[str, str] | None = None
    ) -> Counts:
        """Count the values between two times; only those of the series that has the tags, where they are given."""
        found = self._ask(lambda history: history.counts(*part, start=start, stop=stop, series=tags))
        return {series_of(each.tags): each.fields for each in found}

    def has(self, part: Part, batch: Batch, counts: Mapping[str, int]) -> bool:
        """Return whether it has a batch.

        Args:
            part: what the batch is of.
            batch: points of the source.
            counts: of the whole series of the batch in the destination.
        """
        if not counts:
            return False
        span = batch.span
        if not self._by_value:
            if not (batch.whole and _compare(counts, span, operator.eq)):
                counts = self.counts(part, span.first, span.stop, span.tags).get(span.series, {})
            if _compare(counts, span, operator.eq):
                return True
            if not _compare(counts, span, operator.ge):
                return False
        return self._matching(part, span, lambda: iter([batch.points])) == span.values

    def found(self, part: Part, spans: Iterable[Span], source: History, start: int | None) -> int:
        """Count the values that it has, of those that were read and written.

        Args:
            part: what was read.
            spans: whole series of it.
            source: where they were read.
            start: from which time on they were.
        """
        spans = list(spans)
        counts = {} if self._by_value or not spans else self.counts(part, start)
        total = 0
        for span in spans:
            fields = counts.get(span.series, {})
            if not self._by_value and _compare(fields, span, operator.le):
                total += sum(fields.get(name, 0) for name in span.fields)
            else:  # the destination has other points of the series too: only a look at each says which are there
                read = partial(source.points, *part, start=span.first, stop=span.stop, series=span.tags)
                # A source that is being written may have more by now.
                total += min(self._matching(part, span, read), span.values)
        return total

    def _matching(self, part: Part, span: Span, points: Callable[[], Iterator[list[Point]]]) -> int:
        return self._ask(
            lambda history: matching(
                chain.from_iterable(points()),
                chain.from_iterable(history.points(*part, start=span.first, stop=span.stop, series=span.tags)),
                by_value=self._by_value,
            )
        )

    def _ask(self, question: Callable[[History], T]) -> T:
        def ask() -> T:
            with closing(self._store.history()) as history:
                return question(history)

        return self._retry(ask)


def matching(points: Iterable[Point], there: Iterable[Point], *, by_value: bool) -> int:
    """Count the values of points that others have too, under the same time and name of the field.

    Args:
        points: of one series, ordered by time.
        there: of the same, likewise.
        by_value: whether the values must be equal, and of one type.
    """
    found = 0
    others = iter(there)
    other = next(others, None)
    for point in points:
        while other is not None and other.time < point.time:
            other = next(others, None)
        if other is not None and other.time == point.time:
            common = point.fields.keys() & other.fields.keys()
            found += sum(not by_value or _same(point.fields[name], other.fields[name]) for name in common)
    return found


def _same(one: FieldValue, other: FieldValue) -> bool:
    return type(one) is type(other) and one == other


def _compare(counts: Mapping[str, int], span: Span, how: Callable[[int, int], bool]) -> bool:
    """Compare counts of the destination with those of a span, field by field; the destination may have other fields."""
    return all(how(counts.get(name, 0), number) for name, number in span.fields.items())

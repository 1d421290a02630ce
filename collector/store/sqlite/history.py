"""All that a SQLite store holds, see `base.History`."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from contextlib import AbstractContextManager
from itertools import chain
from typing import TYPE_CHECKING

from gatewatch.collector.schema import Point
from gatewatch.collector.store.history import History
from gatewatch.collector.store.selection import Selection, SeriesKey, series_of
from gatewatch.collector.store.sqlite.file import open_empty, open_file
from gatewatch.collector.store.sqlite.read import chunks, field_types, fields_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


class SqliteHistory(History):
    """Read a snapshot of the file over a connection of its own: writers do not wait for it, and what they write
    meanwhile is not in it.

    Args:
        path: the file, from the root; where there is none it holds nothing, and none is made.
        errors: turns SQLite's errors into the store's own.
    """

    def __init__(self, path: Path, errors: Callable[[], AbstractContextManager[None]]) -> None:
        self._path = path
        self._errors = errors
        self._connection: sqlite3.Connection | None = None

    def measurements(self) -> list[str]:
        """See `History.measurements`."""
        return self._list("SELECT DISTINCT measurement FROM series ORDER BY measurement")

    def runs(self, measurement: str | None = None) -> list[str]:
        """See `History.runs`."""
        query = "SELECT DISTINCT run FROM series WHERE measurement = ifnull(?, measurement) ORDER BY run = '', run"
        return self._list(query, measurement)

    def types(self, measurement: str) -> Mapping[str, type]:
        """See `History.types`."""
        with self._errors():
            return field_types(self._snapshot(), measurement)

    def close(self) -> None:
        """See `History.close`."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def _points(self, selection: Selection) -> Iterator[list[Point]]:
        with self._errors():
            for tags, rows in chunks(self._snapshot(), selection):
                each = zip(rows, fields_of(rows), strict=True)
                yield [Point(selection.measurement, tags, fields, time) for (time, _), fields in each]

    def _counts(self, selection: Selection) -> Mapping[SeriesKey, Mapping[str, int]]:
        counts: defaultdict[SeriesKey, Counter[str]] = defaultdict(Counter)
        with self._errors():
            for tags, rows in chunks(self._snapshot(), selection):
                counts[series_of(tags)].update(chain.from_iterable(fields_of(rows)))
        return counts

    def _list(self, statement: str, *values: str | None) -> list[str]:
        with self._errors():
            names = [name for (name,) in self._snapshot().execute(statement, values)]
            if not all(isinstance(name, str) for name in names):
                raise sqlite3.DatabaseError("it holds what no store has written: a series without a name")
            return names

    def _snapshot(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = open_file(self._path) if self._path.exists() else open_empty()
            self._connection.execute("BEGIN DEFERRED")
        return self._connection

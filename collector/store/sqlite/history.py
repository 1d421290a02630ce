"""All that a SQLite store holds, see `history`."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final

import orjson

from gatewatch.collector.schema import Point
from gatewatch.collector.store.history import Values, by_field
from gatewatch.collector.store.sqlite.file import is_at_rest, open_file
from gatewatch.collector.store.sqlite.read import WITHIN, span

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from gatewatch.collector.times import Time

CHUNK: Final = 1_000
"""Points at once."""
CHUNK_TEXT: Final = 2**22
"""Characters at once: a point may have a text of a mebibyte."""
_RUNS: Final = "SELECT DISTINCT run FROM series WHERE measurement = ? ORDER BY run = '', run"
_SERIES: Final = "SELECT id, tags FROM series WHERE measurement = ? AND run = ? ORDER BY tags"


class SqliteHistory:
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
        with self._errors():
            rows = self._ask("SELECT DISTINCT measurement FROM series ORDER BY measurement")
            return [name for (name,) in rows]

    def runs(self, measurement: str) -> list[str]:
        """See `History.runs`."""
        with self._errors():
            return [run for (run,) in self._ask(_RUNS, measurement)]

    def points(
        self,
        measurement: str,
        run: str,
        *,
        start: Time | None = None,
        stop: Time | None = None,
        series: Mapping[str, str] | None = None,
    ) -> Iterator[list[Point]]:
        """See `History.points`."""
        with self._errors():
            for tags, times, fields in self._chunks(measurement, run, span(start, stop), series):
                yield [Point(measurement, tags, each, time) for each, time in zip(fields, times, strict=True)]

    def counts(
        self,
        measurement: str,
        run: str,
        *,
        start: Time | None = None,
        stop: Time | None = None,
        series: Mapping[str, str] | None = None,
    ) -> list[Values]:
        """See `History.counts`."""
        found: list[tuple[dict[str, str], Counter[str]]] = []
        with self._errors():
            for tags, _, fields in self._chunks(measurement, run, span(start, stop), series):
                if not found or found[-1][0] is not tags:
                    found.append((tags, Counter()))
                found[-1][1].update(by_field(map(tuple, fields)))
        return [Values(*each) for each in found]

    def close(self) -> None:
        """See `History.close`."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def _chunks(
        self, measurement: str, run: str, times: tuple[int, int], series: Mapping[str, str] | None
    ) -> Iterator[tuple[dict[str, str], list[int], list[dict[str, float | int | bool | str]]]]:
        """Yield tags, times and fields of some points at a time; the tags of a series are always the same mapping."""
        for series_id, text in self._ask(_SERIES, measurement, run):
            tags = json.loads(text)
            if series is not None and tags != series:
                continue
            moments: list[int] = []
            texts: list[str] = []
            size = 0
            for time, fields in self._ask(f"SELECT time, fields {WITHIN} ORDER BY time", series_id, *times):
                moments.append(time)
                texts.append(fields)
                size += len(fields)
                if len(moments) >= CHUNK or size >= CHUNK_TEXT:
                    yield tags, moments, orjson.loads(f"[{','.join(texts)}]")
                    moments, texts, size = [], [], 0
            if moments:
                yield tags, moments, orjson.loads(f"[{','.join(texts)}]")

    def _ask(self, statement: str, *values: str | int) -> Iterator[tuple[Any, ...]]:
        if self._connection is None:
            if not self._path.exists():
                return iter(())
            self._connection = open_file(self._path, at_rest=is_at_rest(self._path))
            self._connection.execute("BEGIN DEFERRED")
        return self._connection.execute(statement, values)

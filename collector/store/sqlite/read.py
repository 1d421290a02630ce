"""Reads points of a SQLite store's file, over a connection that is in a transaction."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from itertools import compress
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson

from gatewatch.collector.store.base import Tally
from gatewatch.collector.store.frame import BLOCK, Block, column, unite
from gatewatch.collector.store.selection import Selection
from gatewatch.collector.store.sqlite.file import HAS_COUNTER
from gatewatch.collector.text import one_line

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

CHUNK: Final = 1_000
"""Points at once."""
CHUNK_TEXT: Final = 2**22
"""Characters at once: a point may have a text of a mebibyte."""
Rows = list[tuple[int, str]]
"""Points of one series or of several: the time, and the JSON object of the fields."""
Counted = dict[int, tuple[int, int, int | None]]
"""Series → how often it was `written`, how many of its points have a field, and the newest one's time."""

TYPES: Final[Mapping[str, type]] = {"bool": bool, "int": int, "float": float, "str": str}
"""Name of a type, as the file holds it → type; a boolean is an integer too, so it comes first."""


@contextmanager
def stored_content() -> Iterator[None]:
    """Decode in a block what a file holds; where that is not possible, no store has written it.

    Raises:
        sqlite3.DatabaseError: it is not possible: the file is damaged, or was changed by something else.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise sqlite3.DatabaseError(f"it holds what no store has written: {one_line(error, 100)}") from None


def fields_of(rows: Rows) -> list[dict[str, Any]]:
    """Return the fields of each point.

    Raises:
        sqlite3.DatabaseError: they are no fields.
    """
    with stored_content():
        fields: list[dict[str, Any]] = orjson.loads(f"[{','.join([text for _, text in rows])}]")
        if len(fields) != len(rows) or not all(isinstance(each, dict) for each in fields):
            raise ValueError("a point without fields")
    return fields


def _tags_of(text: str) -> dict[str, str]:
    tags = orjson.loads(text)
    if not isinstance(tags, dict) or not all(isinstance(value, str) for value in tags.values()):
        raise ValueError("a series without tags")
    return tags


def field_types(connection: sqlite3.Connection, measurement: str) -> dict[str, type]:
    """Return field name → type."""
    rows = connection.execute("SELECT name, type FROM fields WHERE measurement = ?", (measurement,))
    with stored_content():
        return {name: TYPES[kind] for name, kind in rows}


def select_series(connection: sqlite3.Connection, selection: Selection) -> list[tuple[int, dict[str, str]]]:
    """Return the id and the tags of each series that has the selection's tags, in a fixed order."""
    query, values = "SELECT id, tags FROM series WHERE measurement = ?", [selection.measurement]
    if "run" in selection.tags:
        query, values = f"{query} AND run = ?", [selection.measurement, selection.tags["run"]]
    selected = []
    for series_id, text in connection.execute(f"{query} ORDER BY tags", values):
        with stored_content():
            tags = _tags_of(text)
        others = tags.keys() - selection.tags.keys() if selection.exactly else ()
        if not others and _are_selected(tags, selection):
            selected.append((series_id, tags))
    return selected


def _are_selected(tags: Mapping[str, str], selection: Selection) -> bool:
    return all(tags.get(name, "") == value for name, value in selection.tags.items())


def chunks(
    connection: sqlite3.Connection, selection: Selection, most: int = CHUNK
) -> Iterator[tuple[dict[str, str], Rows]]:
    """Yield the tags of a series and some of its points at a time, ordered by time.

    Args:
        connection: to the file.
        selection: which points.
        most: points at a time.
    """
    for series_id, tags in select_series(connection, selection):
        rows: Rows = []
        size = 0
        where = _WITHIN
        values: tuple[int | float | str, ...] = series_id, *_span(selection)
        if selection.at_least is not None:
            value, name = number_of(selection.at_least[0])
            where, values = f"{where} AND {value} >= ?", (*values, name, selection.at_least[1])
        for row in connection.execute(f"SELECT time, fields {where} ORDER BY time", values):
            if type(row[0]) is not int or type(row[1]) is not str:
                raise sqlite3.DatabaseError("it holds what no store has written: a point without a time or fields")
            rows.append(row)
            size += len(row[1])
            if len(rows) == most or size >= CHUNK_TEXT:
                yield tags, rows
                rows, size = [], 0
        if rows:
            yield tags, rows


def blocks(
    connection: sqlite3.Connection, selection: Selection, types: Mapping[str, type], fields: Collection[str] | None
) -> Iterator[Block]:
    """Yield the points of a selection, with those of the fields that they have."""
    for tags, sizes, rows in unite(chunks(connection, selection, BLOCK)):
        with stored_content():
            block = block_of(tags, sizes, rows, types, fields)
        yield block


def count(connection: sqlite3.Connection, selection: Selection, field: str) -> int:
    """Count the points of a selection that have a field."""
    query = f"SELECT count(*) {_WITHIN} AND has(fields, ?)"
    values = (*_span(selection), field)
    return sum(
        connection.execute(query, (series_id, *values)).fetchone()[0]
        for series_id, _ in select_series(connection, selection)
    )


def tallies(connection: sqlite3.Connection, selection: Selection, field: str, counted: Counted) -> list[Tally]:
    """Return what `Store.series` promises, of one run or of all.

    Args:
        connection: to the file.
        selection: which points; of all runs where it names none.
        field: that they have.
        counted: of last time, and is brought up to date: only series that were written since are read.
    """
    written = "written" if connection.execute(HAS_COUNTER).fetchone() else "random()"
    listed = f"SELECT id, tags, {written} FROM series WHERE measurement = ? AND run = ifnull(?, run)"  # noqa: S608 - constants
    query = "SELECT count(*), max(time) FROM points WHERE series_id = ? AND has(fields, ?)"
    result = []
    of_run = selection.measurement, selection.tags.get("run")
    for series_id, text, times in connection.execute(listed, of_run).fetchall():
        with stored_content():
            tags = _tags_of(text)
        if not _are_selected(tags, selection):
            continue
        if counted.get(series_id, (None,))[0] != times:
            counted[series_id] = (times, *connection.execute(query, (series_id, field)).fetchone())
        _, points, newest = counted[series_id]
        if newest is not None:
            with stored_content():
                result.append(Tally(tags, points, int(newest)))
    return result


_WITHIN: Final = "FROM points WHERE series_id = ? AND time >= ? AND time < ?"


def _span(selection: Selection) -> tuple[int, int]:
    start, stop = selection.start, selection.stop
    return -(2**63) if start is None else start, 2**63 - 1 if stop is None else stop


def number_of(field: str) -> tuple[str, str]:
    """Return the SQL of a number among a point's fields, and the value that is bound in it."""
    # What SQLite takes out of JSON itself is ten times as quick, but a name with quotes cannot be written in its paths.
    return ("number(fields, ?)", field) if set(field) & {'"', "\\"} else ("json_extract(fields, ?)", f'$."{field}"')


def block_of(
    tags: Sequence[Mapping[str, str]],
    sizes: Sequence[int],
    rows: Rows,
    types: Mapping[str, type],
    fields: Collection[str] | None,
) -> Block:
    """Return the points of some series as a block, with those of the fields that they have.

    Args:
        tags, sizes: of each series, its tags and how many of the rows it has.
        rows: of the first series, then of the second…
        types: field name → type.
        fields: only these; None: all.
    """
    points, times = fields_of(rows), np.array([time for time, _ in rows], np.int64)
    names = set().union(*points) if fields is None else set(fields) & types.keys()
    values = {name: [point.get(name) for point in points] for name in names}
    if fields is not None and all(None in each for each in values.values()):
        # A point that has none of them is none of the answer's.
        kept = np.array([not names.isdisjoint(point) for point in points])
        sizes = np.add.reduceat(kept, np.cumsum([0, *sizes[:-1]]), dtype=np.intp).tolist()
        values = {name: [*compress(each, kept)] for name, each in values.items()} if kept.any() else {}
        times = times[kept]
    return Block(tags, sizes, times, {name: column(each, types[name]) for name, each in values.items()})

"""Reads points of a SQLite store's file, over a connection that is in a transaction."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import numpy as np
import orjson

from gatewatch.collector.schema import RUNS
from gatewatch.collector.store.frame import BLOCK, Block, column
from gatewatch.collector.store.protocol import Tally
from gatewatch.collector.store.runs import RunEvent
from gatewatch.collector.store.sqlite.file import HAS_COUNTER
from gatewatch.collector.times import Time, nanoseconds

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterator, Mapping, Sequence

Series = tuple[int, dict[str, str]]
"""The id of a series, and its tags."""
Counted = dict[int, tuple[int, int, int | None]]
"""Series → how often it was `written`, how many of its points have a field, and the newest one's time."""

TYPES: Final[Mapping[str, type]] = {"float": float, "int": int, "bool": bool, "str": str}
"""Name of a type, as the file holds it → type."""
WITHIN: Final = "FROM points WHERE series_id = ? AND time >= ? AND time < ?"


def define_functions(connection: sqlite3.Connection) -> None:
    """Define the functions that the statements here use."""
    connection.create_function("has", 2, _has, deterministic=True)


def span(start: Time | None, stop: Time | None) -> tuple[int, int]:
    """Return the bounds of a read in nanoseconds: from the first, to before the second."""
    return -(2**63) if start is None else nanoseconds(start), 2**63 - 1 if stop is None else nanoseconds(stop)


def field_types(connection: sqlite3.Connection, measurement: str) -> dict[str, type]:
    """Return field name → type."""
    rows = connection.execute("SELECT name, type FROM fields WHERE measurement = ?", (measurement,))
    return {name: TYPES[kind] for name, kind in rows}


def series(
    connection: sqlite3.Connection, measurement: str, run: str | None, tags: Mapping[str, str] | None
) -> list[Series]:
    """Return the series of a measurement that have these tags."""
    wanted = dict(tags or {}) | ({} if run is None else {"run": run})
    query, values = "SELECT id, tags FROM series WHERE measurement = ?", [measurement]
    if "run" in wanted:
        query, values = f"{query} AND run = ?", [measurement, wanted["run"]]
    found = [(series_id, json.loads(text)) for series_id, text in connection.execute(query, values)]
    return [each for each in found if all(each[1].get(name, "") == value for name, value in wanted.items())]


def blocks(
    connection: sqlite3.Connection,
    found: Sequence[Series],
    times: tuple[int, int],
    types: Mapping[str, type],
    fields: Collection[str] | None,
) -> Iterator[Block]:
    """Yield the points of some series, with those of the fields that they have."""
    tags: list[Mapping[str, str]] = []
    sizes: list[int] = []
    rows: list[tuple[int, str]] = []
    for series_id, named in found:
        cursor = connection.execute(f"SELECT time, fields {WITHIN}", (series_id, *times))
        while points := cursor.fetchmany(BLOCK):
            tags.append(named)
            sizes.append(len(points))
            rows += points
            if len(rows) >= BLOCK:
                yield _block(tags, sizes, rows, types, fields)
                tags, sizes, rows = [], [], []
    if rows:
        yield _block(tags, sizes, rows, types, fields)


def count(connection: sqlite3.Connection, found: Sequence[Series], times: tuple[int, int], field: str) -> int:
    """Count the points of some series that have a field."""
    query = f"SELECT count(*) {WITHIN} AND has(fields, ?)"
    return sum(connection.execute(query, (series_id, *times, field)).fetchone()[0] for series_id, _ in found)


def tallies(
    connection: sqlite3.Connection, measurement: str, field: str, counted: Counted
) -> dict[str, tuple[int, int]]:
    """Return what `Store.tallies` promises.

    Args:
        counted: of last time, and is brought up to date: only series that were written since are read.
    """
    result: dict[str, tuple[int, int]] = {}
    for _, run, points, newest in _tallied(connection, measurement, field, None, counted):
        if run:
            total, last = result.get(run, (0, newest))
            result[run] = (total + points, max(last, newest))
    return result


def series_tallies(
    connection: sqlite3.Connection, measurement: str, field: str, run: str, counted: Counted
) -> list[Tally]:
    """Return what `Store.series` promises; `counted` as in `tallies`."""
    tags = dict(series(connection, measurement, run, None))
    found = _tallied(connection, measurement, field, run, counted)
    return [Tally(tags[series_id], points, newest) for series_id, _, points, newest in found]


def _tallied(
    connection: sqlite3.Connection, measurement: str, field: str, run: str | None, counted: Counted
) -> Iterator[tuple[int, str, int, int]]:
    """Yield of each series with such points: its id, its run, how many there are, and the time of the newest."""
    query = "SELECT count(*), max(time) FROM points WHERE series_id = ? AND has(fields, ?)"
    listed, values = "SELECT id, run, {} FROM series WHERE measurement = ?", [measurement]
    if run is not None:
        listed, values = f"{listed} AND run = ?", [measurement, run]
    listed = listed.format("written" if connection.execute(HAS_COUNTER).fetchone() else "random()")
    for series_id, of_run, times in connection.execute(listed, values).fetchall():
        if counted.get(series_id, (None,))[0] != times:
            counted[series_id] = (times, *connection.execute(query, (series_id, field)).fetchone())
        _, points, newest = counted[series_id]
        if newest is not None:
            yield series_id, of_run, points, newest


def run_events(connection: sqlite3.Connection) -> tuple[list[RunEvent], list[RunEvent]]:
    """Return the first event `started` and the last event of every phase of a run."""
    query = (
        "SELECT run, ifnull(tags ->> '$.phase', '') AS phase, {}(time), fields"
        " FROM series JOIN points ON series_id = id WHERE measurement = ? AND run != '' AND {} GROUP BY run, phase"
    )
    started, last = (
        [
            RunEvent(run, phase, time, orjson.loads(fields))
            for run, phase, time, fields in connection.execute(query.format(best, which), (RUNS,))
        ]
        for best, which in (("min", "fields ->> '$.event' = 'started'"), ("max", "TRUE"))
    )
    return started, last


def _has(text: str, field: str) -> bool:
    """Return whether a point has a field, by the text of its JSON object, mostly without parsing it."""
    name = f'"{field}":'
    if '"' in field or "\\" in field or field.startswith((",", ":", "}")):  # text that may also be elsewhere
        return field in orjson.loads(text)
    return f",{name}" in text or text.startswith(f"{{{name}")


def _block(
    tags: Sequence[Mapping[str, str]],
    sizes: Sequence[int],
    rows: Sequence[tuple[int, str]],
    types: Mapping[str, type],
    fields: Collection[str] | None,
) -> Block:
    points = orjson.loads(f"[{','.join([text for _, text in rows])}]")
    times = np.array([time for time, _ in rows], np.int64)
    names = set().union(*points)
    if fields is not None:  # a point that has none of them is none of the answer's
        names.intersection_update(fields)
        kept = np.array([not names.isdisjoint(point) for point in points])
        sizes = np.add.reduceat(kept, np.cumsum([0, *sizes[:-1]]), dtype=np.intp).tolist()
        points, times = [point for point in points if not names.isdisjoint(point)], times[kept]
    columns = zip(*[map(point.get, names) for point in points], strict=True)
    named = zip(names, columns, strict=False)  # where no point is left there are names without columns
    return Block(tags, sizes, times, {name: column(values, types[name]) for name, values in named})

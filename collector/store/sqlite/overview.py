"""Reads of a SQLite store's file that give an overview of runs, by the index where that is possible."""

from __future__ import annotations

import sqlite3
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
import orjson

from gatewatch.collector.schema import RUNS
from gatewatch.collector.store.frame import Block, unite
from gatewatch.collector.store.runs import RunEvent
from gatewatch.collector.store.selection import bucket_width
from gatewatch.collector.store.sqlite.file import HAS_COUNTER
from gatewatch.collector.store.sqlite.read import block_of, number_of, select_series, stored_content

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gatewatch.collector.store.selection import Reduction, Selection

_FUNCTIONS: Final[Mapping[Reduction, str]] = {"min": "min", "max": "max", "mean": "avg"}
_NEWEST: Final = "SELECT time, fields FROM points WHERE series_id = ? ORDER BY time DESC LIMIT 1"
_STARTED: Final = (
    "SELECT time, fields FROM points WHERE series_id = ? AND json_extract(fields, '$.event') = 'started'"
    " ORDER BY time LIMIT 1"
)


def run_events(connection: sqlite3.Connection) -> tuple[list[RunEvent], list[RunEvent]]:
    """Return the first event `started` and the last event of every phase of a run, by two look-ups for each series."""
    listed = "SELECT id, run, ifnull(json_extract(tags, '$.phase'), '') FROM series WHERE measurement = ? AND run != ''"
    started: dict[tuple[str, str], RunEvent] = {}
    last: dict[tuple[str, str], RunEvent] = {}
    with stored_content():
        for series_id, run, phase in connection.execute(listed, (RUNS,)).fetchall():
            key = (run, phase)
            for time, fields in connection.execute(_STARTED, (series_id,)):
                if key not in started or time < started[key].time:
                    started[key] = RunEvent(run, phase, time, orjson.loads(fields))
            for time, fields in connection.execute(_NEWEST, (series_id,)):
                if key not in last or time > last[key].time:
                    last[key] = RunEvent(run, phase, time, orjson.loads(fields))
    return [*started.values()], [*last.values()]


def newest(connection: sqlite3.Connection, selection: Selection, types: Mapping[str, type]) -> Iterator[Block]:
    """Yield the newest point of each series of a selection, whose span of time is not looked at."""
    rows = (
        (tags, connection.execute(_NEWEST, (series_id,)).fetchall())
        for series_id, tags in select_series(connection, selection)
    )
    for tags, sizes, points in unite(each for each in rows if each[1]):
        with stored_content():
            block = block_of(tags, sizes, points, types, None)
        yield block


def bucket_width_of(connection: sqlite3.Connection, selection: Selection, buckets: int) -> int:
    """Return the width of equal spans of the time from the first to the last point of a selection, in nanoseconds."""
    span = "SELECT min(time), max(time) FROM points WHERE series_id = ? AND time >= ?"
    ends = [
        connection.execute(span, (series_id, _start(selection))).fetchone()
        for series_id, _ in select_series(connection, selection)
    ]
    times = [time for pair in ends for time in pair if time is not None]
    return bucket_width(min(times), max(times), buckets) if times else 1


def extremes(connection: sqlite3.Connection, selection: Selection, field: str, width: int) -> Iterator[Block]:
    """Yield what `Store.extremes` promises."""
    value, name = number_of(field)
    # SQLite rounds a quotient towards zero: the remainder is made positive, for times before 1970.
    grouped = (
        f"SELECT time - ((time % {width}) + {width}) % {width} AS bucket, min(value), max(value) FROM"  # noqa: S608 - numbers
        f" (SELECT time, {value} AS value FROM points WHERE series_id = ? AND time >= ?)"
        " WHERE value IS NOT NULL GROUP BY bucket ORDER BY bucket"
    )
    for series_id, tags in select_series(connection, selection):
        rows = connection.execute(grouped, (name, series_id, _start(selection))).fetchall()
        with stored_content():
            low, high = (np.array([row[i] for row in rows], np.float64) for i in (1, 2))
            block = Block([tags], [len(rows)], np.array([row[0] for row in rows], np.int64), {"low": low, "high": high})
        yield block


def _start(selection: Selection) -> int:
    return -(2**63) if selection.start is None else selection.start


def summaries(
    connection: sqlite3.Connection, selection: Selection, fields: Mapping[str, Reduction], edges: Sequence[int]
) -> Iterator[Block]:
    """Yield what `Store.summaries` promises."""
    named = {field: number_of(field) for field in fields}
    values = ", ".join(f"{_FUNCTIONS[how]}({named[field][0]})" for field, how in fields.items())
    first, first_name = next(iter(named.values()))
    # A query for each span needs no sorting, as GROUP BY would.
    query = f"SELECT count({first}), {values} FROM points WHERE series_id = ? AND time >= ? AND time < ?"  # noqa: S608 - constants
    names = [first_name, *(name for _, name in named.values())]
    for series_id, tags in select_series(connection, selection):
        rows = [connection.execute(query, (*names, series_id, *span)).fetchone() for span in pairwise(edges)]
        with stored_content():
            table = np.array(rows, np.float64).reshape(len(rows), len(names))
            own = table[:, 0] > 0
            columns = dict(zip(fields, table[own, 1:].T, strict=True))
            counts = {"points": table[own, 0].astype(np.int64)}
            block = Block([tags], [int(own.sum())], np.array(edges[:-1], np.int64)[own], columns | counts)
        yield block


def revisions(connection: sqlite3.Connection, run: str | None) -> dict[str, str]:
    """Return what `Store.revisions` promises: how often the points of a run were written."""
    counter = "sum(written)" if connection.execute(HAS_COUNTER).fetchone() else "random()"
    by_run = f"SELECT run, {counter}, count(*) FROM series WHERE run = ifnull(?, run) AND run != '' GROUP BY run"  # noqa: S608 - constants
    return {name: f"{written}-{series}" for name, written, series in connection.execute(by_run, (run,))}

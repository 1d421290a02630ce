"""Reads of a SQLite store's file that give an overview of runs, by the index where that is possible."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Final

import numpy as np
import orjson

from gatewatch.collector.schema import RUNS
from gatewatch.collector.store.frame import Block, unite
from gatewatch.collector.store.runs import RunEvent
from gatewatch.collector.store.selection import bucket_width
from gatewatch.collector.store.sqlite.file import HAS_COUNTER
from gatewatch.collector.store.sqlite.read import block_of, select_series, stored_content

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gatewatch.collector.store.selection import Selection

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
    # SQLite rounds a quotient towards zero: the remainder is made positive, for times before 1970.
    grouped = (
        f"SELECT time - ((time % {width}) + {width}) % {width} AS bucket, min(value), max(value) FROM"  # noqa: S608 - numbers
        " (SELECT time, number(fields, ?) AS value FROM points WHERE series_id = ? AND time >= ?)"
        " WHERE value IS NOT NULL GROUP BY bucket ORDER BY bucket"
    )
    # What SQLite takes out of JSON itself is ten times as quick, but a name with quotes cannot be written in its paths.
    name = field
    if not set(field) & {'"', "\\"}:
        grouped = grouped.replace("number(fields, ?)", "json_extract(fields, ?)")
        name = f'$."{field}"'
    for series_id, tags in select_series(connection, selection):
        rows = connection.execute(grouped, (name, series_id, _start(selection))).fetchall()
        with stored_content():
            low, high = (np.array([row[i] for row in rows], np.float64) for i in (1, 2))
            block = Block([tags], [len(rows)], np.array([row[0] for row in rows], np.int64), {"low": low, "high": high})
        yield block


def _start(selection: Selection) -> int:
    return -(2**63) if selection.start is None else selection.start


def revisions(connection: sqlite3.Connection, run: str | None) -> dict[str, str]:
    """Return what `Store.revisions` promises: how often the points of a run were written."""
    counter = "sum(written)" if connection.execute(HAS_COUNTER).fetchone() else "random()"
    by_run = f"SELECT run, {counter}, count(*) FROM series WHERE run = ifnull(?, run) AND run != '' GROUP BY run"  # noqa: S608 - constants
    return {name: f"{written}-{series}" for name, written, series in connection.execute(by_run, (run,))}

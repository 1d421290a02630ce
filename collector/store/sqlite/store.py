"""Points in one SQLite file: the store that needs no server."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import weakref
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import orjson

from gatewatch.collector.errors import ConfigError, WriteRejected, WriteUnavailable
from gatewatch.collector.files import checked_path
from gatewatch.collector.line_protocol import encode, parse, split_lines
from gatewatch.collector.log import log
from gatewatch.collector.schema import RUNS, FieldValue, Point, point_problem
from gatewatch.collector.store.base import Store
from gatewatch.collector.store.frame import frame
from gatewatch.collector.store.selection import select
from gatewatch.collector.store.series_shapes import Shapes
from gatewatch.collector.store.sqlite import overview
from gatewatch.collector.store.sqlite import read as sqlite_read
from gatewatch.collector.store.sqlite.file import VERSION, open_empty, open_file
from gatewatch.collector.store.sqlite.history import SqliteHistory
from gatewatch.collector.store.sqlite.journal import check_locks, is_at_rest
from gatewatch.collector.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import pandas as pd

    from gatewatch.collector.store.base import Tally
    from gatewatch.collector.store.frame import Block
    from gatewatch.collector.store.runs import RunEvent
    from gatewatch.collector.store.selection import Reduction, Selection

FORK_WAIT_S: Final = 0.2
"""How long a fork waits for a write that another thread is at."""
_UPSERT: Final = (
    "INSERT INTO points VALUES (?, ?, ?) ON CONFLICT (series_id, time)"  # SQLite before 3.35 wants the columns named
    " DO UPDATE SET fields = json_patch(fields, excluded.fields)"
)


class SqliteStore(Store):
    """A store in one file, for any number of threads and processes of one machine.

    The file is made by the first write or check. Before a fork the connection is closed and opened again as needed:
    SQLite's must not cross one.

    Args:
        path: the file; a relative one lies in the folder that is current now, wherever the process goes later.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        file = checked_path(path, "the store's file")
        self.path: Path = file.absolute()
        self.url = f"sqlite:///{file}"
        self.destination = {"url": f"sqlite:///{self.path}"}
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        """Device and number of the file that is open; None for one at rest, which is opened anew for each read."""
        self._types: dict[str, dict[str, type]] = {}
        self._shapes = Shapes()
        self._counted: dict[tuple[str, str], sqlite_read.Counted] = {}
        _stores.add(self)

    def __repr__(self) -> str:
        return f"SqliteStore({str(self.path)!r})"

    def ping(self, seconds: float | None = None) -> None:
        """See `Store.ping`."""

    def exists(self) -> bool:
        """See `Store.exists`."""
        return self.path.exists()

    def check(self) -> None:
        """See `Store.check`."""
        with self._lock, self._errors(ConfigError), self._transaction("IMMEDIATE") as connection:
            connection.execute(f"PRAGMA user_version = {VERSION}")

    def write(self, points: Iterable[Point]) -> None:
        """See `Store.write`. The points are stored in one transaction."""
        points = list(points)
        if refused := self._store(points):
            lines = [(encode([points[i]])[:-1], why) for i, why in refused if not point_problem(points[i])]
            raise WriteRejected([why for _, why in refused], lines=lines)

    def write_lines(self, lines: bytes) -> None:
        """See `Store.write_lines`. The points are stored in one transaction."""
        parsed: list[tuple[bytes, Point]] = []
        refused: list[tuple[bytes, str]] = []
        for line in split_lines(lines):
            try:
                parsed.append((line, parse(line)))
            except ValueError as error:
                refused.append((line, f"the line cannot be parsed: {error}"))
        refused += [(parsed[i][0], why) for i, why in self._store([point for _, point in parsed])]
        if refused:
            raise WriteRejected(list(dict.fromkeys(why for _, why in refused)), len(refused), refused)

    def begin_run(self, run: str, phase: str, first: Callable[[pd.DataFrame], Point]) -> Point:
        """Write the first event of a run and phase, in one transaction with a look at those that are there already.

        Of two processes that begin at the same moment the second is shown the event of the first.

        Args:
            run: the run's id.
            phase: of the run.
            first: is given the events as `read(..., prefix_tags=True)` returns them, and returns the event to write. It
                must not use the store. What it raises is raised, and nothing is written.

        Returns:
            The event.

        Raises:
            WriteRejected: see `Store.write`.
            WriteUnavailable: nothing was written.
        """
        selection = select(RUNS, run, tags={"phase": phase})
        with self._lock, self._errors(WriteUnavailable), self._transaction("IMMEDIATE") as connection:
            types = sqlite_read.field_types(connection, RUNS)
            event = first(frame(sqlite_read.blocks(connection, selection, types, None), types, prefix_tags=True))
            refused: list[tuple[int, str]] = []
            connection.executemany(_UPSERT, self._rows(connection, [event], refused))
        if refused:
            raise WriteRejected([why for _, why in refused])
        return event

    def history(self) -> SqliteHistory:
        """See `Store.history`."""
        return SqliteHistory(self.path, lambda: self._errors(WriteUnavailable))

    def close(self) -> None:
        """See `Store.close`."""
        with self._lock:
            if (
                self._connection is not None and self._file is not None
            ):  # others may hold it: the last one out does this
                with suppress(sqlite3.Error):
                    self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            self._disconnect()

    def _read(self, selection: Selection, fields: Sequence[str] | None) -> tuple[Mapping[str, type], list[Block]]:
        with self._reading() as connection:
            types = sqlite_read.field_types(connection, selection.measurement)
            return types, list(sqlite_read.blocks(connection, selection, types, fields))

    def _count(self, selection: Selection, field: str) -> int:
        with self._reading() as connection:
            return sqlite_read.count(connection, selection, field)

    def _tallies(self, selection: Selection, field: str) -> list[Tally]:
        """See `Store._tallies`. What was counted once is counted again where it was written since."""
        with self._reading() as connection:
            counted = self._counted.setdefault((selection.measurement, field), {})
            return sqlite_read.tallies(connection, selection, field, counted)

    def _newest(self, selection: Selection) -> tuple[Mapping[str, type], list[Block]]:
        with self._reading() as connection:
            types = sqlite_read.field_types(connection, selection.measurement)
            return types, list(overview.newest(connection, selection, types))

    def _extremes(self, selection: Selection, field: str, buckets: int, width: int | None) -> tuple[int, list[Block]]:
        with self._reading() as connection:
            if sqlite_read.field_types(connection, selection.measurement).get(field) not in (int, float):
                return width or 1, []
            width = width or overview.bucket_width_of(connection, selection, buckets)
            return width, list(overview.extremes(connection, selection, field, width))

    def _summaries(
        self, selection: Selection, fields: Mapping[str, Reduction], edges: Sequence[int]
    ) -> tuple[Iterable[str], list[Block]]:
        with self._reading() as connection:
            types = sqlite_read.field_types(connection, selection.measurement)
            known = {name: how for name, how in fields.items() if types.get(name) in (int, float)}
            return known, list(overview.summaries(connection, selection, known, edges)) if known else []

    def _revisions(self, run: str | None) -> dict[str, str]:
        with self._reading() as connection:
            return overview.revisions(connection, run)

    def _run_events(self) -> tuple[list[RunEvent], list[RunEvent]]:
        with self._reading() as connection:
            return overview.run_events(connection)

    def _store(self, points: list[Point]) -> list[tuple[int, str]]:
        """Store the points; which were refused, and why."""
        refused: list[tuple[int, str]] = []
        try:
            with self._lock, self._errors(WriteUnavailable), self._transaction("IMMEDIATE") as connection:
                connection.executemany(_UPSERT, self._rows(connection, points, refused))
        except ConfigError as error:
            raise WriteUnavailable(str(error), slow=True) from None
        return refused

    def _rows(
        self, connection: sqlite3.Connection, points: list[Point], refused: list[tuple[int, str]]
    ) -> Iterator[tuple[int, int, str]]:
        for i, point in enumerate(points):
            series_id = self._shapes.find(point)
            if series_id is None:
                if problem := point_problem(point) or self._type_problem(connection, point):
                    refused.append((i, problem))
                    continue
                series_id = _series_id(connection, point)
                self._shapes.keep(point, series_id)
            fields = orjson.dumps(point.fields, default=float)  # of a subclass of float, such as numpy's
            yield series_id, point.time, fields.decode()

    def _type_problem(self, connection: sqlite3.Connection, point: Point) -> str | None:
        """Return why a point cannot be stored beside those before; None where it can, and new fields are declared."""
        measurement = point.measurement
        types = self._types.setdefault(measurement, {})
        if point.fields.keys() - types.keys():  # another process may have written them
            types.update(sqlite_read.field_types(connection, measurement))
        kinds = {name: _type_of(value) for name, value in point.fields.items()}
        for name, kind in kinds.items():
            if (first := types.get(name, kind)) is not kind:
                return f"{measurement}: field {name!r} is of type {kind.__name__}, already exists as {first.__name__}"
        new = [(measurement, name, kind.__name__) for name, kind in kinds.items() if name not in types]
        connection.executemany("INSERT INTO fields VALUES (?, ?, ?)", new)
        types.update(kinds)
        return None

    @contextmanager
    def _transaction(self, mode: str) -> Iterator[sqlite3.Connection]:
        connection = self._connect()
        try:
            connection.execute(f"BEGIN {mode}")
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            self._forget()
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._errors(WriteUnavailable):
            if self.path.exists():
                with self._transaction("DEFERRED") as connection:
                    yield connection
            else:  # nothing was written yet: reading leaves no file behind
                with closing(open_empty()) as connection:
                    yield connection

    @contextmanager
    def _errors(self, otherwise: type[ConfigError] | type[WriteUnavailable]) -> Iterator[None]:
        """Turn errors of SQLite into those of a store: transient ones are worth a retry, others are `otherwise`."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # text that is not UTF-8 has none
            problem = one_line(error, 200)
            if not isinstance(error, sqlite3.OperationalError) or code == sqlite3.SQLITE_ERROR:
                self._disconnect()
                raise ConfigError(
                    f"{self.path}: not a sound SQLite file ({problem}); move it away or choose another;"
                    " if it is a copy of one in use, copy that again, with `gatewatch copy`"
                ) from None
            passing = code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL)
            if code == sqlite3.SQLITE_BUSY:
                check_locks(self.path)
            text = f"{self.path}: {problem}; see that the folder exists, is writable and has room"
            if passing or otherwise is WriteUnavailable:
                raise WriteUnavailable(text, slow=not passing) from None
            raise ConfigError(text) from None

    def _connect(self) -> sqlite3.Connection:
        if self._connection is not None and (self._file is None or _file_id(self.path) != self._file):
            self._disconnect()  # what is written to the old one nobody reads
            log.warning(
                "gatewatch: %s was removed or replaced while it was open; points go to the file of that name from now "
                "on, and what was stored before is not there: leave the file where it is while runs are recorded",
                self.path,
            )
        if self._connection is None:
            at_rest = is_at_rest(self.path)
            self._connection = open_file(self.path)
            self._file = None if at_rest else _file_id(self.path)
        return self._connection

    def _disconnect(self) -> None:
        self._forget()
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def _forget(self) -> None:
        for cache in (self._types, self._shapes, self._counted):
            cache.clear()


def _file_id(path: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        status = path.stat()
        return status.st_dev, status.st_ino
    return None


def _series_id(connection: sqlite3.Connection, point: Point) -> int:
    tags = {name: value for name, value in point.tags.items() if value}
    series = (point.measurement, json.dumps(tags, ensure_ascii=False, sort_keys=True))
    insert = "INSERT INTO series (measurement, tags, run) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
    connection.execute(insert, (*series, tags.get("run", "")))
    row = connection.execute("SELECT id FROM series WHERE measurement = ? AND tags = ?", series).fetchone()
    if row is None:
        raise sqlite3.DatabaseError("a series is not there that was written")
    return int(row[0])


def _type_of(value: FieldValue) -> type:
    return next(kind for kind in sqlite_read.TYPES.values() if isinstance(value, kind))


_stores: weakref.WeakSet[SqliteStore] = weakref.WeakSet()
_held: list[SqliteStore] = []
_left_open: list[object] = []


def _before_fork() -> None:
    for store in list(_stores):
        if store._lock.acquire(timeout=FORK_WAIT_S):
            store._disconnect()
            _held.append(store)


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop()._lock.release()


def _after_fork_in_child() -> None:
    for store in set(_stores) - set(_held):  # another thread of the parent is writing
        _left_open.append(store._connection)  # to close it here would be to touch what is the parent's
        store._connection = None
        store._lock = threading.Lock()
        store._disconnect()
    _after_fork_in_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)

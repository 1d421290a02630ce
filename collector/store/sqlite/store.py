"""Points in one SQLite file: the store that needs no server."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import weakref
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import orjson

from gatewatch.collector.errors import ConfigError, WriteRejected, WriteUnavailable
from gatewatch.collector.line_protocol import encode, parse, split_lines
from gatewatch.collector.schema import FieldValue, Point, point_problem
from gatewatch.collector.store.frame import Block, frame
from gatewatch.collector.store.protocol import Tally
from gatewatch.collector.store.runs import runs_frame
from gatewatch.collector.store.series_shapes import Shapes
from gatewatch.collector.store.sqlite import read as sqlite_read
from gatewatch.collector.store.sqlite.file import VERSION, is_at_rest, open_file
from gatewatch.collector.store.sqlite.history import SqliteHistory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pandas as pd

    from gatewatch.collector.times import Time

FORK_WAIT_S: Final = 0.2
"""How long a fork waits for a write that another thread is at."""
_UPSERT: Final = (
    "INSERT INTO points VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET fields = json_patch(fields, excluded.fields)"
)


class SqliteStore:
    """A store in one file, for any number of threads and processes of one machine.

    The file is made by the first write or check. Before a fork the connection is closed and opened again as needed:
    SQLite's must not cross one.

    Args:
        path: the file; a relative one lies in the folder that is current now, wherever the process goes later.
    """

    influxdb: Final = None
    """See `Store.influxdb`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self._url = f"sqlite:///{Path(path)}"
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._at_rest = False
        self._series: dict[tuple[str, str], int] = {}
        self._types: dict[tuple[str, str], str] = {}
        self._shapes = Shapes()
        self._counted: dict[tuple[str, str], sqlite_read.Counted] = {}
        _stores.add(self)

    def __repr__(self) -> str:
        return f"SqliteStore({str(self.path)!r})"

    @property
    def url(self) -> str:
        """The address."""
        return self._url

    @property
    def destination(self) -> Mapping[str, str]:
        """See `Store.destination`."""
        return {"url": f"sqlite:///{self.path}"}

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
        points: list[Point] = []
        sound: list[bytes] = []
        refused: list[tuple[bytes, str]] = []
        for line in split_lines(lines):
            try:
                points.append(parse(line))
            except ValueError as error:
                refused.append((line, f"the line cannot be parsed: {error}"))
            else:
                sound.append(line)
        refused += [(sound[i], why) for i, why in self._store(points)]
        if refused:
            raise WriteRejected(list(dict.fromkeys(why for _, why in refused)), len(refused), refused)

    def read(
        self,
        measurement: str,
        *,
        run: str | None = None,
        start: Time | None = None,
        stop: Time | None = None,
        tags: Mapping[str, str] | None = None,
        fields: Sequence[str] | None = None,
        prefix_tags: bool = False,
    ) -> pd.DataFrame:
        """See `Store.read`."""
        times = sqlite_read.span(start, stop)
        blocks: list[Block] = []
        types: dict[str, type] = {}
        with self._reading() as connection:
            if connection:
                types = sqlite_read.field_types(connection, measurement)
                series = sqlite_read.series(connection, measurement, run, tags)
                blocks = list(sqlite_read.blocks(connection, series, times, types, fields))
        return frame(blocks, types, prefix_tags)

    def count(
        self,
        measurement: str,
        field: str,
        *,
        run: str | None = None,
        start: Time | None = None,
        stop: Time | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> int:
        """See `Store.count`."""
        times = sqlite_read.span(start, stop)
        with self._reading() as connection:
            if connection is None:
                return 0
            return sqlite_read.count(connection, sqlite_read.series(connection, measurement, run, tags), times, field)

    def tallies(self, measurement: str, field: str) -> dict[str, tuple[int, int]]:
        """See `Store.tallies`. What was counted once is counted again where it was written since, in this store."""
        with self._reading() as connection:
            if connection is None:
                return {}
            counted = self._counted.setdefault((measurement, field), {})
            return sqlite_read.tallies(connection, measurement, field, counted)

    def series(self, measurement: str, field: str, run: str) -> list[Tally]:
        """See `Store.series`."""
        with self._reading() as connection:
            if connection is None:
                return []
            counted = self._counted.setdefault((measurement, field), {})
            return sqlite_read.series_tallies(connection, measurement, field, run, counted)

    def runs(self) -> pd.DataFrame:
        """See `Store.runs`."""
        with self._reading() as connection:
            events = sqlite_read.run_events(connection) if connection else ([], [])
        return runs_frame(*events)

    def history(self) -> SqliteHistory:
        """See `Store.history`."""
        return SqliteHistory(self.path, lambda: self._errors(WriteUnavailable))

    def close(self) -> None:
        """See `Store.close`."""
        with self._lock:
            self._disconnect()

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
                series_id = self._series_of(connection, point)
                self._shapes.keep(point, series_id)
            yield series_id, point.time, _fields_text(point.fields)

    def _series_of(self, connection: sqlite3.Connection, point: Point) -> int:
        tags = json.dumps({name: value for name, value in sorted(point.tags.items()) if value}, ensure_ascii=False)
        series = (point.measurement, tags)
        if series not in self._series:
            self._series[series] = _series_id(connection, point.measurement, point.tags.get("run", ""), tags)
        return self._series[series]

    def _type_problem(self, connection: sqlite3.Connection, point: Point) -> str | None:
        new = []
        for name, value in point.fields.items():
            key = (point.measurement, name)
            kind = _type_name(value)
            if key not in self._types:
                row = connection.execute("SELECT type FROM fields WHERE measurement = ? AND name = ?", key).fetchone()
                if row is None:
                    new.append((*key, kind))
                    continue
                self._types[key] = row[0]
            if self._types[key] != kind:
                return f"{point.measurement}: field {name!r} is of type {kind}, already exists as {self._types[key]}"
        for measurement, name, kind in new:
            connection.execute("INSERT INTO fields VALUES (?, ?, ?)", (measurement, name, kind))
            self._types[measurement, name] = kind
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
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        with self._lock, self._errors(WriteUnavailable):
            if not self.path.exists():  # nothing was written yet: reading leaves no file behind
                yield None
            else:
                with self._transaction("DEFERRED") as connection:
                    yield connection

    @contextmanager
    def _errors(self, otherwise: type[ConfigError] | type[WriteUnavailable]) -> Iterator[None]:
        """Turn errors of SQLite into those of a store: transient ones are worth a retry, others are `otherwise`."""
        try:
            yield
        except sqlite3.OperationalError as error:
            passing = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL)
            text = f"{self.path}: {error}; see that the folder exists, is writable and has room"
            if passing or otherwise is WriteUnavailable:
                raise WriteUnavailable(text, slow=not passing) from None
            raise ConfigError(text) from None
        except sqlite3.DatabaseError as error:
            self._disconnect()
            raise ConfigError(
                f"{self.path}: not a sound SQLite file ({error}); move it away or choose another"
            ) from None

    def _connect(self) -> sqlite3.Connection:
        if self._connection is not None and (self._at_rest or _file_id(self.path) != self._file):
            self._disconnect()  # the file was removed or replaced: what is written to the old one nobody reads
        if self._connection is None:
            self._at_rest = is_at_rest(self.path)
            self._connection = open_file(self.path, at_rest=self._at_rest)
            sqlite_read.define_functions(self._connection)
            self._file = _file_id(self.path)
        return self._connection

    def _disconnect(self) -> None:
        self._forget()
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def _forget(self) -> None:
        for known in (self._series, self._types, self._shapes, self._counted):
            known.clear()


def _file_id(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _series_id(connection: sqlite3.Connection, measurement: str, run: str, tags: str) -> int:
    connection.execute(
        "INSERT INTO series (measurement, run, tags) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (measurement, run, tags)
    )
    row = connection.execute("SELECT id FROM series WHERE measurement = ? AND tags = ?", (measurement, tags)).fetchone()
    return int(row[0])


def _type_name(value: FieldValue) -> str:
    return next(name for name in ("bool", "int", "float", "str") if isinstance(value, sqlite_read.TYPES[name]))


def _fields_text(fields: Mapping[str, FieldValue]) -> str:
    try:
        return orjson.dumps(fields).decode()
    except TypeError:  # a subclass of float, such as numpy's
        return orjson.dumps({name: float(v) if isinstance(v, float) else v for name, v in fields.items()}).decode()


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

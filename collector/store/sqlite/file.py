"""The file of a SQLite store: how it is laid out, made and recognised."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import orjson

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.store.sqlite.journal import (
    BUSY_TIMEOUT_S,
    choose_journal,
    is_at_rest,
    lacks_its_shm,
    lacks_shared_memory,
    leave_wal,
)

if TYPE_CHECKING:
    from pathlib import Path

APPLICATION_ID: Final = 0x47617465  # "Gate"
VERSION: Final = 1

_TABLES: Final = """
CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    measurement TEXT NOT NULL,
    run TEXT NOT NULL,
    tags TEXT NOT NULL,  -- a JSON object, sorted by name
    written INTEGER NOT NULL DEFAULT 0,  -- how often one of its points was
    UNIQUE (measurement, tags)
);
CREATE INDEX series_of_run ON series (measurement, run);
CREATE TABLE points (
    series_id INTEGER NOT NULL REFERENCES series,
    time INTEGER NOT NULL,  -- nanoseconds since the Unix epoch
    fields TEXT NOT NULL,  -- a JSON object
    PRIMARY KEY (series_id, time)
) WITHOUT ROWID;
CREATE TABLE fields (
    measurement TEXT NOT NULL,
    name TEXT NOT NULL,
    type TEXT NOT NULL,  -- float, int, bool or str: that of the first value
    PRIMARY KEY (measurement, name)
) WITHOUT ROWID;
"""
_TRIGGERS: Final = tuple(
    f"CREATE TRIGGER {name} AFTER {event} ON points BEGIN"  # noqa: S608 - constants
    f" UPDATE series SET written = written + 1 WHERE id = {row}.series_id; END"
    for name, event, row in (("added", "INSERT", "new"), ("changed", "UPDATE", "new"), ("removed", "DELETE", "old"))
)
HAS_COUNTER: Final = "SELECT 1 FROM pragma_table_info('series') WHERE name = 'written'"
_COUNTER: Final = "ALTER TABLE series ADD COLUMN written INTEGER NOT NULL DEFAULT 0"
"""What files made by an early version lack."""


def open_file(path: Path) -> sqlite3.Connection:
    """Return a connection to the store's file, which is made where there is none. Transactions are begun by hand.

    A file at rest is opened for reading alone, and must not change meanwhile.

    Args:
        path: the file, from the root.

    Raises:
        ConfigError: there is a folder in its place, no folder for it, another program's or a newer file, or this
            SQLite is too old.
        sqlite3.Error: it cannot be opened, is locked, or is no SQLite file.
    """
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; name a file in it, such as {path / 'gatewatch.db'}")
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path}: is a device or a pipe; name a file")
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: the folder {path.parent} does not exist; create it")
    if lacks_its_shm(path):
        raise ConfigError(
            f"{path}: beside it lies {path.name}-wal, which holds its newest points, and SQLite can read that only"
            f" where it may write {path.name}-shm; copy both files into a folder of your own,"
            f" or make {path.parent} writable"
        )
    if lacking := _lacking():
        raise ConfigError(
            f"{path}: the SQLite {sqlite3.sqlite_version} of this Python has no {lacking};"
            " use a Python whose SQLite is 3.24 or newer and has them, or an InfluxDB"
        )
    try:
        return _open(path)
    except sqlite3.OperationalError as error:
        if not lacks_shared_memory(error):
            raise
    with closing(_connect(path.as_uri())) as connection:
        leave_wal(connection, path)
    return _open(path, may_have_wal=False)


def _open(path: Path, *, may_have_wal: bool = True) -> sqlite3.Connection:
    at_rest = is_at_rest(path)
    connection = _connect(f"{path.as_uri()}?immutable={int(at_rest)}")
    try:
        _prepare(connection, path, at_rest, may_have_wal)
    except BaseException:
        connection.close()
        raise
    return connection


@cache
def _lacking() -> str | None:
    """Return what the store needs and this SQLite has not: upserts came with 3.24, JSON was optional before 3.38."""
    if sqlite3.sqlite_version_info < (3, 24):
        return "upserts"
    try:
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.execute("SELECT json_patch('{}', '{}')")
    except sqlite3.OperationalError:
        return "JSON functions"
    return None


def open_empty() -> sqlite3.Connection:
    """Return a connection to a store without points, in memory: what is read where there is no file yet."""
    connection = _connect("file::memory:")
    _create_tables(connection)
    return connection


def _connect(address: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        address, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    connection.create_function("has", 2, _has, deterministic=True)
    connection.create_function("number", 2, _number, deterministic=True)
    return connection


def _has(text: str, field: str) -> bool:
    """Return whether a point has a field, by the text of its JSON object, mostly without parsing it."""
    name = f'"{field}":'
    if '"' in field or "\\" in field or field.startswith((",", ":", "}")):  # text that may also be elsewhere
        return field in orjson.loads(text)
    return f",{name}" in text or text.startswith(f"{{{name}")


def _number(text: str, field: str) -> float | None:
    """Return a field of a point, by the text of its JSON object; None where it has none."""
    value: float | None = orjson.loads(text).get(field)
    return value


def _create_tables(connection: sqlite3.Connection) -> None:
    for statement in (*_TABLES.split(";\n"), *_TRIGGERS):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def _prepare(connection: sqlite3.Connection, path: Path, at_rest: bool, may_have_wal: bool) -> None:
    def value(query: str) -> Any:
        return next(connection.execute(query), (None,))[0]

    def is_new() -> bool:
        return not (value("SELECT count(*) FROM sqlite_master") or value("PRAGMA application_id"))

    if may_have_wal and not at_rest:
        choose_journal(connection, path, is_new=is_new())
    if is_new():
        connection.execute("BEGIN IMMEDIATE")
        if is_new():  # another process may have been first
            _create_tables(connection)
        connection.execute("COMMIT")
    if value("PRAGMA application_id") != APPLICATION_ID:
        raise ConfigError(f"{path}: a SQLite file of another program; choose another file")
    if (version := value("PRAGMA user_version")) > VERSION:
        raise ConfigError(
            f"{path}: written by a newer Gatewatch (format {version}, this one reads {VERSION}); upgrade it"
        )
    if not value(HAS_COUNTER) and os.access(path, os.W_OK) and not at_rest:
        connection.execute("BEGIN IMMEDIATE")
        if not value(HAS_COUNTER):
            for statement in (_COUNTER, *_TRIGGERS):
                connection.execute(statement)
        connection.execute("COMMIT")
    if value("PRAGMA journal_mode") == "wal":
        # It keeps a database whole after a crash even so; only what came last may be lost with the power.
        connection.execute("PRAGMA synchronous = NORMAL")

"""The journal of a SQLite file: a WAL, whose readers and writers do not wait for each other, or a rollback journal.

A WAL needs memory that all processes share, in a file beside it. Network file systems have none between machines, and
some refuse it on one machine too. There the rollback journal is used, which needs file locks alone.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Final

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.file_locks import NoFileLocksError, check_record_locks, file_system, is_shared
from gatewatch.collector.log import log

if TYPE_CHECKING:
    from pathlib import Path

BUSY_TIMEOUT_S: Final = 10.0
_NO_SHARED_MEMORY: Final = (
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMMAP,
    sqlite3.SQLITE_IOERR_SHMLOCK,
)


def is_at_rest(path: Path) -> bool:
    """Return whether nobody writes the file and this process cannot: another user's, in a folder that may only be read.

    SQLite cannot read it unless it is told that it does not change: WAL wants to make files beside it.
    """
    wal, shm = _neighbours(path)
    in_use = (wal.exists() and (shm.exists() or wal.stat().st_size > 0)) or _beside(path, "journal").exists()
    return path.is_file() and not os.access(path.parent, os.W_OK) and not in_use and not _can_be_opened(path)


def lacks_its_shm(path: Path) -> bool:
    """Return whether a file has a WAL that cannot be read, as in a folder that may only be read and nobody uses."""
    wal, shm = _neighbours(path)
    with suppress(OSError):
        return wal.stat().st_size > 0 and not shm.exists() and not os.access(path.parent, os.W_OK)
    return False


def lacks_shared_memory(error: sqlite3.Error) -> bool:
    """Return whether the system refused the memory that the users of a WAL share."""
    return getattr(error, "sqlite_errorcode", None) in _NO_SHARED_MEMORY


def choose_journal(connection: sqlite3.Connection, path: Path, *, is_new: bool) -> None:
    """Let a new file have a WAL, and a file that other machines may see have none.

    Raises:
        sqlite3.OperationalError: see `lacks_shared_memory`; or the file is locked.
    """
    if not is_shared(path):
        if is_new:
            _set_journal(connection, "WAL")
    elif connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
        with suppress(sqlite3.OperationalError):  # this process may only read it, or others use it now
            connection.execute("PRAGMA journal_mode = DELETE").fetchone()
    elif is_new:
        _warn(path)


def leave_wal(connection: sqlite3.Connection, path: Path) -> None:
    """Switch a file to the rollback journal where there is no shared memory for its WAL; what is in that is kept.

    Args:
        connection: to the file, not used yet.
        path: of the file.

    Raises:
        ConfigError: others use the file, or it cannot be written.
    """
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchone()  # so that no memory need be shared
        _set_journal(connection, "DELETE")
    except sqlite3.OperationalError as error:
        raise ConfigError(
            f"{path}: it has a WAL, for which its file system{_name(path)} has no shared memory, and cannot be switched"
            f" to a rollback journal now ({error}); end those who use it, or copy it to a local disk with its -wal"
        ) from None
    _warn(path)


def check_locks(path: Path) -> None:
    """Check that a file that seems to be locked by others is on a file system that has the locks of SQLite.

    Raises:
        ConfigError: it has none: then SQLite takes each file for locked.
    """
    try:
        check_record_locks(path.parent)
    except NoFileLocksError as error:
        raise ConfigError(
            f"{path}: {error.strerror}, which SQLite needs; choose a file on a local disk, or an InfluxDB"
        ) from None
    except OSError:  # no file can be made here, which shows nothing
        pass


def _set_journal(connection: sqlite3.Connection, mode: str) -> None:
    """Switch the journal, with retries: SQLite does not wait for others here, whatever its busy timeout."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute(f"PRAGMA journal_mode = {mode}").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _warn(path: Path) -> None:
    text = "gatewatch: %s: its file system%s has no memory that all its users share, so SQLite uses a rollback journal"
    log.warning(f"{text}: readers and writers wait for each other", path, _name(path))


def _name(path: Path) -> str:
    kind = file_system(path)
    return "" if kind is None else f" ({kind})"


def _can_be_opened(path: Path) -> bool:
    """Return whether SQLite can open the file as it is, which one with a rollback journal allows."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF not in (
            sqlite3.SQLITE_CANTOPEN,
            sqlite3.SQLITE_READONLY,
        )
    return True


def _neighbours(path: Path) -> tuple[Path, Path]:
    """Return SQLite's files beside it: the WAL, and the memory that its readers and writers share."""
    return _beside(path, "wal"), _beside(path, "shm")


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f"{path.name}-{kind}")

"""A SQLite store on file systems without shared memory for its WAL: real processes whose system refuses it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from gatewatch.collector.errors import ConfigError, WriteUnavailable
from gatewatch.collector.schema import Point
from gatewatch.collector.store.sqlite import journal
from gatewatch.collector.store.sqlite.store import SqliteStore
from tests.shims import shim
from tests.users import as_another_user

COUNT = 200
WRITE = f"""
import sys
from gatewatch.collector.schema import Point
from gatewatch.collector.store import open_store

store = open_store(sys.argv[1])
for number in range({COUNT}):
    store.write([Point("m", {{"run": sys.argv[2]}}, {{"f": float(number)}}, number)])
store.close()
"""
READ = """
import sys
from contextlib import closing
from gatewatch.collector.store import open_store

store = open_store(sys.argv[1])
with closing(store.history()) as history:
    print(len(store.read("m")), history.measurements())
"""
WARNED = (
    "gatewatch: {path}: its file system ({kind}) has no memory that all its users share, so SQLite uses a rollback"
    " journal: readers and writers wait for each other\n"
)


def points(count=3):
    return [Point("m", {}, {"f": float(i)}, i) for i in range(count)]


def start(code, path, *arguments, shimmed="mmap"):
    """Python code in a process whose system refuses shared memory, or record locks (`fcntl`)."""
    command = [sys.executable, "-c", code, f"sqlite:///{path}", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=os.environ | shim(shimmed), **pipes)


def ended(process):
    out, error = process.communicate(timeout=120)
    return process.returncode, out, error


def warned(path):
    return WARNED.format(path=path, kind=journal.file_system(path))


def mode(path):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA journal_mode").fetchone()[0]


def test_without_shared_memory_several_processes_write_and_read_one_file(tmp_path):
    path = tmp_path / "g.db"
    writers = [start(WRITE, path, run) for run in ("a", "b")]
    for writer in writers:
        code, _, error = ended(writer)
        assert code == 0, error
        assert error in ("", warned(path))  # the first that opens it
    assert mode(path) == "delete"
    assert ended(start(READ, path)) == (0, f"{2 * COUNT} ['m']\n", "")
    assert len(SqliteStore(path).read("m")) == 2 * COUNT


@pytest.mark.parametrize("killed", [False, True])
def test_a_file_with_a_wal_that_is_brought_there_keeps_what_its_wal_holds(tmp_path, killed):
    store = SqliteStore(tmp_path / "g.db")
    store.write(points())
    if killed:  # its -wal is still there
        (tmp_path / "there").mkdir()
        for suffix in ("", "-wal"):
            shutil.copy(f"{store.path}{suffix}", tmp_path / "there")
    store.close()
    path = tmp_path / "there/g.db" if killed else store.path
    assert mode(path) == "wal"
    assert ended(start(READ, path)) == (0, "3 ['m']\n", warned(path))
    assert ended(start(READ, path)) == (0, "3 ['m']\n", "")


def test_a_file_that_others_use_with_its_wal_is_named_with_its_file_system(tmp_path):
    store = SqliteStore(tmp_path / "g.db")
    store.write(points())
    code, out, error = ended(start(READ.replace("import sys", "import sys\n" + SOON), store.path))
    assert (code, out) == (1, "")
    kind = journal.file_system(tmp_path)
    assert f"Error: {store.path}: it has a WAL, for which its file system ({kind}) has no shared memory" in error
    assert error.endswith("end those who use it, or copy it to a local disk with its -wal\n")
    assert len(store.read("m")) == 3
    store.close()


SOON = "import gatewatch.collector.store.sqlite.journal as journal; journal.BUSY_TIMEOUT_S = 0.1"


@pytest.mark.parametrize("exists", [False, True])
def test_a_file_system_without_the_locks_that_sqlite_needs_is_named(tmp_path, exists):
    path = tmp_path / "g.db"
    if exists:
        store = SqliteStore(path)
        store.write(points())
        store.close()
    read = READ.replace(
        "import sys",
        "import gatewatch.collector.store.sqlite.file as file; file.BUSY_TIMEOUT_S = 0.1\n" + SOON + "\nimport sys",
    )
    code, out, error = ended(
        start(read.replace("store =", "open_store(sys.argv[1]).check(); store ="), path, shimmed="fcntl")
    )
    assert (code, out) == (1, "")
    kind = journal.file_system(tmp_path)
    assert error.splitlines()[-1].endswith(
        f"ConfigError: {path}: its file system ({kind}) has no file locks: No locks available, which SQLite needs;"
        " choose a file on a local disk, or an InfluxDB"
    )


def test_what_other_machines_may_see_has_no_wal(tmp_path, monkeypatch, caplog):
    local = SqliteStore(tmp_path / "local.db")
    local.write(points())
    local.close()
    monkeypatch.setattr(journal, "is_shared", lambda path: True)
    for name in ("local.db", "new.db"):
        store = SqliteStore(tmp_path / name)
        store.write(points(5))
        assert mode(store.path) == "delete"
        assert len(store.read("m")) == 5
        store.close()
    (line,) = (record.getMessage() for record in caplog.records)
    assert f"{line}\n" == warned(tmp_path / "new.db")


def test_a_rollback_journal_in_a_folder_that_may_only_be_read(monkeypatch):
    """It is read beside a writer; what a writer that was killed left half done is not taken for whole."""
    monkeypatch.setattr(journal, "is_shared", lambda path: True)
    with tempfile.TemporaryDirectory() as name:
        store = SqliteStore(Path(name) / "g.db")
        store.write(points())

        def expect(count):
            def work():
                assert len(SqliteStore(store.path).read("m")) == count

            return work

        with read_only(store.path):
            assert as_another_user(expect(3)) == 0
        store.write(points(5))
        connection = store._connection
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("PRAGMA cache_spill = 1")
        copy = Path(name) / "copy"
        copy.mkdir()
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("UPDATE points SET fields = ? WHERE time = ?", [("x" * 5000, i) for i in range(5)])
        for suffix in ("", "-journal"):
            shutil.copy(f"{store.path}{suffix}", copy)
        connection.execute("ROLLBACK")

        def refuse():
            with pytest.raises((ConfigError, WriteUnavailable)) as caught:
                SqliteStore(copy / "g.db").read("m")
            assert "\n" not in str(caught.value)
            assert str(copy / "g.db") in str(caught.value)

        with read_only(copy / "g.db"):
            assert as_another_user(refuse) == 0
        assert len(SqliteStore(copy / "g.db").read("m")) == 5


class read_only:  # noqa: N801 - a context manager
    """A folder that another user may only read."""

    def __init__(self, path):
        self._folder = path.parent

    def __enter__(self):
        for path in (*self._folder.glob("*.db*"), self._folder):
            path.chmod(0o555)

    def __exit__(self, *error):
        for path in (self._folder, *self._folder.glob("*.db*")):
            path.chmod(0o755)

"""What is SQLite's own: the file, its neighbours, crashes and forks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from collector.errors import ConfigError, WriteUnavailable
from collector.schema import Point
from collector.store import sqlite_file
from collector.store.sqlite import SqliteStore


def points(count: int, worker: int = 0, start: int = 0) -> list[Point]:
    return [Point("m", {"w": str(worker)}, {"f": float(i)}, i) for i in range(start, start + count)]


def _text(path: Path) -> None:
    path.write_text("this is no database, though it is long enough to be looked at as one\n" * 200)


def _foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()


def _newer(path: Path) -> None:
    SqliteStore(path).write(points(1))
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def _truncated(path: Path) -> None:
    store = SqliteStore(path)
    store.write(points(5000))
    store.close()
    os.truncate(path, 3000)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_text, "not a sound SQLite file"),
        (_foreign, "another program"),
        (_newer, "newer Gatewatch"),
        (_truncated, "not a sound SQLite file"),
        (Path.mkdir, "is a folder"),
    ],
)
def test_a_file_that_is_no_store_is_refused_and_left_as_it_is(tmp_path: Path, spoil: object, reason: str) -> None:
    path = tmp_path / "points.db"
    spoil(path)  # type: ignore[operator]  # one of the functions above
    before = path.read_bytes() if path.is_file() else None
    store = SqliteStore(path)
    with pytest.raises(ConfigError, match=reason) as caught:
        store.check()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=reason):
        store.read("m")
    with pytest.raises(WriteUnavailable, match=reason):  # the points stay in the spool until it is mended
        store.write(points(1))
    assert (path.read_bytes() if path.is_file() else None) == before


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the folder .*absent does not exist"):
        SqliteStore(tmp_path / "absent" / "points.db").check()


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"the folder .*file does not exist"):
        SqliteStore(tmp_path / "file" / "points.db").check()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, where not even root can make a file")
def test_an_unwritable_folder_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="unable to open database file"):
        SqliteStore("/proc/points.db").check()


def test_reading_leaves_no_file(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "points.db")
    assert store.read("m").empty
    assert store.runs().empty
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / "points.db").touch()
    store = SqliteStore(tmp_path / "points.db")
    store.write(points(1))
    assert len(store.read("m")) == 1


def test_a_locked_file_asks_for_another_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT_S", 0.05)
    store = SqliteStore(tmp_path / "points.db")
    store.write(points(1))
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(WriteUnavailable, match="locked"):
        store.write(points(5))
    with pytest.raises(WriteUnavailable, match="locked"):
        store.check()
    assert len(store.read("m")) == 1  # a writer never blocks a reader
    other.execute("ROLLBACK")
    store.write(points(5))
    assert len(store.read("m")) == 5
    other.close()


def test_a_full_disk_asks_for_another_try_and_stores_nothing_by_halves(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "points.db")
    store.write(points(1))
    assert store._connection is not None
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(WriteUnavailable, match="full"):
        store.write([Point("new", {"tag": "x"}, {"field": float(i)}, i) for i in range(20_000)])
    store.close()
    assert store.read("new").empty
    store.write([Point("new", {"tag": "x"}, {"field": 1}, 1)])  # nor is a type remembered that was never stored
    assert store.read("new")["field"].tolist() == [1]


def test_threads_share_a_store(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "points.db")
    threads = [
        threading.Thread(target=lambda w=w: [store.write(points(50, w, i * 50)) for i in range(5)]) for w in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(store.read("m")) == 6 * 250


def test_many_processes_may_be_the_first(tmp_path: Path) -> None:
    path = tmp_path / "points.db"
    code = (
        "import sys; from collector.schema import Point; from collector.store.sqlite import SqliteStore\n"
        "sys.stdin.read(1)\n"
        "SqliteStore(sys.argv[1]).write([Point('m', {'w': sys.argv[2]}, {'f': 1.0}, 1)])"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, path, str(i)], stdin=subprocess.PIPE) for i in range(8)]
    for process in started:
        assert process.stdin is not None
        process.stdin.close()
    assert [process.wait(60) for process in started] == [0] * 8
    assert len(SqliteStore(path).read("m")) == 8


def test_a_file_that_is_removed_in_mid_run_is_made_anew(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "points.db")
    store.write([Point("m", {}, {"f": 1.0}, 1)])
    for path in tmp_path.iterdir():
        path.unlink()
    store.write([Point("m", {}, {"f": 2.0}, 2)])
    assert SqliteStore(tmp_path / "points.db").read("m")["f"].tolist() == [2.0]


def test_a_killed_writer_leaves_whole_batches(tmp_path: Path) -> None:
    path = tmp_path / "points.db"
    code = (
        "import sys; from collector.schema import Point; from collector.store.sqlite import SqliteStore\n"
        "store = SqliteStore(sys.argv[1])\n"
        "for n in range(10**6):\n"
        "    store.write([Point('m', {}, {'f': 1.0}, n * 500 + i) for i in range(500)]); print(n, flush=True)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(5):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    told = 5 + len(process.stdout.read().split())
    process.wait()
    process.stdout.close()
    store = SqliteStore(path)
    assert len(store.read("m")) % 500 == 0
    assert len(store.read("m")) >= told * 500
    store.write(points(1, worker=1))
    store.check()
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_fork_in_mid_write_harms_neither_side(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "points.db")
    stop = threading.Event()
    written = []

    def keep_writing() -> None:
        while not stop.is_set():
            store.write(points(100, 0, len(written) * 100))
            written.append(1)

    thread = threading.Thread(target=keep_writing)
    thread.start()
    context = multiprocessing.get_context("fork")
    for worker in range(1, 6):
        child = context.Process(target=store.write, args=(points(100, worker),))
        child.start()
        child.join(30)
        assert child.exitcode == 0
    stop.set()
    thread.join(60)
    assert len(store.read("m")) == len(written) * 100 + 500
    assert sqlite3.connect(store.path).execute("PRAGMA integrity_check").fetchone() == ("ok",)

"""What is SQLite's own: the file, its neighbours, crashes and forks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from gatewatch.collector.errors import ConfigError, WriteUnavailable
from gatewatch.collector.line_protocol import encode
from gatewatch.collector.schema import Point
from gatewatch.collector.store import open_store, reopen_store, series_shapes
from gatewatch.collector.store.sqlite import file as sqlite_file
from gatewatch.collector.store.sqlite.store import SqliteStore
from tests.users import as_another_user


def points(count: int, worker: int = 0, start: int = 0) -> list[Point]:
    return [Point("m", {"w": str(worker)}, {"f": float(i)}, i) for i in range(start, start + count)]


def _text(path: Path) -> None:
    path.write_text("this is no database, though it is long enough to be looked at as one\n" * 200)


def _foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()


def _newer(path: Path) -> None:
    store = SqliteStore(path)
    store.write(points(1))
    store.close()  # which writes all of it into the file
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
    with pytest.raises(WriteUnavailable, match=reason) as unavailable:  # the points wait until it is mended
        store.write_lines(encode(points(1)))
    assert unavailable.value.slow
    assert (path.read_bytes() if path.is_file() else None) == before


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the folder .*absent does not exist"):
        SqliteStore(tmp_path / "absent" / "points.db").check()
    with pytest.raises(WriteUnavailable, match=r"the folder .*absent does not exist") as caught:
        SqliteStore(tmp_path / "absent" / "points.db").write(points(1))
    assert caught.value.slow


def test_a_relative_path_stays_where_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("sqlite:///runs of a%20.db")
    assert store.url == "sqlite:///runs of a%20.db"
    assert store.destination == {"url": f"sqlite:///{tmp_path}/runs of a%20.db"}
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    store.write(points(1))
    assert (tmp_path / "runs of a%20.db").exists()
    assert len(reopen_store(store.destination).read("m")) == 1


@pytest.mark.parametrize("name", ["a?b#c.db", "?immutable=1", "é 🙂.db", "%00.db", "file:x"])
def test_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    store = open_store(f"sqlite:///{tmp_path}/{name}")
    store.write(points(1))
    assert (tmp_path / name).exists()
    assert len(reopen_store(store.destination).read("m")) == 1


@pytest.mark.parametrize(
    "rubbish",
    [
        {},
        {"url": ""},
        {"url": "sqlite:///relative.db"},
        {"url": "sqlite:///"},
        {"url": 7},
        {"url": "http://host:8086"},
        {"url": "http://host:8086", "org": "o"},
        {"url": "http://host:8086", "org": "", "bucket": "b"},
        {"url": "http://host:8086", "org": "o", "bucket": 3},
        {"url": "http://user:s3cret@host:8086", "org": "o", "bucket": "b"},
        {"url": "ftp://host", "org": "o", "bucket": "b"},
        {"url": "http://[", "org": "o", "bucket": "b"},
        ["sqlite:////a.db"],
    ],
)
def test_what_is_no_destination_opens_nothing(rubbish: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ORG", "BUCKET", "TOKEN"):
        monkeypatch.setenv(f"INFLUXDB_V2_{name}", "set")
    with pytest.raises(ConfigError, match="the destination") as caught:
        reopen_store(rubbish)
    assert "s3cret" not in str(caught.value)


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"the folder .*file does not exist"):
        SqliteStore(tmp_path / "file" / "points.db").check()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, where not even root can make a file")
def test_an_unwritable_folder_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="unable to open database file"):
        SqliteStore("/proc/points.db").check()
    with pytest.raises(WriteUnavailable, match="unable to open database file") as caught:
        SqliteStore("/proc/points.db").write(points(1))
    assert caught.value.slow


def test_the_file_of_another_user_may_be_read() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folder is closed to others
        folder = Path(name)
        writer = SqliteStore(folder / "points.db")
        writer.write(points(3))
        (folder / "points.db").chmod(0o444)  # the test's own user must not be able to write either
        folder.chmod(0o555)
        reader = SqliteStore(folder / "points.db")

        def expect(count: int) -> Callable[[], None]:
            def work() -> None:
                assert len(reader.read("m")) == count
                assert len(reader.read("m")) == count
                with pytest.raises(WriteUnavailable) as caught:
                    reader.write(points(1))
                assert caught.value.slow

            return work

        assert as_another_user(expect(3)) == 0  # beside a writer
        folder.chmod(0o755)
        writer.write(points(2, worker=1))
        writer.close()
        assert [path.name for path in folder.iterdir()] == ["points.db"]
        folder.chmod(0o555)
        assert as_another_user(expect(5)) == 0  # when nobody writes
        folder.chmod(0o755)


def _without_counter(path: Path) -> None:
    """Make the file what an early version made."""
    with sqlite3.connect(path) as connection:
        for trigger in ("added", "changed", "removed"):
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute("ALTER TABLE series DROP COLUMN written")
    connection.close()


def test_an_early_file_is_counted_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "points.db"
    SqliteStore(path).write([Point("m", {"run": "r"}, {"f": 1.0}, i) for i in range(3)])
    _without_counter(path)
    store = SqliteStore(path)
    assert store.tallies("m", "f") == {"r": (3, 2)}
    SqliteStore(path).write([Point("m", {"run": "r"}, {"f": 1.0}, i) for i in range(5)])
    assert store.tallies("m", "f") == {"r": (5, 4)}


def test_an_early_file_of_another_user_is_counted_too() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "points.db"
        SqliteStore(path).write([Point("m", {"run": "r"}, {"f": 1.0}, i) for i in range(3)])
        _without_counter(path)
        early = sqlite3.connect(path)
        early.execute("SELECT * FROM points").fetchall()  # so that SQLite's files beside it stay
        path.chmod(0o444)
        folder.chmod(0o555)
        reader = SqliteStore(path)

        def work() -> None:
            assert reader.tallies("m", "f") == {"r": (3, 2)}
            assert reader.tallies("m", "f") == {"r": (3, 2)}

        assert as_another_user(work) == 0
        folder.chmod(0o755)


def test_points_that_are_deleted_by_hand_are_no_longer_counted(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "points.db")
    store.write([Point("m", {"run": "r"}, {"f": 1.0}, i) for i in range(3)])
    assert store.tallies("m", "f") == {"r": (3, 2)}
    with sqlite3.connect(store.path) as connection:
        connection.execute("DELETE FROM points WHERE time = 2")
    assert store.tallies("m", "f") == {"r": (2, 1)}


def test_a_replaced_file_is_counted_anew(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "points.db")
    store.write([Point("m", {"run": "r"}, {"f": 1.0}, i) for i in range(3)])
    assert store.tallies("m", "f") == {"r": (3, 2)}
    store.close()
    other = SqliteStore(tmp_path / "other.db")
    other.write([Point("m", {"run": "r"}, {"f": 1.0}, i + 7) for i in range(3)])
    other.close()
    (tmp_path / "other.db").replace(store.path)
    assert store.tallies("m", "f") == {"r": (3, 9)}


def test_only_what_was_written_since_is_counted_again(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "points.db")
    store.write([Point("m", {"run": f"r{i % 20}"}, {"f": 1.0}, i) for i in range(400)])
    store.tallies("m", "f")
    asked: list[str] = []
    assert store._connection is not None
    store._connection.set_trace_callback(asked.append)
    store.tallies("m", "f")
    assert not any("FROM points" in statement for statement in asked)
    store.write([Point("m", {"run": "r3"}, {"g": 1.0}, 3), Point("m", {"run": "r4"}, {"f": 1.0}, 999)])
    asked.clear()
    assert store.tallies("m", "f")["r4"] == (21, 999)
    assert sum("FROM points" in statement for statement in asked) == 2


def test_reading_leaves_no_file(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "points.db")
    assert store.find("m").empty
    assert store.runs().empty
    assert store.count("m", "f") == 0
    assert store.tallies("m", "f") == {}
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
    with pytest.raises(WriteUnavailable, match="locked") as caught:
        store.write_lines(encode(points(5)))
    assert not caught.value.slow
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
    with pytest.raises(WriteUnavailable, match="full") as caught:
        store.write([Point("new", {"tag": "x"}, {"field": float(i)}, i) for i in range(20_000)])
    assert not caught.value.slow
    store.close()
    assert store.find("new").empty
    store.write([Point("new", {"tag": "x"}, {"field": 1}, 1)])  # nor is a type remembered that was never stored
    assert store.read("new")["field"].tolist() == [1]


def test_more_kinds_of_points_than_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series_shapes, "_MOST", 4)
    store = SqliteStore(tmp_path / "points.db")
    batch = [Point("m", {"run": f"r{i % 7}"}, {f"f{i % 3}": float(i)}, i) for i in range(100)]
    store.write(batch)
    store.write(batch)
    times = {f"r{run}": [i for i in range(run, 100, 7) if i % 3 == 0] for run in range(7)}
    assert store.tallies("m", "f0") == {run: (len(at), max(at)) for run, at in times.items()}


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
        "import sys; from gatewatch.collector.schema import Point\n"
        "from gatewatch.collector.store.sqlite.store import SqliteStore\n"
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
        "import sys; from gatewatch.collector.schema import Point\n"
        "from gatewatch.collector.store.sqlite.store import SqliteStore\n"
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

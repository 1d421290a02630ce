"""The file of a SQLite store that is copied while it is in use, or lies where it may only be read."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.schema import Point
from gatewatch.collector.store.sqlite.store import SqliteStore
from tests.users import as_another_user

POINTS = [Point("m", {}, {"f": float(i)}, i) for i in range(3)]


def test_a_wal_in_a_folder_that_may_only_be_read_is_named_with_what_to_do() -> None:
    """As on a mount that may only be read: what the WAL holds would be missing without a word."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        killed = multiprocessing.get_context("fork").Process(
            target=lambda: (SqliteStore(folder / "points.db").write(POINTS), os._exit(9))
        )
        killed.start()
        killed.join(30)
        (folder / "points.db-shm").unlink()
        assert sorted(path.name for path in folder.iterdir()) == ["points.db", "points.db-wal"]
        for path in (*folder.iterdir(), folder):
            path.chmod(0o555)

        def work() -> None:
            with pytest.raises(ConfigError) as caught:
                SqliteStore(folder / "points.db").read("m")
            assert str(caught.value) == (
                f"{folder}/points.db: beside it lies points.db-wal, which holds its newest points, and SQLite can read"
                " that only where it may write points.db-shm; copy both files into a folder of your own, or make"
                f" {folder} writable"
            )

        assert as_another_user(work) == 0
        folder.chmod(0o755)
        (folder / "points.db").chmod(0o644)
        assert len(SqliteStore(folder / "points.db").read("m")) == 3


def test_a_file_that_is_copied_after_a_run_has_all_of_it_though_others_hold_it(tmp_path: Path) -> None:
    jobs, run = SqliteStore(tmp_path / "points.db"), SqliteStore(tmp_path / "points.db")
    run.write(POINTS)
    assert len(jobs.read("m")) == 3
    run.close()
    shutil.copy(run.path, tmp_path / "copy.db")
    assert len(SqliteStore(tmp_path / "copy.db").read("m")) == 3
    jobs.close()


def test_vacuum_into_copies_a_file_in_use_whole(tmp_path: Path) -> None:
    """The way that the documents name beside `gatewatch copy`, which a test of its own has."""
    run = SqliteStore(tmp_path / "points.db")
    run.write(POINTS)
    with closing(sqlite3.connect(run.path)) as connection:
        connection.execute("VACUUM INTO ?", (str(tmp_path / "copy.db"),))
    copy = SqliteStore(tmp_path / "copy.db")
    assert len(copy.read("m")) == 3
    copy.write([Point("m", {}, {"f": 1.0}, 9)])
    assert len(copy.read("m")) == 4

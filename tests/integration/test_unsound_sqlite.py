"""SQLite files that hold what no store has written: one line, and nothing of another run changes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gatewatch import open_store
from gatewatch.collector.errors import ConfigError, GatewatchError
from gatewatch.collector.schema import GATE_STATS, RUNS, Point
from gatewatch.collector.store import Store
from gatewatch.collector.store.sqlite.file import APPLICATION_ID

MINE, OTHER = {"run": "mine", "phase": "train"}, {"run": "other", "phase": "train"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    store = open_store(f"sqlite:///{tmp_path / 'points.db'}")
    for tags in (MINE, OTHER):
        store.write([Point(RUNS, tags, {"event": "started", "config": "{}", "step": 0}, 1)])
        store.write([Point(GATE_STATS, tags, {"mean": 0.5, "step": step}, step) for step in range(3)])
    store.close()
    return tmp_path / "points.db"


def execute(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def rows(file: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(file)) as connection:
        points = "SELECT * FROM points JOIN series ON id = series_id WHERE run = 'other' ORDER BY id, time"
        return connection.execute(points).fetchall()


def problems(store: Store) -> set[str]:
    """What reading and writing says, a line each."""
    history = store.history()
    found = set()
    for work in (
        store.runs,
        lambda: store.read(GATE_STATS, run="mine"),
        lambda: store.read(RUNS),
        lambda: store.count(GATE_STATS, "step", run="mine"),
        lambda: store.tallies(GATE_STATS, "step"),
        lambda: [list(history.points(name, run)) for name in history.measurements() for run in history.runs(name)],
        lambda: [history.counts(name, run) for name in history.measurements() for run in history.runs(name)],
        lambda: store.write([Point(GATE_STATS, MINE, {"mean": 0.5, "new": 1.0}, 9)]),
    ):
        try:
            work()
        except GatewatchError as error:
            found.add(str(error))
    history.close()
    store.close()
    assert all(text.isprintable() and len(text) < 1_000 for text in found)
    return found


OF_MINE = "series_id IN (SELECT id FROM series WHERE run = 'mine')"


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE points SET fields = '{{' WHERE {OF_MINE}",
        f"UPDATE points SET fields = '[]' WHERE {OF_MINE}",
        f"UPDATE points SET fields = '{{}}, {{}}' WHERE {OF_MINE}",
        f"UPDATE points SET fields = x'ff' WHERE {OF_MINE}",
        f"UPDATE points SET fields = '{{\"unheard of\": 1}}' WHERE {OF_MINE}",
        f'UPDATE points SET fields = \'{{"mean": [1], "step": "x", "event": 1}}\' WHERE {OF_MINE}',
        f"UPDATE points SET fields = '{{\"step\": 99999999999999999999}}' WHERE {OF_MINE}",
        f"UPDATE points SET time = 'x' WHERE time = 1 AND {OF_MINE}",
        "UPDATE OR IGNORE series SET tags = '{' WHERE run = 'mine'",
        "UPDATE OR IGNORE series SET tags = '[]' WHERE run = 'mine'",
        "UPDATE OR IGNORE series SET tags = '{\"run\": 1}' WHERE run = 'mine'",
        "UPDATE series SET run = x'ff00' WHERE run = 'mine'",
        "UPDATE fields SET type = 'complex'",
        "DELETE FROM fields",
        "DROP TABLE points",
        "DROP TABLE fields",
        "DROP INDEX series_of_run",
    ],
)
def test_what_no_store_has_written_is_one_line_that_names_the_file(file, statement):
    before = rows(file) if "DROP TABLE points" not in statement else None
    execute(file, statement)
    found = problems(open_store(f"sqlite:///{file}"))
    assert {text for text in found if not text.startswith(f"{file}: not a sound SQLite file (")} == set()
    assert found or "DROP INDEX" in statement
    if before is not None:
        assert rows(file) == before


@pytest.mark.parametrize("schema", ["CREATE TABLE series (x)", "CREATE VIEW series AS SELECT 1 AS id, x'ff' AS run"])
def test_a_file_of_another_schema_is_named(tmp_path, schema):
    file = tmp_path / "points.db"
    execute(file, schema, f"PRAGMA application_id = {APPLICATION_ID}", "PRAGMA user_version = 1")
    with pytest.raises(ConfigError, match="not a sound SQLite file"):
        open_store(f"sqlite:///{file}").runs()


def test_text_that_is_not_utf_8_is_named(file):
    execute(file, f"UPDATE points SET fields = CAST(x'ff' AS TEXT) WHERE {OF_MINE}")
    with pytest.raises(ConfigError, match="not a sound SQLite file"):
        open_store(f"sqlite:///{file}").read(GATE_STATS, run="mine")

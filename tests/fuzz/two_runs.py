"""A store with two runs: cases are about the first, and must leave the second alone."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

from gatewatch import open_store
from gatewatch.jobs.scoring.scoring_pass import run_pass
from tests.recorded import end, fill, recorded

MINE = "mine"
OTHER = "other"
FILE = "points.db"
URL = f"sqlite:///{FILE}"
CAPTURES = 36
_ROWS = (
    "SELECT measurement, tags, time, fields FROM points JOIN series ON id = series_id"
    " WHERE run = ? AND measurement != 'alert_events' ORDER BY measurement, tags, time"
)


def write_two_runs(path: Path, state: Path | None = None, *, scored: bool = True) -> None:
    """Write both runs into a new SQLite store, which is closed and is one file afterwards.

    Args:
        path: of the file.
        state: folder of the checkpoints that are left; None: none.
        scored: whether the jobs have seen them.
    """
    store = open_store(f"sqlite:///{path}")
    for number, run in enumerate((MINE, OTHER)):
        fill(store, recorded(CAPTURES, run=run, seed=number, tags={"symbol": "GOOG"}))
    if scored:
        assert all(done.failed is None for done in run_pass(store, state=state, finish=False))
    end(store, OTHER, tags={"symbol": "GOOG"})
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def rows(path: Path, run: str = OTHER) -> str | None:
    """Return a digest of what a file holds of a run, by SQLite alone; None where it is not sound."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            connection.text_factory = bytes
            if connection.execute("PRAGMA quick_check").fetchall() != [(b"ok",)]:
                return None
            return hashlib.sha256(repr(connection.execute(_ROWS, (run,)).fetchall()).encode()).hexdigest()
    except sqlite3.Error:
        return None

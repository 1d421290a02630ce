"""The embedded store on old versions of SQLite: real libraries, loaded by a child Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import lacking

ROOT = Path(__file__).parents[2]

TRAINING = """
import sys, torch
from gatewatch.torch import GateMonitor

module, x = torch.nn.LSTM(3, 4, batch_first=True), torch.zeros(2, 5, 3)
with GateMonitor(module, log_dir=None, run="r", probe=x, every=1, store=sys.argv[1]) as monitor:
    for step in range(3):
        monitor.step(metrics={"loss": 1.0})
print("trained")
"""
READING = """
import sqlite3, sys
from gatewatch.collector.store import open_store

store = open_store(sys.argv[1])
row = store.runs().iloc[0]
print(sqlite3.sqlite_version, row["run"], row["state"], store.read("train_metrics")["step"].tolist())
"""


def with_sqlite(build: tuple[str, ...], code: str, store: str) -> subprocess.CompletedProcess[str]:
    """Run code with the SQLite of this version in place of the system's."""
    built = subprocess.run([ROOT / "tools/build-sqlite", *build], capture_output=True, text=True, check=False)
    if built.returncode == 3:
        lacking(built.stderr.strip())
    assert built.returncode == 0, built.stderr
    command = [sys.executable, "-c", code, store]
    environment = os.environ | {"LD_LIBRARY_PATH": built.stdout.strip()}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("version", ["3.25.2", "3.34.0", "3.37.0"])
def test_an_old_sqlite_stores_and_reads_as_a_new_one(tmp_path: Path, version: str) -> None:
    store = f"sqlite:///{tmp_path}/g.db"
    trained = with_sqlite((version,), TRAINING, store)
    assert (trained.returncode, trained.stdout, trained.stderr) == (0, "trained\n", "")
    read = with_sqlite((version,), READING, store)
    assert read.stdout == f"{version} r completed [1, 2, 3]\n", read.stderr


def test_a_sqlite_that_lacks_what_the_store_needs_is_named_before_training(tmp_path: Path) -> None:
    trained = with_sqlite(("3.37.0", "without-json"), TRAINING, f"sqlite:///{tmp_path}/g.db")
    assert trained.stdout == ""
    assert trained.stderr.splitlines()[-1].endswith(
        f"ConfigError: {tmp_path}/g.db: the SQLite 3.37.0 of this Python has no JSON functions; use a Python whose"
        " SQLite is 3.24 or newer and has them, or an InfluxDB"
    )
    assert not (tmp_path / "g.db").exists()

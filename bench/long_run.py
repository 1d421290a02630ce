"""Time and memory of what reads a run as a whole, over a very long run: report, page of the run, verdict.

    python -m bench.long_run                      # 300,000 captures of six gates in a SQLite file; ten minutes
    python -m bench.long_run --captures 500000
    python -m bench.long_run --captures 5000      # seconds: that everything runs
    python -m bench.long_run --store FILE         # fill the file where it is not there yet, and keep it

Each line is of a process of its own: the seconds by the clock, the seconds of CPU time, the most memory that the
process held at once, and the size of what it made. Scores above 1 begin in the last tenth of the run.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from gatewatch.collector.cells import LSTM
from gatewatch.collector.schema import (
    GATE_DERIVED,
    GATE_SCORES,
    GATE_STATS,
    GATE_UNITS,
    HISTOGRAM_FIELDS,
    LAYER_UPDATES,
    RUNS,
    TRAIN_METRICS,
    Point,
)
from gatewatch.collector.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN: Final = "long"
_SECOND: Final = 10**9
_BEGIN: Final = 1_780_000_000 * _SECOND
_STEPS: Final = 10
_PATTERN: Final = 1_000
"""Captures that are written; the others repeat them, later and with steps of their own."""
_UNITS: Final = 32
_DETECTORS: Final = ("isolation_forest", "robust", "rules", "checks", "data", "consensus")
_STATISTICS: Final = ("std", "p05", "p50", "p95", "saturated_low", "saturated_high", "entropy", "zero_crossing_rate")
_DERIVED: Final = ("memory_timescale", "drift", "saturation", "entropy_trend", "window_s")
_UPDATES: Final = ("gradient_norm", "gradient_norm_clipped", "weight_norm", "update_norm", "update_ratio", "travel")
_READERS: Final = {
    "report": "from gatewatch.jobs.report.page import write_report as w; from pathlib import Path;"
    "w(store, {run!r}, Path({out!r}))",
    "page of the run": "from gatewatch.jobs.view.site import Site; from gatewatch.jobs.view.trends import Trends;"
    "from gatewatch.jobs.report.content import SECTIONS;"
    "site = Site(store, Trends(lambda run, trend: trend));"
    "open({out!r}, 'wb').writelines(site.respond('/api/run', dict(run={run!r}, part=p)).body for p in SECTIONS)",
    "verdict": "from gatewatch.jobs.findings.verdict import read_verdict as v;"
    "open({out!r}, 'w').write(v(store, {run!r}).sentence)",
}
"""What reads a run → the program of its process."""


def main() -> None:
    """Fill a store, and print what each reader takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captures", type=int, default=300_000)
    parser.add_argument("--store", type=Path, default=None)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gatewatch-long-") as folder:
        path = (chosen.store or Path(folder) / "gatewatch.db").absolute()
        if not path.exists():
            fill(path, chosen.captures)
        size = path.stat().st_size / 1e6
        print(f"{chosen.captures:,} captures of {len(LSTM.gate_names)} gates: {size:,.0f} MB", flush=True)
        for name, program in _READERS.items():
            measure(name, program, path, Path(folder) / "out")


def measure(name: str, program: str, store: Path, out: Path) -> None:
    """Run a program that reads the run in a process of its own, and print what it takes."""
    opened = f"from gatewatch.collector.store import open_store; store = open_store({f'sqlite:///{store}'!r});"
    code = opened + program.format(run=RUN, out=str(out))
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code])
    _, status, used = os.wait4(process.pid, 0)
    wall, size = time.perf_counter() - begin, out.stat().st_size / 1e6
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{name} failed")
    cpu, memory = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
    print(f"{name:20} {wall:8.1f} s {cpu:8.1f} s CPU {memory:8,.0f} MB memory {size:8.2f} MB written", flush=True)


def fill(path: Path, captures: int) -> None:
    """Write the run."""
    store = open_store(f"sqlite:///{path}")
    pattern = min(captures, _PATTERN)
    store.write(_events(captures))
    store.write(_points(pattern, captures))
    store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        (trigger,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'added'").fetchone()
        connection.execute("DROP TRIGGER added")  # it counts what is written, row by row
        series = connection.execute("SELECT id, measurement FROM series WHERE measurement != ?", (RUNS,)).fetchall()
        for series_id, measurement in series:
            for k in range(1, captures // pattern):
                fields = (
                    "fields"
                    if measurement == GATE_DERIVED
                    else "json_set(fields, '$.step', json_extract(fields, '$.step') + ?)"
                )
                by = (k * pattern * _STEPS,) * (measurement != GATE_DERIVED)
                connection.execute(
                    f"INSERT INTO points SELECT series_id, time + ?, {fields} FROM points"
                    " WHERE series_id = ? AND time < ?",
                    (k * pattern * _SECOND, *by, series_id, _BEGIN + pattern * _SECOND),
                )
        connection.execute(trigger)
        connection.execute("COMMIT")
    store.write(_scores(range(captures - captures // 10, captures), np.random.default_rng(1), alarms=True))
    store.close()


def _tags() -> dict[str, str]:
    return {"run": RUN, "phase": "train"}


def _events(captures: int) -> Iterator[Point]:
    about = {"event": "started", "step": 0, "framework": "keras", "model": "policy", "config": "{}"}
    yield Point(RUNS, _tags(), about, _BEGIN)
    yield Point(RUNS, _tags(), {"event": "completed", "step": captures * _STEPS}, _BEGIN + captures * _SECOND)


def _points(pattern: int, captures: int) -> Iterator[Point]:
    random = np.random.default_rng(0)
    for i in range(pattern):
        at, step = _BEGIN + i * _SECOND, i * _STEPS
        loss, rate = float(random.uniform(0.4, 0.6)), 1e-3
        yield Point(TRAIN_METRICS, _tags(), {"loss": loss, "learning_rate": rate, "step": step, "epoch": 0}, at)
        for param in ("kernel", "recurrent", "bias"):
            values = dict(zip(_UPDATES, random.lognormal(-3, 0.2, len(_UPDATES)).tolist(), strict=True))
            counts = {"update_frequency": 1.0, "nan_count": 0, "inf_count": 0, "step": step}
            yield Point(LAYER_UPDATES, {**_tags(), "layer": "lstm", "param": param}, values | counts, at)
        for gate in LSTM.gate_names:
            tags = {**_tags(), "layer": "lstm", "gate": gate}
            names = (*_STATISTICS, *HISTOGRAM_FIELDS)
            values = {"mean": float(random.uniform(0.4, 0.6))} | dict(
                zip(names, random.random(len(names)).tolist(), strict=True)
            )
            counts = {"dead_units": 0, "nan_count": 0, "inf_count": 0, "step": step, "epoch": 0}
            yield Point(GATE_STATS, tags, values | counts, at)
            units = dict(zip((f"u{u:03d}" for u in range(_UNITS)), random.random(_UNITS).tolist(), strict=True))
            yield Point(GATE_UNITS, tags, units | {"step": step}, at)
            yield Point(GATE_DERIVED, tags, dict(zip(_DERIVED, random.random(len(_DERIVED)).tolist(), strict=True)), at)
    yield from _scores(range(pattern), random)


def _scores(captures: range, random: np.random.Generator, *, alarms: bool = False) -> Iterator[Point]:
    for i in captures:
        for gate in LSTM.gate_names:
            for detector in _DETECTORS:
                tags = {**_tags(), "layer": "lstm", "gate": gate, "detector": detector}
                alarm = alarms and gate == "forget" and detector in ("robust", "consensus")
                score = float(
                    random.uniform(1.2, 3.0)
                    if alarm
                    else 0.0
                    if detector in ("rules", "checks")
                    else random.uniform(0.1, 0.9)
                )
                fields = {"anomaly_score": score, "anomalous": int(alarm), "step": i * _STEPS, "source": "network"}
                causes = {"why_mean_activation": 5.0, "why_saturation": 4.0} if alarm else {}
                if alarms and not alarm:
                    continue
                yield Point(GATE_SCORES, tags, fields | causes, _BEGIN + i * _SECOND)


if __name__ == "__main__":
    main()

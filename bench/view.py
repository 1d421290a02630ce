"""What the page of `gatewatch view` takes, on a SQLite store: the list of runs, and one run.

    python -m bench.view                              # 500 runs of 2,000 captures: about 2 GB, some minutes to fill
    python -m bench.view --runs 20 --captures 200     # a minute: that everything runs
    python -m bench.view --runs 20 --captures 200 --updates 3600  # and the memory over an hour of live updates

Each line has the seconds by the clock and the seconds of CPU time of this process: where the machine is busy with
other things, the second is what an idle one would take. One run is whole; the others have what the list reads of a run
(events, metrics, scores of the consensus), copied from it inside the file.
"""

from __future__ import annotations

import argparse
import json
import resource
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final

from gatewatch.collector.schema import GATE_SCORES, RUNS, TRAIN_METRICS, Point
from gatewatch.collector.store import open_store
from gatewatch.jobs.report.content import SECTIONS
from gatewatch.jobs.view.answers import Answer
from gatewatch.jobs.view.site import Site
from gatewatch.jobs.view.trend import update_trend
from gatewatch.jobs.view.trends import Trends

SECOND: Final = 10**9
BEGIN: Final = 1_780_000_000 * SECOND
LAYERS: Final = ("lstm", "lstm_1")
GATES: Final = ("input", "forget", "candidate", "cell", "output", "hidden")
_NAME: Final = "run-0000"
_MINUTE: Final = 60
_GROWN: Final = 100
"""Captures of a run that is followed."""
_LISTED: Final = (RUNS, TRAIN_METRICS, GATE_SCORES)


def main() -> None:
    """Fill a store, and print what each request takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--captures", type=int, default=2000)
    parser.add_argument("--updates", type=int, default=0, help="captures that are written while the page is looked at")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gatewatch-view-") as folder:
        path = Path(folder) / "gatewatch.db"
        store = open_store(f"sqlite:///{path}")
        store.write(whole_run(chosen.captures))
        store.close()
        copy_run(path, chosen.runs)
        print(f"{chosen.runs} runs of {chosen.captures:,} captures of {len(LAYERS) * len(GATES)} gates: {size(path)}")
        measure(f"sqlite:///{path}")
        if chosen.updates:
            follow(f"sqlite:///{path}", chosen.updates)


def measure(url: str) -> None:
    """Print what each request takes, first and again."""
    trends = Trends(partial(update_trend, open_store(url)))
    site = Site(open_store(url), trends)
    timed("plotly.js, first", lambda: site.respond("/static/plotly.js", {}))
    timed("list, first", lambda: site.respond("/api/runs", {}))
    trends.start()
    timed("list, all small charts", lambda: until_all_are_read(site))
    timed("list, again", lambda: site.respond("/api/runs", {}))
    for again in ("first", "again"):
        timed(f"a run, {again}, without heatmaps", lambda: whole_page(site, [p for p in SECTIONS if p != "heatmaps"]))
    timed("a run, heatmaps", lambda: whole_page(site, ["heatmaps"]))
    trends.close()
    print(f"memory at the most: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB")


def follow(url: str, updates: int) -> None:
    """Write one capture after the other, ask for list and answer after each, and print the memory meanwhile.

    All sections of the run are asked for once in `_MINUTE` updates. Another run begins after `_GROWN` captures, as on a
    page that follows one training after the other, so that a request costs at the end what it cost at the beginning.
    """
    store, trends = open_store(url), Trends(partial(update_trend, open_store(url)))
    site = Site(open_store(url), trends)
    trends.start()
    for i in range(updates + 1):
        name, capture = f"live-{i // _GROWN:03d}", i % _GROWN
        now = time.time_ns()
        store.write(capture_points(name, capture, now))
        assert site.respond("/api/runs", {}).status == 200
        whole_page(site, [*SECTIONS] if i % _MINUTE == 0 else ["answer"], name)
        if i * 4 % updates < 4:
            memory = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
            print(f"memory after {i:,} live updates: {memory:,.0f} MB", flush=True)
    trends.close()


def until_all_are_read(site: Site) -> Answer:
    """Ask for the list until every run has its small charts."""
    while json.loads((answer := site.respond("/api/runs", {})).body)["waiting"]:
        time.sleep(0.1)
    return answer


def whole_page(site: Site, parts: list[str], run: str = _NAME) -> Answer:
    """Ask for sections of a run, one after the other, as the page does."""
    bodies = [site.respond("/api/run", {"run": run, "part": part}) for part in parts]
    assert all(each.status == 200 for each in bodies), bodies
    return Answer(b"".join(each.body for each in bodies))


def timed(name: str, work: Callable[[], Answer]) -> None:
    """Print what some work takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    answer = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{name:34} {wall:8.2f} s {cpu:8.2f} s CPU {len(answer.body) / 1000:10,.0f} kB", flush=True)


def whole_run(captures: int) -> Iterator[Point]:
    """Yield the points of a run as a monitor and the jobs write them."""
    for i in range(captures):
        yield from capture_points(_NAME, i, BEGIN + i * SECOND)
    named = {"run": _NAME, "phase": "train", "symbol": "GOOG"}
    yield Point(RUNS, named, {"event": "completed", "step": 10 * captures}, BEGIN + captures * SECOND)


def capture_points(run: str, i: int, at: int) -> Iterator[Point]:
    """Yield the points of one capture of a run, and the run's event, if there is one with it."""
    named = {"run": run, "phase": "train", "symbol": "GOOG"}
    about = {"event": "started", "step": 0, "framework": "keras/jax", "model": "policy", "config": "{}"}
    shape = {f"hist_{k:02d}": 0.05 for k in range(20)} | {"p05": 0.1, "p95": 0.9, "std": 0.2, "entropy": 3.0}
    units = {f"u{k:03d}": 0.25 for k in range(32)}
    step = i * 10
    if i % 30 == 0:
        yield Point(RUNS, named, {"event": "heartbeat", "step": step} if i else about, at)
    yield Point(TRAIN_METRICS, named, {"loss": 1 / (1 + i), "step": step, "epoch": i // 100}, at)
    for layer in LAYERS:
        for gate in GATES:
            tags = {**named, "layer": layer, "gate": gate}
            yield Point("gate_stats", tags, {"mean": 0.5, "step": step, "epoch": i // 100, **shape}, at)
            yield Point("gate_units", tags, {"step": step, **units}, at)
            yield Point("gate_derived", tags, {"window_s": 1.0, "memory_timescale": 3.0}, at)
            score = {"anomaly_score": 0.1 + (i * 7919 % 1000) / 1250, "anomalous": 0, "step": step}
            yield Point(GATE_SCORES, {**tags, "detector": "consensus"}, score, at)


def copy_run(path: Path, runs: int) -> None:
    """Copy what the list reads of the run under other names, each an hour later."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for number in range(1, runs):
            name = f"run-{number:04d}"
            connection.execute(
                "INSERT INTO series (measurement, run, tags) SELECT measurement, ?, replace(tags, ?, ?) FROM series"
                f" WHERE run = ? AND measurement IN ({','.join('?' * len(_LISTED))})",
                (name, _NAME, name, _NAME, *_LISTED),
            )
            connection.execute(
                "INSERT INTO points SELECT new.id, time + ?, fields FROM series AS new JOIN series AS old"
                " ON new.measurement = old.measurement AND new.tags = replace(old.tags, ?, ?)"
                " JOIN points ON series_id = old.id WHERE new.run = ? AND old.run = ?",
                (number * 3600 * SECOND, _NAME, name, name, _NAME),
            )


def size(path: Path) -> str:
    """Return the size of a file and of its journal."""
    return f"{sum(each.stat().st_size for each in path.parent.glob(f'{path.name}*')) / 1e6:,.0f} MB"


if __name__ == "__main__":
    main()

"""What the service survives, at full length: kills at random moments, a server that goes away, while points come.

    python -m tests.soak --kills 20 --outages 2

It starts an influxd and `gatewatch jobs` of its own, and prints what it counted; the exit status is 1 where the scores
are not those of one undisturbed pass. The tests run it at a small size.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from gatewatch.collector.capture import gate_points
from gatewatch.collector.errors import WriteUnavailable
from gatewatch.collector.schema import GATE_DERIVED, GATE_SCORES, GATE_STATS, RUNS, Point
from gatewatch.collector.store import Store, open_store
from gatewatch.jobs.scoring.scoring_pass import run_pass
from tests.conftest import ROOT, Influxd, run_influxd

GATES = ("forget", "input")
LONGEST_LIFE_S = 3.0
PAUSE_S = 0.15
PATIENCE_S = 60.0


class Captured:
    """A layer as an adapter gives it."""

    mask = None

    def __init__(self, **gates: np.ndarray) -> None:
        self.gates = gates


def captures(run: str, count: int, first: int = 0) -> Iterator[list[Point]]:
    """The points of this many captures of a run, one list per capture; the same on every call."""
    tags = {"run": run, "phase": "train"}
    for k in range(first, first + count):
        numbers = np.random.default_rng([k, *run.encode()])
        level = 0.7 if k % 150 < 120 else 0.2  # a fault that comes and goes, so that there is something to find
        gates = {gate: numbers.normal(level, 0.05, (2, 6, 8)).clip(0, 1).astype("float32") for gate in GATES}
        points = [Point(RUNS, tags, {"event": "heartbeat" if k else "started", "step": k}, moment(k))]
        yield points + gate_points({"lstm": Captured(**gates)}, tags, moment(k), k, 0)


def moment(capture: int) -> int:
    """When a capture was taken, nanoseconds since the Unix epoch: the same in every store."""
    return (1_700_000_000 + capture) * 10**9


# The service is installed without a framework; where one is, scikit-learn and skops load it, which takes seconds.
WITHOUT_FRAMEWORKS = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "tensorflow", "keras", "jax"):
            raise ModuleNotFoundError(f"no module named {name}", name=name)

sys.meta_path.insert(0, Missing())
"""


class ServiceProcess:
    """`gatewatch jobs` in a process of its own, where no deep-learning framework is installed.

    Args:
        folder: what it says goes here, and its state.
        arguments: of the command.
        environment: what it has besides the process that starts it.
    """

    def __init__(self, folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        site = folder / "site"
        site.mkdir(parents=True, exist_ok=True)
        (site / "sitecustomize.py").write_text(WITHOUT_FRAMEWORKS)
        self._said, self._warned = folder / "stdout", folder / "stderr"
        more = {"GATEWATCH_STATE": str(folder / "state"), "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"} | dict(
            environment or {}
        )
        with self._said.open("wb") as out, self._warned.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gatewatch.jobs.cli", "jobs", "--interval", "1", *arguments],
                cwd=folder,
                env=os.environ | more,
                stdout=out,
                stderr=err,
            )

    @property
    def said(self) -> str:
        """Its standard output so far."""
        return self._said.read_text()

    @property
    def warned(self) -> str:
        """Its standard error so far."""
        return self._warned.read_text()

    def ready(self) -> None:
        """Wait until it has said what it does."""
        until(lambda: self.said.endswith("\n") or self.process.poll() is not None, "the service starts")
        assert self.process.poll() is None, self.warned

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal and wait; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@contextmanager
def service(folder: Path, *arguments: str, **options: Mapping[str, str]) -> Iterator[ServiceProcess]:
    """A service that is up, and that is gone afterwards."""
    running = ServiceProcess(folder, *arguments, **options)
    try:
        running.ready()
        yield running
    finally:
        if running.process.poll() is None:
            running.end(signal.SIGKILL)


def until(true: Callable[[], bool], what: str, patience: float = PATIENCE_S) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + patience
    while not true():
        assert time.monotonic() < deadline, f"this never came: {what}"
        time.sleep(0.2)


def results(store: Store) -> dict[str, pd.DataFrame]:
    """All that the jobs say of the runs."""
    return {name: store.read(name) for name in (GATE_DERIVED, GATE_SCORES)}


def undisturbed(store: Store, folder: Path) -> dict[str, pd.DataFrame]:
    """What one pass says of the captures of a store; a store of its own holds the runs anew."""
    copy = open_store(f"sqlite:///{folder / 'undisturbed.db'}")
    for run in store.runs()["run"]:
        count = store.read(GATE_STATS, run=run)["step"].nunique()
        copy.write(point for capture in captures(run, count) for point in capture)
    assert all(done.failed is None for done in run_pass(copy))
    return results(copy)


def differences(found: Mapping[str, pd.DataFrame], wanted: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, int]]:
    """Of each measurement: points that are wanted, missing, too many or twice there; and fields with other values."""
    counts = {}
    for name, right in wanted.items():
        identity = [column for column in ("time", "run", "phase", "layer", "gate", "detector") if column in right]
        left = found[name].reindex(columns=right.columns).set_index(identity)
        again = right.set_index(identity)
        both = left.index.intersection(again.index)
        same = left[~left.index.duplicated()].loc[both].astype(object)
        other = again.loc[both].astype(object)
        unlike = ~((same == other) | (same.isna() & other.isna()))
        twice = int(left.index.duplicated().sum())
        counts[name] = {
            "wanted": len(again),
            "missing": len(again.index.difference(left.index)),
            "too many": len(left.index.difference(again.index)) + twice,
            **{str(field): int(count) for field, count in unlike.sum().items() if count},
        }
    return counts


def wrong(store: Store, folder: Path) -> dict[str, dict[str, int]]:
    """Where a store differs from what one undisturbed pass says; nothing where it does not, and there is something."""
    counted = differences(results(store), undisturbed(store, folder))
    return {
        name: counts
        for name, counts in counted.items()
        if not counts["wanted"] or sum(counts.values()) > counts["wanted"]
    }


def covered(store: Store, run: str, count: int) -> bool:
    """Whether all captures but the newest, which may wait until it is known to be whole, have their points."""
    try:
        points, _ = store.tallies(GATE_DERIVED, "window_s").get(run, (0, 0))
    except WriteUnavailable:
        return False
    return points >= len(GATES) * (count - 1)


class Writer(threading.Thread):
    """Writes captures of some runs one after the other until it is told to end, whether the server is there or not.

    Attributes:
        ending: set to end it.
        written: captures of each run that are in the store.
    """

    def __init__(self, store: Store, runs: list[str], written: int) -> None:
        super().__init__(daemon=True)
        self._store, self._runs = store, runs
        self.written, self.ending = written, threading.Event()

    def run(self) -> None:
        """Write until told to end."""
        while not self.ending.wait(PAUSE_S):
            points = [point for run in self._runs for point in next(captures(run, 1, self.written))]
            while True:
                try:
                    self._store.write(points)
                    break
                except WriteUnavailable:
                    time.sleep(PAUSE_S)
            self.written += 1


def soak(server: Influxd, folder: Path, kills: int, outages: int, seed: int, *more: str) -> bool:
    """Kill the service and stop the server; whether the store holds in the end what one pass would have written."""
    moments = random.Random(seed)
    store = server.store(server.bucket("soak"))
    runs, backlog = ["first", "second, with a comma", "third"], 250
    store.write(point for run in runs for capture in captures(run, backlog) for point in capture)
    writer = Writer(store, runs, backlog)
    environment = {"INFLUXDB_V2_ORG": server.org, "INFLUXDB_V2_BUCKET": "soak", "INFLUXDB_V2_TOKEN": server.token}
    (folder / "gatewatch.toml").write_text("[jobs]\ncaptures_per_pass = 100\n")
    environment["GATEWATCH_CONFIG"] = str(folder / "gatewatch.toml")
    writer.start()
    begin, away, warned = time.monotonic(), moments.sample(range(kills), outages), ""
    for number in range(kills + 1):
        running = ServiceProcess(folder / "service", "--store", server.url, "--verbose", *more, environment=environment)
        try:
            running.ready()
            if number % 2 or number in away:  # else it may be killed before it has begun
                until(lambda running=running: "derived" in running.warned, "it has done something")
            if number in away:
                time.sleep(moments.uniform(0, 1))
                server.stop()
                until(lambda running=running: "trying on" in running.warned, "it says that the server is away")
                server.start()
            if number < kills:
                time.sleep(moments.uniform(0, LONGEST_LIFE_S))
                running.end(signal.SIGKILL)
            else:
                writer.ending.set()
                writer.join(PATIENCE_S)
                for run in runs:
                    until(lambda run=run: covered(store, run, writer.written), f"{run} is scored")
                status = running.end()
        finally:
            if running.process.poll() is None:
                running.end(signal.SIGKILL)
            warned += running.warned
    run_pass(store)  # of the newest capture of each run, which nobody has said to be the last
    print(f"captures of three runs                   {3 * writer.written:8,}")
    print(f"services killed                          {kills:8,}")
    print(f"servers stopped and started              {outages:8,}")
    print(f"seconds                                  {time.monotonic() - begin:8.1f}")
    print(f"times that a service said it was away    {warned.count('trying on'):8,}")
    print(f"  that it was back                       {warned.count('the store is back'):8,}")
    print(f"tracebacks                               {warned.count('Traceback'):8,}")
    counted = differences(results(store), undisturbed(store, folder))
    for name, counts in counted.items():
        wanted, missing, extra, *others = counts.values()
        print(f"points of {name:<12} of one pass       {wanted:8,}")
        print(f"  missing                                {missing:8,}")
        print(f"  too many                               {extra:8,}")
        print(f"fields with other values                 {sum(others):8,}")
    sound = all(sum(counts.values()) == counts["wanted"] > 0 for counts in counted.values())
    return sound and status == 0 and "Traceback" not in warned and warned.count("trying on") >= outages


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--outages", type=int, default=2)
    parser.add_argument("--executor", default="local", help="of the service (default: local)")
    parser.add_argument("--workers", default="1", help="of the service (default: 1)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    with tempfile.TemporaryDirectory() as folder:
        for server in run_influxd(Path(folder)):
            more = ("--executor", arguments.executor, "--workers", arguments.workers)
            sound = soak(server, Path(folder), arguments.kills, arguments.outages, arguments.seed, *more)
            return 0 if sound else 1
    return 1


if __name__ == "__main__":
    sys.exit(main())

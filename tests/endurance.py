"""What a training survives, at full length: processes killed at random moments, and a store that goes away for minutes.

    python -m tests.endurance kill --kills 100
    python -m tests.endurance outage --seconds 120

Both start an influxd of their own and print what they counted; the exit status is 1 where anything was lost. The tests
run both at small sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from gatewatch.collector.line_protocol import parse, split_lines
from gatewatch.collector.schema import (
    COLLECTOR_HEALTH,
    FEED_FEATURES,
    FEED_STATS,
    GATE_STATS,
    GATE_TIME,
    GATE_UNITS,
    LAYER_UPDATES,
    RECURRENT_STATE,
    RUNS,
    TRAIN_METRICS,
)
from gatewatch.collector.spool.flush import flush
from gatewatch.collector.spool.inspect import pending
from gatewatch.collector.spool.queue import Spool
from gatewatch.collector.store import open_store
from gatewatch.torch import GateMonitor
from tests.conftest import run_influxd

MEASUREMENTS = (
    *(GATE_STATS, GATE_UNITS, GATE_TIME, LAYER_UPDATES, FEED_STATS, FEED_FEATURES, RECURRENT_STATE),
    *(TRAIN_METRICS, RUNS, COLLECTOR_HEALTH),
)
RUNNING_AT_ONCE = 2
WARM_UP = "warm-up"
LONGEST_LIFE_S = 1.5
Identity = tuple[Any, ...]


class Policy(torch.nn.Module):
    """A small recurrent network."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(4, 8, batch_first=True)
        self.head = torch.nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One value a sequence."""
        return self.head(self.lstm(x)[0][:, -1])


def train(run: str, url: str, steps: int, pause: float = 0.0) -> tuple[list[float], float]:
    """Train on a random walk; the seconds of each step, and those that the end of the run took."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    policy = Policy()
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    x = torch.randn(64, 16, 4).cumsum(1)
    y = x[:, -1, :1]
    seconds = []
    with GateMonitor(policy, None, run=run, store=url, probe=x[:8], every=1) as monitor:
        for step in range(steps):
            begin = time.perf_counter()
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(policy(x), y)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
            optimizer.step()
            monitor.step(metrics={"loss": loss})
            seconds.append(time.perf_counter() - begin)
            if pause:
                time.sleep(pause)
            if step % 16 == 15:
                monitor.end_epoch()
        begin = time.perf_counter()
    return seconds, time.perf_counter() - begin


def victim(run: str, url: str, told: Path) -> None:
    """Train until killed, and tell the outside of all that the spool has accepted: what it is asked to before, and
    every line after."""
    accepted = os.open(told / run, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    asked = os.open(told / f"{run}.asked", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    append = Spool.append

    def tell(spool: Spool, lines: bytes, points: int) -> None:
        os.write(asked, b".")
        append(spool, lines, points)
        os.write(accepted, lines)
        os.write(asked, b"!")

    Spool.append = tell  # type: ignore[method-assign]  # to see it from outside
    train(run, url, 10**9)


def kill(url: str, kills: int, seed: int) -> bool:
    """Kill trainings at random moments; whether everything that was accepted is in the store in the end."""
    moments = random.Random(seed)
    train(WARM_UP, url, 3)  # what is imported late is imported once, so that a short life is spent training
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder)
        running: list[tuple[int, float]] = []
        for number in range(kills + RUNNING_AT_ONCE):
            if number < kills:
                child = os.fork()
                if child == 0:
                    try:
                        victim(f"victim-{number:03d}", url, told)
                    finally:
                        os._exit(9)  # it is to be killed, not to end
                running.append((child, time.monotonic() + moments.uniform(0.0, LONGEST_LIFE_S)))
            if len(running) >= RUNNING_AT_ONCE or number >= kills:
                child, moment = running.pop(0)
                time.sleep(max(0.0, moment - time.monotonic()))
                os.kill(child, signal.SIGKILL)
                status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                if status != -signal.SIGKILL:
                    print(f"a training ended by itself: {status}")
                    return False
            if number >= kills and not running:
                break
        left = sum(entry.points for entry in pending(spool_root()))
        for done in flush(spool_root(), 60):
            if done.problem or done.left or done.rejected:
                print(f"not flushed: {done}")
        return compare(url, told, kills, left)


def compare(url: str, told: Path, kills: int, left: int) -> bool:
    """Count what was accepted and what is in the store, and say where they differ."""
    accepted: dict[Identity, dict[str, Any]] = {}
    for number in range(kills):
        file = told / f"victim-{number:03d}"
        lines = file.read_bytes() if file.exists() else b""
        for point in map(parse, split_lines(lines[: lines.rfind(b"\n") + 1])):
            accepted[(point.measurement, *sorted(point.tags.items()), point.time)] = dict(point.fields)
    stored = stored_points(url)
    missing = accepted.keys() - stored.keys()
    different = [key for key in accepted.keys() & stored.keys() if accepted[key] != stored[key]]
    extra = Counter(dict(key[1:-1])["run"] for key in stored.keys() - accepted.keys())
    most = max(Counter((dict(key[1:-1])["run"], key[-1]) for key in accepted).values(), default=0)
    asked = [file.read_bytes() for file in told.glob("*.asked")]
    in_flight = sum(marks.endswith(b".") for marks in asked)
    print(f"kills                                    {kills:8,}")
    print(f"trainings that had begun to write        {len(asked):8,}")
    print(f"points accepted before a kill            {len(accepted):8,}")
    print(f"  waiting in the spool after the last    {left:8,}")
    print(f"  in InfluxDB in the end                 {len(accepted) - len(missing):8,}")
    print(f"  missing                                {len(missing):8,}")
    print(f"  with other values                      {len(different):8,}")
    print(f"kills in the middle of a write           {in_flight:8,}")
    print(f"points of such a write that arrived      {sum(extra.values()):8,}")
    print(f"  the most of one training               {max(extra.values(), default=0):8,} (a capture has {most:,})")
    whole = max(extra.values(), default=0) <= most and len(extra) <= in_flight
    return not missing and not different and whole and len(accepted) > kills


def stored_points(url: str) -> dict[Identity, dict[str, Any]]:
    """Every point of the victims: identity → fields."""
    store = open_store(url)
    tags = ("run", "phase", "layer", "gate", "param", "statistic")
    points: dict[Identity, dict[str, Any]] = {}
    for measurement in MEASUREMENTS:
        frame = store.read(measurement)
        if frame.empty:
            continue
        frame = frame[frame["run"] != WARM_UP]
        for time_ns, row in zip(
            frame["time"].astype("int64"), frame.drop(columns="time").to_dict("records"), strict=True
        ):
            present = {name: value for name, value in row.items() if not _is_missing(value)}
            identity = sorted((name, present.pop(name)) for name in tags if name in present)
            points[(measurement, *identity, time_ns)] = present
    return points


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))


def outage(server: Any, url: str, seconds: float) -> bool:
    """Stop the server in the middle of a training, start it again; whether nothing was lost and nobody waited."""
    begin_s, after_s, pause = 3.0, 3.0, 0.01
    report, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            begin = time.monotonic()
            steps, closing = train("outage", url, int((begin_s + seconds + after_s) / (pause + 0.01)), pause)
            with os.fdopen(write, "w") as pipe:
                json.dump([time.monotonic() - begin, closing, steps], pipe)
        finally:
            os._exit(0)
    os.close(write)
    time.sleep(begin_s)
    server.stop()
    stopped = time.monotonic()
    time.sleep(seconds)
    server.start()
    away = time.monotonic() - stopped
    with os.fdopen(report, "rb") as pipe:
        lived, closing, steps = json.loads(pipe.read())
    os.waitpid(child, 0)
    stats = open_store(url).read("gate_stats", run="outage", tags={"gate": "forget"})
    lost = len(steps) - len(set(stats["step"]))
    quarter = len(steps) // 4
    before, middle = np.median(steps[10:quarter]), np.median(steps[quarter : 3 * quarter])
    print(f"influxd away                             {away:8.1f} s of {lived:.1f} s")
    print(f"steps, each with a capture               {len(steps):8,}")
    print(f"  lost                                   {lost:8,}")
    print(f"median step in the first quarter         {before * 1e3:8.2f} ms")
    print(f"median step in the middle half           {middle * 1e3:8.2f} ms ({middle / before:.2f} times)")
    print(f"longest step                             {max(steps) * 1e3:8.1f} ms")
    print(f"end of the run                           {closing:8.1f} s")
    print(f"state                                    {open_store(url).runs()['state'].iloc[0]:>8}")
    return lost == 0


def spool_root() -> Path:
    """Where the spools of this measurement are."""
    return Path(os.environ["GATEWATCH_SPOOL"])


def main() -> int:
    """Run one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="what")
    killing = commands.add_parser("kill")
    killing.add_argument("--kills", type=int, default=100)
    killing.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    going = commands.add_parser("outage")
    going.add_argument("--seconds", type=float, default=120)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GATEWATCH_SPOOL"] = f"{folder}/spool"
        for server in run_influxd(Path(folder)):
            about = {"ORG": server.org, "BUCKET": server.bucket(), "TOKEN": server.token}
            os.environ |= {f"INFLUXDB_V2_{name}": value for name, value in about.items()}
            if arguments.what == "kill":
                print(f"seed {arguments.seed}")
                return 0 if kill(server.url, arguments.kills, arguments.seed) else 1
            return 0 if outage(server, server.url, arguments.seconds) else 1
    return 1


if __name__ == "__main__":
    sys.exit(main())

"""The wall clock of a real process jumps, by hours or by years, forwards and back; the monotonic one goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from gatewatch.collector.schema import ALERT_EVENTS, JOBS_HEALTH, Point
from gatewatch.collector.store import open_store
from tests.shims import shim
from tests.soak import captures, covered, service, until

S = 10**9
JUMPS = [20 * 365 * 86_400, -3_600, 7_200, -20 * 365 * 86_400]


class Clock:
    """The wall clock of the processes that are started with its environment."""

    def __init__(self, folder):
        self._file = folder / "clock"
        self.jump(0)
        self.environment = shim("clock", clock=self._file)

    def jump(self, seconds):
        """Let it differ from the true one by so much."""
        self.seconds = seconds
        new = self._file.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self._file)

    def __call__(self):
        return time.time_ns() + self.seconds * S


@pytest.fixture
def clock(tmp_path):
    return Clock(tmp_path)


@pytest.fixture
def store(tmp_path):
    return open_store(f"sqlite:///{tmp_path / 'points.db'}")


def broken(run, now):
    """A run that has just begun, with a gate that has a NaN."""
    tags = {"run": run, "phase": "train"}
    gate = tags | {"layer": "memory", "gate": "forget"}
    yield Point("runs", tags, {"event": "started", "step": 0}, now)
    yield Point("gate_stats", gate, {"nan_count": 3, "inf_count": 0, "step": 1}, now)


def test_the_service_goes_on_scoring_and_alerting_whatever_its_clock_does(store, clock, tmp_path):
    store.write(point for capture in captures("r", 40) for point in capture)
    with service(tmp_path / "s", "--store", store.url, environment=clock.environment) as running:
        until(lambda: covered(store, "r", 40), "what was there is scored")
        for number, jump in enumerate(JUMPS, 1):
            clock.jump(jump)
            store.write(broken(f"broken-{number}", clock()))
            store.write(point for capture in captures("r", 4, 36 + 4 * number) for point in capture)
            until(lambda count=40 + 4 * number: covered(store, "r", count), f"scores after a jump by {jump} s")
            until(lambda number=number: fired(store, number), f"an alert after a jump by {jump} s")
        health = store.read(JOBS_HEALTH)["time"]
        assert health.is_monotonic_increasing
        assert health.max().year > time.gmtime().tm_year + 18  # the shim is at work
        assert running.end() == 0
    assert running.warned == ""


def fired(store, number):
    events = store.read(ALERT_EVENTS)
    return not events.empty and f"broken-{number}" in set(events["run"])


TRAINING = """
import sys, time, torch
import gatewatch.collector.run_session
from gatewatch.torch import GateMonitor

module, x = torch.nn.LSTM(3, 4, batch_first=True), torch.zeros(2, 5, 3)
with GateMonitor(module, log_dir=None, run="r", probe=x, every=1, store=sys.argv[1]) as monitor:
    for step in sys.stdin:
        monitor.step(metrics={"loss": 1.0})
        print(step, end="", flush=True)
"""


def test_a_training_and_a_report_that_is_kept_up_to_date(store, clock, tmp_path):
    """The points arrive in order while the training's clock jumps, and the report's does not end the watching."""
    environment = os.environ | clock.environment | {"GATEWATCH_SPOOL": str(tmp_path / "spool")}
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    training = subprocess.Popen([sys.executable, "-c", TRAINING, store.url], env=environment, text=True, **pipe)
    watching = None
    try:
        for number, jump in enumerate([0, *JUMPS], 1):
            clock.jump(jump)
            print(number, file=training.stdin, flush=True)
            assert training.stdout.readline() == f"{number}\n", training.stderr.read()
            until(lambda count=number: len(steps(store)) == count, f"step {number} is stored")
            if watching is None:
                report = [sys.executable, "-m", "gatewatch.jobs.cli", "report", "--store", store.url, "--watch", "1"]
                watching = subprocess.Popen(
                    [*report, "r", "-o", tmp_path / "r.html"], env=environment, text=True, **pipe
                )
                assert watching.stdout.readline()
            assert watching.poll() is None
        _, warned = training.communicate(timeout=60)
        assert (training.returncode, warned) == (0, "")
        assert steps(store) == [1, 2, 3, 4, 5]
        until(lambda: store.read("runs")["event"].iloc[-1] == "completed", "the end of the run is stored")
        assert watching.poll() is None  # it waits for the scores
        assert (
            subprocess.run(
                [*report[:3], "jobs", "--once", "--store", store.url], check=False, stdout=subprocess.DEVNULL
            ).returncode
            == 0
        )
        assert watching.wait(60) == 0
    finally:
        for process in (training, watching):
            if process is not None and process.poll() is None:
                process.kill()


def steps(store):
    points = store.read("train_metrics")
    return [] if points.empty else points["step"].tolist()

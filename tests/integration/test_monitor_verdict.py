"""`monitor.verdict()` in real trainings: it changes nothing, raises nothing and waits briefly."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

import gatewatch
from gatewatch import open_store
from gatewatch.collector import run_life, run_session
from gatewatch.collector.schema import GATE_STATS
from gatewatch.collector.store.influxdb import client
from gatewatch.jobs.scoring.scoring_pass import run_pass
from gatewatch.torch import GateMonitor
from tests.conftest import free_port
from tests.servers import Front, holding
from tests.tokens import token_of


@pytest.fixture(autouse=True)
def at_the_end_nobody_waits_long(monkeypatch):
    monkeypatch.setattr(run_life, "CLOSE_SECONDS", 1.0)


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.memory = nn.LSTM(2, 4, batch_first=True)
        self.head = nn.Linear(4, 1)
        self.dropout = nn.Dropout(0.2)

    def forward(self, x):
        return self.head(self.dropout(self.memory(x)[0][:, -1]))


def train(steps, monitored=lambda policy: None, each=lambda step, monitor: None):
    """Train a policy, and return its weights, the optimizer's state and the random numbers that come next."""
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(3)
    policy = Policy()
    optimizer = torch.optim.Adam(policy.parameters(), 1e-2)
    monitor = monitored(policy)
    with monitor if monitor is not None else threading.Lock():
        for step in range(steps):
            x = torch.randn(8, 5, 2)
            loss = (policy(x) - x[:, -1, :1]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if monitor is not None:
                monitor.step(metrics={"loss": loss.item()})
                each(step, monitor)
    moments = [value for state in optimizer.state.values() for value in state.values()]
    left = [torch.rand(3), torch.tensor(np.random.rand(3)), torch.tensor(random.random())]
    return [*policy.state_dict().values(), *moments, *left]


def monitored(store, **options):
    probe = torch.zeros(4, 5, 2)
    return lambda policy: GateMonitor(policy, None, run="r", store=store, probe=probe, every=1, **options)


@pytest.fixture
def store(tmp_path):
    return open_store(f"sqlite:///{tmp_path / 'points.db'}")


def until_captured(store, count):
    deadline = time.monotonic() + 20
    while store.count(GATE_STATS, "step", run="r", tags={"gate": "input"}) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_training_whose_scores_alarm_is_told(store):
    """The weights are lost at the sixtieth step; who scores is another process, as the service is."""
    seen = []

    def each(step, monitor):
        if step == 39:
            until_captured(store, 40)
            seen.append(monitor.verdict())  # nobody has scored
            run_pass(store)
            seen.append(monitor.verdict())
        if step == 60:
            with torch.no_grad():
                monitor._module.memory.weight_hh_l0.mul_(float("nan"))
        if step == 63:
            until_captured(store, 64)
            run_pass(store)
            seen.append(monitor.verdict())

    train(64, monitored(store), each)
    assert [verdict.verdict for verdict in seen] == ["undecided", "healthy", "alarm"]
    assert [verdict.state for verdict in seen] == ["live"] * 3
    assert seen[2].findings[0].layer == "memory/l0"
    assert gatewatch.verdict(store, "r").sentence == seen[2].sentence


def test_it_changes_nothing_in_the_training(store):
    def each(step, monitor):
        if step % 5 == 0:
            verdict = monitor.verdict()
            assert verdict.verdict == "undecided"
            assert "cannot be judged" in verdict.sentence

    for one, other in zip(train(15, monitored(store), each), train(15), strict=True):
        assert torch.equal(one, other)


def test_of_a_long_run_the_newest_captures_are_judged(store, monkeypatch):
    """What is read into the memory of a training is bounded."""
    monkeypatch.setattr(run_session, "NEWEST", 10)
    sentences = []

    def each(step, monitor):
        if step in (8, 25):
            until_captured(store, step + 1)
            sentences.append(monitor.verdict().sentence)

    train(26, monitored(store), each)
    assert "it has 9 of the 33 captures" in sentences[0]
    assert "it has 10 of the 33 captures" in sentences[1]
    assert "it has 26 of the 33 captures" in gatewatch.verdict(store, "r").sentence


def test_before_the_beginning_and_after_the_end(store):
    policy = Policy()
    monitor = monitored(store)(policy)
    assert "has not begun" in monitor.verdict().sentence
    with monitor:
        monitor.step()
    verdict = monitor.verdict()
    assert (verdict.verdict, verdict.state) == ("undecided", "completed")
    assert "1 of the 33 captures" in verdict.sentence


def test_a_process_that_records_nothing_has_none(store, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with monitored(store)(Policy()) as monitor:
        assert monitor.verdict().verdict == "undecided"


@pytest.mark.parametrize("timeout", [0.05, -1])
def test_it_waits_no_longer_than_it_may(monkeypatch, timeout):
    """A server that takes requests and never answers."""
    front = Front()
    front.answer = holding
    monkeypatch.setattr(client, "ANSWER_TIMEOUT_S", 0.2)  # of the beginning of the run
    try:
        with monitored(open_store(front.url, org="o", bucket="b", token="t"))(Policy()) as monitor:
            monkeypatch.setattr(client, "ANSWER_TIMEOUT_S", 60)
            for _ in range(3):
                verdict = monitor.verdict(timeout=timeout)
                assert verdict.sentence.startswith("Undecided: its points were not read within")
            assert sum(thread.name == "gatewatch-call" for thread in threading.enumerate()) == 1
    finally:
        front.close()


def test_a_store_that_is_away(monkeypatch):
    store = open_store(f"http://127.0.0.1:{free_port()}", org="o", bucket="b", token="t")
    with monitored(store)(Policy()) as monitor:
        assert "no connection" in monitor.verdict().sentence


def test_a_token_that_may_only_write(influxd):
    bucket = influxd.bucket()
    token = token_of(influxd, "write", buckets=(bucket,))
    store = open_store(influxd.url, org=influxd.org, bucket=bucket, token=token)
    with monitored(store)(Policy()) as monitor:
        assert "the token may only write" in monitor.verdict().sentence


def test_a_store_that_was_damaged_or_removed(store):
    with monitored(store)(Policy()) as monitor:
        monitor.step()
        until_captured(store, 1)
        store.path.unlink()
        assert monitor.verdict().verdict == "undecided"
        store.path.write_bytes(b"no store" * 1000)
        assert monitor.verdict().verdict == "undecided"


def test_without_the_jobs_it_says_how_to_get_them(store):
    code = f"""
import sys
import torch
from gatewatch.torch import GateMonitor
class Finder:
    def find_spec(self, name, *_):
        if name.startswith("gatewatch.jobs"):
            raise ModuleNotFoundError(f"No module named {{name!r}}")
sys.meta_path.insert(0, Finder())
with GateMonitor(torch.nn.LSTM(2, 2), None, run="r", store={store.url!r}, probe=torch.zeros(3, 1, 2)) as monitor:
    print(monitor.verdict().sentence)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("pip install 'gatewatch[jobs]'\n")

"""A market that changes in the middle of a real training is a notice, and no alarm of the network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gatewatch import open_store
from gatewatch.torch import GateMonitor
from tests.passes import only, scores

STEPS, STRIKE, EVERY = 400, 300, 4


def windows(random, wild):
    """A batch of 32 windows of 16 returns, scaled by their volatility: a wild market reverts, a calm one trends."""
    noise = random.standard_t(3 if wild else 30, size=(32, 16, 1))
    x = np.zeros_like(noise)
    for t in range(1, 16):
        x[:, t] = (-0.9 if wild else 0.9) * x[:, t - 1] + noise[:, t]
    return torch.tensor(x / x.std(), dtype=torch.float32)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    memory = torch.nn.LSTM(1, 8, batch_first=True)
    head = torch.nn.Linear(8, 1)
    module = torch.nn.ModuleDict({"memory": memory, "head": head})
    module.forward = lambda x: head(memory(x)[0][:, -1])
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    opened = open_store(f"sqlite:///{tmp_path_factory.mktemp('data') / 'points.db'}")
    probe = windows(random, wild=False)
    with GateMonitor(module, None, run="r", store=opened, probe=probe, every=EVERY) as monitor:
        for step in range(1, STEPS + 1):
            x = windows(random, wild=step >= STRIKE)
            loss = (module(x[:, :-1]) - x[:, -1]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            monitor.step(batch=x, metrics={"loss": loss.item()})
    only(opened)
    return opened


def test_the_change_is_said_at_once_and_before_it_nothing(store):
    notices = scores(store, detector="data")
    assert notices[notices["anomalous"] == 1]["step"].min() == STRIKE
    first = notices[notices["step"] == STRIKE].iloc[0]
    assert (first["layer"], first["gate"], first["source"]) == ("_data", "feed", "data")
    assert first["why_feed_moved"] == first["anomaly_score"]


def test_the_network_that_learns_from_it_does_not_alarm(store):
    alarms = scores(store, detector="consensus")
    assert alarms["step"].max() == STEPS
    assert not alarms["anomalous"].any()

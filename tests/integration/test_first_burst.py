"""A healthy network that learns most of what it will learn in one burst, after a warm-up that was still calm."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import nn

from gatewatch import open_store
from gatewatch.collector.schema import GATE_STATS
from gatewatch.torch import GateMonitor
from tests.passes import only, scores

STEPS, EVERY, BATCH, LENGTH = 400, 4, 32, 16
SHUT_AT = 320
"""The step at which the forget gates of the second layer are shut, in the run with a fault."""


def autoregressive(random, count=3000):
    """x[t] = 0.5 x[t-1] - 0.3 x[t-2] + noise: hard enough that learning begins late."""
    values, noise = np.zeros(count), random.normal(size=count)
    for t in range(2, count):
        values[t] = 0.5 * values[t - 1] - 0.3 * values[t - 2] + noise[t]
    return ((values - values.mean()) / values.std()).astype("float32")


class Forecaster(nn.Module):
    """Two LSTM layers of 24 units, and a linear head on the last step."""

    def __init__(self):
        super().__init__()
        self.memory = nn.LSTM(1, 24, 2, batch_first=True)
        self.head = nn.Linear(24, 1)

    def forward(self, x):
        return self.head(self.memory(x)[0][:, -1])


@pytest.fixture
def store(tmp_path):
    """A training of 100 captures with a fault at capture 80, scored. Without a pace, 39 captures alarm before it."""
    torch.set_num_threads(1)
    torch.manual_seed(5)
    random = np.random.default_rng(5)
    windows = sliding_window_view(autoregressive(random), LENGTH + 1).copy()
    x, y = (torch.from_numpy(part) for part in (windows[:, :-1, None], windows[:, -1:]))
    model = Forecaster()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    store = open_store(f"sqlite:///{tmp_path / 'points.db'}")
    with GateMonitor(model, log_dir=None, probe=x[::125], run="r", store=store.url, every=EVERY) as monitor:
        for step in range(1, STEPS + 1):
            chosen = random.integers(0, len(x), BATCH)
            if step == SHUT_AT:
                model.memory.bias_hh_l1.data[24:48] = -8
            loss = nn.functional.mse_loss(model(x[chosen]), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            monitor.step(metrics={"loss": loss})
    only(store)
    return store


def test_a_burst_of_learning_raises_no_alarm_and_a_fault_after_it_does(store):
    spread = store.read(GATE_STATS, tags={"layer": "memory/l1", "gate": "output"}).set_index("step")["std"]
    calm, learned = spread.loc[100:132].max(), spread.loc[240:316].min()
    assert learned > 1.4 * calm  # the burst goes on after the shortest warm-up
    found = scores(store, detector="consensus")
    before = found[found["step"] < SHUT_AT]
    assert len(before) > 500
    assert before["anomaly_score"].max() < 1
    first = found[found["anomalous"] == 1]["step"].min()
    assert SHUT_AT <= first <= SHUT_AT + 2 * EVERY

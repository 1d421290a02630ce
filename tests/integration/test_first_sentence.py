"""The first sentence of a report says what is wrong, where and since which step, for errors that people really make."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gatewatch import open_store
from gatewatch.jobs.findings.axis import Axis
from gatewatch.jobs.findings.findings import run_findings
from gatewatch.jobs.findings.series import by_series, one_detector, table
from gatewatch.jobs.findings.statements import statements
from gatewatch.torch import GateMonitor
from tests.passes import only, scores

STEPS, EVERY, STRIKE, B, EPISODE = 240, 4, 180, 32, 6
PRICE = 80.0


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.memory = nn.LSTM(2, 8, batch_first=True)
        self.head = nn.Linear(8, 1)

    def forward(self, x, state=None):
        outputs, state = self.memory(x, state)
        return self.head(outputs[:, -1]), state


def batch(random, fault):
    """Windows of a return and a volume, and the return that follows."""
    x = np.cumsum(random.normal(size=(B, 13, 2)), axis=1) * 0.3
    x = (x - x[:, :1]).astype("float32")
    y = x[:, 12:, 0] + 0.5 * random.normal(size=(B, 1)).astype("float32")
    x = x[:, :12]
    if fault == "raw":
        x[..., 0] = PRICE * (1 + 0.01 * x[..., 0])
    if fault == "leak":
        x[:, -1, 1] = y[:, 0]
    return torch.tensor(x), torch.tensor(y)


@pytest.fixture(scope="module", params=["healthy", "raw", "kept", "reset", "leak"])
def trained(request, tmp_path_factory):
    """A training in episodes of six steps, in which something goes wrong from `STRIKE` on; its findings."""
    torch.manual_seed(0)
    random, policy = np.random.default_rng(0), Policy()
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp(request.param) / 'points.db'}")
    probe, target = batch(random, None)
    state = None

    def loss(outputs, targets):
        return (outputs[0] - targets).square().mean()

    monitor = GateMonitor(
        policy,
        None,
        run="r",
        store=store,
        probe=probe,
        probe_targets=target,
        loss=loss,
        every=EVERY,
        feature_names=["return", "volume"],
    )
    with monitor:
        for step in range(1, STEPS + 1):
            fault = request.param if step >= STRIKE else None
            begins = step % EPISODE == 1
            if begins and fault != "kept":
                state = None
            if fault == "reset" and step == STRIKE:
                optimizer.state.clear()
            x, y = batch(random, fault)
            answer, state = policy(x, state)
            state = tuple(part.detach() for part in state)
            error = (answer - y).square().mean()
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            monitor.step(batch=x, targets=y, starts=begins, metrics={"loss": error.item()})
    only(store)
    every = store.read("gate_scores")
    shown = by_series(one_detector(every)[1])
    said = statements(every, {"train": Axis(("train",))})
    found = run_findings(table({}, {}, shown), {}, shown, store.read("train_metrics"), said=said)
    return request.param, [each.sentence for each in found], store


EXPECTED = {
    "raw": (STRIKE + EVERY, "the scale of a feature jumped", "(the input return)"),
    "kept": (STRIKE + EVERY, "an episode began with the state of the one before", "(the state gate of memory/l0)"),
    "reset": (STRIKE, "the optimizer's second moments fell further than they decay", "the kernel weights of memory/l0"),
    "leak": (STRIKE, "a feature tells the target: does it look ahead?", "(the input volume)"),
}


def test_the_first_sentence_says_what_where_and_since_when(trained):
    name, sentences, store = trained
    if name == "healthy":
        assert sentences[0].startswith("All ")
        assert not scores(store, detector="consensus")["anomalous"].any()
        return
    step, what, where = EXPECTED[name]
    assert sentences[0].startswith(f"First at step {step}, {what}")
    assert where in sentences[0]

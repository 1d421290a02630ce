"""The first sentence of a report says what is wrong, where and since which step, for errors that people really make."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gatewatch import open_store
from gatewatch.jobs.findings.findings import findings_of
from gatewatch.jobs.findings.run_points import read_points
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


@pytest.fixture(scope="module", params=["healthy", "raw", "kept", "reset", "leak", "rate", "nan", "labels"])
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
            if fault == "rate" and step == STRIKE:
                optimizer.param_groups[0]["lr"] *= 300
            if fault == "nan" and step == STRIKE:
                policy.memory.weight_ih_l0.data[0, 0] = torch.nan
            x, y = batch(random, fault)
            if fault == "labels":
                y[3] = torch.nan
            answer, state = policy(x, state)
            state = tuple(part.detach() for part in state)
            error = (answer - y).square().mean()
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            monitor.step(batch=x, targets=y, starts=begins, metrics={"loss": error.item()})
    only(store)
    (about,) = store.runs().to_dict("records")
    found = findings_of(read_points(store, about))
    assert findings_of(read_points(store, about, longest=0, spans=7)) == found, "a long run is judged like a short one"
    return request.param, [each.sentence for each in found], store


EXPECTED = {
    "raw": (STRIKE + EVERY, "the scale of a feature jumped", "(the input return)"),
    "kept": (STRIKE + EVERY, "an episode began with the state of the one before", "(the state gate of memory/l0)"),
    "reset": (STRIKE, "the optimizer's second moments fell further than they decay", "the kernel weights of memory/l0"),
    "leak": (STRIKE, "a feature tells the target: does it look ahead?", "(the input volume)"),
    "labels": (STRIKE, "targets that are NaN or infinite are fed, and the network has become so", "(the targets)"),
    "rate": (STRIKE, "learning_rate went from 0.001 to 0.3, 300 times as large", "what follows began then"),
}


def test_the_first_sentence_says_what_where_and_since_when(trained):
    name, sentences, store = trained
    if name == "healthy":
        assert sentences[0].startswith("All ")
        assert not scores(store, detector="consensus")["anomalous"].any()
        return
    if name == "nan":
        assert sentences == [
            f"Values that are not finite appeared in 6 gates, first at step {STRIKE} in all 6 gates of memory/l0 at "
            "once: begin there."
        ]
        return
    step, what, where = EXPECTED[name]
    assert sentences[0].startswith(f"First at step {step}, {what}")
    assert where in sentences[0]

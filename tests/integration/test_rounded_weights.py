"""Weights that are rounded to a lower precision, and trainings that have it on purpose."""

from __future__ import annotations

from contextlib import nullcontext

import keras
import numpy as np
import pytest
import torch
from torch import nn

from gatewatch import GateMonitor as KerasMonitor
from gatewatch import open_store
from gatewatch.torch import GateMonitor
from tests.passes import only, scores


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 8, batch_first=True)
        self.head = nn.Linear(8, 16)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def round_to(kind, net):
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(parameter.to(kind))


def steps(net, monitor, count, rounded=lambda step: None, context=nullcontext):
    torch.manual_seed(1)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    x = torch.randn(16, 6, 3, dtype=net.head.weight.dtype)
    for step in range(count):
        optimizer.zero_grad()
        with context():
            loss = net(x).float().square().mean()
        loss.backward()
        optimizer.step()
        if kind := rounded(step):
            round_to(kind, net)
        monitor.step(x)


def found(store):
    only(store)
    checked = scores(store, detector="checks")
    alarms = checked[checked["anomalous"] == 1]
    rounded = alarms[alarms["why_rounded"] == 2] if len(alarms) else alarms
    return set(zip(rounded["layer"], rounded["gate"], rounded["step"], strict=True)), len(checked)


@pytest.fixture
def store(tmp_path):
    return open_store(f"sqlite:///{tmp_path / 'points.db'}")


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_weights_that_are_rounded_at_every_step_are_an_alarm(store, kind):
    torch.manual_seed(0)
    net = Net()
    with GateMonitor(net, None, store=store, every=5, run="r") as monitor:
        steps(net, monitor, 40, lambda step: kind if step >= 20 else None)
    params = [(layer, param) for layer in ("lstm/l0", "head") for param in ("kernel", "recurrent", "bias")]
    params.remove(("head", "recurrent"))
    assert found(store)[0] == {(*param, 25) for param in params}
    assert scores(store, detector="consensus")["source"].unique().tolist() == ["network"]


def test_a_checkpoint_of_half_precision_that_a_run_goes_on_from_is_an_alarm(store, tmp_path):
    torch.manual_seed(0)
    net = Net()
    with GateMonitor(net, tmp_path, store=store, every=5, run="r") as monitor:
        steps(net, monitor, 10)
    round_to(torch.float16, net)
    with GateMonitor(net, tmp_path, store=store, every=5, run="r", resume=True) as monitor:
        steps(net, monitor, 10)
    assert ("lstm/l0", "kernel", 15) in found(store)[0]


AUTOCAST = {"context": lambda: torch.autocast("cpu", torch.bfloat16)}
SOUND = {
    "autocast": (Net, AUTOCAST),
    "bfloat16 all along": (lambda: Net().bfloat16(), {}),
    "begins from bfloat16": (lambda: Net().bfloat16().float(), {}),
    "double precision": (lambda: Net().double(), {}),
}


@pytest.mark.parametrize(("make", "options"), SOUND.values(), ids=SOUND)
def test_low_precision_on_purpose_is_no_alarm(store, make, options):
    torch.manual_seed(0)
    net = make()
    with GateMonitor(net, None, store=store, every=5, run="r") as monitor:
        steps(net, monitor, 20, **options)
    alarms, checked = found(store)
    assert alarms == set()
    assert checked
    assert not scores(store, detector="checks")["anomalous"].any()


@pytest.mark.parametrize(("hook", "is_behind"), [("end", False), ("end", True), ("begin", False)])
def test_a_keras_model_whose_weights_a_callback_rounds_is_an_alarm(store, hook, is_behind):
    def rounds(batch, logs):
        if batch >= 10:
            model.set_weights([w.astype("float16").astype("float32") for w in model.get_weights()])

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6, 3)), keras.layers.LSTM(8), keras.layers.Dense(1)])
    model.compile("adam", "mse", run_eagerly=True)
    x = np.random.default_rng(0).normal(size=(20 * 8, 6, 3)).astype("float32")
    monitor = KerasMonitor(log_dir=None, store=store, probe=x[:8], every=4, run="r")
    callback = keras.callbacks.LambdaCallback(**{f"on_train_batch_{hook}": rounds})
    callbacks = [monitor, callback] if is_behind else [callback, monitor]
    model.fit(x, x[:, -1, :1], batch_size=8, verbose=0, shuffle=False, callbacks=callbacks)
    assert {step for *_, step in found(store)[0]} == {12}

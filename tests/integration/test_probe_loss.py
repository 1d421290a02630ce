"""`probe_loss` in real torch and Lightning trainings: what it is, what is refused, and that it leaves no trace."""

# ruff: noqa: E402
from __future__ import annotations

import logging
import math
import sys
from contextlib import closing
from types import ModuleType

# Lightning imports TensorBoard, which so does without TensorFlow: that would take long, and is of no use here.
sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader, TensorDataset

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.store import open_store
from gatewatch.lightning import GateMonitorCallback
from gatewatch.torch import GateMonitor
from tests.zoo.traces import assert_equal, seed_all, traces

X = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(1))
Y = torch.tanh(X[:, -1, :1])


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(before)


class Net(nn.Module):
    def __init__(self, outputs=1):
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(4, outputs)

    def forward(self, x):
        return self.head(self.dropout(self.lstm(x)[0][:, -1]))


class Stateful(Net):
    def forward(self, x):
        out, state = self.lstm(x)
        return self.head(out[:, -1]), state

    def act(self, x, scale):
        return scale * self(x)[0]


def metrics():
    with closing(open_store("sqlite:///g.db")) as store:
        return store.read("train_metrics")


def losses(module=None, steps=2, given=None, **options):
    """Train nothing, and return the probe losses that were recorded."""
    options = {"probe": X, "probe_targets": Y, "loss": mse_loss, "every": 1, **options}
    with GateMonitor(module or Net(), None, store="sqlite:///g.db", **options) as monitor:
        for _ in range(steps):
            monitor.step(metrics=given)
    frame = metrics()
    return frame["probe_loss"].tolist() if "probe_loss" in frame else []


def test_every_capture_has_the_loss_of_the_probe_in_inference_mode():
    torch.manual_seed(1)
    module = Net().train()
    module.head.weight.data.zero_()
    module.head.bias.data.fill_(0.5)
    optimizer = torch.optim.SGD(module.head.parameters(), 0.1)
    with GateMonitor(module, None, store="sqlite:///g.db", probe=X, probe_targets=Y, loss=mse_loss, every=2) as monitor:
        for step in range(1, 5):
            optimizer.zero_grad()
            mse_loss(module(X), Y).backward()
            optimizer.step()
            if step < 3:  # the bias alone decides
                module.head.weight.data.zero_()
                module.head.bias.data.fill_(0.5)
            monitor.step(metrics={"loss": 0.1})
    frame = metrics()
    assert frame[["step", "epoch"]].to_numpy().tolist() == [[2, 0], [4, 0]]
    assert frame["probe_loss"][0] == pytest.approx(np.mean((0.5 - Y.numpy()) ** 2), rel=1e-6)
    module.eval()
    assert frame["probe_loss"][1] == pytest.approx(mse_loss(module(X), Y).item(), rel=1e-6)
    assert frame["loss"].tolist() == [0.1, 0.1]


def test_a_capture_without_metrics_and_that_of_an_epochs_end_have_it_too():
    with GateMonitor(Net(), store="sqlite:///g.db", probe=X, probe_targets=Y, loss=mse_loss, every=4) as monitor:
        monitor.step()
        monitor.end_epoch({"loss": 1.0})
    frame = metrics()
    assert frame["step"].tolist() == [1, 1]
    assert frame["probe_loss"].notna().tolist() == [False, True]


def of_the_second_half(outputs, targets):
    return (outputs - targets)[2:].square().flatten()


def test_a_loss_for_each_sample_is_recorded_as_its_mean():
    torch.manual_seed(1)
    module = Net()
    assert losses(module, 1, loss=of_the_second_half) == [
        pytest.approx(mse_loss(module.eval()(X)[2:], Y[2:]).item(), rel=1e-6)
    ]


CLASSES = torch.tensor([0, 2, 1, 0])
ODD = {
    "class targets": (Net(3), {"probe_targets": CLASSES, "loss": cross_entropy}),
    "class targets of NumPy": (Net(3), {"probe_targets": CLASSES.numpy(), "loss": cross_entropy}),
    "a loss that is a module": (Net(3), {"probe_targets": CLASSES, "loss": nn.CrossEntropyLoss(torch.ones(3))}),
    "a tuple of outputs and state": (Stateful(), {"loss": lambda outputs, targets: mse_loss(outputs[0], targets)}),
    "a method with two arguments": (Stateful(), {"method": "act", "probe": (X, 1.0)}),
    "half precision": (Net().bfloat16(), {"probe": X.bfloat16(), "probe_targets": Y.bfloat16()}),
    "targets of another precision": (Net(), {"probe_targets": Y.double().numpy()}),
    "targets in a mapping": (Net(), {"probe_targets": {"y": Y}, "loss": lambda out, of: mse_loss(out, of["y"])}),
    "a number of Python's": (Net(), {"loss": lambda outputs, targets: 0.25}),
    "an array of NumPy's": (Net(), {"loss": lambda outputs, targets: (outputs - targets).numpy() ** 2}),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_models_losses_and_targets(kind):
    module, options = ODD[kind]
    first, second = losses(module, **options)
    assert 0 < first == second < 3


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 4)

    def forward(self, x):
        return self.lstm(x)[0]


def test_a_packed_probe():
    def loss(outputs, targets):
        return mse_loss(outputs.data, targets.data)

    packed = pack_sequence([X[0, :4], X[1, :2]])
    targets = pack_sequence([torch.zeros(4, 4), torch.zeros(2, 4)])
    assert all(0 < each < 1 for each in losses(Packed(), probe=packed, probe_targets=targets, loss=loss))
    assert not math.isnan(
        losses(Packed(), probe=packed, probe_targets=torch.zeros(6, 4), loss=lambda o, t: mse_loss(o.data, t))[0]
    )


def test_targets_are_kept_as_they_were_given():
    targets = Y.clone()

    def loss(outputs, of):
        of += 1
        return mse_loss(outputs, of - 1)

    module = Net().eval()
    with GateMonitor(module, None, store="sqlite:///g.db", probe=X, probe_targets=targets, loss=loss, every=1) as m:
        targets.zero_()
        m.step()
        m.step()
    wanted = pytest.approx(mse_loss(module(X), Y).item(), rel=1e-5)
    assert metrics()["probe_loss"].tolist() == [wanted, wanted]


def test_a_loss_that_is_not_finite_is_counted():
    assert losses(loss=lambda outputs, targets: mse_loss(outputs, targets) * math.nan) == []
    assert metrics()["nan_count"].tolist() == [1, 1]


def test_a_metric_of_the_same_name_is_kept_under_another(caplog):
    caplog.set_level(logging.WARNING, "gatewatch")
    first, _ = losses(given={"probe_loss": 7.0})
    assert first < 5
    assert metrics()["probe_loss_"].tolist() == [7.0, 7.0]
    assert [record.message for record in caplog.records] == [
        "gatewatch: metric 'probe_loss' is stored as 'probe_loss_': the loss of the probe has its name"
    ]


def test_a_metric_of_that_name_stays_where_there_are_no_targets():
    assert losses(given={"probe_loss": 7.0}, probe_targets=None, loss=None) == [7.0, 7.0]


def test_a_loss_that_fails_later_is_said_once_and_captures_go_on(caplog):
    caplog.set_level(logging.WARNING, "gatewatch")
    module = Net(3)
    options = {"probe": X, "probe_targets": CLASSES, "loss": cross_entropy, "every": 1}
    with GateMonitor(module, None, store="sqlite:///g.db", **options) as monitor:
        monitor.step()
        module.head = nn.Linear(4, 2)
        monitor.step()
        module.head = nn.Linear(4, 1)
        monitor.step()
    with closing(open_store("sqlite:///g.db")) as store:
        assert store.read("gate_stats")["step"].unique().tolist() == [1, 2, 3]
        assert store.read("collector_health")["failures"].tolist()[-1] == 2
    (said,) = [record.message for record in caplog.records]
    assert "the loss of the probe failed, training goes on: " in said


@pytest.mark.parametrize("phase", ["backtest", "live"])
def test_where_a_step_brings_a_window_the_probe_has_its_loss_too(phase, caplog):
    caplog.set_level(logging.WARNING, "gatewatch")
    module = Net().eval()
    options = {"probe": X, "probe_targets": Y, "loss": mse_loss, "every": 1, "phase": phase}
    with GateMonitor(module, None, store="sqlite:///g.db", **options) as monitor:
        monitor.step(X[:1] + 1)
        monitor.step((X[:1], "not the module's"))  # its window is lost, and with it the capture
        module.head.bias.data += 1
        monitor.step(X[:1])
    wanted = mse_loss(module(X), Y).item(), mse_loss(module(X) - 1, Y).item()
    assert metrics()["step"].tolist() == [1, 3]
    assert metrics()["probe_loss"].tolist() == [pytest.approx(wanted[1], rel=1e-5), pytest.approx(wanted[0], rel=1e-5)]


def test_in_training_a_window_is_looked_at_alone():
    with GateMonitor(Net(), None, store="sqlite:///g.db", probe=X, probe_targets=Y, loss=mse_loss, every=1) as monitor:
        monitor.step(X[:1], metrics={"loss": 1.0})
    assert "probe_loss" not in metrics()


def refused(match, **options):
    options = {"probe": X, "probe_targets": Y, "loss": mse_loss, **options}
    with pytest.raises(ConfigError, match=match) as caught, GateMonitor(Net(), store="sqlite:///g.db", **options):
        pass
    assert "\n" not in str(caught.value)


def fails(outputs, targets):
    raise KeyError("weight")


def test_arguments_that_do_not_fit_are_refused_before_the_first_step():
    refused("probe_targets without a probe: .*probe=x", probe=None)
    refused("probe_targets without a loss; loss is called with", loss=None)
    refused("loss='mse': must be a function", loss="mse")
    refused("loss without probe_targets: it is for", probe_targets=None)
    refused("probe_targets are numbers or text", probe_targets=[1, 2])
    refused("probe_targets are a source of batches", probe_targets=iter([Y]))
    refused(
        r"probe_targets of shape \(4, 2\) do not fit the outputs of shape \(4, 1\).*fail.*",
        probe_targets=torch.ones(4, 2),
        loss=cross_entropy,
    )
    refused(r"of shape \(5, 1\).*there are 5 targets, and neither probe nor", probe_targets=torch.ones(5, 1))
    refused(r"outputs of shape \(4, 1\) or the loss, which failed: KeyError: 'weight'; loss is called", loss=fails)
    refused("which failed: .*must be arrays of numbers, not dict", loss=lambda o, t: {"loss": 1.0})
    refused("which failed: .*must be arrays of numbers, not NoneType", loss=lambda o, t: None)
    refused(r"which failed: .*shape \(0,\), which has no values", loss=lambda o, t: o[:0, 0])


class Mischief(nn.Module):
    """A loss that learns, draws, counts and remembers."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(1))
        self.scale = nn.Parameter(torch.ones(1))
        self.noise = nn.Dropout(0.5)
        self.seen = []

    def forward(self, outputs, targets):
        self.mean += outputs.detach().mean() + torch.rand(1) + np.random.rand()
        self.seen.append(outputs)
        GLOBAL["calls"] += 1
        return (self.noise(outputs) * self.scale - targets - self.mean * 0).square().mean()


GLOBAL = {"calls": 0}


class WithLoss(Net):
    def __init__(self):
        super().__init__()
        self.criterion = Mischief()
        self.register_buffer("calls", torch.zeros(1))

    def loss(self, outputs, targets):
        self.calls += 1
        return self.criterion(outputs, targets) + self(X).square().mean() * 0


def trained(watch):
    seed_all()
    GLOBAL["calls"] = 0
    module = WithLoss()
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    with watch(module) as monitor:
        for _ in range(4):
            optimizer.zero_grad()
            module.loss(module(X), Y).backward()
            optimizer.step()
            monitor.step()
    return {**traces(module, optimizer), "seen": torch.cat(module.criterion.seen), "calls": GLOBAL["calls"]}


class Unwatched:
    def __init__(self, module):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def step(self):
        pass


def watched(loss):
    return lambda module: GateMonitor(
        module, None, store="sqlite:///g.db", probe=X, probe_targets=Y, loss=loss(module), every=1
    )


@pytest.mark.parametrize(
    "loss",
    [
        lambda module: module.loss,
        lambda module: lambda o, t: 2 * module.criterion(o, t),
        lambda module: module.criterion,
    ],
    ids=["a method", "a closure", "a module"],
)
def test_a_loss_that_changes_things_changes_nothing_of_the_training(loss, caplog):
    caplog.set_level(logging.WARNING, "gatewatch")
    assert_equal(trained(Unwatched), trained(watched(loss)))
    assert len(metrics()["probe_loss"].dropna()) == 4
    assert [record.message for record in caplog.records] == []
    with closing(open_store("sqlite:///g.db")) as store:
        assert set(store.read("gate_stats")["layer"]) == {"lstm/l0"}  # not what the loss has called


class Fitted(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = Net()

    def forward(self, x):
        return self.net(x)

    def loss(self, outputs, targets):
        self.log("inside", 1.0)
        return mse_loss(outputs, targets)

    def training_step(self, batch, number):
        return self.loss(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_lightning():
    module = Fitted()
    callback = GateMonitorCallback(None, store="sqlite:///g.db", probe=X, probe_targets=Y, loss=module.loss, every=1)
    options = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    pl.Trainer(max_epochs=1, accelerator="cpu", callbacks=[callback], **options).fit(
        module, DataLoader(TensorDataset(X, Y), 2)
    )
    frame = metrics().dropna(subset=["probe_loss"])
    assert frame["step"].tolist() == [1, 2]
    assert frame["probe_loss"].iloc[-1] == pytest.approx(mse_loss(module.eval()(X), Y).item(), rel=1e-6)
    with pytest.raises(ConfigError, match="probe_targets without a loss"):
        GateMonitorCallback(probe=X, probe_targets=Y)

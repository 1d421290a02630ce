"""Backtests that look at their windows and at a fixed probe: what the second look sees, and that nobody mixes both."""

from __future__ import annotations

import logging
from contextlib import closing, nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from gatewatch.collector.schema import GATE_STATS, GATE_TIME, GATE_UNITS
from gatewatch.collector.store import open_store
from gatewatch.torch import GateMonitor, gates
from tests.zoo.traces import assert_equal, seed_all, traces

LOOKED_AT = [GATE_STATS, GATE_UNITS, GATE_TIME]
REFERENCE = {"look": "reference"}
GENERATOR = torch.Generator().manual_seed(1)
PROBE = torch.randn(8, 6, 3, generator=GENERATOR)
WINDOWS = torch.randn(40, 1, 6, 3, generator=GENERATOR)
URL = "sqlite:///g.db"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(before)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def net(kind=Net):
    torch.manual_seed(0)
    return kind().eval()


def walk(module, bars=4, *, probe=PROBE, run="bt", phase="backtest", change=lambda bar: None, **options):
    """Walk through windows, and call the module with each after its step, as a stateful backtest must."""
    options = {"log_dir": None, "every": 1, **options}
    with GateMonitor(module, store=URL, probe=probe, run=run, phase=phase, **options) as monitor, torch.no_grad():
        for bar in range(bars):
            change(bar)
            monitor.step(WINDOWS[bar], time=np.datetime64("2020-01-01") + bar)
            module(WINDOWS[bar])


def read(measurement, **tags):
    with closing(open_store(URL)) as store:
        return store.read(measurement, tags=tags)


@pytest.mark.parametrize("phase", ["backtest", "live"])
def test_the_windows_and_the_probe_are_looked_at(phase):
    module = net()
    walk(module, phase=phase)
    window, probe = (read(GATE_STATS, gate="forget", **tags).set_index("step")["mean"] for tags in ({}, REFERENCE))
    assert window.index.tolist() == probe.index.tolist() == [1, 2, 3, 4]
    assert window.nunique() == 4
    assert probe.nunique() == 1
    assert probe[1] == pytest.approx(gates(module, PROBE)["lstm/l0"]["forget"].mean(), abs=1e-6)
    assert window[4] == pytest.approx(gates(module, WINDOWS[3])["lstm/l0"]["forget"].mean(), abs=1e-6)


@pytest.mark.parametrize("measurement", LOOKED_AT)
def test_the_points_of_windows_are_those_of_a_run_without_the_second_look(measurement):
    walk(net(), run="both")
    walk(net(), run="alone", probe=None)
    both, alone = read(measurement, run="both"), read(measurement, run="alone")
    assert len(alone) == 4 * 6
    assert "look" not in both
    assert both.drop(columns="run").equals(alone.drop(columns="run"))
    assert set(read(measurement, run="both", **REFERENCE)["look"]) == {"reference"}
    assert read(measurement, run="alone", **REFERENCE).empty


@pytest.mark.parametrize("options", [{"phase": "train"}, {"phase": "validation"}, {"probe": None}])
def test_there_is_no_second_look_in_training_nor_without_a_probe(options):
    walk(net(), **options)
    assert len(read(GATE_STATS)) == 4 * 6
    assert read(GATE_STATS, **REFERENCE).empty


def test_a_backtest_that_looks_at_its_probe_alone_looks_once():
    with GateMonitor(net(), None, store=URL, probe=PROBE, phase="backtest", every=1) as monitor:
        monitor.step()
        monitor.step()
    assert read(GATE_STATS)["step"].unique().tolist() == [1, 2]
    assert read(GATE_STATS, **REFERENCE).empty


class Attribute(Net):
    state = None

    def forward(self, x):
        out, self.state = self.lstm(x, self.state)
        return self.head(out[:, -1])


class Buffer(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("h", torch.zeros(1, 1, 4))
        self.register_buffer("c", torch.zeros(1, 1, 4))

    def forward(self, x):
        out, (h, c) = self.lstm(x, (self.h, self.c))
        self.h.copy_(h)
        self.c.copy_(c)
        return self.head(out[:, -1])


class Copied(Attribute):
    def forward(self, x):
        state = None if self.state is None else tuple(part.clone() for part in self.state)
        out, self.state = self.lstm(x, state)
        return self.head(out[:, -1])


class Cell(Net):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTMCell(3, 4)
        self._state = None

    def forward(self, x):
        state = self._state
        for t in range(x.shape[1]):
            state = self.lstm(x[:, t], state)
        self._state = tuple(part.detach() for part in state)
        return self.head(state[0])


@pytest.mark.parametrize(
    ("kind", "sequences"), [(Attribute, 1), (Attribute, 8), (Buffer, 1), (Copied, 1), (Cell, 1), (Cell, 8)]
)
def test_a_state_that_the_module_keeps_moves_no_reference_look(kind, sequences, caplog):
    caplog.set_level(logging.WARNING, "gatewatch")
    module = net(kind)
    walk(module, probe=PROBE[:sequences])
    forget = read(GATE_STATS, gate="forget", **REFERENCE)
    assert forget["step"].tolist() == [1, 2, 3, 4]
    assert forget["mean"].nunique() == 1
    fresh = net()
    fresh.lstm.load_state_dict({f"{k}_l0" if kind is Cell else k: v for k, v in module.lstm.state_dict().items()})
    assert forget["mean"][0] == pytest.approx(gates(fresh, PROBE[:sequences])["lstm/l0"]["forget"].mean(), abs=1e-6)
    assert [record.message for record in caplog.records] == []
    kept = getattr(module, "state", None) or getattr(module, "_state", None) or (module.h,)
    assert kept[0].abs().max() > 0


class Learned(Net):
    """Its initial state is a parameter, or comes from an encoder: that belongs to the network."""

    def __init__(self):
        super().__init__()
        self.begin = nn.Parameter(torch.full((1, 1, 4), 0.5))
        self.encoder = nn.GRU(3, 4, batch_first=True)

    def forward(self, x):
        _, h = self.encoder(x)
        return self.head(self.lstm(x, (h, self.begin.expand(1, len(x), 4).contiguous()))[0][:, -1])


def test_a_state_that_the_network_computes_stays():
    module = net(Learned)
    walk(module)
    forget = read(GATE_STATS, layer="lstm/l0", gate="forget", **REFERENCE)["mean"]
    assert forget.nunique() == 1
    assert forget[0] == pytest.approx(gates(module, PROBE)["lstm/l0"]["forget"].mean(), abs=1e-6)
    with torch.no_grad():
        assert forget[0] != pytest.approx(gates(net(), PROBE)["lstm/l0"]["forget"].mean(), abs=1e-4)


class Noisy(Net):
    """It counts its calls, draws, and keeps its state."""

    state = None

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        out, state = self.lstm(x + 0.1 * torch.rand(1), self.state)
        self.state = tuple(part.detach() for part in state)
        return self.head(out[:, -1])


def learnt_online(watch):
    seed_all()
    module = Noisy()
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    with watch(module) as monitor:
        for bar in range(6):
            if monitor is not None:
                monitor.step(WINDOWS[bar])
            optimizer.zero_grad()
            module(WINDOWS[bar]).square().mean().backward()
            optimizer.step()
    return {**traces(module, optimizer), "state": torch.cat(module.state), "calls": module.calls}


def test_the_second_look_leaves_no_trace_in_what_is_learnt():
    def watched(module):
        return GateMonitor(module, None, store=URL, probe=PROBE, phase="live", every=1)

    assert_equal(learnt_online(lambda module: nullcontext()), learnt_online(watched))
    assert read(GATE_STATS, gate="forget", **REFERENCE)["mean"].nunique() == 6


class Telling(nn.Module):
    """A layer that tells what it did last, whatever it is called with."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, x):
        self.values = torch.sigmoid(self.linear(x))
        return self.values

    def get_gate_history(self):
        return {"open": self.values}


class WithTelling(Net):
    def __init__(self):
        super().__init__()
        self.telling = Telling()

    def forward(self, x):
        self.telling(x)
        return super().forward(x)


def test_a_layer_that_tells_its_gates_itself_has_no_reference_look():
    walk(net(WithTelling))
    assert set(read(GATE_STATS)["layer"]) == {"lstm/l0", "telling"}
    assert set(read(GATE_STATS, **REFERENCE)["layer"]) == {"lstm/l0"}


def test_a_second_look_that_fails_is_said_once_and_the_windows_stay(caplog):
    caplog.set_level(logging.WARNING, "gatewatch")

    class Odd(Net):
        bars = 0

        def forward(self, x):
            if len(x) == 8 and self.bars > 1:
                raise ValueError("not today")
            self.bars += 1
            return super().forward(x)

    walk(net(Odd))
    assert read(GATE_STATS)["step"].unique().tolist() == [1, 2, 3, 4]
    assert read(GATE_STATS, **REFERENCE)["step"].unique().tolist() == [1, 2]
    (said,) = [record.message for record in caplog.records]
    assert "the look at the probe failed, training goes on: ValueError: not today" in said


def test_the_end_of_an_epoch_looks_at_no_probe_where_steps_bring_windows(place):
    with GateMonitor(net(), "logs", store=URL, probe=PROBE, phase="backtest", every=2) as monitor:
        for bar in range(3):
            monitor.step(WINDOWS[bar])
        monitor.end_epoch({"reward": 1.0})
        monitor.step(WINDOWS[3])
        monitor.end_epoch({"reward": 2.0})
    assert read(GATE_STATS)["step"].unique().tolist() == [2, 4]
    assert read(GATE_STATS, **REFERENCE)["step"].unique().tolist() == [2, 4]
    assert read("train_metrics")["reward"].tolist() == [1.0, 2.0]
    assert [path.name for path in (place / "logs").glob("*.npz")] == ["gate_epoch_1.npz"]
    with np.load("logs/gate_epoch_1.npz") as file:
        assert file["lstm/l0/forget"].shape == (1, 6, 4)


def test_a_backtest_without_a_probe_ends_its_epochs_without_a_word(caplog):
    caplog.set_level(logging.WARNING, "gatewatch")
    with GateMonitor(net(), None, store=URL, phase="backtest", every=2) as monitor:
        monitor.step(WINDOWS[0])
        monitor.end_epoch({"reward": 1.0})
    assert read("collector_health")["failures"].sum() == 0 if len(read("collector_health")) else True
    assert [record.message for record in caplog.records if "nothing to look at" in record.message] == []

"""`gatewatch.torch` on a CUDA device, beside the same on the CPU: all of it is skipped where there is none."""

from __future__ import annotations

import copy
import logging
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.store import open_store
from gatewatch.collector.torch import gates
from gatewatch.collector.torch.layers import recurrent_layers
from gatewatch.collector.torch.trace import trace
from gatewatch.torch import GateMonitor

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
    pytest.mark.filterwarnings("error:left out"),
]

BATCH, TIME, FEATURES = 4, 7, 3
KINDS = {"lstm": (nn.LSTM, {}), "lstm-projected": (nn.LSTM, {"proj_size": 2}), "gru": (nn.GRU, {})}
CUDA = "cuda"


@pytest.fixture(autouse=True)
def same_weights_every_time():
    torch.manual_seed(1)


@pytest.fixture
def exact():
    """cuDNN multiplies float32 as float32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def error(module, *inputs):
    """How far the replay is from what the device itself computed, at the most."""
    traced = trace(module, lambda twin: twin(*inputs), recurrent_layers(module))
    assert not traced.unreplayed
    return max(layer.error for layer in traced.layers.values())


def assert_same(found, wanted, tolerance):
    assert list(found) == list(wanted)
    for name, layer in wanted.items():
        assert list(found[name]) == list(layer)
        for gate, values in layer.items():
            np.testing.assert_allclose(found[name][gate], values, rtol=0, atol=tolerance, err_msg=f"{name} {gate}")


@pytest.mark.parametrize("begun", [False, True], ids=["zeros", "states"])
@pytest.mark.parametrize("packed", [False, True], ids=["whole", "packed"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["ahead", "both-ways"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("exact")
def test_gates_are_those_of_the_cpu_and_fit_what_cudnn_computed(kind, bidirectional, packed, begun):
    make, options = KINDS[kind]
    module = make(FEATURES, 5, 2, batch_first=True, dropout=0.5, bidirectional=bidirectional, **options)
    x = torch.randn(BATCH, TIME, FEATURES)
    given = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([1, 7, 3, 4]), True, False) if packed else x
    hx = None
    if begun:
        layers = 4 if bidirectional else 2
        states = [torch.randn(layers, BATCH, n) for n in (options.get("proj_size", 5), 5)]
        hx = tuple(states) if make is nn.LSTM else states[0]
    there = tuple(one.to(CUDA) for one in hx) if isinstance(hx, tuple) else None if hx is None else hx.to(CUDA)
    wanted = gates(module, given, hx)
    moved = copy.deepcopy(module).to(CUDA)
    assert_same(gates(moved, given.to(CUDA), there), wanted, 1e-6)
    assert error(moved, given.to(CUDA), there) < 1e-5  # cuDNN's own tanh is good to some roundings


@pytest.mark.parametrize("units", [8, 128, 512])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_tensor_float_is_told_from_a_wrong_replay(kind, units):
    module = kind(16, units, 2, batch_first=True).to(CUDA)
    x = torch.randn(16, 128, 16, device=CUDA)
    wanted = gates(copy.deepcopy(module).cpu(), x.cpu())
    assert torch.backends.cudnn.allow_tf32, "which is what torch does unless it is told otherwise"
    assert_same(gates(module, x), wanted, 1e-5)  # of the weights themselves, whatever cuDNN rounded
    assert error(module, x) < 2.0**-9


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_half_precision_is_replayed_in_single(kind, dtype):
    module = kind(16, 64, 2, batch_first=True, bidirectional=True, dtype=dtype).to(CUDA)
    x = torch.randn(8, 64, 16, device=CUDA, dtype=dtype)
    found = gates(module, x)
    assert {values.dtype for layer in found.values() for values in layer.values()} == {np.dtype(np.float32)}
    assert error(module, x) < 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_under_autocast(dtype):
    module, x = nn.LSTM(16, 64, batch_first=True).to(CUDA), torch.randn(8, 64, 16, device=CUDA)
    wanted = gates(copy.deepcopy(module).cpu(), x.cpu())
    with torch.autocast(CUDA, dtype):
        found = gates(module, x)
    assert_same(found, wanted, 1e-5)


class Net(nn.Module):
    def __init__(self, cell=nn.LSTM):
        super().__init__()
        self.lstm = cell(FEATURES, 16, 2, batch_first=True, dropout=0.5)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(16, 1)

    def forward(self, x):
        return self.head(self.drop(self.lstm(x)[0][:, -1]))


def train(path, *, watched, steps=12, scaler=None, clip=None):
    """The weights after a training, and the norm of the head's gradient at each step."""
    torch.manual_seed(2)
    torch.cuda.manual_seed_all(2)
    net = Net().to(CUDA)
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    probe = torch.randn(8, TIME, FEATURES, generator=torch.Generator().manual_seed(1)).to(CUDA)
    look = nullcontext()
    if watched:
        store = f"sqlite:///{path}/store.db"
        look = GateMonitor(net, path / "logs", run="cuda", probe=probe, every=1, store=store)
    norms = []
    with look as monitor:
        for _ in range(steps):
            x, y = torch.randn(BATCH, TIME, FEATURES, device=CUDA), torch.randn(BATCH, 1, device=CUDA)
            optimizer.zero_grad()
            with torch.autocast(CUDA, torch.float16, enabled=scaler is not None):
                loss = (net(x) - y).square().mean()
            (scaler.scale(loss) if scaler else loss).backward()
            if scaler:
                scaler.unscale_(optimizer)
            norms.append(net.head.weight.grad.norm().item())
            if clip:
                nn.utils.clip_grad_norm_(net.parameters(), clip)
            if scaler:
                scaler.step(optimizer)
                scaler.update()
            else:
                optimizer.step()
            if monitor is not None:
                monitor.step(metrics={"loss": loss.item()})
    return net.state_dict(), norms


@pytest.mark.parametrize("scaled", [False, True], ids=["float32", "float16-scaled"])
def test_a_training_is_the_same_bit_for_bit_and_its_points_arrive(tmp_path, caplog, scaled):
    scalers = [torch.amp.GradScaler(CUDA, init_scale=1024.0) if scaled else None for _ in range(2)]
    with caplog.at_level(logging.WARNING, logger="gatewatch"):
        plain, norms = train(tmp_path, watched=False, clip=1e-3, scaler=scalers[0])
        looked_at, _ = train(tmp_path, watched=True, clip=1e-3, scaler=scalers[1])
    for name, value in plain.items():
        assert torch.equal(value, looked_at[name]), name
    assert caplog.records == []
    store = open_store(f"sqlite:///{tmp_path}/store.db")
    stats = store.read("gate_stats", run="cuda")
    assert set(stats["layer"]) == {"lstm/l0", "lstm/l1"}
    assert stats.groupby(["layer", "gate"]).size().min() >= 10
    assert stats[["nan_count", "inf_count"]].to_numpy().sum() == 0
    updates = store.read("layer_updates", run="cuda", tags={"layer": "head", "param": "kernel"})
    assert len(updates) >= 8
    steps = updates["step"].to_numpy(dtype=int) - 1
    assert (updates["gradient_norm_clipped"] < 1.1e-3).all()
    if not scaled:
        np.testing.assert_allclose(updates["gradient_norm"], np.array(norms)[steps], rtol=1e-5)
    assert (store.read("collector_health", run="cuda")["failures"].fillna(0) == 0).all()


def test_a_look_leaves_the_devices_random_state(exact):
    net, x = Net().to(CUDA), torch.randn(BATCH, TIME, FEATURES, device=CUDA)
    net(x)
    before = torch.cuda.get_rng_state()
    gates(net, x)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_a_probe_elsewhere_than_the_module_is_refused_in_one_line(tmp_path):
    net = Net().to(CUDA)
    store = f"sqlite:///{tmp_path}/store.db"
    with (
        pytest.raises(ConfigError, match=r"does not fit the module Net.*device") as refused,
        GateMonitor(net, tmp_path, probe=torch.randn(8, TIME, FEATURES), store=store),
    ):
        pass
    assert "\n" not in str(refused.value)


def test_a_module_that_is_moved_in_the_middle_of_a_run_is_not_stopped(tmp_path, caplog):
    net = Net().to(CUDA)
    store = f"sqlite:///{tmp_path}/store.db"
    probe = torch.randn(8, TIME, FEATURES, device=CUDA)
    with (
        caplog.at_level(logging.WARNING, logger="gatewatch"),
        GateMonitor(net, tmp_path / "logs", run="moved", probe=probe, every=1, store=store) as monitor,
    ):
        for k in range(6):
            if k == 3:
                net.cpu()
            monitor.step()
    assert len(caplog.records) == 1, "which is said once"
    assert open_store(store).runs()["state"][0] == "completed"

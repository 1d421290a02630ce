"""What torch's `GateMonitor` says of a step and takes for a probe, against numbers that torch itself gives."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections import OrderedDict, UserDict
from contextlib import closing, contextmanager, nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.store import open_store
from gatewatch.collector.torch.call_contexts import with_initial_state
from gatewatch.collector.torch.layers import recurrent_layers
from gatewatch.collector.torch.updates import TorchUpdates
from gatewatch.torch import GateMonitor

GRADIENTS = ("gradient_norm", "gradient_norm_clipped")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 8, batch_first=True)
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


@pytest.fixture(autouse=True)
def same_weights_every_time():
    torch.manual_seed(1)


@pytest.fixture
def net():
    return Net()


@pytest.fixture
def loss():
    x, y = torch.randn(16, 5, 4), torch.randn(16, 1)
    return lambda module: (module(x) - y).square().mean()


@pytest.fixture
def updates(net):
    made = TorchUpdates(net, lambda kind: nullcontext())
    made.keep()
    yield made
    made.release()


def head(updates):
    """What is said of the dense layer's kernel."""
    return updates.get(("head", "kernel"))


def true_norm(loss, net):
    return torch.autograd.grad(loss(net), net.head.weight)[0].norm().item()


# The gradients of a step.


def test_a_step_with_clipping_after_several_backward_passes(net, loss, updates):
    optimizer, wanted = torch.optim.SGD(net.parameters(), 0.1), true_norm(loss, net)
    for _ in range(3):
        loss(net).backward()
    nn.utils.clip_grad_norm_(net.parameters(), 0.01)
    clipped, before = net.head.weight.grad.norm().item(), net.head.weight.detach().clone()
    optimizer.step()
    found = head(updates.measure())
    assert found["gradient_norm"] == pytest.approx(3 * wanted, rel=1e-5)
    assert found["gradient_norm_clipped"] == pytest.approx(clipped, rel=1e-5)
    assert found["update_norm"] == pytest.approx((net.head.weight - before).norm().item(), rel=1e-5)


@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_under_a_scaler_a_gradient_is_told_only_where_it_is_unscaled(net, loss, updates, fused, unscale):
    optimizer, wanted = torch.optim.Adam(net.parameters(), fused=fused), true_norm(loss, net)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(loss(net)).backward()
    if unscale:
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    found = head(updates.measure())
    assert "gradient_norm" not in found
    if fused and not unscale:
        assert "gradient_norm_clipped" not in found
    else:
        assert found["gradient_norm_clipped"] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("clip", [False, True])
def test_a_script_that_unscales_and_steps_itself_is_told_no_scaled_gradient(net, loss, updates, clip):
    optimizer, wanted = torch.optim.SGD(net.parameters(), 0.1), true_norm(loss, net)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(loss(net)).backward()
    scaler.unscale_(optimizer)
    if clip:
        nn.utils.clip_grad_norm_(net.parameters(), 1e-3)
    optimizer.step()
    scaler.update()
    found = head(updates.measure())
    assert "gradient_norm" not in found
    assert found["gradient_norm_clipped"] == pytest.approx(net.head.weight.grad.norm().item(), rel=1e-5)
    assert clip or found["gradient_norm_clipped"] == pytest.approx(wanted, rel=1e-5)
    updates.keep()
    optimizer.zero_grad()
    loss(net).backward()  # no longer scaled
    wanted = net.head.weight.grad.norm().item()
    optimizer.step()
    assert head(updates.measure())["gradient_norm"] == pytest.approx(wanted, rel=1e-5)


def test_a_scalers_class_is_left_as_it_was(net):
    before = torch.amp.GradScaler.scale
    first, second = (TorchUpdates(net, lambda kind: nullcontext()) for _ in range(2))
    for one in (first, second):
        one.keep()
    for one in (first, second, first):
        one.release()
    assert torch.amp.GradScaler.scale is before


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_scaler_skips_is_none(net, loss, updates, fused):
    optimizer, scaler = torch.optim.Adam(net.parameters(), fused=fused), torch.amp.GradScaler("cpu", 2.0**60)
    scaler.scale(loss(net) * 1e30).backward()
    scaler.step(optimizer)
    scaler.update()
    assert updates._steps == {}
    optimizer.zero_grad()
    loss(net).backward()
    optimizer.step()  # the next one is the first
    assert head(updates.measure())["optimizer_steps"] == 1


@pytest.mark.parametrize("how", ["position", "name"])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.LBFGS])
def test_the_gradient_of_a_closure_is_known_where_it_is_evaluated_once(net, loss, updates, kind, how):
    optimizer, wanted = kind(net.parameters()), true_norm(loss, net)

    def closure():
        optimizer.zero_grad()
        value = loss(net)
        value.backward()
        return value

    closure()  # what is left of it is not the gradient of the step
    before = net.head.weight.detach().clone()
    optimizer.step(closure) if how == "position" else optimizer.step(closure=closure)
    found = head(updates.measure())
    told = {name: value for name, value in found.items() if name in GRADIENTS}
    assert told == ({} if kind is torch.optim.LBFGS else dict.fromkeys(GRADIENTS, pytest.approx(wanted, rel=1e-5)))
    assert found["update_norm"] == pytest.approx((net.head.weight - before).norm().item(), rel=1e-5)


def test_nothing_is_copied_from_a_step_that_is_captured_as_a_graph(net, loss, updates, monkeypatch):
    """What CUDA says of itself is made up here, where there is no such device."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    loss(net).backward()
    optimizer.step()
    assert updates.measure() == {}


@pytest.mark.parametrize("to_none", [True, False])
def test_a_gradient_that_was_thrown_away_is_not_told(net, loss, updates, to_none):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    loss(net).backward()
    optimizer.zero_grad(set_to_none=to_none)
    net.lstm(torch.randn(16, 5, 4))[0].sum().backward()  # which misses the head
    optimizer.step()
    found = updates.measure()
    if to_none:
        assert head(found) is None  # the optimizer passes it over
    else:
        assert "gradient_norm" not in head(found)
        assert head(found)["gradient_norm_clipped"] == 0
    assert all("gradient_norm" in one for (layer, _), one in found.items() if layer == "lstm/l0")


def test_a_step_that_is_compiled_is_not_broken(net, loss, updates):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    compiled = torch.compile(lambda: optimizer.step(), backend="eager")  # noqa: PLW0108 - it is the hooks that are compiled
    for _ in range(3):
        updates.keep()
        optimizer.zero_grad()
        wanted = true_norm(loss, net)
        loss(net).backward()
        before = net.head.weight.detach().clone()
        compiled()
        assert not torch.equal(net.head.weight, before)
        found = head(updates.measure())
        assert found is None or found["gradient_norm"] == pytest.approx(wanted, rel=1e-5)
    torch.compiler.reset()


RANKS = """
import sys, torch, torch.distributed as dist
from contextlib import nullcontext
from torch import nn
from gatewatch.collector.torch.updates import TorchUpdates

rank, file = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
torch.manual_seed(0)
module = nn.Linear(4, 1)
parallel = nn.parallel.DistributedDataParallel(module)
optimizer = torch.optim.SGD(module.parameters(), 0.1)
updates = TorchUpdates(parallel, lambda kind: nullcontext())
updates.keep()
torch.manual_seed(rank)
parallel(torch.randn(8, 4)).square().mean().backward()
averaged = module.weight.grad.norm().item()
optimizer.step()
fields = next(one for (_, param), one in updates.measure().items() if param == "kernel")
assert "gradient_norm" not in fields, fields
assert abs(fields["gradient_norm_clipped"] - averaged) < 1e-5 * averaged, (fields, averaged)

from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import distribute_tensor

mesh = init_device_mesh("cpu", (2,))
sharded, plain = nn.Linear(4, 2), nn.Linear(2, 1)
for name in ("weight", "bias"):
    setattr(sharded, name, nn.Parameter(distribute_tensor(getattr(sharded, name).detach(), mesh)))
both = nn.ModuleList([sharded, plain])
optimizers = [torch.optim.SGD(one.parameters(), 0.1) for one in both]
updates = TorchUpdates(both, lambda kind: nullcontext())
updates.keep()
sharded(distribute_tensor(torch.randn(8, 4), mesh)).square().mean().backward()
plain(torch.randn(8, 2)).square().mean().backward()
for optimizer in optimizers:
    optimizer.step()
assert {layer for layer, _ in updates.measure()} == {"1"}
dist.destroy_process_group()
"""


def test_in_one_of_several_processes_only_the_averaged_gradient_is_told_and_nothing_of_sharded_parameters(tmp_path):
    arguments = [[sys.executable, "-c", RANKS, str(rank), str(tmp_path / "meet")] for rank in (0, 1)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(one, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for one in arguments
    ]
    said = [rank.communicate(timeout=120)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said


# What goes wrong in a hook.


def test_nothing_leaves_a_hook(net, loss):
    failures = []

    @contextmanager
    def guarded_and_charged(kind):
        try:
            yield
        except Exception as error:
            failures.append(error)

    class Odd(torch.optim.Optimizer):
        """One that keeps its parameters elsewhere."""

        @torch.no_grad()
        def step(self):
            for parameter in net.parameters():
                parameter.sub_(0.1 * parameter.grad)

    updates = TorchUpdates(net, guarded_and_charged)
    updates.keep()
    optimizer = Odd(net.parameters(), {})
    optimizer.param_groups = None
    loss(net).backward()
    before = net.head.weight.detach().clone()
    optimizer.step()
    assert not torch.equal(net.head.weight, before)
    assert [type(error) for error in failures] == [TypeError, TypeError]
    assert updates.measure() == {}
    updates.release()
    assert not net.head.weight._post_accumulate_grad_hooks


# The probe.


class Keyed(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 8, batch_first=True)

    def forward(self, inputs):
        return self.lstm(inputs["x"])


def told_fingerprint(module, probe, url):
    with GateMonitor(module, None, probe=probe, store=url) as monitor:
        pass
    with closing(open_store(url)) as store:
        frame = store.read("runs", run=monitor.run)
    return json.loads(frame[frame["event"] == "started"]["config"].iloc[0])["probe_fingerprint"]


@pytest.mark.parametrize(
    "make",
    [
        lambda x: {"x": x},
        lambda x: OrderedDict(x=x),
        lambda x: UserDict(x=x),
        lambda x: ({"x": x},),
        lambda x: {"x": pack_sequence(list(x))},
    ],
)
def test_a_probe_in_a_mapping_is_our_own_and_has_a_fingerprint(make, tmp_path):
    url, module, x = f"sqlite:///{tmp_path}/gates.db", Keyed(), torch.randn(2, 3, 4)
    same, other = told_fingerprint(module, make(x), url), told_fingerprint(module, make(x + 1), url)
    assert same == told_fingerprint(module, make(x.clone()), url) != other
    given = make(x.clone())
    monitor = GateMonitor(module, None, probe=given, store=url)
    kept = monitor._probe[0]
    mine = given[0] if isinstance(given, tuple) else given
    assert type(kept) is type(mine)
    ours, theirs = kept["x"], mine["x"]
    if not isinstance(theirs, torch.Tensor):
        assert type(ours) is type(theirs)
        ours, theirs = ours.data, theirs.data
    theirs.zero_()
    assert ours.abs().sum() > 0


def test_a_packed_probe_is_our_own(tmp_path):
    url, x = f"sqlite:///{tmp_path}/gates.db", torch.randn(2, 3, 4)
    packed = pack_sequence([x[0], x[1, :2]])
    module = nn.LSTM(4, 8)
    first = told_fingerprint(module, packed, url)
    monitor = GateMonitor(module, None, probe=packed, store=url)
    packed.data.zero_()
    assert monitor._probe[0].data.abs().sum() > 0
    assert told_fingerprint(module, packed, url) != first


@pytest.mark.parametrize(
    ("probe", "said"),
    [
        (torch.zeros(0, 3, 4), r"the probe of shape \(0, 3, 4\) holds no sequence; give a batch, such as x\[:32\]$"),
        (np.zeros((2, 0, 4)), r"the probe of shape \(2, 0, 4\) holds no sequence"),
        ({"x": torch.full((2, 3, 4), torch.nan)}, "values that are not finite; give a batch of sound inputs$"),
        ((torch.zeros(2, 3, 4), [torch.full((2,), -torch.inf)]), "values that are not finite"),
        (torch.full((2, 3, 4), torch.nan, dtype=torch.bfloat16), "values that are not finite"),
        (3, "the probe is no batch of inputs but numbers or text; give a tensor or an array, such as x"),
        (np.array(["a", None], object), "the probe is no batch of inputs: can't convert"),
        (torch.zeros(2, 3, 4, device="meta"), "the probe is no batch of inputs: .*meta tensor"),
    ],
)
def test_a_probe_that_is_no_sound_batch_is_refused_in_one_line(probe, said, tmp_path):
    with pytest.raises(ConfigError, match=said) as caught:
        GateMonitor(Keyed(), None, probe=probe, store=f"sqlite:///{tmp_path}/gates.db")
    assert str(caught.value).isprintable()


def test_hostile_names_of_layers_are_one_printable_line(tmp_path):
    module = nn.Module()
    for name in ("ev\nil\x1b[31m", "other\r"):
        module.add_module(name, nn.LSTM(4, 8))
    with (
        pytest.raises(ConfigError, match=r"'x' is no .* it has 'ev\\nil\\x1b\[31m/l0', 'other") as chosen,
        GateMonitor(module, None, probe=torch.zeros(2, 3, 4), store=f"sqlite:///{tmp_path}/gates.db", layers=["x"]),
    ):
        pass
    said = [chosen]
    for states, reason in ((torch.zeros(1), "several"), ({"\x1b": torch.zeros(1)}, "no recurrent layer")):
        with pytest.raises(ConfigError, match=reason) as caught, with_initial_state(recurrent_layers(module), states):
            pass
        said.append(caught)
    assert all(str(one.value).isprintable() for one in said)


# The learning rate.


def stepped(optimizer, loss, net, updates):
    """The rate that is told of a step."""
    updates.keep()
    optimizer.zero_grad()
    loss(net).backward()
    optimizer.step()
    rate = updates.rate()
    updates.measure()
    return rate


def test_the_learning_rate_is_that_of_the_step_not_of_the_next(net, loss, updates):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2], gamma=0.1)
    assert updates.rate() is None
    for wanted in (0.1, 0.01, 0.001):
        updates.keep()
        loss(net).backward()
        optimizer.step()
        scheduler.step()
        assert updates.rate() == pytest.approx(wanted)
        optimizer.step()  # another one before the capture, which is of the first
        assert updates.rate() == pytest.approx(wanted)
        updates.measure()
        assert updates.rate() is None


def test_of_several_groups_the_rate_is_that_of_the_recurrent_parameters(net, loss, updates):
    groups = [{"params": net.head.parameters(), "lr": 0.5}, {"params": net.lstm.parameters(), "lr": 0.01}]
    assert stepped(torch.optim.Adam(groups), loss, net, updates) == 0.01
    net.lstm.requires_grad_(False)
    groups = [{"params": [net.head.weight], "lr": 0.5}, {"params": [net.head.bias], "lr": 0.01}]
    assert stepped(torch.optim.Adam(groups), loss, net, updates) == 0.5


def test_of_two_optimizers_the_rate_is_that_of_the_recurrent_parameters(net, loss, updates):
    loss(net).backward()
    torch.optim.SGD(net.lstm.parameters(), 0.25).step()
    torch.optim.SGD(net.head.parameters(), 0.5).step()
    assert updates.rate() == 0.25


class Plain(torch.optim.Optimizer):
    """Gradient descent whose groups call the rate what they like, or change it within a step."""

    def __init__(self, parameters, **options):
        super().__init__(parameters, options)

    def step(self, closure=None):
        for group in self.param_groups:
            if "next" in group:
                group["lr"] = group["next"]
            for parameter in group["params"]:
                parameter.data.sub_(parameter.grad, alpha=0.1)


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (lambda some: torch.optim.Adam(some, torch.tensor(0.25), foreach=False), 0.25),
        (lambda some: torch.optim.SGD(some, torch.tensor([0.25])), 0.25),
        (lambda some: Plain(some, lr=np.float32(0.25)), 0.25),
        (lambda some: Plain(some, lr=0), 0.0),
        (lambda some: Plain(some, lr=0.1, next=0.0995), 0.0995),
        (lambda some: Plain(some, lr=0.1, next=0.05), None),
        (lambda some: Plain(some, rate=0.1), None),
        (lambda some: Plain(some, lr=None), None),
        (lambda some: Plain(some, lr="0.1"), None),
        (lambda some: Plain(some, lr=float("nan")), None),
        (lambda some: Plain(some, lr=float("inf")), None),
        (lambda some: Plain(some, lr=torch.ones(2)), None),
    ],
    ids=[
        "tensor",
        "one-element",
        "numpy",
        "zero",
        "drifts",
        "jumps",
        "unnamed",
        "none",
        "text",
        "nan",
        "inf",
        "several",
    ],
)
def test_a_learning_rate_is_told_where_it_is_known(net, loss, updates, make, wanted):
    optimizer = make(net.parameters())
    assert stepped(optimizer, loss, net, updates) == (None if wanted is None else pytest.approx(wanted))


# A run.


def test_a_run_has_its_learning_rate_unless_it_logs_its_own(net, loss, tmp_path):
    url, optimizer = f"sqlite:///{tmp_path}/gates.db", torch.optim.Adam(net.parameters(), 0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    logged = [None, {"loss": 1.0}, {"learning_rate": 7.0}, {"learning_rate": None}, {}, {"learning_rate": 8.0}]
    with GateMonitor(net, None, probe=torch.randn(4, 5, 4), store=url, every=2) as monitor:
        for step, metrics in enumerate(logged + logged):
            optimizer.zero_grad()
            loss(net).backward()
            optimizer.step()
            scheduler.step()
            monitor.step(metrics=metrics, time=np.datetime64("2020-01-01") + step if step >= len(logged) else None)
        monitor.end_epoch({"val_loss": 3.0})
    with closing(open_store(url)) as store:
        found = store.read("train_metrics", run=monitor.run)
        captured = store.read("gate_stats", run=monitor.run)
    told = found.dropna(subset="learning_rate").set_index("step")["learning_rate"].sort_index()
    assert set(captured["step"]) == {2, 4, 6, 8, 10, 12}
    own = {step: 0.1 * 0.5 ** (step - 1) for step in (2, 4, 8, 10)}  # at 4 and 10 the user's was None
    assert told.to_dict() == pytest.approx(own | {6: 8.0, 9: 7.0, 12: 8.0})
    assert found[["nan_count", "inf_count"]].to_numpy().sum() == 0
    assert not found.duplicated("time").any()


def test_in_a_backtest_nothing_is_learnt_and_there_is_no_rate(net, tmp_path):
    url = f"sqlite:///{tmp_path}/gates.db"
    with GateMonitor(net, None, probe=torch.randn(4, 5, 4), store=url, every=1, phase="backtest") as monitor:
        monitor.step(metrics={"equity": 1.0})
    with closing(open_store(url)) as store:
        assert "learning_rate" not in store.read("train_metrics", run=monitor.run)


def test_a_run_tells_of_its_steps_and_of_nothing_wrong(net, loss, tmp_path, caplog):
    url, optimizer, wanted = f"sqlite:///{tmp_path}/gates.db", torch.optim.SGD(net.parameters(), 0.1), []
    with (
        caplog.at_level(logging.WARNING, "gatewatch"),
        GateMonitor(net, None, probe=torch.randn(4, 5, 4), store=url, every=1) as monitor,
    ):
        for _ in range(3):
            optimizer.zero_grad()
            loss(net).backward()
            wanted.append(net.head.weight.grad.norm().item())
            optimizer.step()
            monitor.step()
    assert caplog.messages == []
    with closing(open_store(url)) as store:
        frame = store.read("layer_updates", run=monitor.run)
    frame = frame[(frame["layer"] == "head") & (frame["param"] == "kernel")].sort_values("step")
    np.testing.assert_allclose(frame["gradient_norm"], wanted[-len(frame) :], rtol=1e-5)
    assert len(frame) == 3

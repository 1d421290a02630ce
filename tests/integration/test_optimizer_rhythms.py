"""What a capture has of optimizers that step in their own way: seldom, in turns, with a closure, past a layer.

Every number is held to one that the test takes from clones of parameters and gradients.
"""

from __future__ import annotations

import logging
from contextlib import closing
from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gatewatch.collector.capture_schedule import CaptureSchedule
from gatewatch.collector.store import open_store
from gatewatch.torch import GateMonitor
from tests.kept import Kept
from tests.passes import only

X, Y = torch.randn(8, 4, 3, generator=torch.Generator().manual_seed(0)), torch.ones(8, 1)
PARAMETERS = {
    ("lstm/l0", "kernel"): ["lstm.weight_ih_l0"],
    ("lstm/l0", "recurrent"): ["lstm.weight_hh_l0"],
    ("lstm/l0", "bias"): ["lstm.bias_ih_l0", "lstm.bias_hh_l0"],
    ("head", "kernel"): ["head.weight"],
    ("head", "bias"): ["head.bias"],
}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


@pytest.fixture(autouse=True)
def same_weights_every_time():
    torch.manual_seed(1)


def loss_of(net):
    return (net(X) - Y).square().mean()


def norm(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors]).norm().item()


def clones(net, of=lambda parameter: parameter):
    return {name: None if of(one) is None else of(one).detach().clone() for name, one in net.named_parameters()}


def expected(before, after, whole, clipped):
    """Parameter → the fields of a step, from clones of what there was."""
    fields = {}
    for name, parts in PARAMETERS.items():
        old, new = norm([before[part] for part in parts]), norm([after[part] for part in parts])
        moved = norm([after[part] - before[part] for part in parts])
        fields[name] = {"weight_norm": new, "update_norm": moved, "update_ratio": moved / old, "optimizer_steps": 1}
        for field, gradients in (("gradient_norm", whole), ("gradient_norm_clipped", clipped)):
            if gradients is not None:
                fields[name][field] = norm([gradients[part] for part in parts])
    return fields


def is_close(found, wanted):
    """Whether the fields of all parameters are those of a step, and no gradient is told that is not to be had."""
    return found.keys() == wanted.keys() and all(
        {name for name in found[one] if name.startswith("gradient")}
        == {name for name in wanted[one] if name.startswith("gradient")}
        and all(found[one][name] == pytest.approx(value, rel=1e-4, abs=1e-9) for name, value in wanted[one].items())
        for one in wanted
    )


# Any loop.


OPTIMIZERS = {
    "adam": lambda parameters: torch.optim.Adam(parameters, 0.01),
    "momentum": lambda parameters: torch.optim.SGD(parameters, 0.01, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda parameters: torch.optim.SGD(parameters, 0.01, momentum=0.9, nesterov=True, foreach=True),
}


def train(net, store, *, optimizer, accumulate, first, every, closure, clip, scaled, zero, to_none):
    """Train for 24 steps; return step of the loop → what its step of the optimizer did, and the captures."""
    optimizer, did = OPTIMIZERS[optimizer](net.parameters()), {}
    scaler = torch.amp.GradScaler("cpu", 2.0**8, enabled=scaled)
    captures = [step for step in range(1, 25) if step % every == 0]

    def clipped():
        whole = clones(net, lambda parameter: parameter.grad)
        if clip == "norm":
            nn.utils.clip_grad_norm_(net.parameters(), 0.01)
        elif clip == "value":
            nn.utils.clip_grad_value_(net.parameters(), 0.001)
        return None if scaled else whole, clones(net, lambda parameter: parameter.grad)

    with GateMonitor(net, None, probe=X[:2], store=store, every=every) as monitor:
        fresh = True
        for step in range(1, 25):
            if zero == "before forward" and fresh:
                optimizer.zero_grad(to_none)
            is_last = (step - 1) % accumulate == first % accumulate
            seen = []

            def evaluate(fresh=fresh, is_last=is_last, seen=seen):
                loss = loss_of(net) / accumulate
                if zero == "before backward" and fresh:
                    optimizer.zero_grad(to_none)
                scaler.scale(loss).backward()
                if is_last:
                    scaler.unscale_(optimizer)
                    seen[:] = clipped()
                return loss

            before = clones(net)
            if closure == "position" and is_last:
                optimizer.step(evaluate)
            elif closure and is_last:
                optimizer.step(closure=partial(evaluate))
            else:
                evaluate()
                if is_last:
                    scaler.step(optimizer)
                    scaler.update()
            if is_last:
                did[step] = expected(before, clones(net), *seen)
                if zero == "after step":
                    optimizer.zero_grad(to_none)
            fresh = is_last
            monitor.step()
    return did, captures


@settings(max_examples=15)
@given(
    loop=st.fixed_dictionaries(
        {
            "optimizer": st.sampled_from(sorted(OPTIMIZERS)),
            "accumulate": st.integers(1, 5),
            "first": st.integers(0, 4),
            "every": st.integers(1, 7),
            "clip": st.sampled_from([None, "norm", "value"]),
            "zero": st.sampled_from(["before forward", "before backward", "after step"]),
            "to_none": st.booleans(),
            "closure": st.sampled_from([None, "position", "name"]),
            "scaled": st.booleans(),
        }
    )
)
def test_every_step_of_the_optimizer_between_two_captures_is_told_with_the_second(loop):
    torch.manual_seed(1)
    store = Kept()
    loop["scaled"] &= not loop["closure"]  # torch's scaler takes no closure
    did, captures = train(Net(), store, **loop)
    found = store.updates()
    assert set(found) <= set(captures)
    for earlier, capture in pairwise([0, *captures]):
        steps = [step for step in did if earlier < step <= capture]
        if capture in did:  # the step before the capture
            steps = [capture]
        if capture in found:
            assert any(is_close(found[capture], did[step]) for step in steps), (capture, steps)
        elif earlier:
            assert not steps, (capture, steps)


@pytest.mark.parametrize("every", [4, 10])
def test_gradients_that_are_accumulated(every):
    """As in `if i % 4 == 0: optimizer.step()`: it is never the step of a capture that steps."""
    net, store = Net(), Kept()
    did, captures = train(
        net, store, optimizer="adam", accumulate=4, first=0, every=every, closure=None, clip="norm", scaled=False,
        zero="after step", to_none=True,
    )  # fmt: skip
    found = store.updates()
    assert sorted(found) == captures[1:] or sorted(found) == captures
    for capture in captures[1:]:
        latest = max(step for step in did if step <= capture)
        assert is_close(found[capture], did[latest])


@pytest.fixture
def captures_cost_nothing(monkeypatch):
    """With "auto" one is due at every step then, whatever the clock says."""
    monkeypatch.setattr(CaptureSchedule, "charge", lambda *_: None)


@pytest.mark.usefixtures("captures_cost_nothing")
def test_with_auto_a_capture_waits_for_the_optimizer():
    net, store = Net(), Kept()
    optimizer = torch.optim.Adam(net.parameters())
    with GateMonitor(net, None, probe=X[:2], store=store) as monitor:
        for step in range(1, 41):
            loss_of(net).backward()
            if step % 5 == 0:
                optimizer.step()
                optimizer.zero_grad()
            monitor.step()
    assert {step for step in store.captures() if step > 10} == {15, 20, 25, 30, 35, 40}
    assert {step for step in store.updates() if step > 10} == {15, 20, 25, 30, 35, 40}


@pytest.mark.usefixtures("captures_cost_nothing")
def test_with_auto_a_capture_does_not_wait_for_an_optimizer_that_was_replaced():
    net, store = Net(), Kept()
    optimizers = [torch.optim.Adam(net.parameters()) for _ in range(2)]
    with GateMonitor(net, None, probe=X[:2], store=store) as monitor:
        for step in range(1, 61):
            loss_of(net).backward()
            optimizers[step > 20].step()
            monitor.step()
    assert set(store.updates()) == set(range(1, 61))


def test_a_window_of_bars_that_is_learnt_from_in_one_go():
    """An agent that acts bar by bar and learns at the end of a window, in several steps."""
    net, store = Net(), Kept()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with GateMonitor(net, None, probe=X[:2], store=store, every=6) as monitor:
        for bar in range(1, 65):
            if bar % 16 == 0:
                for _ in range(3):
                    optimizer.zero_grad()
                    loss_of(net).backward()
                    optimizer.step()
            monitor.step()
    assert sorted(store.updates()) == [18, 36, 48]  # the last window ends at bar 64, after the last capture
    assert all(fields["head", "kernel"]["gradient_norm"] > 0 for fields in store.updates().values())


def test_two_optimizers_that_take_turns():
    net, store = Net(), Kept()
    own, others = torch.optim.SGD(net.lstm.parameters(), 0.1), torch.optim.SGD(net.head.parameters(), 0.1)
    with GateMonitor(net, None, probe=X[:2], store=store, every=5) as monitor:
        for step in range(1, 41):
            optimizer = others if step % 3 == 0 else own
            net.zero_grad()
            loss_of(net).backward()
            optimizer.step()
            monitor.step()
    found = store.updates()
    assert all(found[capture].keys() == PARAMETERS.keys() for capture in range(10, 41, 5))


def test_an_optimizer_that_no_longer_steps_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("gatewatch.collector.update_recorder._PATIENCE", 20)
    net, store = Net(), Kept()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)

    def is_hooked():
        return bool(net.head.weight._post_accumulate_grad_hooks)

    with GateMonitor(net, None, probe=X[:2], store=store, every=30) as monitor:
        for step in range(1, 101):
            loss_of(net).backward()
            if step in (2, 4, 6):
                optimizer.step()
            monitor.step()
            if step > 30:
                assert is_hooked() == (step % 30 == 29)
    assert set(store.updates()) == {30}
    assert not is_hooked()


# Closures.


@pytest.mark.parametrize("how", ["position", "name"])
def test_an_optimizer_that_evaluates_its_closure_several_times_tells_no_gradient_and_says_so_once(how, caplog):
    net, store = Net(), Kept()
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=3)

    def closure():
        optimizer.zero_grad()
        loss = loss_of(net)
        loss.backward()
        return loss

    with (
        caplog.at_level(logging.WARNING, "gatewatch"),
        GateMonitor(net, None, probe=X[:2], store=store, every=1) as monitor,
    ):
        for _ in range(3):
            before = net.head.weight.detach().clone()
            loss = optimizer.step(closure) if how == "position" else optimizer.step(closure=closure)
            assert loss > 0
            monitor.step()
    told = store.updates()[3]["head", "kernel"]
    assert not {"gradient_norm", "gradient_norm_clipped"} & told.keys()
    assert told["update_norm"] == pytest.approx((net.head.weight - before).norm().item(), rel=1e-4)
    assert caplog.messages == [
        "gatewatch: gradients of what LBFGS trains are not recorded, but weights and updates are: it evaluates its "
        "closure several times in a step"
    ]


def test_a_closure_that_fails_fails_as_it_would_and_the_next_step_is_told():
    net, store = Net(), Kept()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)

    def closure(fails):
        optimizer.zero_grad()
        loss = loss_of(net)
        if fails:
            raise MemoryError("no more")
        loss.backward()
        return loss

    with GateMonitor(net, None, probe=X[:2], store=store, every=1) as monitor:
        with pytest.raises(MemoryError, match="no more"):
            optimizer.step(lambda: closure(True))
        with torch.no_grad():
            net.head.weight.mul_(2)
        before = net.head.weight.detach().clone()
        optimizer.step(lambda: closure(False))
        monitor.step()
    told = store.updates()[1]["head", "kernel"]
    assert told["update_norm"] == pytest.approx((net.head.weight - before).norm().item(), rel=1e-4)
    assert told["gradient_norm"] == pytest.approx(net.head.weight.grad.norm().item(), rel=1e-4)


# Layers without a gradient.


class WithSpare(Net):
    """A network with a head outside of forward, and an auxiliary LSTM that is used now and then."""

    def __init__(self):
        super().__init__()
        self.spare, self.auxiliary = nn.Linear(4, 2), nn.LSTM(3, 4, batch_first=True)

    def forward(self, x, auxiliary=False):
        return super().forward(x) + (self.auxiliary(x)[0][:, -1:, 0] if auxiliary else 0)


@pytest.mark.parametrize("closure", [False, True])
def test_a_layer_that_forward_does_not_use_is_named_once_and_not_recorded(closure, caplog):
    net, store = WithSpare(), Kept()
    optimizer = torch.optim.Adam(net.parameters())

    def evaluate(step):
        optimizer.zero_grad()
        loss = (net(X, auxiliary=step % 2 == 0) - Y).square().mean()
        loss.backward()
        return loss

    with (
        caplog.at_level(logging.WARNING, "gatewatch"),
        GateMonitor(net, None, probe=X[:2], store=store, every=1, layers=["lstm"]) as monitor,
    ):
        for step in range(1, 7):
            if closure:
                optimizer.step(lambda step=step: evaluate(step))
            else:
                evaluate(step)
                optimizer.step()
            monitor.step()
    found = store.updates()
    assert {layer for layer, _ in found[1]} == {"lstm/l0", "head"}
    assert all({layer for layer, _ in found[step]} == {"lstm/l0", "head", "auxiliary/l0"} for step in range(2, 7))
    moved = {step: told["auxiliary/l0", "recurrent"].get("update_norm") for step, told in found.items() if step > 1}
    assert {step for step, norm in moved.items() if norm} == {2, 4, 6}
    passed_over = found[3]["auxiliary/l0", "recurrent"]
    assert passed_over["optimizer_steps"] == 0
    assert (passed_over["travel"], passed_over["travel_steps"]) == (0, 1)
    assert not {"gradient_norm", "update_norm", "update_ratio", "update_frequency"} & passed_over.keys()
    assert caplog.messages == [
        "gatewatch: no gradient reaches 'auxiliary/l0', 'spare': no update is recorded while that is so; a layer that "
        "forward uses has a gradient unless it is detached"
    ]


def test_a_layer_that_is_used_now_and_then_is_not_taken_for_frozen(tmp_path):
    net, url = WithSpare(), f"sqlite:///{tmp_path}/gates.db"
    optimizer = torch.optim.Adam(net.parameters())
    with GateMonitor(net, None, probe=X[:2], store=url, every=1, layers=["lstm"]) as monitor:
        for step in range(60):
            optimizer.zero_grad()
            (net(X + torch.randn_like(X) / 10, auxiliary=step % 3 == 0) - Y).square().mean().backward()
            optimizer.step()
            monitor.step()
    with closing(open_store(url)) as store:
        only(store)
        scores = store.read("gate_scores", tags={"layer": "auxiliary/l0", "detector": "rules"})
    assert len(scores)
    assert scores["anomaly_score"].max() <= 1


def test_a_layer_whose_gradient_is_zero_still_stands_still():
    net, store = Net(), Kept()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with GateMonitor(net, None, probe=X[:2], store=store, every=1) as monitor:
        for _ in range(3):
            optimizer.zero_grad()
            (net.head(net.lstm(X)[0][:, -1] * 0) - Y).square().mean().backward()
            optimizer.step()
            monitor.step()
    told = store.updates()[3]["lstm/l0", "recurrent"]
    assert (told["gradient_norm"], told["update_norm"], told["zero_count"]) == (0, 0, 64)


def test_an_optimizer_that_forgets_its_gradients_within_its_step_is_recorded():
    class Forgetful(torch.optim.SGD):
        def step(self, closure=None):
            super().step(closure)
            self.zero_grad()

    net, store = Net(), Kept()
    optimizer = Forgetful(net.parameters(), 0.1)
    with GateMonitor(net, None, probe=X[:2], store=store, every=1) as monitor:
        for _ in range(2):
            loss_of(net).backward()
            wanted = net.head.weight.grad.norm().item()
            optimizer.step()
            monitor.step()
    assert store.updates()[2]["head", "kernel"]["gradient_norm"] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("steps", [31, 32])
def test_a_loop_without_an_optimizer_says_that_none_was_seen(steps, caplog):
    net, store = Net(), Kept()
    with (
        caplog.at_level(logging.WARNING, "gatewatch"),
        GateMonitor(net, None, run="own", store=store, probe=X, every=1) as monitor,
    ):
        for _ in range(steps):
            net.zero_grad()
            loss_of(net).backward()
            for parameter in net.parameters():
                parameter.data.add_(parameter.grad, alpha=-0.1)
            monitor.step()
    said = (
        "run 'own' ends without gradients and updates: no optimizer was seen to make a step with what the model learns"
    )
    assert caplog.messages == ([f"gatewatch: {said}"] if steps == 32 else [])
    assert store.updates() == {}

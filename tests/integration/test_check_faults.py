"""What a training does to its weights and its optimizer between two captures, and which check finds it."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from gatewatch import open_store
from gatewatch.torch import GateMonitor
from tests.passes import only, scores

STEPS, EVERY, AT = 60, 5, 43


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 8, batch_first=True)
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def another():
    torch.manual_seed(7)
    return Net()


def load(net, optimizer):
    net.load_state_dict(another().state_dict())


def reset(net, optimizer):
    net.lstm.weight_hh_l0.data.copy_(another().lstm.weight_hh_l0)


def flip(net, optimizer):
    net.lstm.weight_ih_l0.data.neg_()


def copy_units(net, optimizer):
    net.lstm.weight_hh_l0.data[:4] = net.lstm.weight_hh_l0.data[4:8]


def drop_moments(net, optimizer):
    optimizer.state.clear()


def earlier_state(net, optimizer):
    state = deepcopy(optimizer.state_dict())
    for one in state["state"].values():
        one["step"] = one["step"] * 0 + 9
        one["exp_avg_sq"].zero_()
    optimizer.load_state_dict(state)


ADAM = {"adam": lambda net: torch.optim.Adam(net.parameters(), 1e-3)}
SGD = {"sgd": lambda net: torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)}
MOMENTS = {("lstm/l0", "recurrent"): "moments_fell", ("_optimizer", "steps"): "steps_went_back"}
FAULTS = {
    "load": (load, {("lstm/l0", "recurrent"): "moved_too_far", ("head", "kernel"): "moved_too_far"}, ADAM),
    "reset": (reset, {("lstm/l0", "recurrent"): "moved_too_far"}, ADAM),
    "flip": (flip, {("lstm/l0", "kernel"): "moved_too_far"}, ADAM),
    "units": (copy_units, {("lstm/l0", "recurrent"): "moved_beyond_updates"}, ADAM),
    "load, sgd": (load, {("lstm/l0", "recurrent"): "moved_beyond_updates"}, SGD),
    "moments": (drop_moments, MOMENTS, ADAM),
    "earlier state": (earlier_state, MOMENTS, ADAM),
}


def train(folder, make, fault=None):
    torch.manual_seed(0)
    net, random = Net(), torch.Generator().manual_seed(0)
    optimizer = make(net)
    store = open_store(f"sqlite:///{folder / 'points.db'}")
    x = torch.randn(16, 6, 3, generator=random)
    with GateMonitor(net, None, probe=x, store=store, every=EVERY, run="r") as monitor:
        for step in range(1, STEPS + 1):
            if step == AT and fault is not None:
                fault(net, optimizer)
            x = torch.randn(16, 6, 3, generator=random)
            optimizer.zero_grad()
            loss = (net(x) - x[:, -1, :1]).square().mean()
            loss.backward()
            optimizer.step()
            monitor.step(batch=x)
    only(store)
    return store


@pytest.mark.parametrize(("fault", "expected", "make"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_an_alarm_at_the_next_capture(tmp_path, fault, expected, make):
    found = scores(train(tmp_path, *make.values(), fault), detector="consensus")
    found = found[found["anomalous"] == 1]
    assert found["step"].min() == 45
    for (layer, gate), check in expected.items():
        own = found[(found["layer"] == layer) & (found["gate"] == gate)]
        assert own[f"why_{check}"].dropna().tolist() == [2.0], (layer, gate)
        assert own["step"].tolist() == [45]


OPTIMIZERS = {
    **ADAM,
    **SGD,
    "adamw": lambda net: torch.optim.AdamW(net.parameters(), 0.01, weight_decay=0.5),
    "rmsprop": lambda net: torch.optim.RMSprop(net.parameters(), 1e-3, alpha=0.9, momentum=0.9),
    "adagrad": lambda net: torch.optim.Adagrad(net.parameters(), 0.05, weight_decay=0.01),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_sound_training_violates_nothing(tmp_path, make):
    found = scores(train(tmp_path, make), detector="checks")
    assert set(found["layer"]) >= {"lstm/l0", "_data"}
    assert not found["anomalous"].any()


@pytest.mark.parametrize("replaced", [True, False])
def test_another_optimizer_on_purpose_is_no_alarm(tmp_path, replaced):
    torch.manual_seed(0)
    net = Net()
    optimizers = [torch.optim.Adam(net.parameters(), 1e-3), torch.optim.AdamW(net.parameters(), 1e-3)]
    store = open_store(f"sqlite:///{tmp_path / 'points.db'}")
    x = torch.randn(16, 6, 3)
    with GateMonitor(net, None, probe=x, store=store, every=EVERY, run="r") as monitor:
        for step in range(STEPS):
            optimizer = optimizers[replaced and step > 30]
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()
            monitor.step()
    only(store)
    found = scores(store, detector="checks")
    assert not found["anomalous"].any()
    said = found.get("why_optimizer_exchanged", found["step"][:0]).dropna()
    assert found.loc[said.index, "step"].tolist() == ([40] if replaced else [])
    assert set(found.loc[said.index, "anomaly_score"]) <= {1.0}  # a warning


def test_weights_that_are_swapped_again_and_again_alarm_once(tmp_path):
    torch.manual_seed(0)
    net, other = Net(), another()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    store = open_store(f"sqlite:///{tmp_path / 'points.db'}")
    x = torch.randn(16, 6, 3)
    with GateMonitor(net, None, probe=x, store=store, every=EVERY, run="r") as monitor:
        for step in range(STEPS):
            if step % 7 == 0:
                for mine, swapped in zip(net.parameters(), other.parameters(), strict=True):
                    mine.data, swapped.data = swapped.data, mine.data
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()
            monitor.step()
    only(store)
    found = scores(store, detector="consensus", layer="lstm/l0", gate="recurrent")
    assert found["why_moved_too_far"].dropna().tolist() == [2.0]


def test_a_run_that_goes_on_without_its_moments_is_found_and_one_with_them_is_not(tmp_path):
    for keeps in (True, False):
        torch.manual_seed(0)
        net, x = Net(), torch.randn(16, 6, 3)
        store = open_store(f"sqlite:///{tmp_path / f'{keeps}.db'}")
        optimizer = torch.optim.Adam(net.parameters(), 1e-3)
        for resume in (False, True):
            if resume:
                state, optimizer = optimizer.state_dict(), torch.optim.Adam(net.parameters(), 1e-3)
                if keeps:
                    optimizer.load_state_dict(state)
            options = {"run": str(keeps), "resume": resume, "store": store}
            with GateMonitor(net, tmp_path / f"{keeps}", probe=x, every=EVERY, **options) as monitor:
                for _ in range(20):
                    optimizer.zero_grad()
                    net(x).square().mean().backward()
                    optimizer.step()
                    monitor.step()
        only(store)
        found = scores(store, layer="_optimizer", detector="checks")
        assert found["step"].tolist() == [10, 15, 20, 25, 30, 35, 40]
        found = found[found["anomalous"] == 1]
        assert found["step"].tolist() == ([] if keeps else [25])
        assert set(found["source"]) <= {"optimizer"}


def test_log_probabilities_that_a_loop_hands_over_are_an_alarm_where_they_differ(tmp_path):
    net, x = another(), torch.randn(16, 6, 3)
    store = open_store(f"sqlite:///{tmp_path / 'points.db'}")
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    with GateMonitor(net, None, probe=x, store=store, every=EVERY, run="r") as monitor:
        for step in range(1, 21):
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()
            monitor.step(metrics={"logprob_difference": torch.tensor(0.3 if step == 15 else 1e-6)})
    only(store)
    found = scores(store, layer="_model", detector="consensus")
    found = found[found["anomalous"] == 1]
    assert found[["step", "source", "why_logprobs_differ"]].to_numpy().tolist() == [[15, "policy", 2.0]]


def test_gradients_that_leave_their_second_moments_behind_are_a_warning(tmp_path):
    """The loss is halved at each step, so squared gradients fall by 4 and second moments by 2."""
    net, x = another(), torch.randn(16, 6, 3)
    store = open_store(f"sqlite:///{tmp_path / 'points.db'}")
    optimizer = torch.optim.Adam(net.parameters(), 1e-4, betas=(0.5, 0.5))
    with GateMonitor(net, None, probe=x, store=store, every=EVERY, run="r") as monitor:
        for step in range(STEPS):
            optimizer.zero_grad()
            ((net(x) - 1).square().mean() * 0.5**step).backward()
            optimizer.step()
            monitor.step()
    only(store)
    found = scores(store, layer="head", gate="kernel", detector="checks")
    assert not found["anomalous"].any()
    warned = found[found["why_moments_astray"] > 0]
    assert warned["step"].tolist() == [45, 50, 55, 60]
    assert warned["anomaly_score"].tolist() == [1.0] * 4

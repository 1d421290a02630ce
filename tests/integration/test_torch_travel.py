"""What happens to a torch module's weights between two captures: moves, steps, learning rates and second moments."""

from __future__ import annotations

import gc
from contextlib import closing
from itertools import pairwise

import pytest
import torch
from torch import nn

from gatewatch.collector.store import open_store
from gatewatch.collector.torch.optimizers import StepCounter, second_moments, skipped, steps_between
from gatewatch.torch import GateMonitor
from tests.kept import Kept

X = torch.randn(8, 4, 3, generator=torch.Generator().manual_seed(0))
BIAS, KERNEL, RECURRENT = ("head", "bias"), ("head", "kernel"), ("lstm/l0", "recurrent")
SINCE = ("travel", "travel_steps", "rate_sum")


class Net(nn.Module):
    """Its head has 4 biases, so that a step of 1 for each moves them by 2."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.head = nn.Linear(4, 4)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


@pytest.fixture(autouse=True)
def same_weights_every_time():
    torch.manual_seed(1)


@pytest.fixture
def net():
    return Net()


@pytest.fixture
def store():
    return Kept()


def learn(net, *optimizers, gradient=1.0):
    """Make a step with a gradient of `gradient` for each bias of the head, and of zero for all else."""
    net.zero_grad()
    (net(X).sum() * 0 + gradient * net.head.bias.sum()).backward()
    for optimizer in optimizers:
        optimizer.step()


def train(net, store, optimizer, steps, *, every, each=lambda step: None, gradient=1.0):
    """Train under a monitor; `each` is called before each step."""
    with GateMonitor(net, None, probe=X, store=store, every=every) as monitor:
        for step in range(1, steps + 1):
            each(step)
            learn(net, optimizer, gradient=gradient)
            monitor.step()
    return store.updates()


def told(fields, *names):
    return [fields.get(name) for name in names or SINCE]


# Moves, steps and learning rates.


def test_three_steps_of_plain_descent(net, store):
    found = train(net, store, torch.optim.SGD(net.parameters(), 0.1), 9, every=3)
    assert told(found[3][BIAS]) == [None, None, None]
    for capture in (6, 9):
        assert told(found[capture][BIAS]) == [pytest.approx(0.6, rel=1e-5), 3, pytest.approx(0.3)]
        assert told(found[capture][RECURRENT]) == [0, 3, pytest.approx(0.3)]


def test_the_rates_of_a_schedule_are_those_that_the_steps_used(net, store):
    optimizer = torch.optim.SGD(net.parameters(), 0.8)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    found = train(net, store, optimizer, 4, every=2, each=lambda step: step > 1 and schedule.step())
    assert told(found[4][BIAS]) == [pytest.approx(0.6, rel=1e-5), 2, pytest.approx(0.3)]  # 0.2 and 0.1


def test_each_group_has_its_own_rate(net, store):
    groups = [{"params": net.lstm.parameters()}, {"params": net.head.parameters(), "lr": torch.tensor(0.5)}]
    found = train(net, store, torch.optim.SGD(groups, 0.1), 4, every=2)
    assert told(found[4][BIAS]) == [pytest.approx(2), 2, pytest.approx(1)]
    assert told(found[4][RECURRENT]) == [0, 2, pytest.approx(0.2)]


MOVES = {
    "load_state_dict": lambda net: net.load_state_dict({**net.state_dict(), "head.weight": -net.head.weight}),
    "in place": lambda net: net.head.weight.data.neg_(),
    "past autograd": lambda net: net.head.weight.detach().numpy().__imul__(-1),
    "another tensor": lambda net: setattr(net.head.weight, "data", -net.head.weight.data),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
@pytest.mark.parametrize("at", [4, 5, 6])
def test_weights_that_something_else_moves_are_seen_to_move(net, store, move, at):
    """At any step between two captures: the sign is flipped, so that the move is twice the norm."""
    norm = net.head.weight.norm().item()
    found = train(
        net, store, torch.optim.SGD(net.parameters(), 0.1), 9, every=3, each=lambda step: step == at and move(net)
    )
    assert [found[capture][KERNEL].get("travel") for capture in (3, 6, 9)] == [
        None,
        pytest.approx(2 * norm, rel=1e-5),
        0,
    ]


def test_a_layer_that_was_replaced_has_its_travel_and_no_steps(net, store):
    before = net.head.bias.detach().clone()
    with GateMonitor(net, None, probe=X, store=store, every=1) as monitor:
        for step in range(1, 5):
            if step == 2:
                net.head = nn.Linear(4, 4)
            learn(net, torch.optim.SGD(net.parameters(), 0.1))
            monitor.step()
            if step == 3:
                moved = (net.head.bias - (before - 0.1)).norm().item()
    found = store.updates()
    assert BIAS not in found[2]  # the step began before it was there
    assert told(found[3][BIAS]) == [pytest.approx(moved, rel=1e-5), None, None]
    assert told(found[4][BIAS]) == [pytest.approx(0.2, rel=1e-5), 1, pytest.approx(0.1)]


def test_a_layer_of_another_size_has_no_travel_until_the_next_capture(net, store):
    with GateMonitor(net, None, probe=X, store=store, every=1) as monitor:
        for step in range(1, 5):
            if step == 2:
                net.head = nn.Linear(4, 9)
            learn(net, torch.optim.SGD(net.parameters(), 0.1))
            monitor.step()
    found = store.updates()
    assert [found[step][BIAS].get("travel") for step in (1, 3, 4)] == [None, None, pytest.approx(0.3, rel=1e-5)]


def test_a_layer_that_was_frozen_for_a_while_begins_anew(net, store):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    found = train(
        net, store, optimizer, 8, every=1, each=lambda step: net.lstm.weight_hh_l0.requires_grad_(not 3 <= step <= 5)
    )
    assert [step for step in found if RECURRENT in found[step]] == [1, 2, 3, 7, 8]
    assert told(found[7][RECURRENT]) == [None, None, None]
    assert told(found[8][RECURRENT]) == [0, 1, pytest.approx(0.1)]


def test_values_that_are_not_finite_do_not_hide_the_travel_of_the_others(net, store):
    def lose(step):
        if step == 3:
            net.head.bias.data[0] = float("nan")

    found = train(net, store, torch.optim.SGD(net.parameters(), 0.1), 4, every=2, each=lose)
    assert found[4][BIAS]["travel"] == pytest.approx(0.2 * 3**0.5, rel=1e-5)
    assert found[4][BIAS]["nan_count"] == 1


@pytest.mark.parametrize("every", [2, 3, 5, 7])
@pytest.mark.parametrize("accumulate", [1, 2, 3, 4])
def test_steps_between_records_add_up_where_the_optimizer_steps_less_often_than_the_loop(net, store, accumulate, every):
    """A measurement that another one replaces before its capture does not count: travel is from record to record."""
    optimizer, did, steps = torch.optim.SGD(net.parameters(), 0.1), {}, 0
    begin = net.head.bias.detach().clone()
    with GateMonitor(net, None, probe=X, store=store, every=every) as monitor:
        for step in range(1, 41):
            if step % accumulate == 0:
                learn(net, optimizer)
                steps += 1
                did[steps] = net.head.bias.norm().item()
            monitor.step()
    found = [fields[BIAS] for fields in store.updates().values()]
    of_the_record = [min(did, key=lambda step: abs(did[step] - one["weight_norm"])) for one in found]
    assert len(found) > 2
    assert did[len(did)] == pytest.approx((begin - 0.1 * len(did)).norm().item(), rel=1e-4)
    for (before, now), one in zip(pairwise(of_the_record), found[1:], strict=True):
        assert told(one) == [
            pytest.approx(0.2 * (now - before), rel=1e-4),
            now - before,
            pytest.approx(0.1 * (now - before)),
        ]


def test_the_step_of_an_optimizer_that_was_replaced_counts_too(net, store):
    optimizers = [torch.optim.SGD(net.parameters(), 0.1)]
    with GateMonitor(net, None, probe=X, store=store, every=4) as monitor:
        for step in range(1, 9):
            if step in (6, 8):
                optimizers[0] = torch.optim.SGD(net.parameters(), 0.5)
                gc.collect()
            learn(net, *optimizers)
            monitor.step()
    assert told(store.updates()[8][BIAS]) == [pytest.approx(3.2, rel=1e-5), 4, pytest.approx(1.6)]


def test_a_run_that_goes_on_in_another_process_has_no_travel_at_its_first_capture(net, tmp_path):
    """A monitor of its own stands for the process: nothing is left of the first one."""
    url, optimizer = f"sqlite:///{tmp_path}/gates.db", torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(2):
        with GateMonitor(net, None, probe=X, run="one", resume=True, store=url, every=2) as monitor:
            for _ in range(4):
                learn(net, optimizer)
                monitor.step()
    with closing(open_store(url)) as store:
        rows = store.read("layer_updates", tags={"layer": "head", "param": "bias"}).sort_values("step")
    assert rows["step"].tolist() == [2, 4, 6, 8]
    assert rows["travel"].isna().tolist() == [True, False, True, False]
    assert rows["travel_steps"].isna().tolist() == [True, False, True, False]


# Second moments.


def test_the_second_moments_of_adam_by_hand(net, store):
    """With β₂ = 0.5 and gradients of 1, v is 0.5, 0.75, 0.875, …, for each of 4 biases."""
    found = train(net, store, torch.optim.Adam(net.parameters(), betas=(0.9, 0.5)), 3, every=1)
    assert [found[step][BIAS]["moment_sum"] for step in found] == [2, 3, 3.5]
    assert [found[step][BIAS]["moment_decay"] for step in found] == [0.5] * 3
    assert found[3][RECURRENT]["moment_sum"] == 0


MOMENTS = {
    "adamw": lambda p: torch.optim.AdamW(p, betas=(0.9, 0.5)),
    "amsgrad": lambda p: torch.optim.Adam(p, betas=(0.9, 0.5), amsgrad=True),
    "nadam": lambda p: torch.optim.NAdam(p, betas=(0.9, 0.5)),
    "radam": lambda p: torch.optim.RAdam(p, betas=(0.9, 0.5)),
    "rmsprop": lambda p: torch.optim.RMSprop(p, alpha=0.5, momentum=0.9),
    "centred": lambda p: torch.optim.RMSprop(p, alpha=0.5, centered=True),
    "adadelta": lambda p: torch.optim.Adadelta(p, rho=0.5),
    "fused": lambda p: torch.optim.Adam(p, betas=(0.9, 0.5), fused=True),
}


@pytest.mark.parametrize("make", MOMENTS.values(), ids=MOMENTS)
def test_the_second_moments_of_other_optimizers_halve_at_a_gradient_of_zero(net, store, make):
    with GateMonitor(net, None, probe=X, store=store, every=1) as monitor:
        optimizer = make(net.parameters())
        for gradient in (1.0, 0.0, 0.0):
            learn(net, optimizer, gradient=gradient)
            monitor.step()
    assert [found[BIAS]["moment_sum"] for found in store.updates().values()] == [2, 1, 0.5]  # not its maximum, 2
    assert store.updates()[3][BIAS]["moment_decay"] == 0.5


class Own(torch.optim.Adam):
    pass


NONE = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    "adagrad": torch.optim.Adagrad,
    "adamax": torch.optim.Adamax,
    "own": Own,
}


@pytest.mark.parametrize("make", NONE.values(), ids=NONE)
def test_an_optimizer_without_second_moments_or_of_an_unknown_kind_has_none(net, store, make):
    found = train(net, store, make(net.parameters()), 2, every=1)
    assert not {"moment_sum", "moment_decay"} & found[2][BIAS].keys()
    assert found[2][BIAS]["travel_steps"] == 1


def test_moments_that_were_lost_show(net, store):
    optimizer = torch.optim.Adam(net.parameters(), betas=(0.9, 0.5))
    found = train(net, store, optimizer, 3, every=1, each=lambda step: step == 3 and optimizer.state.clear())
    assert [found[step][BIAS]["moment_sum"] for step in found] == [2, 3, 2]


def test_moments_of_another_optimizer_are_not_told_beside_those_of_the_one_before(net, store):
    optimizers = [torch.optim.Adam(net.parameters(), betas=(0.9, 0.5)) for _ in range(2)]
    with GateMonitor(net, None, probe=X, store=store, every=1) as monitor:
        for step in range(5):
            learn(net, optimizers[step > 1])
            monitor.step()
    assert [found[BIAS].get("moment_sum") for found in store.updates().values()] == [2, 3, None, 3, 3.5]


@pytest.mark.parametrize("every", [1, 2, 3])
def test_optimizers_that_take_turns_with_one_parameter_tell_no_moments_and_all_steps(net, store, every):
    optimizers = [torch.optim.Adam(net.parameters(), 0.1) for _ in range(2)]
    with GateMonitor(net, None, probe=X, store=store, every=every) as monitor:
        for step in range(12):
            learn(net, optimizers[step % 2])
            monitor.step()
    found = list(store.updates().values())[1:]
    assert [told(one[BIAS], "moment_sum", "travel_steps") for one in found] == [[None, every]] * len(found)


def test_moments_that_are_not_finite_or_not_exact_are_left_out():
    bias = nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.Adam([bias])
    assert second_moments(optimizer, [bias]) is None
    assert not optimizer.state  # reading leaves nothing behind
    bias.grad = torch.ones(4)
    optimizer.step()
    assert second_moments(optimizer, [bias]).total == pytest.approx(0.004)
    state = optimizer.state[bias]
    sound = state["exp_avg_sq"]
    for other in (sound.bfloat16(), sound.half(), torch.zeros(5), sound.to("meta"), [0.0] * 4, nn.Parameter(sound)):
        state["exp_avg_sq"] = other
        assert second_moments(optimizer, [bias]) is None
    twice = torch.optim.Adam([{"params": [bias]}, {"params": [other := nn.Parameter(torch.zeros(1))], "betas": (0, 0)}])
    other.grad = torch.ones(1)
    twice.step()
    assert second_moments(twice, [bias, other]) is None


def test_a_state_of_another_kind_costs_the_moments_alone(net, store):
    optimizer = torch.optim.Adam(net.parameters())

    class Strange(dict):
        def get(self, *_):
            raise RuntimeError("not like this")

    def exchange(step):
        if step == 2:
            optimizer.state = Strange(optimizer.state)

    found = train(net, store, optimizer, 3, every=1, each=exchange)
    assert told(found[3][BIAS], "travel_steps", "moment_sum") == [1, None]


# Steps that are made or not.


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_scaler_skips_is_not_counted(net, store, fused):
    optimizer = torch.optim.Adam(net.parameters(), 0.1, betas=(0.9, 0.5), fused=fused)
    scaler = torch.amp.GradScaler("cpu", 4.0)
    with GateMonitor(net, None, probe=X, store=store, every=2) as monitor:
        for step in range(1, 5):
            net.zero_grad()
            scaler.scale(net.head.bias.sum() * (float("inf") if step == 3 else 1.0)).backward()
            scaler.step(optimizer)
            scaler.update()
            monitor.step()
    assert told(store.updates()[4][BIAS], "travel_steps", "rate_sum", "moment_sum") == [1, pytest.approx(0.1), 3.5]


class OnDevice:
    """Stands for a number on a device, which no hook may wait for."""

    device = torch.device("cuda", 0)

    def __bool__(self):
        raise AssertionError("a device was waited for")


def test_a_step_that_only_the_device_knows_of_makes_the_count_unknown():
    bias = nn.Parameter(torch.zeros(4))
    optimizer, counter = torch.optim.Adam([bias], 0.1), StepCounter()
    counter.note(optimizer)
    first = counter.counts([bias])
    optimizer.found_inf = OnDevice()
    assert skipped(optimizer, {}) is None
    counter.note(optimizer, may_skip=True)
    second = counter.counts([bias])
    counter.note(optimizer)
    assert steps_between(first, second) == (None, None)
    assert steps_between(second, counter.counts([bias])) == (1, 0.1)


def test_a_rate_that_is_not_known_leaves_the_steps_known():
    bias = nn.Parameter(torch.zeros(4))
    optimizer, counter = torch.optim.SGD([bias], 0.1), StepCounter()
    counts = [counter.counts([bias])]
    for rate in (0.1, None, float("inf"), 0.2):
        optimizer.param_groups[0]["lr"] = rate
        counter.note(optimizer)
        counts.append(counter.counts([bias]))
    assert [steps_between(one, later) for one, later in pairwise(counts)] == [
        (1, 0.1), (1, None), (1, None), (1, pytest.approx(0.2)),
    ]  # fmt: skip


def test_parameters_that_join_an_optimizer_or_are_exchanged_in_it_have_the_steps_that_were_made_with_them():
    first, second, third = (nn.Parameter(torch.zeros(1)) for _ in range(3))
    optimizer, counter = torch.optim.SGD([first], 0.1), StepCounter()
    begin = counter.counts([first, second])
    counter.note(optimizer)
    optimizer.add_param_group({"params": [second], "lr": 0.5})
    counter.note(optimizer)
    assert steps_between({id(first): begin[id(first)]}, counter.counts([first])) == (2, pytest.approx(0.2))
    assert steps_between({id(second): begin[id(second)]}, counter.counts([second])) == (1, 0.5)
    before = counter.counts([third])
    counter.note(optimizer)
    optimizer.param_groups[1]["params"] = [third]
    counter.note(optimizer)
    assert steps_between(before, counter.counts([third])) == (None, None)

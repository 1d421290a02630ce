"""What a torch module's sequences begin with in its own training, and whether episodes begin anew."""

from __future__ import annotations

import copy
import gc
import io
import logging
import threading
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from gatewatch.torch import GateMonitor
from tests.kept import Kept

B, T, UNITS = 3, 4, 5
X = torch.randn(B, T, 2, generator=torch.Generator().manual_seed(0))
ALL, NONE = [True] * B, [False] * B


class Net(nn.Module):
    def __init__(self, layers=1, kind=nn.LSTM):
        super().__init__()
        self.memory = kind(2, UNITS, layers, batch_first=True)
        self.head = nn.Linear(UNITS, 1)

    def forward(self, x, state=None):
        outputs, state = self.memory(x, state)
        return self.head(outputs), state


@pytest.fixture(autouse=True)
def same_weights_every_time():
    torch.manual_seed(1)


@pytest.fixture
def store():
    return Kept()


def parts(state):
    return state if isinstance(state, tuple) else (state,)


def reset(state, starts):
    """Zeros where an episode starts."""
    going = torch.tensor([not start for start in starts], dtype=torch.float32)[None, :, None]
    fresh = tuple(part * going for part in parts(state))
    return fresh if isinstance(state, tuple) else fresh[0]


def detached(state):
    return tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()


def train(net, store, flags, *, every, give_flags=True, give_state=False, keeps=(), each=lambda step: None, **options):
    """Train with a state that goes on from step to step, and is reset where the flags say so, but in steps `keeps`."""
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    state = None
    with GateMonitor(net, None, probe=X, store=store, every=every, **options) as monitor:
        for step, starts in enumerate(flags, 1):
            if state is not None and step not in keeps:
                state = reset(state, starts)
            begin = state
            each(step)
            net.zero_grad()
            outputs, state = net(X, state)
            outputs.square().mean().backward()
            optimizer.step()
            state = detached(state)
            monitor.step(starts=starts if give_flags else None, state=begin if give_state else None)
    return store.states()


FLAGS = [ALL, NONE, [True, False, False], NONE, [False, True, True], NONE, NONE, [False, False, True]]
"""Of eight steps: 3, 1 and 3 episodes begin in the first four, the first two and so on."""


@pytest.mark.parametrize("give_state", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_every_start_is_counted_and_none_is_at_fault(store, kind, give_state):
    found = train(Net(kind=kind), store, FLAGS, every=4, give_state=give_state)
    first = found[4]["memory/l0"]
    assert (first["starts"], first["starts_not_reset"], first["initial_norm"] > 0) == (4, 0, True)
    second = found[8]["memory/l0"]
    assert (second["starts"], second["starts_not_reset"]) == (3, 0)
    if not give_state:
        assert (first["resets"], first["sequences_begun"]) == (4, 12)
        assert (second["resets"], second["sequences_begun"]) == (3, 12)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_state_that_was_kept_is_found_in_a_step_that_is_not_captured(store, kind):
    found = train(Net(kind=kind), store, FLAGS, every=4, keeps=(3, 5))
    assert found[4]["memory/l0"]["starts_not_reset"] == 1
    assert found[8]["memory/l0"]["starts_not_reset"] == 2


def test_each_layer_of_a_module_has_its_own_point(store):
    found = train(Net(layers=2), store, FLAGS, every=8, keeps=(3,))
    assert {layer: fields["starts_not_reset"] for layer, fields in found[8].items()} == {
        "memory/l0": 1,
        "memory/l1": 1,
    }


def test_without_flags_resets_are_counted(store):
    found = train(Net(), store, FLAGS, every=4, give_flags=False, keeps=(8,))
    assert [found[step]["memory/l0"]["resets"] for step in (4, 8)] == [4, 2]
    assert "starts" not in found[4]["memory/l0"]


def test_the_norm_is_that_of_the_captured_steps_state(store):
    seen = []
    net = Net()
    net.memory.register_forward_hook(lambda module, arguments, output: seen.append(arguments[1]))
    found = train(net, store, [NONE] * 3, every=1)
    assert found[1]["memory/l0"]["initial_norm"] == 0
    for step, state in zip((2, 3), seen[1:3], strict=False):
        norms = torch.cat(state, dim=2)[0].norm(dim=1)
        assert found[step]["memory/l0"]["initial_norm"] == pytest.approx(norms.mean().item(), rel=1e-5)


class Cells(nn.Module):
    """A loop over time of a cell, which keeps its state in the module."""

    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(2, UNITS)
        self.kept = None

    def forward(self, x):
        state, outputs = self.kept, []
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
            outputs.append(state[0])
        self.kept = tuple(part.detach() for part in state)
        return torch.stack(outputs, dim=1)


def test_a_cell_in_a_loop_begins_with_what_its_first_call_is_given(store):
    net = Cells()
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    with GateMonitor(net, None, probe=X, store=store, every=2) as monitor:
        for step in range(1, 5):
            if step == 3:
                net.kept = None
            net(X).sum().backward()
            optimizer.step()
            monitor.step(starts=step % 2 == 1)
    found = store.states()
    assert (found[2]["cell"]["starts"], found[2]["cell"]["starts_not_reset"]) == (3, 0)
    assert (found[4]["cell"]["starts"], found[4]["cell"]["starts_not_reset"]) == (3, 0)


def test_a_cell_whose_state_is_kept(store):
    net = Cells()
    with GateMonitor(net, None, probe=X, store=store, every=2) as monitor:
        for _ in range(2):
            net(X)
            monitor.step(starts=True)
    assert store.states()[2]["cell"]["starts_not_reset"] == 3


class Learned(nn.Module):
    """Begins with a state that is learned."""

    def __init__(self):
        super().__init__()
        self.memory = nn.GRU(2, UNITS, batch_first=True)
        self.begin = nn.Parameter(torch.randn(1, 1, UNITS))

    def forward(self, x, state, starts):
        starts = torch.tensor(starts)[None, :, None]
        state = torch.where(starts, self.begin, state)
        return self.memory(x, state)


@pytest.mark.parametrize(("keeps", "expected"), [((), 0), ((3,), 1)])
def test_a_learned_state_is_an_initial_state_while_it_is_learned(store, keeps, expected):
    net, state = Learned(), torch.zeros(1, B, UNITS)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with GateMonitor(net, None, probe=(X, state, ALL), store=store, every=4) as monitor:
        for step, starts in enumerate(([True, False, False], NONE, [False, True, False], NONE), 1):
            before = net.begin.detach().clone()
            outputs, state = net(X, state, NONE if step in keeps else starts)
            outputs.square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            assert step in {2, 4} or step in keeps or not torch.equal(before, net.begin)
            state = state.detach()
            monitor.step(starts=starts)
    assert store.states()[4]["memory/l0"]["starts_not_reset"] == expected


class Translates(nn.Module):
    """Its decoder begins with what the encoder ends with."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.GRU(2, UNITS, batch_first=True)
        self.decoder = nn.GRU(2, UNITS, batch_first=True)

    def forward(self, x):
        return self.decoder(x, self.encoder(x)[1])[0]


def test_a_decoder_that_begins_with_the_encoders_state_is_at_no_fault(store, caplog):
    net = Translates()
    with GateMonitor(net, None, probe=X, store=store, every=2) as monitor:
        for _ in range(4):
            net(X).sum().backward()
            monitor.step(starts=ALL)
    for found in store.states().values():
        assert found["encoder/l0"]["starts_not_reset"] == 0
        assert "starts_not_reset" not in found["decoder/l0"]
        assert found["decoder/l0"]["starts"] == 6
    assert [r.getMessage() for r in caplog.records if "starts_not_reset of 'decoder/l0'" in r.getMessage()]


def test_a_state_that_is_changed_in_place_after_the_call_is_copied_from_the_next_on(store):
    net, state = Net(kind=nn.GRU), torch.zeros(1, B, UNITS)
    with GateMonitor(net, None, probe=X, store=store, every=1) as monitor:
        for _ in range(3):
            with torch.no_grad():
                _, after = net(X, state)
                state.copy_(after)
            monitor.step()
            state.zero_()
    found = store.states()
    assert 1 not in found
    assert [found[step]["memory/l0"]["initial_norm"] for step in (2, 3)] == [0, 0]


def test_a_validation_between_two_steps_is_passed_over(store):
    net = Net()

    def validate(step):
        net.eval()
        net(X)
        net.train()

    found = train(net, store, [ALL, NONE, NONE, NONE], every=4, each=validate)
    assert (found[4]["memory/l0"]["resets"], found[4]["memory/l0"]["starts_not_reset"]) == (3, 0)


def test_a_backtest_is_called_in_inference_mode(store):
    net, state = Net().eval(), None
    with GateMonitor(net, None, store=store, phase="backtest", every=1) as monitor, torch.inference_mode():
        for step in range(3):
            _, state = net(X, state)
            monitor.step(X, starts=step == 2)
    assert [found["memory/l0"]["starts_not_reset"] for found in store.states().values()] == [0, 0, 3]


@pytest.mark.parametrize("own_hook", [False, True])
def test_a_state_that_is_given_by_name_is_seen_unless_a_hook_may_change_it(store, own_hook):
    net = nn.GRU(2, UNITS, batch_first=True)
    if own_hook:
        net.register_forward_pre_hook(lambda module, arguments: None)
    with GateMonitor(net, None, probe=X, store=store, every=1) as monitor:
        net(X, hx=torch.full((1, B, UNITS), 2.0))
        monitor.step()
    found = [fields["l0"]["initial_norm"] for fields in store.states().values()]
    assert found == ([] if own_hook else [pytest.approx(20**0.5)])


# Bad input.


def lines(caplog):
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("starts", "match"),
    [
        ("yes", "reading step(starts=...) failed, training goes on: starts='yes': must be one flag"),
        ([True] * 7, "reading step(starts=...) failed, training goes on: starts has 7 flags for 3 sequences"),
    ],
)
def test_flags_that_do_not_fit_cost_one_line_and_nothing_else(store, caplog, starts, match):
    with caplog.at_level(logging.WARNING, "gatewatch"):
        found = train(Net(), store, [starts, starts], every=1, keeps=(1, 2))
    assert [line for line in lines(caplog) if "starts" in line] == [
        next(line for line in lines(caplog) if match in line)
    ]
    assert store.captures() == {1, 2}
    assert all(
        "starts" not in fields["memory/l0"] and "initial_norm" in fields["memory/l0"] for fields in found.values()
    )


def test_a_state_of_no_layer_costs_one_line(store, caplog):
    net = Net()
    with (
        caplog.at_level(logging.WARNING, "gatewatch"),
        GateMonitor(net, None, probe=X, store=store, every=2) as monitor,
    ):
        net(X)
        monitor.step(state={"other": torch.zeros(1, B, UNITS)}, starts=ALL)
    assert [line for line in lines(caplog) if "state: 'other' is no recurrent layer" in line]


def test_where_torch_compile_is_in_use_nothing_is_seen_and_torch_does_not_warn(store, recwarn):
    net = Net()
    compiled = torch.compile(net, backend="eager")
    with GateMonitor(net, None, probe=X, store=store, every=1) as monitor:
        compiled(X)
        monitor.step()
    assert store.captures() == {1}
    assert store.states() == {}
    assert not [warning for warning in recwarn if "global hooks" in str(warning.message)]
    torch.compiler.reset()
    assert train(Net(), store, [ALL], every=1)[1]["memory/l0"]["starts"] == 3


# No trace.


def replaced(net):
    return net.memory._compiled_call_impl is not None


def test_a_module_may_be_copied_pickled_and_scripted_meanwhile(store):
    net = Net()
    with GateMonitor(net, None, probe=X, store=store, every=1) as monitor:
        assert replaced(net)
        torch.save(net, buffer := io.BytesIO())
        copied = copy.deepcopy(net)
        torch.jit.script(net.memory)
        assert not replaced(copied)
        copied(X)  # not the training's own
        monitor.step()
        assert "gatewatch" not in repr(buffer.getvalue())
    assert store.states() == {}


def test_a_replica_of_data_parallel_calls_itself(store):
    net = Net()
    with GateMonitor(net, None, probe=X, store=store, every=1) as monitor:
        replica = net.memory._replicate_for_data_parallel()  # as nn.DataParallel does on several devices
        replica.flatten_parameters = lambda: None
        replica._flat_weights = [torch.zeros_like(weight) for weight in net.memory._flat_weights]
        assert not replica(X)[0].any()
        assert replica._compiled_call_impl is None
        assert replaced(net)
        monitor.step()
    assert store.states() == {}


def test_a_module_is_as_it_was_when_it_was_called(store):
    net = Net()
    before = set(vars(net.memory))
    with GateMonitor(net, None, probe=X, store=store, every=1) as monitor:
        assert replaced(net)
        net(X)
        assert set(vars(net.memory)) == before
        monitor.step()
        assert replaced(net)
    assert set(vars(net.memory)) == before


def test_a_monitor_that_is_forgotten_leaves_nothing_in_the_module(store):
    net = Net()
    monitor = GateMonitor(net, None, probe=X, store=store, every=1)
    monitor.__enter__()
    gone = weakref.ref(monitor)
    del monitor
    gc.collect()
    assert gone() is None
    for thread in threading.enumerate():
        if thread.name == "gatewatch-end":
            thread.join(20)
    assert not replaced(net)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_training_ends_bit_for_bit_the_same(layers):
    def final(watched):
        torch.manual_seed(2)
        net = Net(layers)
        optimizer = torch.optim.Adam(net.parameters(), 0.01)
        state = None

        def step(monitor=None):
            nonlocal state
            for starts in FLAGS:
                state = None if state is None else reset(state, starts)
                outputs, state = net(X, state)
                outputs.square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
                state = detached(state)
                if monitor is not None:
                    monitor.step(starts=starts)

        if watched:
            with GateMonitor(net, None, probe=X, store=Kept(), every=2) as monitor:
                step(monitor)
        else:
            step()
        adam = [part for one in optimizer.state_dict()["state"].values() for part in one.values()]
        return [*net.state_dict().values(), *adam, *state, torch.get_rng_state()]

    for one, other in zip(final(True), final(False), strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())

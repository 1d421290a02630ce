"""`gatewatch.collector.torch.gates` against torch's own outputs and an explicit float64 reference.

Over cells, layers, directions, projections, biases, packing and initial states; and what a look leaves untouched.
"""

from __future__ import annotations

import copy
import logging
import signal
import threading
import time
from abc import ABC
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.store import open_store
from gatewatch.collector.torch import GateMonitor, gates
from gatewatch.collector.torch.layers import recurrent_layers, trainable_parameters
from gatewatch.collector.torch.trace import record_calls, trace
from tests import reference

pytestmark = pytest.mark.filterwarnings("error:left out", "ignore:LSTM with projections is not supported with oneDNN")

BATCH, TIME, FEATURES, UNITS = 4, 7, 3, 5
LENGTHS = {"whole": None, "packed-sorted": [7, 5, 5, 1], "packed-unsorted": [1, 7, 3, 4]}
KINDS = {"lstm": (nn.LSTM, {}), "lstm-projected": (nn.LSTM, {"proj_size": 2}), "gru": (nn.GRU, {})}


@pytest.fixture(autouse=True)
def same_weights_every_time():
    torch.manual_seed(1)


def weights(module, suffix):
    """Kernel, recurrent and bias, in the reference's form, and the projection; from torch's documentation."""
    named = {name: p.detach().double().numpy() for name, p in module.named_parameters()}
    kernel, recurrent = named[f"weight_ih{suffix}"].T, named[f"weight_hh{suffix}"].T
    biases = [named[f"bias_{part}{suffix}"] for part in ("ih", "hh")] if module.bias else None
    if isinstance(module, (nn.LSTM, nn.LSTMCell)):
        projection = named.get(f"weight_hr{suffix}")
        return kernel, recurrent, None if biases is None else sum(biases), None if projection is None else projection.T
    reset, update, new = np.split(np.arange(recurrent.shape[1]), 3)
    order = np.concatenate([update, reset, new])
    return kernel[:, order], recurrent[:, order], None if biases is None else np.stack(biases)[:, order], None


def expected_layer(module, suffix, x, mask=None, reverse=False, state=None):
    kernel, recurrent, bias, projection = weights(module, suffix)
    more = {"mask": mask, "reverse": reverse, "state": state}
    if not isinstance(module, (nn.LSTM, nn.LSTMCell)):
        return reference.gru(x, kernel, recurrent, bias, "tanh", "sigmoid", True, **more)
    if projection is None:
        return reference.lstm(x, kernel, recurrent, bias, "tanh", "sigmoid", **more)
    # The same as a plain LSTM that projects what it reads of its own output. A state may be any that projects to it.
    if state is not None:
        more["state"] = (state[0] @ np.linalg.pinv(projection), state[1])
    found, outputs = reference.lstm(x, kernel, projection @ recurrent, bias, "tanh", "sigmoid", **more)
    return found | {"hidden": found["hidden"] @ projection}, outputs @ projection


def expected(module, x, mask=None, states=None):
    """Name → gates, and the outputs."""
    found, directions = {}, ["", "_reverse"] if module.bidirectional else [""]
    for k in range(module.num_layers):
        outputs = []
        for d, direction in enumerate(directions):
            state = None if states is None else [s[k * len(directions) + d] for s in states]
            one = expected_layer(module, f"_l{k}{direction}", x, mask, bool(direction), state)
            found[f"l{k}{direction}"] = one[0]
            outputs.append(one[1])
        x = np.concatenate(outputs, axis=-1)
    return found, x


def assert_gates(found, wanted, tolerance=1e-6):
    assert list(found) == list(wanted)
    for name, layer in wanted.items():
        assert list(found[name]) == list(layer)
        for gate, values in layer.items():
            assert found[name][gate].shape == values.shape
            np.testing.assert_allclose(found[name][gate], values, rtol=0, atol=tolerance, err_msg=f"{name} {gate}")


def array(tensor):
    return tensor.detach().double().numpy()


@pytest.mark.parametrize("begun", [False, True], ids=["zeros", "states"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("batch_first", [True, False], ids=["batch-first", "time-first"])
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["ahead", "both-ways"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_module(kind, bidirectional, lengths, batch_first, bias, begun):
    make, options = KINDS[kind]
    module = make(FEATURES, UNITS, 2, bias, batch_first, 0.5, bidirectional, **options)
    x = torch.randn(BATCH, TIME, FEATURES)
    given = x if batch_first else x.transpose(0, 1)
    mask = None
    if LENGTHS[lengths]:
        sizes = torch.tensor(LENGTHS[lengths])
        ordered = lengths == "packed-sorted"
        given = nn.utils.rnn.pack_padded_sequence(given, sizes, batch_first, enforce_sorted=ordered)
        mask = (torch.arange(TIME) < sizes[:, None]).numpy()
    states = None
    if begun:
        layers = 4 if bidirectional else 2
        states = [torch.randn(layers, BATCH, n) for n in (options.get("proj_size", UNITS), UNITS)]
        states = states if make is nn.LSTM else states[:1]
    hx = states and (tuple(states) if make is nn.LSTM else states[0])

    found = gates(module, given, hx)

    wanted, outputs = expected(module, array(x), mask, states and [array(state) for state in states])
    assert_gates(found, wanted)
    own, _ = module.eval()(given, hx)
    if mask is None:
        own = own if batch_first else own.transpose(0, 1)
    else:
        own, _ = nn.utils.rnn.pad_packed_sequence(own, batch_first=True)
        outputs = np.where(mask[:, :, None], outputs, 0)
    np.testing.assert_allclose(array(own), outputs, rtol=0, atol=1e-6)
    top = [found[f"l1{direction}"]["hidden"] for direction in (["", "_reverse"] if bidirectional else [""])]
    np.testing.assert_allclose(np.nan_to_num(np.concatenate(top, axis=-1)), array(own), rtol=0, atol=1e-6)

    layers = recurrent_layers(module)
    traced = trace(module, lambda twin: twin(given, hx), layers)
    assert list(layers) == list(traced.layers) == list(wanted)
    for layer in traced.layers.values():
        assert layer.error < 1e-6
        assert layer.mask is None if mask is None else np.array_equal(layer.mask, mask)


@pytest.mark.parametrize("kind", KINDS)
def test_one_sequence_without_a_batch(kind):
    make, options = KINDS[kind]
    module = make(FEATURES, UNITS, 2, bidirectional=True, **options)
    x = torch.randn(TIME, FEATURES)
    sizes = (options.get("proj_size", UNITS), UNITS) if make is nn.LSTM else (UNITS,)
    states = tuple(torch.randn(4, n) for n in sizes)

    found = gates(module, x, states if make is nn.LSTM else states[0])

    assert_gates(found, expected(module, array(x)[None], states=[array(state)[:, None] for state in states])[0])


def test_named_arguments_packed_equally_long_and_a_sequence_of_sequences():
    module = nn.GRU(FEATURES, UNITS)

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = module

        def forward(self, x, h):
            return self.gru(hx=h, input=x)

    x, h = [torch.randn(TIME, FEATURES) for _ in range(3)], torch.randn(1, 3, UNITS)
    packed = nn.utils.rnn.pack_sequence(x)
    wanted, _ = expected(module, array(torch.stack(x)), states=[array(h)])
    assert_gates(gates(Named(), packed, h), {"gru/l0": wanted["l0"]})
    assert trace(module, lambda twin: twin(packed, h), recurrent_layers(module)).layers["l0"].mask is None


def test_double_precision_is_kept():
    module = nn.LSTM(FEATURES, UNITS, 2, bidirectional=True, dtype=torch.float64)
    x = torch.randn(TIME, BATCH, FEATURES, dtype=torch.float64)
    found = gates(module, x)
    assert {values.dtype for layer in found.values() for values in layer.values()} == {np.dtype(np.float64)}
    assert_gates(found, expected(module, array(x.transpose(0, 1)))[0], tolerance=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_replayed_in_single(kind, dtype):
    make, options = KINDS[kind]
    module = make(FEATURES, UNITS, 2, bidirectional=True, batch_first=True, dtype=dtype, **options)
    x = torch.randn(BATCH, TIME, FEATURES, dtype=dtype)
    skip_where_torch_cannot(module, x)
    found = gates(module, x)
    assert {values.dtype for layer in found.values() for values in layer.values()} == {np.dtype(np.float32)}
    assert_gates(found, expected(module, array(x))[0])
    layers = trace(module, lambda twin: twin(x), recurrent_layers(module)).layers
    assert 0 < layers["l0"].error < 4 * torch.finfo(dtype).eps


def skip_where_torch_cannot(module, x):
    """Some processors lack an instruction that torch needs for half precision; it then raises without Gatewatch too."""
    try:
        with torch.no_grad():
            module(x)
    except RuntimeError as error:
        pytest.skip(f"torch says of this processor: {error}")


def test_under_autocast():
    module, x = nn.LSTM(FEATURES, UNITS, batch_first=True), torch.randn(BATCH, TIME, FEATURES)
    with torch.autocast("cpu", torch.bfloat16):
        skip_where_torch_cannot(module, x)
        found = gates(module, x)
    assert_gates(found, expected(module, array(x))[0])


class Loop(nn.Module):
    """A cell over time, by hand."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x, state=None):
        hidden = []
        for step in x.unbind(-2):
            state = self.cell(step, state)
            hidden.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(hidden, -2)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("batched", [True, False], ids=["batch", "one"])
@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell])
def test_a_cell_in_a_loop_is_one_layer_over_time(kind, batched, bias):
    model = Loop(kind(FEATURES, UNITS, bias))
    x = torch.randn(BATCH, TIME, FEATURES)[slice(None) if batched else 0]

    found = gates(model, x)

    wanted, outputs = expected_layer(model.cell, "", array(x).reshape(-1, TIME, FEATURES))
    assert_gates(found, {"cell": wanted})
    np.testing.assert_allclose(array(model(x)).reshape(outputs.shape), outputs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell])
def test_a_cell_by_itself(kind):
    cell, x = kind(FEATURES, UNITS), torch.randn(BATCH, FEATURES)
    state = torch.randn(2, BATCH, UNITS)
    wanted, _ = expected_layer(cell, "", array(x)[:, None], state=array(state))
    assert_gates(gates(cell, x, tuple(state) if kind is nn.LSTMCell else state[0]), {kind.__name__.lower(): wanted})


class Episodes(nn.Module):
    """One step at a time, from a new state where an episode begins: as sb3-contrib's RecurrentPPO learns."""

    def __init__(self, kind, **options):
        super().__init__()
        self.memory = kind(FEATURES, UNITS, 2, **options)

    def forward(self, x, starts):
        state, outputs = None, []
        for step, start in zip(x, starts, strict=True):
            if state is not None:
                keep = (1 - start)[None, :, None]
                state = tuple(keep * s for s in state) if isinstance(state, tuple) else keep * state
            output, state = self.memory(step[None], state)
            outputs.append(output)
        return torch.cat(outputs)


@pytest.mark.parametrize("kind", KINDS)
def test_single_steps_are_joined_over_time_and_begin_where_their_episode_does(kind):
    make, options = KINDS[kind]
    model = Episodes(make, **options)
    x = torch.randn(TIME, BATCH, FEATURES)
    starts = torch.zeros(TIME, BATCH)
    starts[3, 0] = starts[5, 2] = 1

    found = gates(model, x, starts)

    x = array(x.transpose(0, 1))
    for n in range(BATCH):
        cuts = [0, *np.flatnonzero(starts[:, n]).tolist(), TIME]
        for first, last in pairwise(cuts):
            wanted, _ = expected(model.memory, x[n : n + 1, first:last])
            part = {
                name.removeprefix("memory/"): {gate: values[n : n + 1, first:last] for gate, values in layer.items()}
                for name, layer in found.items()
            }
            assert_gates(part, wanted)


def test_nested_modules_are_named_by_their_paths_in_the_order_in_which_they_ran():
    class Policy(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.GRU(UNITS * 2, 4, batch_first=True)
            self.features = nn.Sequential(nn.Linear(FEATURES, 6), nn.ReLU())
            self.inner = nn.ModuleDict({"lstm": nn.LSTM(6, UNITS, bidirectional=True, batch_first=True)})
            self.alias = self.last
            self.unused = nn.GRU(1, 1)

        def forward(self, x):
            return self.last(self.inner["lstm"](self.features(x))[0])

    model, x = Policy(), torch.randn(BATCH, TIME, FEATURES)
    with pytest.warns(UserWarning, match=r"'unused/l0': the module did not call it$"):
        found = gates(model, x)
    below, outputs = expected(model.inner["lstm"], array(model.features(x)))
    above, _ = expected(model.last, outputs)
    wanted = {f"inner.lstm/{name}": layer for name, layer in below.items()}
    assert_gates(found, wanted | {"last/l0": above["l0"]})
    assert list(recurrent_layers(model)) == ["last/l0", "inner.lstm/l0", "inner.lstm/l0_reverse", "unused/l0"]

    chosen = {name: layer for name, layer in recurrent_layers(model).items() if name == "inner.lstm/l0_reverse"}
    traced = trace(model, lambda twin: twin(x), chosen)
    assert_gates({name: one.gates for name, one in traced.layers.items()}, {name: wanted[name] for name in chosen})
    assert traced.unreplayed == {}


def test_a_module_called_again_has_each_call_up_to_eight():
    class Deep(nn.Module):
        def __init__(self, calls):
            super().__init__()
            self.calls = calls
            self.gru = nn.GRU(UNITS, UNITS, batch_first=True)

        def forward(self, x):
            for _ in range(self.calls):
                x, _ = self.gru(x)
            return x

    model, x = Deep(8), torch.randn(BATCH, TIME, UNITS)
    found = gates(model, x)
    assert list(found) == ["gru/l0", *(f"gru/l0#{n}" for n in range(2, 9))]
    np.testing.assert_allclose(found["gru/l0#8"]["hidden"], array(model(x)), rtol=0, atol=1e-6)
    model.calls = 20
    with pytest.warns(UserWarning, match=r"'gru/l0#9': the module is called more than 8 times$"):
        assert list(gates(model, x)) == list(found)


def test_single_steps_of_other_batches_are_other_calls():
    cell = nn.GRUCell(FEATURES, UNITS)
    layers = recurrent_layers(cell)
    with record_calls(layers) as traced:
        for batch in (2, 2, 3, 3, 3, 2):
            cell(torch.randn(batch, FEATURES))
    assert {name: layer.gates["hidden"].shape for name, layer in traced.layers.items()} == {
        "grucell": (2, 2, UNITS),
        "grucell#2": (3, 3, UNITS),
        "grucell#3": (2, 1, UNITS),
    }


@pytest.mark.parametrize("by", ["the only", "path", "layer"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_look_begins_with_states_where_the_module_gives_none(kind, by):
    make, options = KINDS[kind]
    model = nn.Sequential(make(FEATURES, UNITS, **options))
    sizes = (options.get("proj_size", UNITS), UNITS) if make is nn.LSTM else (UNITS,)
    states = [np.random.default_rng(1).normal(size=(BATCH, n)) for n in sizes]
    given = [torch.as_tensor(states[0]).float()[None], *states[1:]]  # as torch's hx, or as (batch, units)
    x = torch.randn(TIME, BATCH, FEATURES)
    layers = recurrent_layers(model)
    wanted, _ = expected(model[0], array(x.transpose(0, 1)), states=[state[None] for state in states])

    given_by = {"the only": given, "path": {"0": given}, "layer": {"0/l0": given}}[by]
    traced = trace(model, lambda twin: twin(x), layers, states=given_by)

    assert_gates({name: layer.gates for name, layer in traced.layers.items()}, {"0/l0": wanted["l0"]})
    own = [torch.zeros(1, BATCH, n) for n in sizes]
    traced = trace(model, lambda twin: twin[0](x, own if make is nn.LSTM else own[0]), layers, states=given_by)
    assert not np.allclose(traced.layers["0/l0"].gates["hidden"], wanted["l0"]["hidden"])
    assert not model[0]._forward_pre_hooks


def test_a_loop_over_a_cell_begins_with_states():
    model, x, state = Loop(nn.GRUCell(FEATURES, UNITS)), torch.randn(BATCH, TIME, FEATURES), torch.randn(BATCH, UNITS)
    traced = trace(model, lambda twin: twin(x), recurrent_layers(model), states=state)
    wanted, _ = expected_layer(model.cell, "", array(x), state=[array(state)])
    assert_gates({"cell": traced.layers["cell"].gates}, {"cell": wanted})


@pytest.mark.parametrize(
    ("states", "said"),
    [
        (torch.zeros(2, UNITS), "there are several recurrent modules, 'first', 'second'; give a mapping"),
        (
            {"third": torch.zeros(2, UNITS)},
            "'third' is no recurrent layer of the module; it has 'first/l0', 'second/l0'",
        ),
    ],
)
def test_states_for_no_layer_are_refused(states, said):
    model = nn.ModuleDict({"first": nn.GRU(3, UNITS), "second": nn.GRU(3, UNITS)})
    with pytest.raises(ConfigError, match=said):
        trace(model, lambda twin: None, recurrent_layers(model), states=states)


def test_inputs_and_states_that_are_changed_in_place_afterwards():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.GRUCell(UNITS, UNITS)

        def forward(self, x):
            for _ in range(3):
                h = self.cell(x, x)
                x.copy_(h)
                h.zero_()
            return x

    model, x = InPlace(), torch.randn(BATCH, UNITS)
    begin = array(x)
    hidden = gates(model, x)["cell"]["hidden"]
    for k in range(3):
        _, wanted = expected_layer(model.cell, "", begin[:, None], state=[begin])
        begin = wanted[:, 0]
        np.testing.assert_allclose(hidden[:, k], begin, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_an_exploded_network_is_shown_as_it_is(kind):
    make, options = KINDS[kind]
    module = make(FEATURES, UNITS, 2, batch_first=True, **options)
    with torch.no_grad():
        module.weight_hh_l0[:] = torch.nan
    found = gates(module, x := torch.randn(BATCH, TIME, FEATURES))
    assert all(np.isnan(values).all() for layer in found.values() for values in layer.values())
    assert trace(module, lambda twin: twin(x), recurrent_layers(module)).layers["l1"].error is None
    one = torch.zeros(BATCH, TIME, FEATURES)
    one[1, 2] = torch.inf
    clean = make(FEATURES, UNITS, batch_first=True, **options)
    assert np.isnan(gates(clean, one)["l0"]["hidden"]).any(axis=(1, 2)).tolist() == [False, True, False, False]


def old_weight_norm(module):
    with pytest.warns(FutureWarning, match="weight_norm"):
        nn.utils.weight_norm(module, "weight_hh_l0")


@pytest.mark.parametrize(
    "change",
    [
        lambda module: nn.utils.parametrizations.weight_norm(module, "weight_hh_l0"),
        lambda module: nn.utils.parametrizations.spectral_norm(module, "weight_ih_l0"),
        lambda module: prune.random_unstructured(module, "weight_ih_l0", 0.5),
        old_weight_norm,
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_made_of_others_are_replayed_as_they_are_in_effect(kind, change):
    make, options = KINDS[kind]
    module, x = make(FEATURES, UNITS, batch_first=True, **options), torch.randn(BATCH, TIME, FEATURES)
    change(module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.5)
    found = gates(module, x)
    np.testing.assert_allclose(found["l0"]["hidden"], array(module.eval()(x)[0]), rtol=0, atol=1e-6)
    parameters = trainable_parameters(module)
    assert {param for _, param in parameters} >= {"kernel", "recurrent", "bias"}
    listed = [id(parameter) for some in parameters.values() for parameter in some]
    assert sorted(listed) == sorted(id(parameter) for parameter in module.parameters())


# However torch's own forward is reached.


class OutputOnly(nn.LSTM):
    def forward(self, x, hx=None):
        return super().forward(x, hx)[0] + 0.01


class Pairs(nn.GRU):
    def forward(self, x):
        output, state = super().forward(x)
        return (output, state), (state, state)


class OtherArguments(nn.GRU):
    def forward(self, x, scale, more):
        return super().forward(x * scale / more)


class OwnMemory(nn.LSTM):
    states = None

    def forward(self, x):
        output, self.states = super().forward(x, self.states)
        return output


class Counted(nn.LSTM):
    """A class that keeps a list of its subclasses, and takes no attributes."""

    subclasses = ()

    def __init_subclass__(cls):
        Counted.subclasses += (cls,)

    def forward(self, x):
        return super().forward(x)[0]


class WithoutDict(ABC, nn.RNNBase):
    """ABC, typing.Generic and their like declare `__slots__ = ()`, and come first."""

    def forward(self, x, hx=None):
        return super().forward(x, hx=hx)


class OfAbstract(WithoutDict, nn.LSTM):
    pass


def on_other_weights(module, x):
    return torch.func.functional_call(module, {name: one * 1.0 for name, one in module.named_parameters()}, (x,))


FORWARD = nn.LSTM.forward


def beside_a_copy(module, x):
    copy.deepcopy(module)(2 * x)
    return module(x)


@pytest.mark.parametrize(
    ("kind", "call"),
    [
        (nn.LSTM, lambda module, x: module.forward(x)),
        (nn.GRU, lambda module, x: module.forward(x, hx=None)),
        (OutputOnly, lambda module, x: module(x)),
        (OutputOnly, lambda module, x: module.forward(x)),
        (Pairs, lambda module, x: module(x)),
        (OtherArguments, lambda module, x: module(x, 3, more=3)),
        (OwnMemory, lambda module, x: module(x)),
        (Counted, lambda module, x: module(x)),
        (OfAbstract, lambda module, x: module(x)),
        (nn.LSTM, on_other_weights),
        (nn.LSTM, beside_a_copy),
        (OutputOnly, beside_a_copy),
    ],
)
def test_torchs_own_forward_is_recorded_however_it_is_called(kind, call):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.memory = kind(FEATURES, UNITS, batch_first=True)

        def forward(self, x):
            return call(self.memory, x)

    net, x = Net(), torch.randn(BATCH, TIME, FEATURES)
    found = gates(net, x)
    wanted, _ = expected(net.memory, array(x))
    assert list(found) == ["memory/l0"]
    for gate, values in wanted["l0"].items():
        np.testing.assert_allclose(found["memory/l0"][gate], values, rtol=0, atol=1e-6, err_msg=gate)
    assert type(net.memory) is kind
    assert "forward" not in vars(net.memory)
    assert Counted.subclasses == ()
    assert nn.LSTM.forward is FORWARD


def test_a_look_begins_with_states_where_the_forward_is_the_users_own():
    module, x = OutputOnly(FEATURES, UNITS, batch_first=True), torch.randn(BATCH, TIME, FEATURES)
    states = [torch.randn(1, BATCH, UNITS) for _ in range(2)]
    found = trace(module, lambda twin: twin.forward(x), recurrent_layers(module), states=states).layers["l0"]
    wanted, _ = expected(module, array(x), states=[array(state) for state in states])
    np.testing.assert_allclose(found.gates["hidden"], wanted["l0"]["hidden"], rtol=0, atol=1e-6)


# What cannot be replayed.


class OwnEquations(nn.GRU):
    def forward(self, x):
        return x @ self.weight_ih_l0.T


class Summed(nn.Module):
    """A good GRU beside another module."""

    def __init__(self, bad, call=lambda bad, x: bad(x)):
        super().__init__()
        self.good = nn.GRU(FEATURES, UNITS, batch_first=True)
        self.bad = bad
        self.call = call

    def forward(self, x):
        self.good(x)
        return self.call(self.bad, x)


def scripted(module):
    with pytest.warns(FutureWarning, match="jit"):
        return torch.jit.script(module)


def quantized(module):
    with pytest.warns(DeprecationWarning, match="quantization"):
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(module), {type(module)})[0]


def always_dropped(bad, x):
    bad.train()
    return bad(x)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor", "ignore:There is a performance drop")
@pytest.mark.parametrize(
    ("bad", "call", "name", "reason"),
    [
        (lambda: nn.RNN(3, 3, batch_first=True), None, "bad/l0", "RNN has no gates"),
        (lambda: nn.RNNCell(3, 3), lambda bad, x: bad(x[0]), "bad", "RNNCell has no gates"),
        (
            lambda: OwnEquations(3, 4),
            None,
            "bad/l0",
            "OwnEquations has a forward of its own, and torch's was not called",
        ),
        (lambda: nn.LSTM(3, 4), lambda bad, x: torch.lstm, "bad/l0", "the module did not call it"),
        (lambda: nn.GRUCell(3, 4), lambda bad, x: torch.vmap(bad)(x), "bad", r"it is called inside torch\.vmap"),
        (lambda: nn.LSTM(3, 4, 2, dropout=0.5), always_dropped, "bad/l1", "its dropout is in play"),
        (lambda: quantized(nn.LSTM(3, 4)), None, "bad", r"it is torch\.ao\.nn\.quantized\.\S+\.LSTM, not torch\.nn's"),
        (lambda: scripted(nn.GRUCell(3, 4)), lambda bad, x: bad(x[0]), "bad", "it is compiled by TorchScript"),
    ],
)
def test_a_layer_that_cannot_be_replayed_is_named_and_has_no_numbers(bad, call, name, reason):
    x = torch.randn(BATCH, TIME, FEATURES)
    call = call or (lambda bad, x: bad(x))
    with pytest.warns(UserWarning, match=f"left out, since not exactly replayable: .*'{name}': .*{reason}"):
        assert list(gates(Summed(bad(), call), x)) == ["good/l0"]

    class Alone(nn.Module):
        def __init__(self):
            super().__init__()
            self.bad = bad()

        def forward(self, x):
            return call(self.bad, x)

    with pytest.raises(ConfigError, match=f"'{name}': .*{reason}.*; offer get_gate_history"):
        gates(Alone(), x)


def test_weights_that_change_between_the_steps_are_not_replayed_wrongly():
    cell = nn.GRUCell(FEATURES, UNITS)
    with record_calls(recurrent_layers(cell)) as traced:
        for _ in range(3):
            cell(torch.randn(BATCH, FEATURES))
            with torch.no_grad():
                cell.weight_ih += 0.5
    assert traced.layers == {}
    assert "differs" in traced.unreplayed["grucell"]


def test_what_a_module_tells_of_itself_is_taken_at_its_word():
    class Told(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = nn.LSTM(FEATURES, UNITS)

        def forward(self, x):
            self.seen = x
            return x

        def get_gate_history(self):
            return {"forget": self.seen.requires_grad_(), "flat": np.ones((5, 3)), "half": self.seen.bfloat16()}

    x = torch.randn(BATCH, TIME, FEATURES)
    found = gates(nn.Sequential(Told()), x)
    assert list(found) == ["0"]
    np.testing.assert_array_equal(found["0"]["forget"], array(x))
    assert (found["0"]["flat"].shape, found["0"]["half"].dtype) == ((1, 5, 3), np.float32)
    assert list(gates(Told(), x)) == ["told"]


def test_a_module_that_tells_its_gates_needs_no_probe(tmp_path):
    class Told(nn.Linear):
        def forward(self, x):
            self.seen = super().forward(x)
            return self.seen

        def get_gate_history(self):
            return {"forget": self.seen}

    net, url = nn.Sequential(Told(FEATURES, UNITS), nn.Tanh()), f"sqlite:///{tmp_path}/gates.db"
    with GateMonitor(net, None, run="told", every=1, store=url) as monitor:
        for size in (1.0, 2.0):
            net(torch.full((BATCH, TIME, FEATURES), size))
            monitor.step()
    stats = open_store(url).read("gate_stats", run="told")
    with torch.no_grad():
        wanted = [float(net[0](torch.full((FEATURES,), size)).mean()) for size in (1.0, 2.0)]
    np.testing.assert_allclose(stats["mean"], wanted, rtol=1e-5)


# What is said where it is used wrongly.


@pytest.mark.parametrize(
    ("module", "inputs", "said"),
    [
        (nn.Linear(3, 1), [torch.zeros(2, 3)], "the module Linear has no recurrent layer"),
        (
            nn.LSTM(3, 4),
            [torch.zeros(2, 5, 7)],
            r"input of shape \(2, 5, 7\) does not fit the module LSTM: .* takes 3 f",
        ),
        (nn.LSTM(3, 4), [np.zeros((2, 5, 3))], r"\(2, 5, 3\) does not fit .*; give tensors, as the module takes them"),
        (
            nn.LSTM(3, 4),
            [torch.zeros(2, 5, 3), (torch.zeros(1), None)],
            r"\(2, 5, 3\), \(1,\), NoneType does not fit.*4",
        ),
        (nn.LSTM(3, 4), [torch.zeros(2, 5, 3).double()], r"'lstm' takes torch\.float32, not torch\.float64"),
        (nn.LSTM(3, 4), [torch.zeros(2, 5, 3, 1)], "'lstm' takes 2 or 3 dimensions, not 4"),
        (nn.LSTM(3, 4), [], "of shape none does not fit the module LSTM: its forward takes .*input, hx=None"),
        (nn.Sequential(nn.LazyLinear(3), nn.LSTM(3, 4)), [torch.zeros(2, 3)], "lazy parameters: call it once"),
        (lambda x: x, [torch.zeros(2, 3)], r"must be a torch\.nn\.Module"),
        (
            torch.zeros(2, 5, 3),
            [nn.LSTM(3, 4)],
            r"module=Tensor of shape \(2, 5, 3\): .*; give the model first",
        ),
        (nn.LSTM, [torch.zeros(2, 5, 3)], r"it is a class; give a model of it, such as LSTM\(\)"),
    ],
)
def test_an_error_is_one_line_that_says_what_to_do(module, inputs, said):
    with pytest.raises(ConfigError, match=said) as caught:
        gates(module, *inputs)
    assert "\n" not in str(caught.value)


class Raising(nn.Module):
    """A forward that raises for a reason of its own."""

    def __init__(self, head=1):
        super().__init__()
        self.lstm = nn.LSTM(3, 3)
        self.head = nn.Linear(7, 1)
        self.raises = head is None

    def forward(self, x):
        if self.raises:
            raise LookupError("no\nprices")
        return self.head(self.lstm(x)[0])


def test_an_error_of_the_forward_is_raised_as_it_is():
    with pytest.raises(LookupError, match=r"^no\nprices$"):
        gates(Raising(None), torch.zeros(2, 5, 3))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):  # the module does not fit itself
        gates(Raising(), torch.zeros(2, 5, 3))


def test_a_monitors_look_logs_an_error_of_the_forward_in_one_line(tmp_path, caplog):
    store = f"sqlite:///{tmp_path}/gates.db"
    with (
        caplog.at_level(logging.WARNING, "gatewatch"),
        GateMonitor(Raising(None), None, run="raising", probe=torch.zeros(2, 5, 3), store=store, every=1) as monitor,
    ):
        monitor.step(metrics={"loss": 1.0})
    assert [record.message for record in caplog.records] == [
        "gatewatch: a capture failed, training goes on: LookupError: no prices",
        "gatewatch: run 'raising' ends without a capture: each look failed: LookupError: no prices",
    ]
    assert open_store(store).read("runs", run="raising")["event"].tolist() == ["started", "completed"]


# What is left untouched.


class Stateful(nn.Module):
    """Dropout, normalisation, a state of its own, a counter, a buffer: everything that a call moves on."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(FEATURES)
        self.lstm = nn.LSTM(FEATURES, UNITS, 2, batch_first=True, dropout=0.5)
        self.frozen = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(UNITS))
        self.frozen.eval()
        self.hidden = None
        self.calls = 0
        self.register_buffer("seen", torch.zeros(3))
        self.register_buffer("last", torch.zeros(1))
        self.register_buffer("still", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        setattr(self, f"input_{self.calls}", x)
        self.seen += x.mean()
        self.last = x[0, 0]
        x = self.norm(x.transpose(1, 2)).transpose(1, 2) + torch.rand(())
        output, self.hidden = self.lstm(x, self.hidden)
        if torch.isnan(x).any():
            raise RuntimeError("not a number")
        return self.frozen(output[:, -1])


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_looking_leaves_a_module_and_the_random_state_as_they_were(training, failing):
    model, x = Stateful(), torch.randn(BATCH, TIME, FEATURES)
    model.norm.train(training)
    model.lstm.train(training)
    model(x)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hidden, calls, last = model.hidden, model.calls, model.last
    seen, still = model.seen._version, model.still._version
    modes = [one.training for one in model.modules()]
    attributes = [set(vars(one)) for one in model.modules()]
    random = torch.get_rng_state()

    if failing:
        with pytest.raises(RuntimeError, match=r"^not a number$"):
            gates(model, x * torch.nan)
    else:
        gates(model, x)

    assert torch.equal(torch.get_rng_state(), random)
    assert [one.training for one in model.modules()] == modes
    assert [set(vars(one)) for one in model.modules()] == attributes
    assert not any(one._forward_hooks for one in model.modules())
    assert model.hidden is hidden
    assert model.calls == calls
    assert model.last is last
    assert model.seen._version == seen  # autograd sees that
    assert model.still._version == still
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.is_grad_enabled()


def test_the_mode_of_a_scripted_part_stays(capsys):
    part = scripted(nn.Dropout())
    model = nn.Sequential(part, nn.GRU(FEATURES, UNITS))
    model.register_forward_hook(lambda called, *_: print(called[0].training))
    gates(model, torch.randn(TIME, BATCH, FEATURES))
    assert capsys.readouterr().out == "False\n"
    assert part.training


def test_at_whatever_moment_ctrl_c_comes_the_module_is_left_as_it_was():
    class Own(nn.GRU):
        def forward(self, x, hx):
            return super().forward(x, hx)

    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            kinds = (nn.GRU, nn.GRU, Own, Own)
            self.layers = nn.ModuleList([kind(FEATURES, FEATURES, batch_first=True) for kind in kinds])
            self.dropouts = nn.ModuleList([nn.Dropout() for _ in range(60)])
            self.register_buffer("seen", torch.zeros(1))
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            self.seen += 1
            for layer in self.layers:
                x, _ = layer(x, None)
            return x

    model, x, forward = Deep(), torch.randn(BATCH, TIME, FEATURES), nn.GRU.forward
    layers = recurrent_layers(model)
    states = {"layers.0": torch.zeros(BATCH, FEATURES)}

    def look():
        return trace(model, lambda twin: twin(x), layers, states=states)

    look()
    begin = time.perf_counter()
    look()
    seconds, interrupted, random = time.perf_counter() - begin, 0, torch.get_rng_state()
    fired = threading.Event()  # a signal that another thread is given reaches Python a little later

    def interrupt(number, frame):
        fired.set()
        signal.raise_signal(signal.SIGINT)

    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGALRM: interrupt}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        for n in range(400):
            fired.clear()
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-6 + seconds * (n + 1) / 400)
                look()
                while not fired.is_set():
                    pass
            except KeyboardInterrupt:
                interrupted += 1
            assert all(one.training for one in model.modules())
            assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())
            assert (model.calls, model.seen.item()) == (0, 0)
            assert nn.GRU.forward is forward
            assert torch.is_grad_enabled()
            assert torch.equal(torch.get_rng_state(), random)
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
    assert interrupted > 300


def test_a_training_is_the_same_bit_for_bit_with_looks_and_without():
    def train(look):
        torch.manual_seed(2)
        model = nn.Sequential(nn.Dropout(0.3), nn.LSTM(FEATURES, UNITS, 2, dropout=0.5))
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(5):
            loss = model(torch.randn(TIME, BATCH, FEATURES))[0].square().mean()
            if look:  # between forward and backward, the worst of moments
                gates(model, torch.randn(TIME, 2, FEATURES, generator=torch.Generator().manual_seed(1)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return model.state_dict()

    plain, looked_at = train(look=False), train(look=True)
    for name, value in plain.items():
        assert torch.equal(value, looked_at[name]), name


def test_calls_of_other_threads_are_not_recorded():
    model, x = nn.GRU(FEATURES, UNITS, batch_first=True), torch.randn(BATCH, TIME, FEATURES)
    theirs, ours, states = [], [], torch.randn(1, BATCH, UNITS)

    def look(twin):
        other = threading.Thread(target=lambda: theirs.append(model(x * 2)[0]))
        other.start()
        other.join()
        ours.append(twin(x)[0])

    traced = trace(model, look, recurrent_layers(model), states=states)
    wanted, _ = expected(model, array(x), states=[array(states)])
    assert_gates({name: layer.gates for name, layer in traced.layers.items()}, wanted)
    assert torch.equal(theirs[0], model(x * 2)[0])
    assert theirs[0].requires_grad
    assert not ours[0].requires_grad


def test_a_user_hook_may_change_the_output_and_does_not_notice_that_it_is_called():
    model, x = nn.Sequential(*(nn.GRU(FEATURES, FEATURES, batch_first=True) for _ in "ab")), torch.randn(3, 7, FEATURES)
    calls = []
    model[0].register_forward_hook(lambda module, arguments, output: calls.append(1) or output[0] * 2)
    wanted = expected(model[1], array(model[0](x)))[0]
    found = gates(model, x)
    assert_gates({"l0": found["1/l0"]}, wanted)
    assert calls == [1]
    assert len(model[0]._forward_hooks) == 1


def test_a_compiled_module_is_looked_at_and_not_compiled_again():
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(FEATURES, FEATURES)
            self.loop = Loop(nn.GRUCell(FEATURES, UNITS))

        def forward(self, x):
            return self.loop(self.first(x))

    model, x = Model(), torch.randn(BATCH, TIME, FEATURES)
    wanted = gates(model, x)
    whole, within = torch.compile(model, backend=backend), Model()
    within.loop = torch.compile(within.loop, backend=backend)
    within.load_state_dict(dict(zip(within.state_dict(), model.state_dict().values(), strict=True)))
    for one in (whole, within):
        one(x)
        count = len(compiled)
        assert_gates(gates(one, x), wanted)
        one(x)
        assert len(compiled) == count > 0
    in_place = Model()
    in_place.load_state_dict(model.state_dict())
    in_place.compile(backend=backend)
    in_place(x)
    assert_gates(gates(in_place, x), wanted)


# Whose parameters are whose.


def test_the_parameters_of_each_layer():
    class Policy(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(nn.Linear(FEATURES, 6), nn.Linear(6, 6, bias=False))
            self.lstm = nn.LSTM(6, UNITS, bidirectional=True, proj_size=2)
            self.cell = nn.GRUCell(4, UNITS, bias=False)
            self.frozen = nn.GRU(4, 4).requires_grad_(False)
            self.lstm.weight_ih_l0.requires_grad_(False)

    policy = Policy()
    lstm, cell, (first, second) = policy.lstm, policy.cell, policy.features
    found = trainable_parameters(policy)
    wanted = {
        ("features.0", "kernel"): [first.weight],
        ("features.0", "bias"): [first.bias],
        ("features.1", "kernel"): [second.weight],
        ("lstm/l0", "recurrent"): [lstm.weight_hh_l0],
        ("lstm/l0", "bias"): [lstm.bias_ih_l0, lstm.bias_hh_l0],
        ("lstm/l0", "projection"): [lstm.weight_hr_l0],
        ("lstm/l0_reverse", "kernel"): [lstm.weight_ih_l0_reverse],
        ("lstm/l0_reverse", "recurrent"): [lstm.weight_hh_l0_reverse],
        ("lstm/l0_reverse", "bias"): [lstm.bias_ih_l0_reverse, lstm.bias_hh_l0_reverse],
        ("lstm/l0_reverse", "projection"): [lstm.weight_hr_l0_reverse],
        ("cell", "kernel"): [cell.weight_ih],
        ("cell", "recurrent"): [cell.weight_hh],
    }
    assert list(found) == list(wanted)
    for key, parameters in wanted.items():
        assert [id(one) for one in found[key]] == [id(one) for one in parameters], key
    assert {layer for layer, _ in trainable_parameters(nn.LSTM(3, 4, 2))} == {"l0", "l1"}
    assert list(trainable_parameters(nn.Linear(3, 1, bias=False))) == [("linear", "kernel")]

"""Beyond a plain layer: stacks of cells, slices of time, half precision; and what is not recorded says so.

Runs on the torch backend too, through `test_gates.py`.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from queue import SimpleQueue

import keras
import numpy as np
import pytest

from gatewatch import GateMonitor, gates, open_store
from gatewatch.collector import cells
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.keras import isolation, patched_call
from gatewatch.collector.keras import trace as trace_module
from gatewatch.collector.keras.layers import recurrent_layers, why_not_replayed
from gatewatch.collector.keras.trace import trace
from gatewatch.collector.replay.lstm import LSTMWeights, replay_lstm
from gatewatch.collector.runtime import signals
from tests import reference
from tests.integration.test_gates import SHAPE, assert_gates, batch, randomised

LSTM, GRU, RNN = keras.layers.LSTM, keras.layers.GRU, keras.layers.RNN
LSTMCell, GRUCell = keras.layers.LSTMCell, keras.layers.GRUCell
KINDS = {"lstm": (LSTM, {}), "gru": (GRU, {}), "gru-reset-before": (GRU, {"reset_after": False})}


@pytest.fixture(autouse=True)
def same_weights_every_time():
    keras.utils.set_random_seed(1)


def to_numpy(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def looked_at(model, x, atol=1e-6, **options):
    """The trace of a model, once what it gave meanwhile was found to be what it gives by itself."""
    meanwhile = SimpleQueue()  # a list would be empty again after the look

    class Outer(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = model

        def call(self, inputs):
            output = self.inner(inputs)
            meanwhile.put(output)
            return keras.tree.flatten(output)[0]

    found = trace(Outer(), x, recurrent_layers(model), **options)
    own = model(x, training=False)
    while not meanwhile.empty():  # the call that builds it comes first
        inside = meanwhile.get_nowait()
    keras.tree.assert_same_structure(inside, own)
    for ours, theirs in zip(keras.tree.flatten(inside), keras.tree.flatten(own), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(to_numpy(ours).astype(float), to_numpy(theirs).astype(float), rtol=0, atol=atol)
    return found


def of_cell(cell, x, mask=None, reverse=False, state=None):
    """Gates and outputs of one cell by the reference."""
    weights = [w.astype("float32") for w in cell.get_weights()]
    names = cell.activation.__name__, cell.recurrent_activation.__name__
    if isinstance(cell, LSTMCell):
        return reference.lstm(x, *weights, *names, mask=mask, reverse=reverse, state=state)
    return reference.gru(x, *weights, *names, cell.reset_after, mask=mask, reverse=reverse, state=state)


def assert_stack(found, path, stack, x, mask=None, states=None):
    for cell, state in zip(stack.cell.cells, states or [None] * len(stack.cell.cells), strict=True):
        wanted, x = of_cell(cell, x, mask, stack.go_backwards, state)
        assert list(found[f"{path}/{cell.name}"]) == list(wanted)
        for gate, values in wanted.items():
            np.testing.assert_allclose(found[f"{path}/{cell.name}"][gate], values, rtol=0, atol=1e-6, err_msg=gate)


def of(found):
    return {path: layer.gates for path, layer in found.layers.items()}


# Stacks of cells.

MIXED = [lambda: LSTMCell(5, name="low"), lambda: GRUCell(4, name="mid"), lambda: LSTMCell(3, name="top")]


def a_stack(**options):
    return RNN([cell() for cell in MIXED], name="stack", **options)


@pytest.mark.parametrize("cell", [LSTMCell, GRUCell])
def test_a_layer_around_one_cell(cell):
    layer = RNN(cell(4), return_sequences=True, return_state=True, name="plain")
    model = randomised(keras.Sequential([keras.Input(SHAPE[1:]), keras.layers.Masking(), layer]))
    x = batch(masked=True)
    found = looked_at(model, x, verified=())
    wanted, _ = of_cell(layer.cell, x, (x != 0).any(axis=-1))
    assert list(found.layers) == ["plain"]
    assert found.layers["plain"].error < 1e-6
    np.testing.assert_allclose(found.layers["plain"].gates["hidden"], wanted["hidden"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"go_backwards": True},
        {"return_sequences": False},
        {"return_state": True},
        {"go_backwards": True, "return_sequences": False, "return_state": True},
        {"zero_output_for_mask": True},
    ],
    ids=lambda variant: "+".join(variant) or "plain",
)
def test_every_cell_of_a_stack_has_its_gates(variant, masked):
    layer = a_stack(**{"return_sequences": True, **variant})
    first = [keras.layers.Masking()] if masked else []
    model = randomised(keras.Sequential([keras.Input(SHAPE[1:]), *first, layer]))
    x = batch(masked)

    found = looked_at(model, x, verified=())

    assert list(found.layers) == ["stack/low", "stack/mid", "stack/top"]
    assert not found.unreplayed
    assert max(layer.error for layer in found.layers.values()) < 1e-6
    assert_stack(of(found), "stack", layer, x, (x != 0).any(axis=-1) if masked else None)


def test_a_stack_in_both_directions_and_over_another():
    both = keras.layers.Bidirectional(RNN([LSTMCell(3, name="a"), GRUCell(3, name="b")], return_sequences=True))
    model = randomised(keras.Sequential([keras.Input(SHAPE[1:]), both, a_stack()]))
    found = looked_at(model, batch())
    forward, backward = f"{both.name}/{both.forward_layer.name}", f"{both.name}/{both.backward_layer.name}"
    assert list(found.layers)[:4] == [f"{forward}/a", f"{forward}/b", f"{backward}/a", f"{backward}/b"]
    assert_stack(of(found), forward, both.forward_layer, batch())
    assert_stack(of(found), backward, both.backward_layer, batch())
    assert list(found.layers)[4:] == ["stack/low", "stack/mid", "stack/top"]


def test_a_stack_that_begins_with_given_states_gives_its_own_back_in_order():
    class Decoder(keras.Model):
        def __init__(self):
            super().__init__()
            self.stack = a_stack(return_sequences=True, return_state=True)

        def call(self, inputs):
            _, *states = self.stack(inputs)
            return self.stack(inputs, initial_state=states)

    model = Decoder()
    model(batch())
    randomised(model)
    _, *states = model.stack(batch())
    begin = [[to_numpy(part) for part in keras.tree.flatten(state)] for state in states]

    found = looked_at(model, batch(), verified=())

    assert list(found.layers)[3:] == ["stack/low#2", "stack/mid#2", "stack/top#2"]
    again = {path.removesuffix("#2"): gates for path, gates in of(found).items() if path.endswith("#2")}
    assert_stack(again, "stack", model.stack, batch(), states=begin)


def test_states_given_from_outside_are_those_of_the_cells_in_order():
    layer = a_stack(return_sequences=True)
    model = randomised(keras.Sequential([keras.Input(SHAPE[1:]), layer]))
    random = np.random.default_rng(5)
    begin = [[random.normal(size=(4, n)).astype("float32")] * k for n, k in ((5, 2), (4, 1), (3, 2))]
    found = trace(model, batch(), recurrent_layers(model), states={"stack": begin})
    assert_stack(of(found), "stack", layer, batch(), states=begin)


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
def test_a_stateful_stack_is_looked_at_without_moving_it_on(masked):
    layer = a_stack(stateful=True, return_sequences=True)
    first = [keras.layers.Masking()] if masked else []
    model = randomised(keras.Sequential([keras.Input(batch_shape=SHAPE), *first, layer]))
    x = batch(masked)
    model(batch() * 2)
    variables = keras.tree.flatten(layer.states)
    before = [to_numpy(state).copy() for state in variables]
    low, mid, top = before[:2], before[2:3], before[3:]

    found = trace(model, x, recurrent_layers(model), verified=())

    for state, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(to_numpy(state), value)
    assert found.layers["stack/top"].error < 1e-6
    assert_stack(of(found), "stack", layer, x, (x != 0).any(axis=-1) if masked else None, [low, mid, top])
    looked_at(model, x)


class WarpedCell(LSTMCell):
    pass


def test_a_stack_with_a_foreign_cell_is_named_and_not_replayed():
    model = keras.Sequential([keras.Input(SHAPE[1:]), RNN([LSTMCell(3), WarpedCell(4, name="odd")], name="stack")])
    with pytest.raises(ConfigError, match=r"'stack': its cell 'odd', WarpedCell, is not Keras's own"):
        gates(model, batch())


def test_a_layer_of_another_type_is_named():
    assert why_not_replayed(LSTM(3, dtype="uint8")) == "it computes in uint8"


@pytest.mark.parametrize("count", [1, 3])
def test_states_of_another_number_are_said(count):
    model = keras.Sequential([keras.Input(SHAPE[1:]), LSTM(3, name="memory")])
    states = {"memory": [np.zeros((4, 3), "float32")] * count}
    found = trace(model, batch(), recurrent_layers(model), states=states)
    assert not found.layers
    assert "its replay failed" in found.unreplayed["memory"]


# States and masks.


@pytest.mark.parametrize("variant", [{}, {"go_backwards": True}, {"return_sequences": False}, {"return_state": True}])
@pytest.mark.parametrize("kind", [LSTM, GRU])
def test_masked_steps_before_the_first_that_is_not(kind, variant):
    """There Keras's output is zero, whatever the state is."""

    class Goes(keras.Model):
        def __init__(self):
            super().__init__()
            self.layer = kind(4, name="memory", **{"return_sequences": True, **variant})

        def call(self, inputs):
            states = [keras.ops.ones((4, 4)) * 0.5] * (2 if kind is LSTM else 1)
            return self.layer(inputs, initial_state=states, mask=keras.ops.any(inputs != 0, axis=-1))

    model = Goes()
    model(batch(masked=True))
    assert looked_at(model, batch(masked=True), verified=()).layers["memory"].error < 1e-6


def test_a_stateful_layer_called_twice_goes_on_where_it_was():
    class Twice(keras.Model):
        def __init__(self):
            super().__init__()
            self.memory = LSTM(3, stateful=True, return_sequences=True, name="memory")

        def call(self, inputs):
            return self.memory(inputs) + self.memory(inputs)

    model = Twice()
    model(batch())
    model.memory.reset_state()
    found = looked_at(model, batch(), verified=())
    end = [found.layers["memory"].gates[gate][:, -1] for gate in ("hidden", "cell")]
    assert_gates(found.layers["memory#2"].gates, model.memory, batch(), state=end)


# Slices of time, and layers called again and again.

SLICES = np.random.default_rng(8).normal(size=(2, 3, 6, 3)).astype("float32")  # batch, slices, time, features


def by_slice(x):
    return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("cell", KINDS)
def test_time_distributed_is_one_layer(cell, masked):
    kind, options = KINDS[cell]
    x = SLICES.copy()
    if masked:
        x[0, 1, 4:] = 0
    layer = kind(4, return_sequences=True, name="memory", **options)
    first = [keras.layers.Masking()] if masked else []
    model = keras.Sequential(
        [keras.Input(SLICES.shape[1:]), *first, keras.layers.TimeDistributed(layer, name="each"), keras.layers.Dense(2)]
    )
    randomised(model)

    found = looked_at(model, x, verified=())

    assert list(found.layers) == ["each/memory"]
    assert found.layers["each/memory"].error < 1e-6
    assert not found.unreplayed
    mask = (by_slice(x) != 0).any(axis=-1) if masked else None
    assert_gates(found.layers["each/memory"].gates, layer, by_slice(x), mask)
    np.testing.assert_array_equal(found.layers["each/memory"].mask, mask)


def test_time_distributed_over_a_length_that_the_model_leaves_open():
    layer = LSTM(4, name="memory")
    model = keras.Sequential([keras.Input((None, *SLICES.shape[2:])), keras.layers.TimeDistributed(layer, name="each")])
    assert_gates(gates(model, SLICES)["each/memory"], layer, by_slice(SLICES))


def test_time_distributed_over_a_model_and_over_itself():
    low, both = LSTM(4, return_sequences=True, name="low"), keras.layers.Bidirectional(GRU(3, name="gru"), name="both")
    inner = keras.Sequential([keras.Input(SLICES.shape[2:]), low, both], name="inner")
    each = keras.layers.TimeDistributed(keras.layers.TimeDistributed(inner, name="second"), name="first")
    x = np.stack([SLICES, SLICES * 0.5], axis=1)  # (2, 2, 3, 6, 3)
    model = randomised(keras.Sequential([keras.Input(x.shape[1:]), each]))

    found = looked_at(model, x)

    path = "first/second/inner"
    assert list(found.layers) == [f"{path}/low", f"{path}/both/forward_gru", f"{path}/both/backward_gru"]
    flat = np.concatenate([by_slice(x[:, k]) for k in range(2)])
    assert_gates(found.layers[f"{path}/low"].gates, low, flat)


def test_a_layer_called_twice_in_every_slice_and_once_outside():
    layer = LSTM(3, return_sequences=True, name="shared")
    inputs = keras.Input(SLICES.shape[2:])
    inner = keras.Model(inputs, layer(layer(inputs)), name="inner")
    whole = keras.Input(SLICES.shape[1:])
    each = keras.layers.TimeDistributed(inner, name="each")(whole)
    model = randomised(keras.Model(whole, layer(each[:, 0])))

    found = looked_at(model, SLICES)

    path = next(iter(found.layers))
    assert list(found.layers) == [path, f"{path}#2", f"{path}#3"]
    assert [layer.gates["cell"].shape for layer in found.layers.values()] == [(6, 6, 3), (6, 6, 3), (2, 6, 3)]
    outputs = assert_gates(found.layers[path].gates, layer, by_slice(SLICES))
    assert_gates(found.layers[f"{path}#2"].gates, layer, outputs.astype("float32"))


def test_a_layer_called_without_end_is_recorded_eight_times():
    class Loop(keras.Model):
        def __init__(self):
            super().__init__()
            self.memory = LSTM(3, return_sequences=True, name="memory")

        def call(self, inputs):
            for _ in range(10):
                inputs = self.memory(inputs)
            return inputs

    model = Loop()
    model(batch())
    found = looked_at(model, batch(), verified=())
    assert list(found.layers) == ["memory", *(f"memory#{n}" for n in range(2, 9))]
    assert found.unreplayed == {
        "memory#9…": "the model calls it more than 8 times; the first 8 calls are recorded",
    }


# Half precision.

HALF = {"mixed_float16": 2**-10, "float16": 2**-10, "mixed_bfloat16": 2**-7, "bfloat16": 2**-7}


def rounded(array, dtype):
    return np.asarray(array).astype(np.dtype(dtype.removeprefix("mixed_"))).astype("float32")


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("cell", KINDS)
def test_half_precision_is_replayed_from_what_the_layer_sees(cell, dtype):
    kind, options = KINDS[cell]
    layer = kind(
        16, dtype=dtype, return_sequences=True, return_state=True, recurrent_initializer="glorot_uniform", **options
    )
    model = keras.Sequential([keras.Input((12, 6)), layer])
    x = np.random.default_rng(2).normal(size=(8, 12, 6)).astype("float32")

    # The tolerance is that of the first look: Keras rounds every step.
    found = looked_at(model, x, atol=8 * HALF[dtype], verified=()).layers[layer.name]

    assert 0 < found.error <= 8 * HALF[dtype]
    assert {values.dtype.name for values in found.gates.values()} == {"float32"}
    weights = [rounded(weight, dtype) for weight in layer.cell.get_weights()]
    names = "tanh", "sigmoid"
    seen = rounded(x, dtype)
    if kind is LSTM:
        wanted, _ = reference.lstm(seen, *weights, *names)
    else:
        wanted, _ = reference.gru(seen, *weights, *names, layer.cell.reset_after)
    for gate, values in wanted.items():
        np.testing.assert_allclose(found.gates[gate], values, rtol=0, atol=1e-6, err_msg=gate)


def test_a_whole_model_of_mixed_precision_with_states_masks_and_a_stack():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        layers = [
            keras.layers.Masking(),
            keras.layers.Bidirectional(LSTM(4, return_sequences=True), name="both"),
            GRU(5, return_sequences=True, go_backwards=True, zero_output_for_mask=True, name="gru"),
            RNN([LSTMCell(4), GRUCell(3)], return_state=True, name="stack"),
        ]
        model = randomised(keras.Sequential([keras.Input(SHAPE[1:]), *layers]))
    finally:
        keras.config.set_dtype_policy("float32")
    found = looked_at(model, batch(masked=True), atol=8 * 2**-10, verified=())
    assert len(found.layers) == 5
    assert not found.unreplayed


@pytest.mark.parametrize(("cell", "layer"), [("float32", "mixed_float16"), ("mixed_float16", "float32")])
def test_a_cell_of_another_precision_than_its_layer(cell, layer):
    two = RNN(LSTMCell(4, dtype=cell), dtype=layer, return_sequences=True, name="two")
    model = randomised(keras.Sequential([keras.Input(SHAPE[1:]), two]))
    found = looked_at(model, batch(), atol=2**-10, verified=()).layers["two"]
    weights = two.cell.get_weights()
    if cell == "mixed_float16":
        weights = [rounded(weight, cell) for weight in weights]
    wanted, _ = reference.lstm(rounded(batch(), "float16"), *weights, "tanh", "sigmoid")
    np.testing.assert_allclose(found.gates["cell"], wanted["cell"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float64", "float32", "mixed_float16", "mixed_bfloat16"])
def test_a_wrong_replay_is_refused_in_every_precision(dtype):
    def forget_and_input_exchanged(x, weights, *rest):
        order = np.r_[4:8, 0:4, 8:16]
        kernel, recurrent, bias = (w[..., order] for w in (weights.kernel, weights.recurrent, weights.bias))
        return replay_lstm(x, LSTMWeights(kernel, recurrent, bias), *rest)

    model = keras.Sequential([keras.Input(SHAPE[1:]), LSTM(4, dtype=dtype, return_sequences=True, name="wrong")])
    wrong = (replace(cells.LSTM, replay=forget_and_input_exchanged),)
    found = looked_at(model, batch(), verified=(), cells=wrong)
    assert not found.layers
    assert "differs from its own output by" in found.unreplayed["wrong"]


def test_a_replay_that_is_wrong_in_one_slice_is_no_part_of_the_whole():
    wrong = replace(cells.LSTM, replay=lambda x, *rest: replay_lstm(-x if x.mean() > 9 else x, *rest))
    stack = RNN([LSTMCell(3), GRUCell(3)], return_sequences=True, name="stack")
    model = keras.Sequential([keras.Input(SLICES.shape[1:]), keras.layers.TimeDistributed(stack, name="each")])
    x = SLICES.copy()
    x[:, 1] += 10
    found = looked_at(model, x, verified=(), cells=(wrong, cells.GRU))
    assert not found.layers
    assert list(found.unreplayed) == ["each/stack"]


# Models with several inputs.


@pytest.mark.parametrize("form", ["list", "dict"])
def test_several_inputs(form):
    prices, news = keras.Input(SHAPE[1:], name="prices"), keras.Input((5, 2), name="news")
    low, high = LSTM(3, name="low"), GRU(2, name="high")
    inputs = [prices, news] if form == "list" else {"prices": prices, "news": news}
    model = randomised(keras.Model(inputs, keras.layers.Concatenate()([low(prices), high(news)])))
    other = np.random.default_rng(9).normal(size=(4, 5, 2)).astype("float32")
    x = [batch(), other] if form == "list" else {"news": other, "prices": batch()}

    found = gates(model, x)

    assert set(found) == {"low", "high"}
    assert_gates(found["low"], low, batch())
    assert_gates(found["high"], high, other)


def test_a_monitor_of_several_inputs_slices_and_stacks(tmp_path):
    days, news = keras.Input(SLICES.shape[1:], name="days"), keras.Input((5, 2), name="news")
    each = keras.layers.TimeDistributed(LSTM(3, name="memory"), name="each")
    model = keras.Model(
        {"days": days, "news": news}, keras.layers.Concatenate()([a_stack()(each(days)), GRU(2, name="gru")(news)])
    )
    probe = {"days": SLICES, "news": SLICES[:, 0, :5, :2]}
    store = f"sqlite:///{tmp_path}/points.db"
    with GateMonitor(model, log_dir=None, run="steps", store=store, probe=probe, every=1) as monitor:
        monitor.step()
        monitor.step({name: values * 2 for name, values in probe.items()})
    stats = open_store(store).read("gate_stats", run="steps", tags={"gate": "hidden"})
    assert stats.groupby("layer")["step"].apply(list).to_dict() == {
        layer: [1, 2] for layer in ("each/memory", "stack/low", "stack/mid", "stack/top", "gru")
    }
    hidden = gates(model, probe)["each/memory"]["hidden"]
    assert stats[stats["layer"] == "each/memory"]["mean"].iloc[0] == pytest.approx(hidden.mean(), abs=1e-6)


def test_a_subclassed_model_of_two_nested_ones_that_share_names():
    class Policy(keras.Model):
        def __init__(self):
            super().__init__()
            self.actor = keras.Sequential([LSTM(3, name="memory")], name="actor")
            self.critic = keras.Sequential([LSTM(3, name="memory")], name="critic")
            self.one, self.two = GRU(2, name="gru"), GRU(2, name="gru")

        def call(self, inputs):
            x = inputs["window"]
            return self.actor(x), self.critic(x), self.one(x), self.two(x)

    model = Policy()
    model({"window": batch()})
    found = gates(model, {"window": batch()})
    assert set(found) == {"actor/memory", "critic/memory", "gru", "gru_1"}
    assert_gates(found["critic/memory"], model.critic.layers[0], batch())
    assert_gates(found["gru"], model.one, batch())
    assert_gates(found["gru_1"], model.two, batch())


# What is not replayed says so.

CONVOLUTIONAL = {
    1: (keras.layers.ConvLSTM1D, (4, 8, 2)),
    2: (keras.layers.ConvLSTM2D, (4, 6, 6, 2)),
    3: (keras.layers.ConvLSTM3D, (4, 4, 4, 4, 1)),
}


@pytest.mark.parametrize("rank", CONVOLUTIONAL)
def test_a_convolutional_lstm_is_named(rank):
    kind, shape = CONVOLUTIONAL[rank]
    model = keras.Sequential([keras.Input(shape), kind(2, 3, name="picture")])
    x = np.zeros((2, *shape), "float32")
    with pytest.raises(ConfigError, match=rf"'picture': {kind.__name__} is convolutional.*get_gate_history\(\)"):
        gates(model, x)


def test_a_convolutional_lstm_that_tells_is_taken_at_its_word():
    class Telling(keras.layers.ConvLSTM1D):
        def get_gate_history(self):
            return {"forget": np.full((2, 4, 3), 0.5, "float32")}

    model = keras.Sequential([keras.Input((4, 8, 2)), Telling(2, 3, name="picture")])
    assert gates(model, np.zeros((2, 4, 8, 2), "float32"))["picture"]["forget"].shape == (2, 4, 3)


class LearnsItsBegin(LSTM):
    def get_initial_state(self, batch_size):
        return [keras.ops.ones((batch_size, self.units))] * 2


class Stepped(keras.layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.cell = LSTMCell(3, name="cell")

    def call(self, x):
        states = [keras.ops.zeros((4, 3))] * 2
        for t in range(x.shape[1]):
            _, states = self.cell(x[:, t], states)
        return states[0]


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: RNN(WarpedCell(3), name="bad"), "'bad': its cell, WarpedCell, is not Keras's own LSTM or GRU"),
        (lambda: LearnsItsBegin(3, name="bad"), r"'bad': LearnsItsBegin has a get_initial_state\(\) of its own"),
        (lambda: Stepped(name="bad"), "'bad/cell': it is a cell, LSTMCell, that no RNN layer runs"),
    ],
)
def test_what_cannot_be_replayed_is_one_line_with_the_remedy(layer, reason):
    model = keras.Sequential([keras.Input(batch_shape=SHAPE), layer()])
    with pytest.raises(ConfigError, match=rf"{reason}; offer get_gate_history\(\)"):
        gates(model, batch())


def test_a_layer_inside_a_vectorized_map_has_no_values():
    class Mapped(keras.Model):
        def __init__(self):
            super().__init__()
            self.memory = LSTM(3, name="memory", use_cudnn=False)
            self.plain = LSTM(3, name="plain")

        def call(self, inputs):
            return keras.ops.vectorized_map(lambda row: self.memory(row[None])[0], inputs) + self.plain(inputs)

    model = Mapped()
    model(batch())
    found = looked_at(model, batch())
    assert list(found.layers) == ["plain"]
    assert "vectorized_map" in found.unreplayed["memory"]


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="tf.function")
def test_a_layer_inside_a_compiled_function_is_looked_at_and_the_function_stays_as_it_is():
    import tensorflow as tf

    class Compiled(keras.Model):
        def __init__(self):
            super().__init__()
            self.memory = LSTM(3, name="memory")
            self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def build(self, input_shape):  # Keras's own way would compile the function without what it assigns
            self.memory.build(input_shape)

        @tf.function
        def inner(self, inputs):
            self.calls.assign_add(1.0)
            return self.memory(inputs)

        def call(self, inputs):
            return self.inner(inputs)

    model, x = Compiled(), tf.constant(batch())
    for calls in (1, 2):  # the first look comes before it was compiled; `looked_at` itself calls it once
        assert list(looked_at(model, x).layers) == ["memory"]
        assert float(model.calls) == calls
        assert model.inner.experimental_get_tracing_count() == 1


# Weights that are not finite.


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("activations", [("tanh", "sigmoid"), ("relu", "hard_sigmoid"), ("hard_tanh", "hard_sigmoid")])
@pytest.mark.parametrize("kind", [LSTM, GRU])
def test_weights_that_are_not_finite(kind, activations, value):
    names = dict(zip(("activation", "recurrent_activation"), activations, strict=True))
    layer = kind(4, return_sequences=True, **names)
    model = keras.Sequential([keras.Input(SHAPE[1:]), layer])
    kernel, *rest = layer.get_weights()
    kernel[0, 5] = value
    layer.set_weights([kernel, *rest])
    found = trace(model, batch(), recurrent_layers(model), verified=())
    assert not found.unreplayed
    if np.isnan(value):
        assert np.isnan(found.layers[layer.name].gates["hidden"][:, -1]).all()


# A model that changes while it is watched.


class Changing(keras.Model):
    def __init__(self):
        super().__init__()
        self.memory = LSTM(3, name="memory")
        self.other = GRU(3, name="other")

    def call(self, inputs):
        return self.memory(inputs) + self.other(inputs)


def changing():
    model = Changing()
    model(batch())
    return model, recurrent_layers(model)


def test_a_layer_that_was_replaced_is_said_and_the_rest_goes_on():
    model = keras.Sequential([keras.Input(SHAPE[1:]), LSTM(3, return_sequences=True, name="low"), LSTM(3, name="top")])
    layers = recurrent_layers(model)
    model.pop()
    model.add(GRU(4, name="top"))
    found = trace(model, batch(), layers)
    assert list(found.layers) == ["low"]
    assert found.unreplayed == {"top": "it is no longer in the model; another layer has its place"}
    assert found.stale
    again = trace(model, batch(), recurrent_layers(model))
    assert list(again.layers) == ["low", "top"]
    assert not again.stale
    low = again.layers["low"].gates["hidden"].astype("float32")
    assert_gates(again.layers["top"].gates, model.layers[-1], low)


def test_a_layer_that_was_taken_out_is_said():
    model = keras.Sequential([keras.Input(SHAPE[1:]), LSTM(3, return_sequences=True, name="low"), LSTM(3, name="top")])
    layers = recurrent_layers(model)
    model.pop()
    found = trace(model, batch(), layers)
    assert list(found.layers) == ["low"]
    assert found.unreplayed == {"top": "it is no longer in the model"}
    assert found.stale


def test_a_renamed_layer_keeps_the_name_of_the_beginning():
    model, layers = changing()
    model.memory.name = "renamed"
    found = trace(model, batch(), layers)
    assert list(found.layers) == ["memory", "other"]
    assert not found.stale
    assert_gates(found.layers["memory"].gates, model.memory, batch())


def test_a_layer_that_the_model_passes_over_is_said():
    model, layers = changing()
    model.call = lambda inputs: model.other(inputs) * 2
    found = trace(model, batch(), layers)
    assert list(found.layers) == ["other"]
    assert "did not call it" in found.unreplayed["memory"]
    assert not found.stale


# The training is left as it is.


def test_random_states_and_weights_stay():
    dropout = {"dropout": 0.5, "recurrent_dropout": 0.5}
    stack = RNN([LSTMCell(4, **dropout), GRUCell(4, **dropout)])
    each = keras.layers.TimeDistributed(LSTM(3, **dropout))
    model = keras.Sequential([keras.Input(SLICES.shape[1:]), each, stack, keras.layers.Dropout(0.5)])
    layers = [*model._flatten_layers()]
    model(SLICES)  # Keras's own calls leave attributes of their own
    attributes = [set(vars(layer)) for layer in layers]
    before = [to_numpy(variable).copy() for variable in model.variables]
    found = trace(model, SLICES, recurrent_layers(model), verified=())
    assert len(found.layers) == 3
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(to_numpy(variable), value)
    for layer, names in zip(layers, attributes, strict=True):
        assert set(vars(layer)) == names, (layer, set(vars(layer)) ^ names)


class Interrupted:
    """A model whose looks are cut off by real SIGINTs; nothing of them may stay."""

    def __init__(self):
        stack = RNN([LSTMCell(3, dropout=0.5), GRUCell(3)], return_sequences=True, stateful=True, name="stack")
        each = keras.layers.TimeDistributed(LSTM(3, name="inner"), name="each")
        both = keras.layers.Bidirectional(GRU(2, name="gru"), name="both")
        self.x = keras.ops.convert_to_tensor(SLICES[:, :, :2])
        self.model = keras.Sequential(
            [keras.Input(batch_shape=self.x.shape), each, keras.layers.Reshape((3, 3)), stack, both]
        )
        self.model.compile("sgd", "mse")
        self.model(self.x)
        self.layers, self.owners = recurrent_layers(self.model), [self.model, *self.model._flatten_layers()]
        self.attributes = [set(vars(layer)) for layer in self.owners]
        self.variables = [*self.model.variables, *keras.tree.flatten(stack.states)]
        self.values = [to_numpy(variable).copy() for variable in self.variables]
        self.output = to_numpy(self.predicted())

    def predicted(self):
        output = self.model(self.x, training=False)
        for variable, value in zip(self.variables, self.values, strict=True):
            variable.assign(value)
        return output

    def check(self):
        assert [set(vars(layer)) for layer in self.owners] == self.attributes
        for variable, value in zip(self.variables, self.values, strict=True):
            np.testing.assert_array_equal(to_numpy(variable), value)

    def check_all(self):
        self.check()
        np.testing.assert_array_equal(to_numpy(self.predicted()), self.output)
        assert len(trace(self.model, self.x, self.layers, verified=()).layers) == 5
        assert np.isfinite(self.model.train_on_batch(self.x, np.zeros(self.output.shape, "float32")))


def test_an_interrupt_at_any_line_of_a_look_leaves_the_model_as_it_was():
    watched = Interrupted()
    files = {inspect.getfile(module) for module in (contextlib, isolation, patched_call, trace_module, signals)}
    own_trace, at = sys.gettrace(), itertools.count(1, 5)
    seen = interrupted = 0

    def every_line(frame, event, argument):
        nonlocal seen
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            seen += 1
            if seen == moment:
                signal.raise_signal(signal.SIGINT)
        return every_line

    for moment in at:
        seen = 0
        try:
            sys.settrace(every_line)
            trace(watched.model, watched.x, watched.layers)
        except KeyboardInterrupt:
            interrupted += 1
        finally:
            sys.settrace(own_trace)
        if seen < moment:
            break
        watched.check()
    assert interrupted == moment // 5 > 50
    watched.check_all()


def test_an_interrupt_at_any_time_leaves_the_model_as_it_was():
    watched = Interrupted()
    random = np.random.default_rng(1)
    begin = time.perf_counter()
    trace(watched.model, watched.x, watched.layers)
    length = time.perf_counter() - begin
    interrupted = 0
    for _ in range(150):
        sender = threading.Timer(random.uniform(0, length), os.kill, (os.getpid(), signal.SIGINT))
        try:
            sender.start()
            trace(watched.model, watched.x, watched.layers)
            sender.join()
            time.sleep(0.001)
        except KeyboardInterrupt:
            interrupted += 1
        sender.join()
        watched.check()
    assert interrupted > 100  # an interrupt within a __del__ of the framework's is lost
    watched.check_all()


# Errors are one printable line, whatever names and exceptions are made of.

HOSTILE = "a\n\x1b[31mb"


class MuteError(Exception):
    def __str__(self):
        raise RuntimeError


class Telling(keras.layers.Layer):
    def __init__(self, error):
        super().__init__(name=HOSTILE)
        self.error = error

    def call(self, inputs):
        return inputs

    def get_gate_history(self):
        raise self.error


def monitored(probe, **options):
    model = keras.Sequential([keras.Input(SHAPE[1:]), LSTM(3, name=HOSTILE)], name="m\n\x1b[2J")
    with GateMonitor(options.pop("model", model), log_dir=None, store="sqlite:///:memory:", probe=probe, **options):
        pass


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: monitored(batch(), layers=["no\n"]), r"'no\\n' is no .* it has 'a\\n\\x1b\[31mb'"),
        (lambda: monitored(batch().astype(object)), r"^the probe is no batch of inputs: .*; give an array"),
        (lambda: monitored(np.full(SHAPE, None)), r"^the probe is no batch of inputs: .*; give an array"),
        (lambda: monitored(np.zeros((4, 9, 2))), r"\(4, 9, 2\) does not fit"),
        (lambda: monitored(batch(), model=np.zeros((40, 40))), "^model=ndarray of shape"),
        (lambda: monitored(batch(), optimizer=np.zeros((40, 40))), "^optimizer=ndarray of shape"),
        (lambda: gates(Telling(ValueError("one\x1b[2J\ntwo")), batch()), r"failed: one"),
        (lambda: gates(Telling(MuteError()), batch()), r"failed: MuteError"),
    ],
    ids=["layers", "objects", "nothings", "shape", "model", "optimizer", "escape", "mute"],
)
def test_an_error_is_one_printable_line(make, said):
    with pytest.raises(ConfigError, match=said) as caught:
        make()
    assert str(caught.value).isprintable()

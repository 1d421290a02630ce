"""`gates(model, x)` against Keras's own outputs and an explicit reference, over cells, activations, masks, directions.

The whole file runs on TensorFlow, and once more on the torch backend of Keras; so do `test_more_cells.py`, the tests of
`GateMonitor` and `test_keras_updates.py`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from gatewatch import gates
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.keras.layers import recurrent_layers
from gatewatch.collector.keras.trace import trace
from tests import reference

LSTM, GRU = keras.layers.LSTM, keras.layers.GRU
BOUNDED = {"tanh", "sigmoid", "hard_sigmoid", "softsign", "hard_tanh"}
SHAPE = (4, 9, 3)


@pytest.fixture(autouse=True)
def same_weights_every_time():
    keras.utils.set_random_seed(1)


def batch(masked: bool = False) -> np.ndarray:
    x = np.random.default_rng(7).normal(size=SHAPE).astype("float32")
    if masked:
        x[0, :3] = 0  # the beginning
        x[1, 4:] = 0  # the end
        x[2, [2, 5]] = 0  # holes
        x[3] = 0  # everything
    return x


def randomised(model, scale=0.3):
    """Biases are zero in a fresh model: a wrong order of gates would not show."""
    random = np.random.default_rng(3)
    model.set_weights([w + random.normal(scale=scale, size=w.shape).astype("float32") for w in model.get_weights()])
    return model


def expected(layer, x, mask=None, state=None):
    cell = layer.cell
    kernel, recurrent, *bias = (keras.ops.convert_to_numpy(w) for w in cell.get_weights())
    names = cell.activation.__name__, cell.recurrent_activation.__name__
    shared = {"mask": mask, "reverse": layer.go_backwards, "state": state}
    if isinstance(cell, keras.layers.LSTMCell):
        return reference.lstm(x, kernel, recurrent, bias[0] if bias else None, *names, **shared)
    return reference.gru(x, kernel, recurrent, bias[0] if bias else None, *names, cell.reset_after, **shared)


def assert_gates(found, layer, x, mask=None, state=None):
    wanted, outputs = expected(layer, x, mask, state)
    unbounded = {layer.activation.__name__, layer.recurrent_activation.__name__} - BOUNDED
    assert list(found) == list(wanted)
    for gate, values in wanted.items():
        assert found[gate].shape == values.shape
        np.testing.assert_allclose(found[gate], values, rtol=0, atol=1e-5 if unbounded else 1e-6, err_msg=gate)
    return outputs


CELLS = {
    "lstm": (LSTM, {}),
    "gru": (GRU, {}),
    "gru-reset-before": (GRU, {"reset_after": False}),
}
ACTIVATIONS = [
    ("tanh", "sigmoid"),
    ("tanh", "hard_sigmoid"),
    ("softsign", "sigmoid"),
    ("hard_tanh", "hard_sigmoid"),
    ("relu", "sigmoid"),
    ("elu", "hard_sigmoid"),
    ("selu", "sigmoid"),
    ("linear", "sigmoid"),
    ("silu", "sigmoid"),
    ("softplus", "hard_sigmoid"),
    ("leaky_relu", "sigmoid"),
    ("mish", "sigmoid"),
    ("relu6", "sigmoid"),
    ("hard_silu", "sigmoid"),
    ("log_sigmoid", "sigmoid"),
    ("exponential", "sigmoid"),
]
VARIANTS = {
    "plain": {},
    "no-bias": {"use_bias": False},
    "backwards": {"go_backwards": True},
    "last-only": {"return_sequences": False},
    "backwards-last-only": {"go_backwards": True, "return_sequences": False},
    "states": {"return_state": True},
    "unrolled": {"unroll": True},
    "dropout": {"dropout": 0.5, "recurrent_dropout": 0.3},
    "zero-masked": {"zero_output_for_mask": True},
}


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_layer(cell, variant, masked):
    kind, options = CELLS[cell]
    x = batch(masked)
    inputs = keras.Input(SHAPE[1:])
    hidden = keras.layers.Masking()(inputs) if masked else inputs
    layer = kind(5, name="cell", **{"return_sequences": True, **options, **VARIANTS[variant]})
    model = randomised(keras.Model(inputs, layer(hidden)))
    mask = (x != 0).any(axis=-1) if masked else None

    found = gates(model, x)

    outputs = assert_gates(found["cell"], layer, x, mask)
    own = keras.tree.flatten(model(x, training=False))[0]
    if layer.return_sequences:
        ordered = outputs[:, ::-1] if layer.go_backwards else outputs
        if masked and layer.zero_output_for_mask:
            order = mask[:, ::-1] if layer.go_backwards else mask
            ordered = np.where(order[:, :, None], ordered, 0)
    else:
        ordered = outputs[:, 0 if layer.go_backwards else -1]
        if masked and layer.zero_output_for_mask:
            ordered = np.where(mask[:, 0 if layer.go_backwards else -1, None], ordered, 0)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(own), ordered, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("activation", "recurrent"), ACTIVATIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_activations(cell, activation, recurrent):
    kind, options = CELLS[cell]
    layer = kind(4, activation=activation, recurrent_activation=recurrent, return_sequences=True, **options)
    model = keras.Sequential([keras.Input((None, SHAPE[2])), layer])
    x = batch()[:, :4] * 0.1 if activation == "exponential" else batch() * 0.5

    outputs = assert_gates(gates(model, x)[layer.name], layer, x)

    own = keras.ops.convert_to_numpy(model(x, training=False))
    np.testing.assert_allclose(own, outputs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("merge", ["concat", "sum", "ave", "mul"])
@pytest.mark.parametrize("cell", CELLS)
def test_bidirectional_under_another_layer(cell, merge, masked):
    kind, options = CELLS[cell]
    x = batch(masked)
    both = keras.layers.Bidirectional(kind(3, return_sequences=True, name="lstm", **options), merge_mode=merge)
    top = kind(4, name="top", **options)
    first = [keras.layers.Masking()] if masked else []
    model = randomised(keras.Sequential([keras.Input(SHAPE[1:]), *first, both, top]))
    mask = (x != 0).any(axis=-1) if masked else None

    found = gates(model, x)

    names = [f"{both.name}/{both.forward_layer.name}", f"{both.name}/{both.backward_layer.name}", "top"]
    assert list(found) == names
    assert names[0] == "bidirectional/forward_lstm" or names[0].startswith("bidirectional_")
    assert_gates(found[names[0]], both.forward_layer, x, mask)
    assert_gates(found[names[1]], both.backward_layer, x, mask)
    between = keras.Model(model.inputs[0], both.output)(x, training=False)
    outputs = assert_gates(found["top"], top, keras.ops.convert_to_numpy(between), mask)
    own = keras.ops.convert_to_numpy(model(x, training=False))
    np.testing.assert_allclose(own, outputs[:, -1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("cell", CELLS)
def test_stacks_with_layers_between(cell, depth):
    kind, options = CELLS[cell]
    x = batch()
    inputs = hidden = keras.Input(SHAPE[1:])
    layers = []
    for _ in range(depth):
        layers.append(kind(5, return_sequences=True, **options))
        hidden = keras.layers.LayerNormalization(epsilon=0.1)(layers[-1](hidden))
        hidden = keras.layers.Concatenate()([hidden, keras.layers.Dropout(0.5)(inputs)])
    # Small weights, and a large epsilon: a normalisation magnifies the rounding of float32, Keras's and ours.
    model = randomised(keras.Model(inputs, keras.layers.Dense(1)(hidden)), scale=0.05)

    found = gates(model, x)

    assert list(found) == [layer.name for layer in layers]
    for layer in layers:
        below = keras.Model(inputs, layer.input)(x, training=False)
        assert_gates(found[layer.name], layer, keras.ops.convert_to_numpy(below))


@pytest.mark.parametrize("cell", CELLS)
def test_an_initial_state_given_in_the_graph(cell):
    kind, options = CELLS[cell]
    x = batch()
    inputs = keras.Input(SHAPE[1:])
    encoder = kind(4, return_state=True, name="encoder", **options)
    decoder = kind(4, return_sequences=True, name="decoder", **options)
    _, *states = encoder(inputs)
    model = randomised(keras.Model(inputs, decoder(inputs, initial_state=states)))

    found = gates(model, x)

    begin = [keras.ops.convert_to_numpy(state) for state in encoder(x)[1:]]
    assert_gates(found["encoder"], encoder, x)
    assert_gates(found["decoder"], decoder, x, state=begin)


@pytest.mark.parametrize("cell", CELLS)
def test_a_stateful_layer_is_looked_at_without_moving_it_on(cell):
    kind, options = CELLS[cell]
    x = batch()
    layer = kind(4, stateful=True, return_sequences=True, **options)
    model = randomised(keras.Sequential([keras.Input(batch_shape=SHAPE), layer]))
    model(x)
    before = [keras.ops.convert_to_numpy(state).copy() for state in layer.states]

    found = gates(model, x)

    assert_gates(found[layer.name], layer, x, state=before)
    checked = trace(model, x, recurrent_layers(model), verified=())
    assert checked.layers[layer.name].error < 1e-6
    for state, value in zip(layer.states, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(state), value)


def test_nested_subclassed_and_wrapped_models():
    inner = keras.Sequential([keras.Input(SHAPE[1:]), GRU(3, return_sequences=True, name="gru")], name="inner")

    class Policy(keras.Model):
        def __init__(self):
            super().__init__(name="outer")
            self.inner = inner
            self.top = keras.layers.RNN(keras.layers.LSTMCell(4), name="top")

        def call(self, x):
            return self.top(self.inner(x))

    x = batch()
    model = Policy()
    model(x)
    randomised(model)

    found = gates(model, x)

    assert list(found) == ["inner/gru", "top"]
    assert_gates(found["inner/gru"], inner.layers[-1], x)
    below = keras.ops.convert_to_numpy(inner(x))
    wanted, _ = reference.lstm(
        below, *(keras.ops.convert_to_numpy(w) for w in model.top.get_weights()), "tanh", "sigmoid"
    )
    np.testing.assert_allclose(found["top"]["cell"], wanted["cell"], rtol=0, atol=1e-6)


def test_a_layer_called_twice_has_both_calls():
    layer = LSTM(3, return_sequences=True, name="shared")
    inputs = keras.Input(SHAPE[1:])
    model = keras.Model(inputs, layer(layer(inputs)) if SHAPE[2] == 3 else None)
    x = batch()

    found = gates(model, x)

    assert list(found) == ["shared", "shared#2"]
    np.testing.assert_allclose(found["shared#2"]["hidden"], keras.ops.convert_to_numpy(model(x)), rtol=0, atol=1e-6)


def test_a_model_that_was_never_called_is_built():
    model = keras.Sequential([LSTM(3)])
    assert gates(model, batch())[model.layers[0].name]["forget"].shape == (4, 9, 3)


def test_looking_leaves_the_model_as_it_was():
    layer = LSTM(3)
    model = keras.Sequential([keras.Input(SHAPE[1:]), layer, keras.layers.BatchNormalization()])
    weights = [w.copy() for w in model.get_weights()]
    attributes = set(vars(layer))
    gates(model, batch())
    assert set(vars(layer)) == attributes
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_what_a_layer_tells_of_itself_is_taken_at_its_word():
    class Told(keras.layers.Layer):
        def call(self, x):
            self.seen = x
            return x

        def get_gate_history(self):
            return {"forget": np.full((2, 5, 3), 0.25, "float32"), "flat": np.ones((5, 3))}

    model = keras.Sequential([keras.Input(SHAPE[1:]), Told(name="told")])
    found = gates(model, batch())["told"]
    assert found["forget"].shape == (2, 5, 3)
    assert found["flat"].shape == (1, 5, 3)


class WarpedCell(keras.layers.LSTMCell):
    pass


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: keras.layers.RNN(WarpedCell(3), name="bad"), "WarpedCell"),
        (lambda: LSTM(3, activation=lambda x: x * 2, name="bad"), "activation"),
        (lambda: LSTM(3, activation="gelu", name="bad"), "gelu"),
        (lambda: keras.layers.SimpleRNN(3, name="bad"), "SimpleRNNCell"),
    ],
)
def test_a_layer_that_cannot_be_replayed_is_named_and_has_no_numbers(layer, reason):
    inputs = keras.Input(SHAPE[1:])
    good = LSTM(3, name="good")(inputs)
    model = keras.Model(inputs, keras.layers.Concatenate()([good, layer()(inputs)]))
    with pytest.warns(UserWarning, match=f"'bad'.*{reason}"):
        assert list(gates(model, batch())) == ["good"]
    with pytest.raises(ConfigError, match=reason):
        gates(keras.Sequential([keras.Input(SHAPE[1:]), layer()]), batch())


def test_dropout_that_is_always_in_play_is_not_replayed():
    class MonteCarlo(keras.Model):
        def __init__(self):
            super().__init__()
            self.bad = LSTM(3, dropout=0.5, name="bad")

        def call(self, x):
            return self.bad(x, training=True)

    with pytest.raises(ConfigError, match="dropout"):
        gates(MonteCarlo(), batch())


def test_a_model_without_recurrence_is_a_clear_error():
    with pytest.raises(ConfigError, match="no recurrent layer"):
        gates(keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]), np.zeros((1, 3)))


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="this is the run on torch")
def test_all_of_this_on_the_torch_backend():
    environment = os.environ | {"KERAS_BACKEND": "torch"}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            __file__,
            Path(__file__).with_name("test_more_cells.py"),
            Path(__file__).with_name("test_monitor.py"),
            Path(__file__).with_name("test_keras_updates.py"),
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert re.search(r"\d{3} passed, \d skipped", done.stdout)

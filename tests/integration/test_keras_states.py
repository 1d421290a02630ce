"""What the stateful layers of a Keras model begin with, in `fit` and in loops."""

from __future__ import annotations

import logging

import keras
import numpy as np
import pytest

from gatewatch import GateMonitor
from tests.kept import Kept

B, T, UNITS = 3, 4, 5
X = np.random.default_rng(0).normal(size=(B * 4, T, 2)).astype("float32")
Y = np.zeros((B * 4, UNITS), "float32")


@pytest.fixture(autouse=True)
def same_numbers_every_time():
    keras.utils.set_random_seed(1)


@pytest.fixture
def store():
    return Kept()


def network(*layers, stateful=True):
    layers = layers or (keras.layers.LSTM(UNITS, stateful=stateful, name="memory"),)
    model = keras.Sequential([keras.Input(batch_shape=(B, T, 2)), *layers])
    model.compile("sgd", "mse", run_eagerly=True)
    return model


def norm_of(*states):
    return np.linalg.norm(np.concatenate([np.asarray(state) for state in states], axis=1), axis=1).mean()


class Before(keras.callbacks.Callback):
    """Keeps the norm of the state before each batch."""

    def __init__(self):
        super().__init__()
        self.norms = []

    def on_train_batch_begin(self, batch, logs=None):
        self.norms.append(norm_of(*(state.numpy() for state in self.model.get_layer("memory").states)))


def test_fit_records_the_state_before_the_batch_of_a_capture(store):
    model, before = network(), Before()
    monitor = GateMonitor(None, None, probe=X[:B], store=store, every=2)
    model.fit(X, Y, batch_size=B, shuffle=False, verbose=0, callbacks=[monitor, before])
    found = store.states()
    assert before.norms[0] == 0 < before.norms[1]
    assert [found[step]["memory"]["initial_norm"] for step in (2, 4)] == pytest.approx(
        [before.norms[1], before.norms[3]], rel=1e-5
    )


def test_layers_that_keep_no_state_have_no_points(store):
    model = network(stateful=False)
    monitor = GateMonitor(None, None, probe=X[:B], store=store, every=2)
    model.fit(X, Y, batch_size=B, verbose=0, callbacks=[monitor])
    assert store.captures() == {0, 2, 4}
    assert store.states() == {}


STARTS = [[True] * B, [False] * B, [True, False, False], [False] * B]


def loop(model, store, *, keeps=(), after=False, reset=True):
    with GateMonitor(model, None, probe=X[:B], store=store, every=4) as monitor:
        for step, starts in enumerate(STARTS, 1):
            if any(starts) and step not in keeps and reset:
                for state in model.get_layer("memory").states:
                    state.assign(np.where(np.array(starts)[:, None], 0, state.numpy()))
            if after:
                model.train_on_batch(X[:B], Y[:B])
            monitor.step(starts=starts)
            if not after:
                model.train_on_batch(X[:B], Y[:B])
    return store.states()[4]


@pytest.mark.parametrize(("keeps", "expected"), [((), 0), ((3,), 1)])
@pytest.mark.parametrize("kind", [keras.layers.LSTM, keras.layers.GRU])
def test_a_loop_that_calls_step_first_has_its_starts_checked(store, kind, keeps, expected):
    found = loop(network(kind(UNITS, stateful=True, name="memory")), store, keeps=keeps)["memory"]
    assert (found["starts"], found["starts_not_reset"]) == (4, expected)
    assert found["initial_norm"] > 0


def test_a_loop_that_calls_the_model_first_is_told_what_to_do(store, caplog):
    with caplog.at_level(logging.WARNING, "gatewatch"):
        assert loop(network(), store, after=True) == {"_model": {"starts": 4}}
    assert [r.getMessage() for r in caplog.records if "call step() first, or give it state=" in r.getMessage()]


def test_states_are_reset_before_the_first_step_of_a_model_that_was_used(store):
    model = network()
    model.predict(X[:B], verbose=0)
    found = loop(model, store)["memory"]
    assert (found["starts"], found["starts_not_reset"]) == (4, 0)


@pytest.mark.parametrize(("begin", "expected"), [(0.0, 0), (0.5, 1)])
def test_a_state_that_is_given_is_what_counts(store, begin, expected):
    model = network(stateful=False)
    with GateMonitor(model, None, probe=X[:B], store=store, every=1) as monitor:
        monitor.step(state=[np.zeros((B, UNITS))] * 2, starts=True)
        monitor.step(state={"memory": [np.full((B, UNITS), begin)] * 2}, starts=[True, False, False])
    found = store.states()
    assert found[1]["memory"]["starts_not_reset"] == 0
    assert found[2]["memory"] == {
        **{"initial_norm": pytest.approx(begin * 10**0.5), "starts": 1, "starts_not_reset": expected},
        **{"resets": 0 if begin else 3, "sequences_begun": 3},
    }


def test_cells_of_a_stack_are_named_as_their_gates_are(store):
    cells = [keras.layers.LSTMCell(UNITS, name="lower"), keras.layers.GRUCell(4, name="upper")]
    found = loop(
        network(keras.layers.RNN(cells, stateful=True, name="memory"), keras.layers.Dense(UNITS)), store, reset=False
    )
    assert {layer: fields["starts_not_reset"] for layer, fields in found.items()} == {
        "memory/lower": 1,
        "memory/upper": 1,
    }


def test_a_state_of_the_wrong_shape_costs_one_line(store, caplog):
    model = network(stateful=False)
    with (
        caplog.at_level(logging.WARNING, "gatewatch"),
        GateMonitor(model, None, probe=X[:B], store=store, every=9) as monitor,
    ):
        monitor.step(state=[np.zeros(UNITS)] * 2, starts=True)
    (line,) = [r.getMessage() for r in caplog.records if "memory" in r.getMessage()]
    assert "step(state=...) failed, training goes on: state of layer 'memory': must be arrays (batch, units)" in line

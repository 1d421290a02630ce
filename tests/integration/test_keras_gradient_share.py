"""The gradient of the input kernel by feature, in Keras: where its graph shows which layer is given the feed."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from gatewatch import GateMonitor
from tests.kept import Kept

X = np.random.default_rng(0).normal(size=(8, 5, 3)).astype("float32")
X[:, :, 1] = 0
Y = np.ones((8, 1), "float32")


def sequential():
    return keras.Sequential([keras.Input((5, 3)), keras.layers.LSTM(4), keras.layers.Dense(1)])


def functional(between=None):
    given = keras.Input((5, 3))
    inner = given if between is None else between(given)
    return keras.Model(given, keras.layers.Dense(1)(keras.layers.GRU(4)(inner)))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = keras.layers.LSTM(4), keras.layers.Dense(1)

    def call(self, x):
        return self.head(self.lstm(x))


def shares(model, *, batch=X):
    """Return the shares by feature of the last step of three that a loop makes."""
    keras.utils.set_random_seed(1)
    store = Kept()
    model.compile(optimizer="adam", loss="mse")
    with GateMonitor(model, None, probe=X[:2], store=store, every=1) as monitor:
        for _ in range(3):
            model.train_on_batch(X, Y)
            monitor.step(batch=batch, targets=Y)
    found = [point.fields for point in store.points if point.tags.get("statistic") == "gradient_share"]
    return [found[-1][f"f{number:03d}"] for number in range(3)] if found else None


@pytest.mark.parametrize("make", [sequential, functional])
def test_a_feature_that_is_always_zero_has_no_share_of_the_gradient(make):
    first, second, third = shares(make())
    assert second == pytest.approx(0, abs=1e-6)
    assert first > 0.01 < third
    assert first + second + third == pytest.approx(1)


def test_where_something_lies_between_or_the_graph_is_not_known_there_are_none():
    assert shares(functional(keras.layers.Dense(3))) is None
    assert shares(Subclassed()) is None


def test_a_batch_of_another_width_than_the_layers_input_has_none():
    assert shares(sequential(), batch=X[:, :, :2]) is None

"""A cell and a statistic of one's own, given to the functions that take the lists, are recorded like the built-in ones.

The cell is the minimal gated unit (Zhou et al. 2016): h' = (1 − f)·h + f·tanh(x·W + (f·h)·U).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
import pytest

from gatewatch import GateMonitor, open_store
from gatewatch.collector.capture import gate_points
from gatewatch.collector.cells import CELLS, SIGMOID, TANH, Cell, Gate
from gatewatch.collector.keras.layers import recurrent_layers
from gatewatch.collector.keras.trace import trace
from gatewatch.collector.replay.activations import sigmoid
from gatewatch.collector.replay.recurrence import ReadAttribute, Replay, finish, project, recur
from gatewatch.collector.schema import GATE_STATS, SCHEMA, Field
from gatewatch.collector.statistics import STATISTICS, Fields, GateSample
from tests import declared_fields as guard

X = np.random.default_rng(0).normal(size=(8, 6, 3)).astype(np.float32)


@keras.saving.register_keras_serializable("tests")
class MGUCell(keras.layers.Layer):
    """As a user may have written it, with nothing of Gatewatch in it."""

    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)
        self.units = self.state_size = units

    def build(self, shape: tuple[int | None, ...]) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], 2 * self.units), name="kernel")
        self.recurrent_kernel = self.add_weight(shape=(self.units, 2 * self.units), name="recurrent_kernel")

    def call(self, x: Any, states: Any, training: bool = False) -> Any:
        h, u = states[0], self.units
        gate = keras.ops.sigmoid(x @ self.kernel[:, :u] + h @ self.recurrent_kernel[:, :u])
        new = keras.ops.tanh(x @ self.kernel[:, u:] + (gate * h) @ self.recurrent_kernel[:, u:])
        h = (1 - gate) * h + gate * new
        return h, [h]


class MGUWeights(NamedTuple):
    kernel: np.ndarray
    recurrent: np.ndarray


def mgu_from_keras(read: ReadAttribute) -> MGUWeights:
    return MGUWeights(read("kernel"), read("recurrent_kernel"))


def replay_mgu(x, weights, states=None, mask=None, reverse=False) -> Replay:
    units = weights.recurrent.shape[0]
    z = project(x, weights.kernel, None)

    def step(a, old, new) -> None:
        (h,), gate, candidate = old, a[:, :units], a[:, units:]
        gate[:] = sigmoid(gate + h @ weights.recurrent[:, :units])
        candidate[:] = np.tanh(candidate + (gate * h) @ weights.recurrent[:, units:])
        new[0][:] = (1 - gate) * h + gate * candidate

    (outputs,), final = recur(z, (units,), states, mask, reverse, step)
    return finish({"renewal": z[:, :, :units], "new": z[:, :, units:], "hidden": outputs}, outputs, final, mask)


MGU = Cell(
    name="MGU",
    gates=(Gate("renewal", SIGMOID, "Renewal Gate", "#0072b2"), Gate("new", TANH, "New State", "#cc79a7")),
    pictured=("renewal", "new"),
    states=1,
    replay=replay_mgu,
    keras=(f"{__name__}.MGUCell",),
    from_keras=mgu_from_keras,
)
WITH_MGU = (*CELLS, MGU)


def kurtosis(sample: GateSample) -> Fields:
    """Return the kurtosis of the activations, 3 for a normal distribution."""
    centred = sample.finite - sample.finite.mean()
    variance = (centred**2).mean()
    return {"kurtosis": float((centred**4).mean() / variance**2)} if variance else {}  # a field must be finite


class ToyMonitor(GateMonitor):
    cells = WITH_MGU
    statistics = (*STATISTICS, kurtosis)


def network() -> Any:
    keras.utils.set_random_seed(1)
    layers = [keras.layers.RNN(MGUCell(4), return_sequences=True, name="mgu"), keras.layers.Dense(1)]
    return keras.Sequential([keras.Input(X.shape[1:]), *layers])


def test_a_network_with_a_cell_of_ones_own_is_recorded(tmp_path, declared_fields):
    declared_fields[GATE_STATS] = (*SCHEMA[GATE_STATS], Field("kurtosis", float, "", "mean"))
    model, store = network(), open_store(f"sqlite:///{tmp_path}/toy.db")
    model.compile("adam", "mse")
    monitor = ToyMonitor(log_dir=None, run="toy", store=store, probe=X, every=1)
    model.fit(X, X[:, :, :1], batch_size=4, verbose=0, callbacks=[monitor])
    stats = store.read(GATE_STATS, run="toy")
    assert set(zip(stats["layer"], stats["gate"], strict=True)) == {
        ("mgu", "renewal"), ("mgu", "new"), ("mgu", "hidden")
    }  # fmt: skip
    assert sorted(set(stats["step"])) == [0, 1, 2]
    assert stats["kurtosis"].notna().all()
    renewal = stats[stats["gate"] == "renewal"]
    assert renewal["hist_10"].max() > 0.1  # on the scale from 0 to 1 most lie in the middle
    assert renewal["mean"].between(0.2, 0.8).all()


def test_its_gates_are_those_of_its_own_call():
    model = network()
    traced = trace(model, X, recurrent_layers(model), verified=(), cells=WITH_MGU)
    assert traced.unreplayed == {}
    assert traced.layers["mgu"].error < 1e-6


def test_without_the_entry_the_cell_is_named_and_not_replayed():
    model = network()
    traced = trace(model, X, recurrent_layers(model))
    assert traced.unreplayed == {"mgu": "its cell, MGUCell, is not Keras's own LSTM or GRU"}


def test_a_field_without_a_row_is_noticed_wherever_it_is_made():
    class Layer(NamedTuple):
        gates: dict
        mask: None = None

    gate_points({"l": Layer({"forget": X})}, {}, 0, 0, 0, statistics=(kurtosis,))
    assert guard.take_problems() == ["gatewatch.collector.capture: no row of gate_stats declares the field 'kurtosis'"]


@pytest.mark.parametrize("gate", ["renewal", "new", "hidden"])
def test_every_gate_of_the_cell_has_its_own_scale(gate):
    points = gate_points(trace_of_mgu(), {}, 0, 0, 0, cells=WITH_MGU)
    (stats,) = (p.fields for p in points if p.measurement == GATE_STATS and p.tags["gate"] == gate)
    crossed = {"renewal": 0.5, "new": 0.0, "hidden": 0.0}[gate]
    below = float(np.mean(trace_of_mgu()["mgu"].gates[gate] <= crossed))
    assert sum(stats[f"hist_{i:02d}"] for i in range(10)) == pytest.approx(below, abs=0.01)


def trace_of_mgu() -> Any:
    model = network()
    return trace(model, X, recurrent_layers(model), cells=WITH_MGU).layers

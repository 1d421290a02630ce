"""A Keras model whose methods do something odd costs a line in the log: it trains as without a monitor."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from functools import cache

import keras
import numpy as np
import pytest

from gatewatch import GateMonitor, gates, open_store
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.keras.description import _describe_layer
from tests.keras_models import build_optimizer

X = np.random.default_rng(0).normal(size=(32, 7, 3)).astype("float32")
Y = np.random.default_rng(1).normal(size=(32, 1)).astype("float32")


def by_gatewatch():
    """Whether it is Gatewatch, and not Keras, that asks for what a test's class is about to tell."""
    return sys._getframe(2).f_globals["__name__"].startswith("gatewatch.")


class Odd(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.memory = keras.layers.LSTM(5, name="memory")
        self.head = keras.layers.Dense(1, name="head")

    def call(self, x):
        return self.head(self.memory(x))


class RaisingSummary(Odd):
    def summary(self, *_, **__):
        raise ValueError("no\nsummary")


class BareSummary(Odd):
    def summary(self):
        return "five units"


class RaisingCount(Odd):
    def count_params(self):
        raise RuntimeError("uncounted")


class NoCount(Odd):
    def count_params(self):
        return None


class RaisingRepr(Odd):
    def __repr__(self):
        raise RuntimeError("unseen")

    __str__ = __repr__


class RaisingName(Odd):
    @property
    def name(self):
        if by_gatewatch():
            raise RuntimeError("nameless")
        return "odd"

    @name.setter
    def name(self, value):
        pass


class RaisingVariables(Odd):
    @property
    def variables(self):
        if by_gatewatch():
            raise RuntimeError("no variables")
        return super().variables


class RaisingAttributes(Odd):
    def __getattr__(self, name):
        if name in ("get_gate_history", "input_shape", "inputs"):
            raise KeyError(name)
        return super().__getattr__(name)


class RaisingConfig(Odd):
    def get_config(self):
        raise NotImplementedError


class MuteError(Exception):
    def __str__(self):
        raise RuntimeError


class MuteSummary(Odd):
    def summary(self, *_, **__):
        raise MuteError


class OddMemory(keras.layers.LSTM):
    @property
    def go_backwards(self):
        if self.asked > 0:
            self.asked -= 1
            raise RuntimeError("which way?")
        return False

    @go_backwards.setter
    def go_backwards(self, value):
        pass

    asked = 0


class Drawing(Odd):
    """Its summary calls it with dropout, which moves the seed on."""

    def __init__(self, **options):
        super().__init__(**options)
        self.drop = keras.layers.Dropout(0.5, seed=3)

    def call(self, x, training=False):
        return self.head(self.drop(self.memory(x), training=training))

    def summary(self, *_, **__):
        self(X[:2], training=True)
        raise RuntimeError("tired")


def trained(kind, *callbacks, loop=None):
    """The weights after a training."""
    keras.utils.set_random_seed(1)
    model = kind()
    model(X[:2])
    model.compile("adam", "mse", jit_compile=False)
    build_optimizer(model)
    if loop is None:
        model.fit(X, Y, batch_size=8, epochs=1, shuffle=False, verbose=0, callbacks=list(callbacks))
    else:
        with loop(model) as monitor:
            for start in range(0, 32, 8):
                model.train_on_batch(X[start : start + 8], Y[start : start + 8])
                monitor.step()
    return [*model.memory.get_weights(), *model.head.get_weights()]


@cache
def trained_without_a_monitor(kind):
    return trained(kind)


def lines(caplog):
    return [record.message for record in caplog.records if record.name == "gatewatch"]


@pytest.mark.parametrize("how", ["fit", "loop"])
@pytest.mark.parametrize(
    ("kind", "asked", "said"),
    [
        (RaisingSummary, "summary()", "ValueError: no "),
        (BareSummary, "summary()", "TypeError: "),
        (MuteSummary, "summary()", "MuteError"),
        (RaisingCount, "count_params()", "RuntimeError"),
        (NoCount, "count_params()", "TypeError: "),
        (RaisingName, "name", "RuntimeError: nameless"),
        (Drawing, "summary()", "RuntimeError: tired"),
        (RaisingRepr, None, None),
        (RaisingVariables, None, None),
        (RaisingAttributes, None, None),
        (RaisingConfig, None, None),
    ],
)
def test_a_model_that_raises_when_it_is_asked_trains_as_without_a_monitor(kind, asked, said, how, tmp_path, caplog):
    def monitor(*model):
        return GateMonitor(*model, None, run="odd", probe=X[:4], every=2, store=f"sqlite:///{tmp_path}/gates.db")

    wanted = trained_without_a_monitor(kind if kind.call is not Odd.call else Odd)  # one network, however odd it is
    with caplog.at_level(logging.WARNING, "gatewatch"):
        found = trained(kind, monitor(None)) if how == "fit" else trained(kind, loop=monitor)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(lines(caplog)) == (asked is not None), lines(caplog)
    if asked is not None:
        wanted = f"{kind.__name__}.{asked} is left out of what is recorded of the run: it raised {said}"
        assert lines(caplog)[0].startswith(f"gatewatch: {wanted}")
    store = open_store(f"sqlite:///{tmp_path}/gates.db")
    assert store.read("runs", run="odd")["event"].tolist() == ["started", "completed"]
    steps = store.read("gate_stats", run="odd", tags={"gate": "forget"})["step"].tolist()
    assert steps == ([0, 2, 4] if how == "fit" else [2, 4])
    assert store.read("collector_health", run="odd")["failures"].max() == 0


def test_the_rest_of_what_a_model_says_of_itself_is_recorded(tmp_path):
    store = f"sqlite:///{tmp_path}/gates.db"
    trained(RaisingSummary, GateMonitor(None, None, run="odd", probe=X[:4], store=store))
    config = json.loads(open_store(store).read("runs", run="odd")["config"].iloc[0])
    assert (config["summary"], config["parameters"], config["layers"]["memory"]["units"]) == (None, 186, 5)


def test_a_layer_that_raises_when_it_is_asked_is_described_without(caplog):
    layer = OddMemory(5)
    layer.asked = 1
    assert _describe_layer(layer) == {
        "type": "OddMemory",
        "units": 5,
        "go_backwards": None,
        "stateful": False,
        "dropout": 0.0,
    }
    assert "OddMemory.go_backwards is left out" in caplog.text


class Interrupting(Odd):
    def summary(self, *_, **__):
        raise KeyboardInterrupt


def test_ctrl_c_passes(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        trained(Interrupting, GateMonitor(None, None, probe=X[:4], store=f"sqlite:///{tmp_path}/gates.db"))


class Sealed(Odd):
    """One that nobody can look into."""

    def _flatten_layers(self, include_self=True, recursive=True):
        if by_gatewatch():
            raise RuntimeError("sealed")
        return super()._flatten_layers(include_self, recursive)


@pytest.mark.parametrize("how", ["fit", "loop"])
def test_a_model_that_cannot_be_looked_into_trains_unrecorded(how, tmp_path, caplog):
    def monitor(*model):
        return GateMonitor(*model, None, run="odd", probe=X[:4], every=1, store=f"sqlite:///{tmp_path}/gates.db")

    with caplog.at_level(logging.WARNING, "gatewatch"):
        if how == "fit":
            trained(Sealed, monitor(None))
        else:
            trained(Sealed, loop=monitor)
    assert lines(caplog) == [
        "gatewatch: the start of the run failed, training goes on and nothing is recorded: RuntimeError: sealed"
    ]


class Unshowable:
    def __repr__(self):
        raise RuntimeError


def test_what_is_no_model_is_refused_in_one_line_though_it_cannot_be_shown():
    with pytest.raises(ConfigError, match="model=a Unshowable that cannot be shown: must be a Keras model"):
        GateMonitor(Unshowable(), probe=X[:4])


class Raising(Odd):
    def call(self, x):
        if by_gatewatch_somewhere():
            raise LookupError("no\nprices")
        return super().call(x)


def by_gatewatch_somewhere():
    return any("/collector/" in frame.filename for frame in traceback.extract_stack())


def test_an_error_of_the_call_is_raised_as_it_is():
    model = Raising()
    model(X[:2])
    with pytest.raises(LookupError, match=r"^no\nprices$"):
        gates(model, X[:2])


def test_a_monitors_look_logs_an_error_of_the_call_in_one_line(tmp_path, caplog):
    store = f"sqlite:///{tmp_path}/gates.db"
    with caplog.at_level(logging.WARNING, "gatewatch"):
        trained(Raising, GateMonitor(None, None, run="odd", probe=X[:4], every=2, store=store))
    assert lines(caplog) == [
        "gatewatch: a capture failed, training goes on: LookupError: no prices",
        "gatewatch: run 'odd' ends without a capture: each look failed: LookupError: no prices",
    ]
    assert open_store(store).read("runs", run="odd")["event"].tolist() == ["started", "completed"]


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((4, 7, 9), r"\(4, 7, 9\) does not fit the model 'odd': its layer '[a-z_]+' takes 3 features, not 9"),
        ((4, 3), r"\(4, 3\) does not fit the model 'odd': its layer 'memory' takes 3 dimensions, not 2"),
    ],
)
def test_a_batch_of_a_wrong_shape_is_refused_by_a_model_that_declares_none(shape, said):
    model = Odd(name="odd")
    model(X[:2])
    with pytest.raises(ConfigError, match=said):
        gates(model, np.zeros(shape, "float32"))

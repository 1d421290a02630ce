"""`probe_loss` in real Keras trainings: what it is, what is refused, and that it leaves no trace."""

from __future__ import annotations

import logging

import keras
import numpy as np
import pytest

from gatewatch import GateMonitor, gates, open_store
from gatewatch.collector.errors import ConfigError

X = np.random.default_rng(0).normal(size=(16, 5, 3)).astype("float32")
Y = np.random.default_rng(1).normal(size=(16, 1)).astype("float32")
CLASSES = np.arange(16) % 3


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(1)


def policy(outputs=1, loss="mse", **options):
    inputs = keras.Input(X.shape[1:])
    memory = keras.layers.LSTM(4, name="memory", dropout=0.3, kernel_regularizer="l2")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(outputs, name="head")(memory), name="policy")
    model.compile("adam", loss, **options)
    return model


def of_two_outputs(loss, **options):
    inputs = keras.Input(X.shape[1:])
    memory = keras.layers.GRU(4, name="memory")(inputs)
    heads = {name: keras.layers.Dense(1, name=name)(memory) for name in ("price", "risk")}
    model = keras.Model(inputs, heads, name="two")
    model.compile("adam", loss, **options)
    return model


def fit(model, y=Y, epochs=1, **options):
    """Train a model, and return the losses of the probe that were recorded."""
    monitor = GateMonitor(None, None, **{"probe": X[:4], "every": 1, **options})
    model.fit(X, y, batch_size=8, epochs=epochs, verbose=0, callbacks=[monitor])
    metrics = open_store().read("train_metrics", run=monitor.run)
    return metrics.dropna(subset="probe_loss") if "probe_loss" in metrics else metrics


def looked(model, **options):
    """Look at a model once, and return what was recorded."""
    with GateMonitor(model, None, **{"probe": X[:4], "every": 1, **options}) as monitor:
        monitor.step()
    return open_store().read("train_metrics", run=monitor.run)


def mean_square(model, y):
    """The mean square error of a model's outputs for the probe, without what regularises it."""
    return pytest.approx(np.mean((model(X[:4], training=False).numpy() - y) ** 2), rel=1e-5)


def test_every_capture_has_the_compiled_loss_of_the_probe_in_inference_mode():
    model = policy()
    before = mean_square(model, Y[:4])
    found = fit(model, probe_targets=Y[:4])
    assert found[["step", "epoch"]].to_numpy().tolist() == [[0, 0], [1, 0], [2, 0]]
    assert found["probe_loss"].tolist()[::2] == [before, mean_square(model, Y[:4])]


def huber(y_true, y_pred):
    return keras.losses.huber(y_true, y_pred)


KINDS = {
    "class targets": (lambda: policy(3, keras.losses.SparseCategoricalCrossentropy(from_logits=True)), CLASSES[:4]),
    "one dimension less": (policy, Y[:4, 0]),
    "a function": (lambda: policy(loss=huber), Y[:4]),
    "loss weights": (lambda: policy(loss_weights=2.0), Y[:4]),
    "one loss for all outputs": (lambda: of_two_outputs("mse"), {"price": Y[:4], "risk": 0.5 * Y[:4]}),
    "a loss for each output": (
        lambda: of_two_outputs({"price": "mse", "risk": huber}, loss_weights={"price": 1.0, "risk": 0.5}),
        {"price": Y[:4], "risk": 0.5 * Y[:4]},
    ),
    "a loss of one output alone": (lambda: of_two_outputs({"price": "mse"}), {"price": Y[:4]}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_what_keras_computes_without_what_regularises_the_model(kind):
    make, targets = KINDS[kind]
    model = make()
    (loss,) = looked(model, probe_targets=targets)["probe_loss"]
    wanted = model.compute_loss(X[:4], targets, model(X[:4], training=False)) - sum(model.losses)
    assert loss == pytest.approx(float(wanted), rel=1e-5)


def test_of_a_model_that_tells_its_gates_itself():
    class Telling(keras.layers.Layer):
        def call(self, x):
            return keras.ops.mean(x, axis=1)

        def get_gate_history(self):
            return {"forget": np.zeros((2, 5, 4))}

    model = keras.Sequential([keras.Input(X.shape[1:]), Telling(), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    assert looked(model, probe_targets=Y[:4])["probe_loss"].tolist() == [mean_square(model, Y[:4])]


class Mischief(keras.losses.Loss):
    """A loss that draws, counts and remembers."""

    def __init__(self):
        super().__init__()
        self.seed = keras.random.SeedGenerator(5)
        self.calls = 0
        self.seen = []

    def call(self, y_true, y_pred):
        self.calls += 1
        self.seen.append(self.calls)
        noise = keras.random.normal(keras.ops.shape(y_pred), seed=self.seed) + np.random.rand()
        return keras.ops.mean(keras.ops.square(y_true - y_pred + 0.1 * noise), axis=-1)


def test_a_loss_that_changes_things_changes_nothing_of_the_training(caplog):
    caplog.set_level(logging.WARNING, "gatewatch")

    def trained(**options):
        keras.utils.clear_session()
        keras.utils.set_random_seed(3)
        loss = Mischief()
        model = of_two_outputs(loss, run_eagerly=True)
        found = fit(model, {"price": Y, "risk": Y}, epochs=2, **options)
        after = keras.layers.Dense(1).name, np.random.rand(), float(keras.random.normal(()))
        kept = [loss.calls, loss.seen, loss.seed.state.numpy().tolist(), after, sorted(vars(model._compile_loss))]
        kept += [[metric.name for metric in model.metrics], [float(metric.result()) for metric in model.metrics]]
        return [weight.tolist() for weight in model.get_weights()], kept, len(found)

    weights, kept, _ = trained()
    targets = {"price": Y[:4], "risk": Y[:4]}
    assert trained(probe_targets=targets) == (weights, kept, 5)
    assert not caplog.messages


def test_half_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = policy()
    finally:
        keras.config.set_dtype_policy("float32")
    found = looked(model, probe_targets=Y[:4])["probe_loss"].iloc[-1]
    outputs = np.asarray(keras.ops.cast(model(X[:4], training=False), "float32"))
    assert found == pytest.approx(np.mean((outputs - Y[:4]) ** 2), rel=1e-2)


class Ignores(keras.Model):
    """A training step of its own, with a loss of its own."""

    def train_step(self, data):
        return {"own": 1.0}


def test_a_loop_of_ones_own_and_a_train_step_of_ones_own_with_a_loss():
    model = policy()
    uncompiled = keras.Model(model.inputs, model.outputs)
    with GateMonitor(uncompiled, None, probe=X[:4], probe_targets=Y[:4], loss="mse", every=1, run="loop") as monitor:
        monitor.step(metrics={"loss": 0.5})
        monitor.step()
    metrics = open_store().read("train_metrics", run="loop")
    assert metrics["probe_loss"].tolist() == [mean_square(model, Y[:4])] * 2
    assert metrics["step"].tolist() == [1, 2]
    own = Ignores(model.inputs, model.outputs)
    own.compile("adam", run_eagerly=True)
    assert fit(own, probe_targets=Y[:4], loss=huber)["step"].tolist() == [0, 1, 2]


def test_a_loss_that_fails_later_is_said_once_and_captures_go_on(caplog):
    caplog.set_level(logging.WARNING, "gatewatch")
    failing = []

    def loss(y_true, y_pred):
        if failing:
            raise ValueError("not today")
        return keras.losses.huber(y_true, y_pred)

    model = policy()
    with GateMonitor(model, None, probe=X[:4], probe_targets=Y[:4], loss=loss, every=1, run="late") as monitor:
        monitor.step()
        failing.append(1)
        monitor.step()
        monitor.step()
    assert open_store().read("train_metrics", run="late")["step"].tolist() == [1]
    assert open_store().read("gate_stats", run="late")["step"].unique().tolist() == [1, 2, 3]
    (said,) = [record.message for record in caplog.records]
    assert "the loss of the probe failed, training goes on: " in said
    assert "ValueError: not today" in said


def test_in_a_backtest_of_windows_the_probe_has_its_loss_whatever_state_the_layer_is_in():
    inputs = keras.Input(batch_shape=(1, 5, 3))
    memory = keras.layers.LSTM(4, stateful=True, name="memory")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1)(memory))
    model.compile("adam", "mse")
    fresh = pytest.approx(np.mean((model(X[:1]).numpy() - Y[:1]) ** 2), rel=1e-5)
    options = {"probe": X[:1], "probe_targets": Y[:1], "every": 2}
    with GateMonitor(model, None, phase="backtest", run="windows", **options) as monitor:
        for bar in range(4):
            state = model.layers[1].states[0].numpy()
            monitor.step(X[bar : bar + 1], time=10**18 + bar, metrics={"reward": 1.0})
            assert (model.layers[1].states[0].numpy() == state).all()
            model(X[bar : bar + 1])
    metrics = open_store().read("train_metrics", run="windows")
    assert metrics["reward"].tolist() == [1.0] * 4
    assert metrics["probe_loss"].dropna().tolist() == [fresh, fresh]
    assert metrics.dropna(subset="probe_loss")["step"].tolist() == [2, 4]
    forget = open_store().read("gate_stats", run="windows", tags={"gate": "forget"})
    assert forget["step"].tolist() == [2, 4]  # of the windows alone
    assert forget["mean"].nunique() == 2
    tags = {"gate": "forget", "look": "reference"}
    reference = open_store().read("gate_stats", run="windows", tags=tags)
    assert reference["step"].tolist() == [2, 4]
    assert reference["mean"].nunique() == 1
    model.layers[1].reset_state()
    assert reference["mean"][0] == pytest.approx(gates(model, X[:1])["memory"]["forget"].mean(), abs=1e-6)


def refused(match, model=None, **options):
    model = model or policy()
    with pytest.raises(ConfigError, match=match) as caught:
        fit(model, **{"probe_targets": Y[:4], **options})
    assert "\n" not in str(caught.value)
    assert int(model.optimizer.iterations) == 0


def test_arguments_that_do_not_fit_are_refused_before_the_first_batch():
    refused("probe_targets without a probe", probe=None)
    refused("loss without probe_targets", probe_targets=None, loss="mse")
    refused("the model 'policy' is not compiled with one; give GateMonitor loss=", model=policy(loss=None))
    refused(
        r"of shape \(5, 1\) are not as many as the sequences of the probe of shape \(4, 5, 3\)", probe_targets=Y[:5]
    )
    refused("not as many", probe_targets=0.5)
    refused("probe_targets are no targets", probe_targets=["a", object()])
    entropy = keras.losses.CategoricalCrossentropy()
    refused(r"of shape \(4, 2\) do not fit the outputs of shape \(4, 1\)", loss=entropy, probe_targets=np.ones((4, 2)))
    refused("do not fit.*identifier: nonsense", loss="nonsense")

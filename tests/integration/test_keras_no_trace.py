"""A Keras training with a monitor is the same as one without, whatever its model does when it is called.

The models are those of `tests/zoo/keras_models.py`. On TensorFlow, then once more on Keras's torch and JAX backends.
"""

from __future__ import annotations

import gc
import importlib
import os
import random
import re
import signal
import subprocess
import sys
import threading
import warnings
from collections import deque
from types import SimpleNamespace

import keras
import networkx
import numpy as np
import pytest

from gatewatch import GateMonitor, gates, open_store
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.keras.isolation import isolated
from gatewatch.collector.runtime import object_state
from tests.zoo import keras_models
from tests.zoo.open_files import open_files

BACKEND = keras.backend.backend()
X = np.random.default_rng(0).normal(size=(16, 5, 3)).astype("float32")
Y = np.random.default_rng(1).normal(size=(16, 1)).astype("float32")


of_python_alone = pytest.mark.skipif(BACKEND == "jax", reason="of Python's objects, and JAX takes long to compile")


def seeded():
    """The module of models with globals as if it were just imported; random numbers from their beginning."""
    module = importlib.reload(keras_models)
    keras.utils.clear_session()
    keras.utils.set_random_seed(1)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        tf.random.set_global_generator(tf.random.Generator.from_seed(2))
    return module


WAYS = {
    "compiled": {},
    "eager": {"run_eagerly": True},
    "half precision": {"dtype": "mixed_bfloat16"},
}


def trained(*callbacks, run_eagerly=False, dtype="float32", epochs=2):
    """What there is after a training: weights, losses, and all that the layers of the zoo have kept."""
    gc.collect()
    files = open_files()
    module = seeded()
    keras.config.set_dtype_policy(dtype)
    model = module.Policy()
    keras.config.set_dtype_policy("float32")
    if BACKEND == "torch":  # where `fit` would build it by a call without values
        model(X[:4])
    model.compile("adam", "mse", jit_compile=False, run_eagerly=run_eagerly)
    history = model.fit(X, Y, batch_size=8, epochs=epochs, verbose=0, callbacks=list(callbacks))
    return {
        "opened files": open_files() - files,
        "attributes": [sorted(vars(part)) for part in (model, *model._flatten_layers(include_self=False))],
        **{type(layer).__name__: layer.remembered() for layer in model.mischief},
        "random": (random.random(), np.random.rand(), float(keras.random.normal(()))),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "losses": history.history,
        "weights": [weight.tolist() for weight in model.get_weights()],
    }


@pytest.fixture
def store(tmp_path):
    return f"sqlite:///{tmp_path}/gates.db"


def captured(store, run="zoo"):
    return open_store(store).read("gate_stats", run=run, tags={"gate": "forget"})["step"].tolist()


@pytest.mark.parametrize("way", list(WAYS)[: 2 if BACKEND == "jax" else 3])  # where a compilation takes long
def test_a_training_is_the_same_with_a_monitor(way, store, caplog):
    """On TensorFlow all that a look makes is eager, also where the training is compiled."""
    monitor = GateMonitor(probe=X[:4], probe_targets=Y[:4], every=1, log_dir=None, run="zoo", store=store)
    bare, monitored = trained(**WAYS[way]), trained(monitor, **WAYS[way])
    for what, value in bare.items():
        assert monitored[what] == value, what
    assert not caplog.messages
    assert captured(store) == [0, 1, 2, 3, 4]
    updates = open_store(store).read("layer_updates", run="zoo", tags={"layer": "memory", "param": "kernel"})
    assert {2, 3, 4} <= set(updates.dropna(subset="gradient_norm")["step"])
    metrics = open_store(store).read("train_metrics", run="zoo")
    assert set(metrics["learning_rate"].dropna()) == {np.float32(0.001)}
    assert metrics.dropna(subset="probe_loss")["step"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="it asks the store, whatever the backend")
def test_a_training_that_asks_for_its_verdict_is_the_same(store, caplog):
    monitor = GateMonitor(probe=X[:4], every=1, log_dir=None, run="zoo", store=store)
    verdicts = []
    asks = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: verdicts.append(monitor.verdict()))
    bare, monitored = trained(), trained(monitor, asks)
    for what, value in bare.items():
        assert monitored[what] == value, what
    assert [verdict.verdict for verdict in verdicts] == ["undecided"] * 4
    assert not caplog.messages


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Keras itself warns on other backends")
def test_a_script_that_takes_warnings_for_errors_trains(store, caplog):
    memory = keras.layers.LSTM(4, stateful=True)
    model = keras.Sequential([keras.Input((5, 3), batch_size=4), memory, keras.layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        monitor = GateMonitor(probe=X[:4], every=1, log_dir=None, run="strict", store=store)
        model.fit(X, Y, batch_size=4, verbose=0, callbacks=[monitor])
    assert not caplog.messages
    assert captured(store, "strict") == [0, 1, 2, 3, 4]


class Model(keras.Model):
    """A recurrent network that is not built before its first call; a subclass does something with its input first."""

    def __init__(self):
        super().__init__(name="policy")
        self.memory = keras.layers.LSTM(4, dropout=0.3, name="memory")
        self.head = keras.layers.Dense(1, name="head")
        self.prepare()

    def call(self, x, training=False):
        return self.head(self.memory(self.before(x), training=training))

    def prepare(self):
        pass

    def before(self, x):
        return x


def loop(model, monitor=None, steps=2):
    """Train a model in a loop of one's own, and return its weights."""
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=BACKEND != "jax")
    for step in range(steps):
        random.random()
        model.train_on_batch(X[step : step + 4], Y[step : step + 4])
        if monitor is not None:
            monitor.step()
    return [weight.tolist() for weight in model.get_weights()]


class Recording(Model):
    def prepare(self):
        self.seen = []

    def build(self, input_shape):
        self.noise = keras.layers.Dense(3)  # whose weights come from Python's random numbers

    def before(self, x):
        self.seen.append(len(self.seen))
        return self.noise(x) + len(self.seen)


def test_a_model_that_was_never_called_is_built_by_its_loop(store):
    seeded()
    bare = Recording()
    wanted = loop(bare)
    seeded()
    model = Recording()
    with GateMonitor(model, log_dir=None, probe=X[:4], every=1, run="loop", store=store) as monitor:
        assert not model.built
        assert model.seen == []
        assert loop(model, monitor) == wanted
    assert model.seen == bare.seen
    assert captured(store, "loop") == [1, 2]


class Advancing(Model):
    def prepare(self):
        self.feed = ([k / 10] for k in range(100))

    def before(self, x):
        return x + next(self.feed)[0]


class Holding(Advancing):
    """Has the generator for its training only."""

    def before(self, x):
        return x


@of_python_alone
@pytest.mark.parametrize("kind", [Advancing, Holding])
def test_a_generator_that_the_call_advances_is_not_touched_and_named(kind, store, caplog):
    seeded()
    wanted = loop(kind())
    seeded()
    model = kind()
    with GateMonitor(model, log_dir=None, probe=X[:4], every=1, run="loop", store=store) as monitor:
        assert loop(model, monitor) == wanted
    if kind is Holding:
        assert not caplog.messages
        assert captured(store, "loop") == [1, 2]
        return
    assert caplog.messages == [
        "gatewatch: the start of the run failed, training goes on and nothing is recorded: NotIsolatedError: the model "
        "is not looked at: its call uses policy.feed, a generator, which can neither be copied nor set back"
    ]


class Large(Model):
    def prepare(self):
        self.prices = np.zeros(1000)

    def before(self, x):
        return x + float(self.prices[0])


@of_python_alone
def test_what_is_too_large_to_be_copied_is_named_once(store, caplog, monkeypatch):
    monkeypatch.setattr(object_state, "MOST_BYTES", 4000)
    model = Large()
    with GateMonitor(model, log_dir=None, probe=X[:4], every=1, store=store) as monitor:
        loop(model, monitor)
    assert caplog.messages == [
        "gatewatch: policy.prices cannot be copied for captures: its 8,000 bytes are too many. What the model's call "
        "does to it, they do too"
    ]


class Failing(Model):
    error = None

    def prepare(self):
        self.seen = []
        self.counted = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def before(self, x):
        self.seen.append(1)
        self.counted.assign_add(1.0)
        if self.error is not None:
            raise self.error
        return x


@pytest.mark.parametrize("error", [KeyboardInterrupt, LookupError])
def test_a_call_that_is_cut_off_leaves_nothing_behind_either(error):
    model = Failing()
    model(X[:2])
    seen, handler = list(model.seen), signal.getsignal(signal.SIGINT)
    model.error = error
    with pytest.raises(error):
        gates(model, X[:2])
    assert model.seen == seen
    assert float(model.counted) == 1
    assert "call" not in vars(model.memory)
    assert signal.getsignal(signal.SIGINT) is handler


class Writing(Model):
    """Halves the weights of its memory at each call."""

    def before(self, x):
        if self.memory.built:
            for weight in self.memory.weights[:2]:
                weight.assign(weight * 0.5)
        return x


def test_weights_that_a_call_writes_are_those_that_are_replayed():
    model = Writing()
    model(X[:4])
    weights = model.memory.get_weights()
    found = gates(model, X[:4])["memory"]["hidden"][:, -1]
    for weight, value in zip(model.memory.weights, weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), value)
    model.memory.set_weights([weights[0] * 0.5, weights[1] * 0.5, weights[2]])
    np.testing.assert_allclose(found, keras.ops.convert_to_numpy(model.memory(X[:4])), rtol=0, atol=1e-6)


class Collecting(Model):
    """Another thread fills the list, while this one makes the call, which does not use it."""

    def prepare(self):
        self.transitions = []
        self.called, self.collected = threading.Event(), threading.Event()

    def before(self, x):
        self.called.set()
        self.collected.wait(60)
        return x


def look(model, collect):
    """Look at a model, while another thread collects."""
    model.collected.set()
    model(X[:2])
    model.transitions.clear()
    model.calls = 0
    model.called.clear()
    model.collected.clear()

    def in_the_other_thread():
        model.called.wait(60)
        collect()
        model.collected.set()

    thread = threading.Thread(target=in_the_other_thread)
    thread.start()
    gates(model, X[:2])
    thread.join()


def test_what_another_thread_collects_during_a_look_is_kept():
    model = Collecting()
    look(model, lambda: model.transitions.append(1))
    assert model.transitions == [1]


class Both(Collecting):
    """The call and another thread fill the same list."""

    def before(self, x):
        self.transitions.append("call")
        return super().before(x)


def test_what_both_the_call_and_another_thread_change_is_as_before_the_look():
    model = Both()
    look(model, lambda: model.transitions.append("thread"))
    assert model.transitions == []


class Reading(Collecting):
    """The call names what another thread fills and a signal handler sets, and changes none of it."""

    def prepare(self):
        super().prepare()
        self.kept = SimpleNamespace(list=[], deque=deque([0], maxlen=3), dict={}, set=set())
        self.paused, self.calls = False, 0

    def before(self, x):
        kept, outputs = self.kept, []
        outputs.append(x * (1 + len(kept.dict) + len(kept.set)))
        self.calls += 1
        return outputs[0] if self.paused else super().before(outputs[0])


def test_what_the_call_only_reads_is_left_to_other_threads_and_signal_handlers():
    model = Reading()

    def collect():
        model.kept.dict["bar"] = 1
        model.kept.set.add(1)
        model.kept.step = 1
        model.paused = True

    look(model, collect)
    assert (model.kept.dict, model.kept.set, model.kept.step, model.paused) == ({"bar": 1}, {1}, 1, True)
    assert model.calls == 0


DRAWS = {
    "python": random.random,
    "numpy": np.random.rand,
    "keras": lambda: float(keras.random.normal((), seed=keras.random.SeedGenerator())),
}
if BACKEND == "tensorflow":
    import tensorflow as tf

    DRAWS["tensorflow"] = lambda: float(tf.random.normal(()))
    DRAWS["tensorflow's generator"] = lambda: float(tf.random.get_global_generator().normal(()))
    DRAWS["tensorflow, compiled"] = lambda: float(tf.function(lambda: tf.random.normal(()))())


@pytest.mark.parametrize("draw", [pytest.param(draw, id=name) for name, draw in DRAWS.items()])
def test_what_another_thread_draws_during_a_look_is_not_drawn_again(draw, store):
    """The model draws nothing; the look, which builds it, draws beside."""
    seeded()
    wanted = [draw() for _ in range(3)]
    seeded()
    model, drawn = Collecting(), []
    random.seed(1)  # again: making the layers has drawn

    def collect():
        model.called.wait(60)
        drawn.extend([draw(), draw()])
        model.collected.set()

    thread = threading.Thread(target=collect)
    thread.start()
    with GateMonitor(model, None, probe=X[:2], store=store):
        pass
    thread.join()
    assert [*drawn, draw()] == wanted


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow's")
def test_a_dataset_that_draws_its_batches_in_its_own_threads(store):
    def batches():
        while True:
            yield np.random.normal(size=(4, 5, 3)).astype("float32"), np.random.normal(size=(4, 1)).astype("float32")

    def weights(*callbacks):
        seeded()
        specs = tf.TensorSpec((4, 5, 3)), tf.TensorSpec((4, 1))
        data = tf.data.Dataset.from_generator(batches, output_signature=specs).prefetch(2)
        model = keras.Sequential([keras.Input((5, 3)), keras.layers.LSTM(4), keras.layers.Dense(1)])
        model.compile("adam", "mse", jit_compile=False)
        model.fit(data, steps_per_epoch=40, verbose=0, callbacks=list(callbacks))
        return [weight.tolist() for weight in model.get_weights()]

    bare = weights()
    assert weights(GateMonitor(probe=X[:4], every=1, log_dir=None, run="data", store=store)) == bare
    assert len(captured(store, "data")) == 41


class Graph(Model):
    """Uses a large library in its call, which changes an object of the library's."""

    def prepare(self):
        self.graph = networkx.path_graph(3)

    def before(self, x):
        self.graph.add_node(len(self.graph))
        return x * networkx.density(self.graph)


def test_a_large_library_is_not_read_and_named_once_and_its_objects_are_restored(store, caplog, monkeypatch):
    monkeypatch.setattr(object_state, "_not_read", set())
    seeded()
    wanted = loop(bare := Graph())
    seeded()
    model = Graph()
    with GateMonitor(model, log_dir=None, probe=X[:4], every=1, run="loop", store=store) as monitor:
        assert loop(model, monitor) == wanted
    assert list(model.graph) == list(bare.graph)
    assert captured(store, "loop") == [1, 2]
    assert caplog.messages == [
        "gatewatch: networkx cannot be copied for captures: more than 200 of its functions are too many to read. What "
        "the model's call does to it, they do too"
    ]


@pytest.mark.parametrize("method", ["evaluate", "predict"])
def test_a_monitor_in_evaluate_or_predict_is_refused_in_one_line(method, store):
    model = Model()
    model.compile("sgd", "mse", run_eagerly=True)
    monitor = GateMonitor(probe=X[:4], log_dir=None, store=store)
    with pytest.raises(ConfigError, match=rf"records what fit does, not {method}\(callbacks=\[...\]\)"):
        getattr(model, method)(X[:4], *([Y[:4]] if method == "evaluate" else []), verbose=0, callbacks=[monitor])


REPLICAS = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from gatewatch.collector.keras.updates import KerasUpdates

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for options in ({}, {"clipnorm": 1.0}, {"clipvalue": 1.0}, {"global_clipnorm": 1.0}):
    with strategy.scope():
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, name="head")])
        model.compile(keras.optimizers.Adam(0.01, **options))
        model.optimizer.build(model.trainable_variables)
    gradients = strategy.experimental_distribute_values_from_function(
        lambda replica: tf.constant([[[4.0]], [[-3.0]]][replica.replica_id_in_sync_group])
    )
    updates = KerasUpdates(model)
    updates.keep()
    strategy.run(lambda gradient: model.optimizer.apply([gradient], model.trainable_variables), args=(gradients,))
    print(updates.measure()["head", "kernel"].get("gradient_norm"))
"""


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow's")
def test_a_gradient_that_each_replica_clips_for_itself_has_no_norm_before_clipping():
    done = subprocess.run([sys.executable, "-c", REPLICAS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    norms = done.stdout.split()
    assert float(norms[0]) == pytest.approx(1.0, rel=1e-3)
    assert norms[1:] == ["None"] * 3


def test_a_stop_that_arrives_in_a_look_stays():
    """A signal handler or another thread sets it, and `fit` reads it after the batch."""
    model = keras.Sequential([keras.Input((5, 3)), keras.layers.LSTM(4)])
    model.stop_training = False
    with isolated(model):
        model.stop_training = True
    assert model.stop_training


@pytest.mark.skipif(BACKEND != "tensorflow", reason="this is the run on another backend")
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_all_of_this_on_another_backend(backend):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__],
        env=os.environ
        | {"KERAS_BACKEND": backend, "XLA_FLAGS": "--xla_backend_optimization_level=0"},  # compiles faster
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert re.search(r"\d\d passed", done.stdout)

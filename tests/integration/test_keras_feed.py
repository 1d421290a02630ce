"""`monitor.feed(data)`: `fit` is fed the same, and the batch of the watched step is recorded.

The whole file runs on TensorFlow; what is not of TensorFlow alone once more on Keras's torch backend, and the first
test also on JAX, with `test_keras_travel.py`.
"""

from __future__ import annotations

import copy
import pickle
import random

import keras
import numpy as np
import pytest

from gatewatch import GateMonitor
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.schema import FEED_FEATURES, FEED_STATS
from tests.kept import Kept

BACKEND = keras.backend.backend()
BATCHES = 8
Y = np.random.default_rng(1).normal(size=(4 * BATCHES, 1)).astype("float32")
X = np.random.default_rng(0).normal(size=(4 * BATCHES, 6, 3)).astype("float32")
X[:, :, 0] = np.repeat(np.arange(BATCHES), 4)[:, None]  # the first feature tells the number of the batch, from 0

not_on_jax = pytest.mark.skipif(BACKEND == "jax", reason="Keras gives JAX what it gives torch, and compiles for long")
of_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow reads ahead, or the same on it")
of_torch = pytest.mark.skipif(BACKEND != "torch", reason="only torch takes the arrays as they are")


class Batches(keras.utils.PyDataset):
    """The batches by their number; it is asked for so many."""

    def __init__(self, count=BATCHES, **options):
        super().__init__(**options)
        self.count, self.events = count, []

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        return X[4 * number : 4 * number + 4], Y[4 * number : 4 * number + 4]

    def on_epoch_begin(self):
        self.events.append("begin")

    def on_epoch_end(self):
        self.events.append("end")


class Endless(keras.utils.PyDataset):
    num_batches = None

    def __getitem__(self, number):
        return Batches()[number % BATCHES]


def generated():
    while True:
        yield from map(Batches().__getitem__, range(BATCHES))


def dataset():
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((X, Y))


def loader(**options):
    torch = pytest.importorskip("torch")
    torch.manual_seed(3)
    pairs = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    return torch.utils.data.DataLoader(pairs, batch_size=4, **options)


@pytest.fixture(scope="module")
def compiled():
    """Name → a model that is compiled once, and its weights at the beginning."""
    made = {}

    def model(steps_per_execution=1):
        if steps_per_execution not in made:
            keras.utils.set_random_seed(1)
            network = keras.Sequential([keras.Input((6, 3)), keras.layers.LSTM(3), keras.layers.Dense(1)])
            optimizer = keras.optimizers.SGD(0.1)
            network.compile(optimizer, "mse", jit_compile=False, steps_per_execution=steps_per_execution)
            optimizer.build(network.trainable_variables)
            made[steps_per_execution] = network, network.get_weights()
        network, weights = made[steps_per_execution]
        network.set_weights(weights)
        network.optimizer.iterations.assign(0)
        return network

    return model


@pytest.fixture
def store():
    return Kept()


@pytest.fixture
def monitor(store):
    return GateMonitor(log_dir=None, probe=X[:2], store=store, every=3)


def fit(model, data, *callbacks, epochs=2, **options):
    """Train, and return the weights and losses."""
    random.seed(3)
    keras.utils.set_random_seed(3)
    history = model.fit(data, epochs=epochs, verbose=0, callbacks=list(callbacks), **options)
    return [weight.tolist() for weight in model.get_weights()], history.history["loss"], random.random()


def fed(store):
    """Step of the capture → the number of the batch that is recorded with it."""
    return {
        point.fields["step"]: round(point.fields["f000"])
        for point in store.points
        if point.measurement == FEED_FEATURES and point.tags["statistic"] == "mean"
    }


IN_ORDER = {3: 2, 6: 5, 9: 0, 12: 3, 15: 6}
CAPTURES = {0, *IN_ORDER, 8, 16}  # the ends of the epochs come without notice
KINDS = {
    "generator": (generated, {"steps_per_epoch": BATCHES}),
    "dataset of Keras": (Batches, {"shuffle": False}),
    "endless dataset of Keras": (Endless, {"steps_per_epoch": BATCHES}),
    "tf.data": (lambda: dataset().batch(4, drop_remainder=True), {}),
    "tf.data that reads ahead without end": (
        lambda: dataset().batch(4).repeat().prefetch(5),
        {"steps_per_epoch": BATCHES},
    ),
    "loader of torch": (loader, {}),
}


@pytest.mark.parametrize("kind", list(KINDS) if BACKEND != "jax" else ["generator"])
def test_fit_is_fed_the_same_and_the_batch_of_each_capture_is_recorded(kind, compiled, store, monitor, caplog):
    make, options = KINDS[kind]
    model = compiled()
    bare = fit(compiled(), make(), **options)
    assert fit(compiled(), monitor.feed(make()), monitor, **options) == bare
    assert model.optimizer.iterations == 16
    assert store.captures() == CAPTURES
    assert fed(store) == IN_ORDER
    assert not caplog.messages


SHUFFLED = {
    "dataset of Keras": Batches,
    "tf.data": lambda: dataset().shuffle(32).batch(4),
    "loader of torch": lambda: loader(shuffle=True),
}


@of_tensorflow
@pytest.mark.parametrize("kind", list(SHUFFLED))
def test_an_order_that_is_drawn_stays(kind, compiled, store, monitor):
    bare = fit(compiled(), SHUFFLED[kind]())
    assert fit(compiled(), monitor.feed(SHUFFLED[kind]()), monitor) == bare
    assert list(fed(store)) == list(IN_ORDER)


@of_tensorflow
@pytest.mark.parametrize("processes", [False, True])
def test_workers_make_the_batches_ahead(processes, compiled, store, monitor):
    data = Batches(workers=2, use_multiprocessing=processes, max_queue_size=3)
    bare = fit(compiled(), Batches(), shuffle=False)
    assert fit(compiled(), monitor.feed(data), monitor, shuffle=False) == bare
    assert list(fed(store)) == list(IN_ORDER)
    assert all(abs(batch - IN_ORDER[step]) <= 2 for step, batch in fed(store).items())  # in nearly their order
    assert data.events == ["end", "begin", "end", "begin", "end"] or data.events[-4:] == ["begin", "end"] * 2


@of_tensorflow
@pytest.mark.parametrize(
    ("kind", "recorded"),
    [("generator", {6: 5, 9: 0, 12: 3, 15: 6, 18: 1}), ("tf.data", {6: 5, 12: 2, 15: 5})],
)
def test_several_steps_that_are_executed_at_once(kind, recorded, compiled, store, monitor):
    """The last batch of three is recorded. Where the data end after two of them it is not known which that is."""
    make, options = KINDS[kind]
    bare = fit(compiled(3), make(), **options)
    assert fit(compiled(3), monitor.feed(make()), monitor, **options) == bare
    assert fed(store) == recorded


@of_tensorflow
def test_where_a_budget_says_when(compiled, store):
    """Batch and step agree at every capture that was expected."""
    monitor = GateMonitor(log_dir=None, probe=X[:2], store=store, overhead=1.0)
    fit(compiled(), monitor.feed(dataset().batch(4).prefetch(3)), monitor, epochs=3)
    recorded = fed(store)
    assert len(recorded) >= 2
    assert all(batch == (step - 1) % BATCHES for step, batch in recorded.items())


@not_on_jax
def test_the_same_object_in_two_fits(compiled, store, monitor):
    data = monitor.feed(generated())
    fit(compiled(), data, monitor, epochs=1, steps_per_epoch=5)
    first = [point for point in store.points if point.measurement == FEED_STATS]
    assert [point.fields["step"] for point in first] == [3]
    compiled().fit(data, epochs=1, steps_per_epoch=3, verbose=0, callbacks=[monitor])
    assert set(fed(store)) == {3, 6}


@not_on_jax
def test_a_fit_that_raised_and_one_after_it(compiled, store, monitor):
    def stop(batch, logs):
        if batch == 3:
            raise KeyError("of the user")

    data = monitor.feed(generated())
    with pytest.raises(KeyError, match="of the user"):
        fit(compiled(), data, keras.callbacks.LambdaCallback(on_train_batch_end=stop), monitor, steps_per_epoch=8)
    fit(compiled(), monitor.feed(Batches()), monitor, shuffle=False, epochs=1)
    assert fed(store) == {3: 2, 6: 2, 9: 5}  # the fourth step of the run is the first of the second fit


@of_tensorflow
def test_a_training_that_stops_itself(compiled, store, monitor):
    model = compiled()
    stop = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: setattr(model, "stop_training", True))
    data = monitor.feed(Batches())
    fit(model, data, stop, monitor, shuffle=False)
    fit(compiled(), data, monitor, shuffle=False)
    assert fed(store)[6] == 4  # of the second fit, whose first step is the run's second


# Validation.


@not_on_jax
@pytest.mark.parametrize("kind", ["dataset of Keras", "tf.data", "loader of torch"])
def test_data_that_are_validated_with_too(kind, compiled, store, monitor, caplog):
    make, options = KINDS[kind]
    data, bare = monitor.feed(make()), fit(compiled(), make(), validation_data=make(), **options)
    assert fit(compiled(), data, monitor, validation_data=data, **options) == bare
    assert fed(store) == IN_ORDER
    assert not caplog.messages


@of_tensorflow
def test_validation_data_that_are_wrapped_too(compiled, store, monitor, caplog):
    held_out = monitor.feed((np.full_like(X[:4], 99), Y[:4]) for _ in range(99))
    data = monitor.feed(generated())
    fit(compiled(), data, monitor, steps_per_epoch=BATCHES, validation_data=held_out, validation_steps=2)
    assert fed(store) == IN_ORDER
    assert not [text for text in caplog.messages if "feed" in text]


@of_tensorflow
def test_where_the_order_is_lost_nothing_is_recorded(compiled, store, monitor, caplog):
    data = monitor.feed(generated())
    fit(compiled(), data, monitor, steps_per_epoch=BATCHES, validation_data=data, validation_steps=2)
    assert list(fed(store)) == [3, 6]
    (message,) = [text for text in caplog.messages if "feed" in text]
    assert "is also the validation_data" in message


# What batches are made of.


@of_tensorflow
def test_arrays_that_a_generator_uses_again(monitor):
    def batches():
        x = np.empty(1)
        for number in range(4):
            x[:] = number
            yield x, None

    assert [x[0] for x, _ in monitor.feed(batches())] == [0, 1, 2, 3]


@of_torch
def test_arrays_that_are_used_again_after_their_step(compiled, store, monitor):
    """Torch trains on the very arrays; `fit` takes the first two batches at once."""

    def batches():
        x, y = np.empty((4, 6, 3), "float32"), np.empty((4, 1), "float32")
        for number in [0, 0, *range(2, BATCHES), *range(BATCHES)]:
            x[:], y[:] = Batches()[number]
            yield x, y

    bare = fit(compiled(), batches(), steps_per_epoch=BATCHES)
    assert fit(compiled(), monitor.feed(batches()), monitor, steps_per_epoch=BATCHES) == bare
    assert fed(store) == IN_ORDER


class Nested(keras.Model):
    """Takes a mapping of several kinds of tensors, of which it reads one."""

    def __init__(self):
        super().__init__()
        self.memory, self.head = keras.layers.LSTM(2), keras.layers.Dense(1)

    def call(self, x):
        return self.head(self.memory(x["x"] if isinstance(x, dict) else x))


@of_tensorflow
def test_other_tensors_than_dense_ones(store, caplog):
    import tensorflow as tf

    ragged = tf.ragged.constant([[1.0] * (1 + k % 3) for k in range(32)])
    sparse = tf.sparse.from_dense(np.eye(32, dtype="float32"))
    given = {"x": X, "ragged": ragged, "sparse": sparse, "text": ["t"] * 32, "half": tf.cast(X, tf.bfloat16)}
    weights = np.linspace(0, 1, 32)
    data = tf.data.Dataset.from_tensor_slices((given, Y, weights)).batch(4)
    keras.utils.set_random_seed(1)
    model = Nested()
    model.compile("sgd", "mse", run_eagerly=True, jit_compile=False)
    model(X[:1])
    start = model.get_weights()
    bare = fit(model, data, epochs=1)
    model.set_weights(start)
    model.optimizer.iterations.assign(0)
    monitor = GateMonitor(log_dir=None, probe=X[:2], store=store, every=4)
    wrapped = monitor.feed(data)
    assert wrapped.element_spec == data.element_spec
    assert fit(model, wrapped, monitor, epochs=1) == bare
    (one, two) = [point.fields for point in store.points if point.measurement == FEED_STATS]
    assert (one["step"], two["step"]) == (4, 8)
    assert "'text'" in "".join(text for text in caplog.messages if "feed" in text)


@of_tensorflow
def test_a_tf_dataset_stays_what_it_was(monitor):
    import tensorflow as tf

    options = tf.data.Options()
    options.deterministic = False
    plain = dataset().batch(5, drop_remainder=True).with_options(options)
    wrapped = monitor.feed(plain)
    assert wrapped.element_spec == plain.element_spec
    assert wrapped.options() == plain.options()
    for made in (plain.repeat(), plain.filter(lambda x, y: True)):
        assert int(monitor.feed(made).cardinality()) == int(made.cardinality())
    windows = dataset().window(8)
    assert monitor.feed(windows).element_spec == windows.element_spec
    assert len(list(monitor.feed(windows))) == 4


@of_tensorflow
def test_inputs_without_targets(compiled, store, monitor):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.memory = keras.layers.LSTM(2)

        def call(self, x):
            states = self.memory(x)
            self.add_loss(keras.ops.mean(states**2))
            return states

    model = Own()
    model.compile("sgd", run_eagerly=True, jit_compile=False)
    model(X[:1])
    fit(model, monitor.feed((x,) for x, _ in generated()), monitor, epochs=1, steps_per_epoch=BATCHES)
    points = [point.fields for point in store.points if point.measurement == FEED_STATS]
    assert [point["step"] for point in points] == [3, 6]
    assert all("target_correlation" not in point for point in points)


# Errors, copies and monitors that record nothing.


@of_tensorflow
def test_an_exception_of_the_generator_comes_out_unchanged(monitor):
    error = LookupError("of the generator")

    def failing():
        yield X[:4], Y[:4]
        raise error

    data = monitor.feed(failing())
    next(data)
    with pytest.raises(LookupError) as caught:
        next(data)
    assert caught.value is error


@of_torch
def test_an_exception_of_the_generator_ends_fit(compiled, monitor):
    error = LookupError("of the generator")

    def failing():
        yield from (Batches()[number] for number in range(5))
        raise error

    with pytest.raises(LookupError) as caught:
        fit(compiled(), monitor.feed(failing()), monitor, steps_per_epoch=8)
    assert caught.value is error


@not_on_jax
def test_a_batch_that_cannot_be_looked_at_is_delivered(compiled, store, monitor, caplog):
    """An array that raises when it is copied."""

    class Odd(np.ndarray):
        def copy(self, order="C"):
            raise RuntimeError("no copy")

    bare = fit(compiled(), generated(), steps_per_epoch=BATCHES)
    odd = ((x.view(Odd), y) for x, y in generated())
    assert fit(compiled(), monitor.feed(odd), monitor, steps_per_epoch=BATCHES) == bare
    assert store.captures() == CAPTURES
    (message,) = [text for text in caplog.messages if "feed" in text]
    assert "a look at the feed failed, training goes on: RuntimeError: no copy" in message


@of_tensorflow
def test_a_monitor_that_is_not_given_to_fit(compiled, store, monitor):
    data = monitor.feed(Batches())
    bare = fit(compiled(), Batches(), epochs=1)
    assert fit(compiled(), data, epochs=1) == bare
    assert not data._line._held
    assert not store.points


@of_tensorflow
def test_a_dataset_of_keras_keeps_its_attributes(monitor):
    plain = Batches(workers=0, max_queue_size=4)
    data = monitor.feed(plain)
    assert (len(data), data.num_batches, data.workers, data.max_queue_size) == (8, 8, 0, 4)
    assert not data.use_multiprocessing
    data.count = 5
    assert (plain.count, len(list(data))) == (5, 5)
    data.workers = 2
    assert plain.workers == 2
    with pytest.raises(AttributeError, match="'Batches' object has no attribute 'missing'"):
        data.missing  # noqa: B018
    assert not hasattr(monitor.feed(Endless()), "__len__")
    for twin in (copy.deepcopy(data), copy.copy(data), pickle.loads(pickle.dumps(data))):
        assert np.array_equal(twin[1][0], X[4:8])
        assert len(twin) == 5


@of_tensorflow
def test_a_loader_of_torch_keeps_its_attributes(monitor):
    plain = loader(num_workers=0)
    data = monitor.feed(plain)
    assert isinstance(data, type(plain))
    assert (len(data), data.batch_size, data.dataset is plain.dataset, data.drop_last) == (8, 4, True, False)
    assert data.multiprocessing_context is None
    assert len(list(copy.copy(data))) == 8
    with pytest.raises(ValueError, match="batch_size attribute should not be set"):
        data.batch_size = 5


@of_tensorflow
def test_what_is_wrapped_already_is_not_wrapped_again(monitor):
    for data in (Batches(), generated(), dataset().batch(4), loader()):
        wrapped = monitor.feed(data)
        assert monitor.feed(wrapped) is wrapped
        assert wrapped is not data


@of_tensorflow
def test_several_wrapped_things_in_one_fit(compiled, store, monitor, caplog):
    first, second = monitor.feed(generated()), monitor.feed(generated())
    both = ((x, y) for (x, _), (_, y) in zip(first, second, strict=True))
    fit(compiled(), both, monitor, steps_per_epoch=BATCHES)
    assert not fed(store)
    assert "fit takes batches from several things that feed() returned" in "".join(caplog.messages)


@of_tensorflow
def test_what_cannot_be_seen_is_refused(monitor):
    import tensorflow as tf

    with pytest.raises(ConfigError, match=r"feed\(\) takes no arrays \(tuple\): fit makes the batches of those"):
        monitor.feed(X, Y)
    with pytest.raises(ConfigError, match=r"feed\(\) takes no arrays \(EagerTensor\)"):
        monitor.feed(tf.constant(X))
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    distributed = strategy.experimental_distribute_dataset(dataset().batch(4))
    with pytest.raises(ConfigError, match=r"feed\(\) takes no distributed dataset"):
        monitor.feed(distributed)


@of_torch
def test_a_model_that_fit_builds(store, monitor):
    """`fit` calls it without values first, with a batch that is then fed to it."""
    model = keras.Sequential([keras.layers.LSTM(3), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    fit(model, monitor.feed(generated()), monitor, steps_per_epoch=BATCHES)
    assert fed(store) == IN_ORDER

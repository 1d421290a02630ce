"""What happens to a Keras model's weights between two captures: moves, steps, learning rates and second moments.

The whole file runs on TensorFlow, and once more on each other backend of Keras, with `test_keras_feed.py`.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from gatewatch import GateMonitor
from gatewatch.collector.keras.step_log import StepLog
from gatewatch.collector.keras.updates import KerasUpdates
from tests.kept import Kept
from tests.keras_models import build_optimizer

BACKEND = keras.backend.backend()
FEED = Path(__file__).with_name("test_keras_feed.py")
ON_TORCH = BACKEND == "torch"
layers, optimizers, schedules = keras.layers, keras.optimizers, keras.optimizers.schedules
X = np.random.default_rng(0).normal(size=(32, 6, 3)).astype("float32")
Y = np.random.default_rng(1).normal(size=(32, 4)).astype("float32")
BIAS, KERNEL = ("head", "bias"), ("head", "kernel")
SINCE = ("travel", "travel_steps", "rate_sum")


@pytest.fixture(autouse=True)
def same_numbers_every_time():
    keras.utils.set_random_seed(1)


@pytest.fixture
def store():
    return Kept()


def network(optimizer, **options):
    """Its head has 4 biases, so that a step of 1 for each moves them by 2."""
    model = keras.Sequential([keras.Input(X.shape[1:]), layers.LSTM(3, name="memory"), layers.Dense(4, name="head")])
    model.compile(optimizer, "mse", **options)
    build_optimizer(model)
    return model


def learn(model, gradient=1.0, optimizer=None):
    """Make a step with a gradient of `gradient` for every value of every parameter."""
    import torch

    with torch.no_grad() if ON_TORCH else contextlib.nullcontext():
        gradients = [keras.ops.ones(one.shape) * gradient for one in model.trainable_variables]
        (optimizer or model.optimizer).apply(gradients, model.trainable_variables)


def train(model, store, steps, *, every, each=lambda step: None, gradient=1.0):
    """Train in a loop of one's own under a monitor; `each` is called before each step."""
    with GateMonitor(model, None, probe=X[:2], store=store, every=every) as monitor:
        for step in range(1, steps + 1):
            each(step)
            learn(model, gradient)
            monitor.step()
    return store.updates()


def fit(model, store, *, every, batch=4, epochs=1, callbacks=()):
    """Train with `fit`, 8 batches an epoch."""
    monitor = GateMonitor(log_dir=None, probe=X[:2], store=store, every=every)
    model.fit(X, Y, batch_size=batch, epochs=epochs, verbose=0, callbacks=[*callbacks, monitor])
    return store.updates()


def told(fields, *names):
    return [fields.get(name) for name in names or SINCE]


# Moves, steps and learning rates.


def test_three_steps_of_plain_descent(store):
    found = train(network(optimizers.SGD(0.1)), store, 9, every=3)
    assert told(found[3][BIAS]) == [None, None, None]
    for capture in (6, 9):
        assert told(found[capture][BIAS]) == [pytest.approx(0.6, rel=1e-5), 3, pytest.approx(0.3)]


@pytest.mark.parametrize("at", [4, 5, 6])
def test_weights_that_something_else_moves_are_seen_to_move(store, at):
    """At any step between two captures: the sign is flipped, so that the move is twice the norm."""
    model = network(optimizers.SGD(0.1))
    kernel = model.get_layer("head").kernel
    norm = float(np.linalg.norm(keras.ops.convert_to_numpy(kernel)))

    def move(step):
        if step == at:
            model.set_weights([-one if one.shape == kernel.shape else one for one in model.get_weights()])

    found = train(model, store, 9, every=3, each=move, gradient=0.0)
    assert [found[capture][KERNEL].get("travel") for capture in (3, 6, 9)] == [
        None,
        pytest.approx(2 * norm, rel=1e-5),
        0,
    ]


def test_fit_travels_from_capture_to_capture(store):
    model, weights = network(optimizers.SGD(0.25)), {}
    kernel = model.get_layer("head").kernel

    def keep(batch, logs):
        if BACKEND == "jax":
            model.jax_state_sync()
        weights[len(weights) + 1] = np.array(keras.ops.convert_to_numpy(kernel))

    found = fit(model, store, every=3, epochs=2, callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=keep)])
    assert sorted(found) == [3, 6, 9, 12, 15]
    for capture in (6, 9, 12, 15):
        moved = float(np.linalg.norm(weights[capture] - weights[capture - 3]))
        assert told(found[capture][KERNEL]) == [pytest.approx(moved, rel=1e-5), 3, 0.75]


def test_a_checkpoint_that_is_loaded_between_two_captures_shows(store, tmp_path):
    model = network(optimizers.SGD(0.0))
    model.save_weights(tmp_path / "first.weights.h5")
    model.get_layer("head").bias.assign([3.0, 0, 0, 0])
    load = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: batch == 4 and model.load_weights(tmp_path / "first.weights.h5")
    )
    found = fit(model, store, every=2, callbacks=[load])
    assert [found[capture][BIAS].get("travel") for capture in (2, 4, 6, 8)] == [None, 0, 3, 0]


SCHEDULES = {
    "exponential": schedules.ExponentialDecay(0.1, 10, 0.5),
    "pieces": schedules.PiecewiseConstantDecay([3, 5], [0.1, 0.01, 0.001]),
    "polynomial": schedules.PolynomialDecay(0.1, 4, cycle=True),
    "inverse time": schedules.InverseTimeDecay(0.1, 10, 0.5, staircase=True),
    "cosine": schedules.CosineDecay(0.1, 10),
    "warm-up": schedules.CosineDecay(0.0, 10, warmup_target=0.1, warmup_steps=4),
    "restarts": schedules.CosineDecayRestarts(0.1, 3),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_rates_of_a_schedule_are_those_of_each_step(store, name):
    found = fit(network(optimizers.SGD(SCHEDULES[name])), store, every=4)
    rates = [float(SCHEDULES[name](step)) for step in range(4, 8)]
    assert told(found[8][BIAS], "travel_steps", "rate_sum") == [4, pytest.approx(sum(rates), rel=1e-6)]


def test_the_rates_of_a_schedule_with_accumulated_gradients(store):
    optimizer = optimizers.SGD(SCHEDULES["exponential"], gradient_accumulation_steps=2)
    found = fit(network(optimizer), store, every=4)
    rates = [float(SCHEDULES["exponential"](call)) for call in (5, 7)]  # it counts batches
    assert told(found[8][BIAS], "travel_steps", "rate_sum") == [2, pytest.approx(sum(rates), rel=1e-6)]


def test_a_schedule_that_takes_one_step_at_a_time_has_no_sum_over_many_steps(store):
    warm = schedules.CosineDecay(0.0, 100, warmup_target=0.1, warmup_steps=4)
    found = train(network(optimizers.SGD(warm)), store, 40, every=20)
    assert told(found[40][BIAS], "travel_steps", "rate_sum") == [20, None]


class InTurns(schedules.LearningRateSchedule):
    """Its answer to many steps at once is not the one that it gives to each."""

    def __call__(self, step):
        return keras.ops.cast(step, "float32") * 0 + keras.ops.max(keras.ops.cast(step, "float32"))

    def get_config(self):
        return {}


def test_a_schedule_that_mixes_steps_up_is_asked_for_each(store):
    found = train(network(optimizers.SGD(InTurns())), store, 8, every=4)
    assert told(found[8][BIAS], "travel_steps", "rate_sum") == [4, 4 + 5 + 6 + 7]


class InGraphsOnly(schedules.LearningRateSchedule):
    def __call__(self, step):
        import tensorflow as tf

        if tf.executing_eagerly():
            raise RuntimeError("not here")
        return tf.constant(0.1)

    def get_config(self):
        return {}


@pytest.mark.skipif(BACKEND != "tensorflow", reason="it asks TensorFlow where it is")
def test_a_schedule_that_fails_outside_of_the_training_costs_its_sum_alone(store):
    found = fit(network(optimizers.Adam(InGraphsOnly(), beta_2=0.5)), store, every=2)
    assert told(found[8][BIAS], "travel_steps", "rate_sum") == [2, None]
    assert {"travel", "moment_sum", "update_norm"} <= found[8][BIAS].keys()


def test_a_rate_that_a_callback_changes_is_summed_where_it_was_the_same_each_time_it_was_read(store):
    halve = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.1 if epoch < 1 else 0.05)
    found = fit(network(optimizers.SGD(0.1)), store, every=4, epochs=2, callbacks=[halve])
    assert [found[capture][BIAS].get("rate_sum") for capture in (8, 12, 16)] == [
        pytest.approx(0.4),
        None,
        pytest.approx(0.2),
    ]
    assert [found[capture][BIAS].get("travel_steps") for capture in (8, 12, 16)] == [4, 4, 4]


def test_a_rate_that_goes_round_between_two_captures_is_not_taken_for_constant(store):
    model = network(optimizers.SGD(0.1))

    def go_round(step):
        model.optimizer.learning_rate = 0.1 if step % 10 in (0, 1, 9) else 0.5

    found = train(model, store, 30, every=10, each=go_round)
    assert told(found[30][BIAS], "travel_steps", "rate_sum") == [10, None]


def test_a_rate_that_is_a_function_is_not_called(store):
    calls = []
    model = network(optimizers.SGD(lambda: calls.append(1) or 0.1))
    found = train(model, store, 4, every=2)
    assert told(found[4][BIAS]) == [pytest.approx(0.4, rel=1e-5), 2, None]
    assert len(calls) == 4


def test_another_rate_in_between_is_not_known(store):
    model = network(optimizers.SGD(0.1))

    def exchange(step):
        if step == 3:
            model.optimizer._learning_rate = schedules.ExponentialDecay(0.1, 10, 0.5)

    found = train(model, store, 6, every=2, each=exchange)
    assert [told(found[step][BIAS], "travel_steps", "rate_sum")[0] for step in (4, 6)] == [2, 2]
    assert [found[step][BIAS].get("rate_sum") is None for step in (4, 6)] == [True, False]


def test_a_count_that_went_back_is_no_number_of_steps(store):
    model = network(optimizers.SGD(0.1))

    def go_back(step):
        if step in (6, 15):  # as where a checkpoint is loaded
            model.optimizer.iterations.assign(1)

    found = train(model, store, 30, every=10, each=go_back)
    assert [found[capture][BIAS].get("travel_steps") for capture in (20, 30)] == [None, 10]
    assert found[20][BIAS]["travel"] == pytest.approx(2.0, rel=1e-5)


def test_a_variable_that_the_optimizer_does_not_train_has_no_steps(store):
    model = network(optimizers.SGD(0.1))
    own, head = optimizers.SGD(0.1), model.get_layer("head").trainable_variables
    own.build(head)
    updates = KerasUpdates(model, own)
    import torch

    for _ in range(2):
        updates.keep()
        with torch.no_grad() if ON_TORCH else contextlib.nullcontext():
            own.apply([keras.ops.ones(one.shape) for one in head], head)
        learn(model, optimizer=model.optimizer)
        found = updates.measure()
        updates.recorded(found)
    assert told(found[BIAS]) == [pytest.approx(0.4, rel=1e-5), 1, pytest.approx(0.1)]
    assert told(found["memory", "bias"], *SINCE[1:]) == [None, None]
    assert found["memory", "bias"]["travel"] == pytest.approx(0.1 * 12**0.5, rel=1e-5)


def test_weights_moved_past_the_optimizer_travel_without_steps(store):
    model = network(optimizers.Adam(0.1))
    updates = KerasUpdates(model)
    for _ in range(2):
        updates.keep()
        bias = model.get_layer("head").bias
        bias.assign(bias + keras.ops.convert_to_tensor([3.0, 4.0, 0.0, 0.0]))
        found = updates.measure()
        updates.recorded(found)
    assert told(found[BIAS]) == [5, 0, 0]


def test_gradients_that_are_accumulated_in_a_loop_of_ones_own(store):
    model = network(optimizers.SGD(0.1))
    with GateMonitor(model, None, probe=X[:2], store=store, every=3) as monitor:
        for step in range(1, 25):
            if step % 2 == 0:
                learn(model)
            monitor.step()
    found = store.updates()
    steps = [fields[BIAS].get("travel_steps") for fields in found.values()]
    assert sum(steps[1:]) == 11  # the first record is of the first of 12
    for fields in list(found.values())[1:]:
        one = fields[BIAS]
        assert told(one, "travel", "rate_sum") == [
            pytest.approx(0.2 * one["travel_steps"], rel=1e-4),
            pytest.approx(0.1 * one["travel_steps"]),
        ]


@pytest.mark.skipif(ON_TORCH, reason="Keras on torch makes one step an execution")
def test_steps_per_execution(store):
    found = fit(network(optimizers.SGD(0.1), steps_per_execution=4), store, every=4, epochs=3)
    assert [found[capture][BIAS].get("travel_steps") for capture in sorted(found)[1:]] == [4] * (len(found) - 1)


# Second moments.

MOMENTS = {
    "adam": lambda: optimizers.Adam(beta_2=0.5),
    "adamw": lambda: optimizers.AdamW(beta_2=0.5),
    "amsgrad": lambda: optimizers.Adam(beta_2=0.5, amsgrad=True),
    "nadam": lambda: optimizers.Nadam(beta_2=0.5),
    "lamb": lambda: optimizers.Lamb(beta_2=0.5),
    "rmsprop": lambda: optimizers.RMSprop(rho=0.5, momentum=0.9, centered=True),
    "adadelta": lambda: optimizers.Adadelta(rho=0.5),
    "scaled": lambda: optimizers.LossScaleOptimizer(optimizers.Adam(beta_2=0.5), initial_scale=1.0),
}
if BACKEND == "jax":
    del MOMENTS["scaled"]  # Keras cannot apply it there outside of `fit`
if hasattr(optimizers, "ScheduleFreeAdamW"):
    MOMENTS["schedule-free"] = lambda: optimizers.ScheduleFreeAdamW(beta_2=0.5)


@pytest.mark.parametrize("make", MOMENTS.values(), ids=MOMENTS)
def test_second_moments_halve_at_a_gradient_of_zero(store, make):
    """With a decay of 0.5 and a gradient of 1, v is 0.5 for each of 4 biases, then 0.25 and 0.125."""
    model = network(make())
    with GateMonitor(model, None, probe=X[:2], store=store, every=1) as monitor:
        for gradient in (1.0, 0.0, 0.0):
            learn(model, gradient)
            monitor.step()
    assert [found[BIAS]["moment_sum"] for found in store.updates().values()] == [2, 1, 0.5]
    assert store.updates()[3][BIAS]["moment_decay"] == 0.5


class Own(optimizers.Adam):
    pass


NONE = {
    "sgd": lambda: optimizers.SGD(0.1, momentum=0.9),
    "adagrad": optimizers.Adagrad,
    "adamax": optimizers.Adamax,
    "own": Own,
}


@pytest.mark.parametrize("make", NONE.values(), ids=NONE)
def test_an_optimizer_without_second_moments_or_of_an_unknown_kind_has_none(store, make):
    found = train(network(make()), store, 2, every=1)
    assert not {"moment_sum", "moment_decay"} & found[2][BIAS].keys()
    assert found[2][BIAS]["travel_steps"] == 1


def test_moments_that_were_lost_show_and_those_of_another_optimizer_do_not(store):
    model = network(optimizers.Adam(beta_2=0.5))

    def lose(step):
        if step == 3:
            for one in model.optimizer._velocities:
                one.assign(one * 0)
        if step == 5:
            model.compile(optimizers.Adam(beta_2=0.5), "mse")
            model.optimizer.build(model.trainable_variables)

    found = train(model, store, 7, every=1, each=lose)
    assert [found[step][BIAS].get("moment_sum") for step in found] == [2, 3, 2, 3, None, 3, 3.5]


def test_moments_that_are_not_finite_are_left_out(store):
    model = network(optimizers.Adam(beta_2=0.5))
    found = train(model, store, 2, every=1, gradient=1e30)
    assert "moment_sum" not in found[2][BIAS]


# The log of steps.


def test_an_optimizer_is_read_seldom_and_oftener_after_a_record():
    optimizer, log = optimizers.SGD(0.1), StepLog()
    optimizer.build([])
    read = []

    def batches(first, last):
        for batch in range(first, last):
            before = len(log._readings)
            log.note(optimizer)
            read.extend([batch] * (len(log._readings) - before))

    batches(1, 60)
    assert read == [1, 2, 3, 5, 8, 13, 21, 34, 55]
    log.restart(log.read(optimizer))
    batches(60, 66)
    assert read[9:] == [60, 61, 62, 64]
    log.note(None)


def test_what_was_read_before_the_latest_record_is_forgotten():
    optimizer, log = optimizers.SGD(0.1), StepLog()
    optimizer.build([])
    first, second, third = (log.read(optimizer) for _ in range(3))
    assert log.between(first, third) == (0, 0)
    log.restart(second)
    assert log.between(first, third) == (None, None)
    assert log.between(second, third) == (0, 0)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="this is the run on another backend")
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_all_of_this_on_another_backend(backend):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__, str(FEED)],
        env=os.environ | {"KERAS_BACKEND": backend, "XLA_FLAGS": "--xla_backend_optimization_level=0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert re.search(r"\d\d passed", done.stdout)

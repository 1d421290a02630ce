"""Weights and gradients of Keras models, held to the gradients that optimizers were given and to automatic ones.

The whole file runs on TensorFlow, and once more on the torch backend of Keras: `test_gates.py` starts that run.
"""

from __future__ import annotations

import contextlib
import logging

import keras
import numpy as np
import pytest

from gatewatch import GateMonitor
from gatewatch.collector.keras.updates import KerasUpdates, parameters
from tests.kept import Kept
from tests.keras_models import build_optimizer

ON_TORCH = keras.backend.backend() == "torch"
layers, optimizers = keras.layers, keras.optimizers
X = np.random.default_rng(0).normal(size=(32, 6, 3)).astype("float32")
Y = np.random.default_rng(1).normal(size=(32, 1)).astype("float32")
WHOLE = optimizers.schedules.CosineDecay(0.05, 40)

# What shows in a moving average of the gradient itself is exact; in one of squares the norm is right to 1 % or absent.
EXACT = {
    "adam": lambda **o: optimizers.Adam(0.01, **o),
    "amsgrad": lambda **o: optimizers.Adam(0.01, amsgrad=True, weight_decay=0.1, **o),
    "adamw": lambda **o: optimizers.AdamW(0.01, **o),
    "nadam": lambda **o: optimizers.Nadam(0.01, **o),
    "adamax": lambda **o: optimizers.Adamax(0.01, **o),
    "lamb": lambda **o: optimizers.Lamb(0.01, **o),
    "lion": lambda **o: optimizers.Lion(0.01, weight_decay=0.1, **o),
    "momentum": lambda **o: optimizers.SGD(0.01, momentum=0.9, weight_decay=0.1, **o),
    "nesterov": lambda **o: optimizers.SGD(0.01, momentum=0.9, nesterov=True, **o),
    "momentum-schedule": lambda **o: optimizers.SGD(WHOLE, momentum=0.9, **o),
    "rmsprop-centered": lambda **o: optimizers.RMSprop(0.01, centered=True, momentum=0.5, **o),
    "scaled": lambda **o: optimizers.LossScaleOptimizer(optimizers.Adam(0.01, **o), initial_scale=1.0),
    "fixed-scale": lambda **o: optimizers.Adam(0.01, loss_scale_factor=1.0, **o),
    "average": lambda **o: optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=3, **o),
}
if hasattr(optimizers, "Muon"):
    EXACT["muon"] = lambda **o: optimizers.Muon(0.01, **o)
TO_ONE_PERCENT = {
    "rmsprop": lambda **o: optimizers.RMSprop(0.01, momentum=0.5, **o),
    "adadelta": lambda **o: optimizers.Adadelta(1.0, **o),
    "adagrad": lambda **o: optimizers.Adagrad(0.1, **o),
    "ftrl": lambda **o: optimizers.Ftrl(0.01, **o),
}
if hasattr(optimizers, "ScheduleFreeAdamW"):
    TO_ONE_PERCENT["schedule-free"] = lambda **o: optimizers.ScheduleFreeAdamW(0.01, **o)


@pytest.fixture(autouse=True)
def same_numbers_every_time():
    keras.utils.set_random_seed(1)  # numpy's own too


def dense(optimizer=None, **options):
    """One layer of 5 × 4 weights and its bias, no recurrence: gradients are handed to the optimizer."""
    model = keras.Sequential([keras.Input((5,)), layers.Dense(4, name="dense", **options)])
    model.compile(optimizer, "mse")
    return model


def apply(model, gradients, variables=None):
    variables = variables or model.trainable_variables
    with no_grad():
        model.optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], variables)


def no_grad():
    if not ON_TORCH:
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()


def some_gradients(model, scale=1.0):
    return [np.random.normal(size=v.shape).astype("float32") * np.float32(scale) for v in model.trainable_variables]


def one_step(model, gradients, updates=None):
    updates = updates or KerasUpdates(model)
    updates.keep()
    apply(model, gradients)
    return updates.measure()


def norm(values):
    return float(np.linalg.norm(np.asarray(values, float)))


def numpy(tensor):
    return np.array(keras.ops.convert_to_numpy(tensor))


def automatic(model, x, y):
    """The gradients of the mean squared error by the backend's own differentiation."""
    if ON_TORCH:
        model.zero_grad()
        keras.ops.mean((model(x, training=True) - keras.ops.convert_to_tensor(y)) ** 2).backward()
        found = [numpy(v.value.grad) for v in model.trainable_variables]
        model.zero_grad()
        return found
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
    return [numpy(g) for g in tape.gradient(loss, [v.value for v in model.trainable_variables])]


# Formulas, one for each optimizer.


@pytest.mark.parametrize("make", EXACT.values(), ids=EXACT)
def test_a_gradient_is_read_from_what_the_optimizer_holds(make):
    model = dense(make())
    apply(model, some_gradients(model))
    for step in range(12):
        gradients = some_gradients(model, scale=10 ** np.random.uniform(-3, 1))
        gradients[0][step % 5] = 0
        found = one_step(model, gradients)
        for param, gradient in zip(("kernel", "bias"), gradients, strict=True):
            told = found["dense", param]
            assert told["gradient_norm_clipped"] == pytest.approx(norm(gradient), rel=1e-3)
            assert told["gradient_norm"] == told["gradient_norm_clipped"]
            assert told["zero_count"] == (gradient == 0).sum()
            assert told["optimizer_steps"] == 1


@pytest.mark.parametrize("make", TO_ONE_PERCENT.values(), ids=TO_ONE_PERCENT)
def test_a_gradient_that_rounding_may_hide_is_right_or_absent(make):
    model = dense(make())
    apply(model, some_gradients(model))
    present = 0
    for _ in range(12):
        gradients = some_gradients(model, scale=10 ** np.random.uniform(-6, 1))
        found = one_step(model, gradients)
        for param, gradient in zip(("kernel", "bias"), gradients, strict=True):
            told = found["dense", param]
            assert "zero_count" not in told
            if "gradient_norm" in told:
                present += 1
                assert told["gradient_norm"] == pytest.approx(norm(gradient), rel=0.01)
    assert present >= 6


@pytest.mark.parametrize("name", ["adam", "momentum", "rmsprop-centered"])
def test_a_gradient_of_ordinary_size_is_right_to_a_millionth(name):
    model = dense(EXACT[name]())
    for _ in range(5):
        apply(model, some_gradients(model))
    gradients = some_gradients(model)
    found = one_step(model, gradients)
    assert found["dense", "kernel"]["gradient_norm"] == pytest.approx(norm(gradients[0]), rel=2e-6)


@pytest.mark.parametrize("scale", [1e-3, 1e-7, 1e-12, 1e-20])
def test_a_gradient_that_vanishes_is_seen_to_vanish(scale):
    model = dense(EXACT["adam"]())
    for _ in range(3):
        apply(model, some_gradients(model))
    gradients = some_gradients(model, scale)
    told = one_step(model, gradients)["dense", "kernel"]
    assert told["gradient_norm"] == pytest.approx(norm(gradients[0]), abs=1e-5)
    gone = one_step(model, [g * 0 for g in gradients])["dense", "kernel"]
    assert (gone["gradient_norm"], gone["zero_count"]) == (0, 20)


def test_a_gradient_that_was_zero_for_long_is_still_known_to_be():
    model = dense(EXACT["adam"]())
    apply(model, some_gradients(model))
    for slot in model.optimizer._momentums:
        slot.assign(np.full(slot.shape, 1e-45, "float32"))  # where some thousand steps of zero lead
    told = one_step(model, [g * 0 for g in some_gradients(model)])["dense", "kernel"]
    assert (told["gradient_norm"], told["zero_count"]) == (0, 20)


class TwiceTheGradient(optimizers.Adam):
    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient * 2, variable, learning_rate)


@pytest.mark.parametrize(
    "make",
    [
        lambda: optimizers.Adafactor(0.01),
        lambda: TwiceTheGradient(0.01),
        lambda: optimizers.SGD(0.1),
        lambda: optimizers.SGD(lambda: 0.1, momentum=0.9),
    ],
    ids=["adafactor", "own", "no-momentum", "function"],
)
def test_where_the_rule_does_not_tell_there_is_no_gradient(make):
    model = dense(make())
    apply(model, some_gradients(model))
    for told in one_step(model, some_gradients(model)).values():
        assert not {"gradient_norm", "gradient_norm_clipped", "zero_count"} & set(told)
        assert told["update_norm"] > 0
        assert told["optimizer_steps"] == 1


@pytest.mark.parametrize("make", [*EXACT.values(), *TO_ONE_PERCENT.values()], ids=[*EXACT, *TO_ONE_PERCENT])
def test_weights_that_something_else_moves_too_do_not_change_what_is_told(make):
    model = dense(make(), kernel_constraint="non_neg")
    apply(model, some_gradients(model))
    updates = KerasUpdates(model)
    updates.keep()
    gradients = some_gradients(model)
    apply(model, gradients)
    for variable in model.trainable_variables:  # as a callback that decays weights
        variable.assign(variable * 0.5 + 1)
    found = updates.measure()
    for param, gradient in zip(("kernel", "bias"), gradients, strict=True):
        assert found["dense", param]["gradient_norm_clipped"] == pytest.approx(norm(gradient), rel=0.01)


@pytest.mark.skipif(not hasattr(optimizers, "MultiOptimizer"), reason="this Keras has none")
def test_several_optimizers_in_one_have_no_gradient():
    model = dense(optimizers.MultiOptimizer(optimizers.OptimizerMap(optimizers.Adam(0.01))))
    apply(model, some_gradients(model))
    told = one_step(model, some_gradients(model))["dense", "kernel"]
    assert "gradient_norm_clipped" not in told
    assert told["optimizer_steps"] == 1


# Clipping.

LIMITS = {
    "clipnorm": lambda gradient, gradients: min(norm(gradient), 1.0),
    "global_clipnorm": lambda gradient, gradients: norm(gradient) * min(1, 1 / norm([norm(g) for g in gradients])),
    "clipvalue": lambda gradient, gradients: norm(np.clip(gradient, -1, 1)),
}


@pytest.mark.parametrize("name", ["adam", "momentum", "rmsprop", "scaled"])
@pytest.mark.parametrize("limit", LIMITS)
def test_the_norm_before_clipping_is_given_only_where_nothing_was_clipped(name, limit):
    model = dense((EXACT | TO_ONE_PERCENT)[name](**{limit: 1.0}))
    apply(model, some_gradients(model))
    for scale in (0.01, 10, 0.3, 0.02, 1):
        gradients = some_gradients(model, scale)
        found = one_step(model, gradients)
        for param, gradient in zip(("kernel", "bias"), gradients, strict=True):
            told = found["dense", param]
            clipped = LIMITS[limit](gradient, gradients)
            if name in EXACT:
                assert "gradient_norm_clipped" in told
                assert "gradient_norm" in told or scale > 0.1
            if clipped < 0.999 * norm(gradient):
                assert "gradient_norm" not in told
            if "gradient_norm_clipped" in told:
                assert told["gradient_norm_clipped"] == pytest.approx(clipped, rel=0.01)
            if "gradient_norm" in told:
                assert told["gradient_norm"] == pytest.approx(norm(gradient), rel=0.01)


def test_a_gradient_that_clipping_made_no_number_is_not_taken_for_whole():
    model = dense(optimizers.Adam(0.01, clipnorm=1.0))
    apply(model, some_gradients(model))
    gradients = some_gradients(model)
    gradients[0][0, 0] = np.inf
    told = one_step(model, gradients)["dense", "kernel"]
    assert "gradient_norm" not in told
    assert told["nan_count"] > 0


# What happened between the two looks.


def test_nothing_is_said_where_nothing_happened():
    model = dense(optimizers.Adam(0.01))
    updates = KerasUpdates(model)
    assert updates.measure() == {}
    updates.keep()
    assert updates.measure() == {}
    apply(model, some_gradients(model))
    assert updates.measure()["dense", "kernel"]["optimizer_steps"] == 1  # it was waited for
    apply(model, some_gradients(model))
    assert updates.measure() == {}  # what was kept was used


def test_several_steps_have_their_number_and_no_gradient():
    model = dense(optimizers.Adam(0.01))
    updates = KerasUpdates(model)
    updates.keep()
    before = numpy(model.layers[0].kernel)
    for _ in range(3):
        apply(model, some_gradients(model))
    told = updates.measure()["dense", "kernel"]
    assert told["optimizer_steps"] == 3
    assert told["update_norm"] == pytest.approx(norm(numpy(model.layers[0].kernel) - before), rel=1e-5)
    assert told["update_ratio"] == pytest.approx(told["update_norm"] / norm(before), rel=1e-5)
    assert "gradient_norm_clipped" not in told


@pytest.mark.parametrize("optimizer", [None, "adam"])
def test_weights_moved_past_the_optimizer(optimizer):
    model = dense(optimizer)
    updates = KerasUpdates(model)
    updates.keep()
    model.layers[0].kernel.assign(model.layers[0].kernel + 1)
    found = updates.measure()
    assert found["dense", "kernel"]["update_norm"] == pytest.approx(20**0.5)
    assert found["dense", "kernel"]["update_frequency"] == 1
    assert found["dense", "bias"]["update_norm"] == 0
    assert not {"optimizer_steps", "gradient_norm_clipped"} & set(found["dense", "kernel"])


def test_an_optimizer_that_the_model_does_not_hold_can_be_given():
    model = dense()
    own = optimizers.Adam(0.01)
    updates = KerasUpdates(model, own)
    for _ in range(2):
        updates.keep()
        gradients = some_gradients(model)
        with no_grad():
            own.apply([keras.ops.convert_to_tensor(g) for g in gradients], model.trainable_variables)
        told = updates.measure()["dense", "kernel"]
        assert told["optimizer_steps"] == 1
    assert told["gradient_norm"] == pytest.approx(norm(gradients[0]), rel=1e-5)


def test_variables_that_a_step_left_out_have_no_gradient():
    model = dense(optimizers.Adam(0.01))
    apply(model, some_gradients(model))
    updates = KerasUpdates(model)
    updates.keep()
    kernel = model.trainable_variables[:1]
    apply(model, some_gradients(model)[:1], kernel)
    found = updates.measure()
    assert "gradient_norm" in found["dense", "kernel"]
    assert "gradient_norm" not in found["dense", "bias"]
    assert found["dense", "bias"]["update_frequency"] == 0


def test_accumulated_gradients_are_those_of_the_step_that_used_them():
    model = dense(optimizers.Adam(0.01, gradient_accumulation_steps=2))
    for _ in range(2):
        apply(model, some_gradients(model))
    first, second = some_gradients(model), some_gradients(model)
    assert one_step(model, first) == {}
    told = one_step(model, second)["dense", "kernel"]
    assert told["gradient_norm"] == pytest.approx(norm(first[0] + second[0]) / 2, rel=1e-4)


def test_accumulated_gradients_with_a_schedule():
    model = dense(optimizers.SGD(WHOLE, momentum=0.9, gradient_accumulation_steps=2))
    for _ in range(2):
        apply(model, some_gradients(model))
    first, second, third = (some_gradients(model) for _ in range(3))
    apply(model, first)
    updates = KerasUpdates(model)
    updates.keep()
    apply(model, second)
    apply(model, third)  # after the step: the schedule goes on
    assert updates.rate() == pytest.approx(float(WHOLE(3)))
    told = updates.measure()["dense", "kernel"]
    assert told["optimizer_steps"] == 1
    assert told["gradient_norm"] == pytest.approx(norm(first[0] + second[0]) / 2, rel=1e-3)


def test_a_learning_rate_that_changed_meanwhile_tells_no_gradient():
    model = dense(optimizers.SGD(0.1, momentum=0.9))
    apply(model, some_gradients(model))
    updates = KerasUpdates(model)
    updates.keep()
    apply(model, some_gradients(model))
    model.optimizer.learning_rate = 0.01
    assert "gradient_norm" not in updates.measure()["dense", "kernel"]
    gradients = some_gradients(model)
    assert one_step(model, gradients)["dense", "kernel"]["gradient_norm"] == pytest.approx(norm(gradients[0]), rel=1e-3)


# The learning rate.


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (lambda: optimizers.Adam(0.01), lambda step: 0.01),
        (lambda: optimizers.SGD(0.01), lambda step: 0.01),
        (lambda: optimizers.Adam(WHOLE), WHOLE),
        (lambda: optimizers.LossScaleOptimizer(optimizers.Adam(0.02)), lambda step: 0.02),
        (lambda: optimizers.LossScaleOptimizer(optimizers.Adam(WHOLE)), WHOLE),
    ],
    ids=["constant", "stateless", "schedule", "scaled", "scaled-schedule"],
)
def test_the_learning_rate_is_that_of_the_latest_step(make, wanted):
    model = dense(make())
    updates = KerasUpdates(model)
    for last in (0, 1, 4):
        updates.keep()
        assert updates.rate() is None  # no step has been made
        while numpy(model.optimizer.iterations) <= last:
            apply(model, some_gradients(model))
        assert updates.rate() == pytest.approx(float(wanted(last)), rel=1e-6)
        updates.measure()
        assert updates.rate() is None


def test_a_learning_rate_that_changed_is_told_to_one_percent_or_not_at_all():
    model = dense(optimizers.Adam(0.1))
    updates = KerasUpdates(model)

    def told(before_step=0.1, after_step=None, note=False):
        model.optimizer.learning_rate = 0.1
        updates.keep()
        model.optimizer.learning_rate = before_step
        if note:
            updates.state.note_rate()
        apply(model, some_gradients(model))
        model.optimizer.learning_rate = before_step if after_step is None else after_step
        rate = updates.rate()
        updates.measure()
        return rate

    assert told(0.0995) == pytest.approx(0.1, rel=0.01)
    assert told(after_step=0.0995) == pytest.approx(0.1, rel=0.01)
    assert told(0.05) is told(after_step=0.05) is None
    assert told(0.05, note=True) == pytest.approx(0.05)
    assert told(0.05, after_step=0.1, note=True) is None
    assert told(np.nan, note=True) is told(np.inf, note=True) is None
    assert told(0.0, note=True) == 0.0
    updates.keep()
    apply(model, some_gradients(model))
    model.optimizer.learning_rate = WHOLE  # nobody knows for which step
    assert updates.rate() is None


class WithRatesOfItsOwn(optimizers.Adam):
    def apply(self, grads, trainable_variables=None):
        super().apply([gradient * 3 for gradient in grads], trainable_variables)


UNKNOWN = {"function": lambda: optimizers.Adam(lambda: 0.1), "own": lambda: WithRatesOfItsOwn(0.01)}
if hasattr(optimizers, "MultiOptimizer"):
    UNKNOWN["several"] = lambda: optimizers.MultiOptimizer(optimizers.OptimizerMap(optimizers.Adam(0.01)))


@pytest.mark.parametrize("make", UNKNOWN.values(), ids=UNKNOWN)
def test_a_learning_rate_that_is_not_known(make):
    model = dense(make())
    updates = KerasUpdates(model)
    updates.keep()
    apply(model, some_gradients(model))
    assert updates.rate() is None
    assert updates.measure()["dense", "kernel"]["optimizer_steps"] == 1


@pytest.mark.parametrize("make", [EXACT["adam"], EXACT["momentum"], TO_ONE_PERCENT["rmsprop"]])
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_gradient_that_is_no_number_is_counted_when_it_comes(make, poison):
    model = dense(make())
    apply(model, some_gradients(model))
    gradients = some_gradients(model)
    gradients[0][:2] = poison
    told = one_step(model, gradients)["dense", "kernel"]
    assert told["nan_count"] + told["inf_count"] == 16  # 8 of the gradient, 8 of the weights
    assert told["gradient_norm"] == pytest.approx(norm(gradients[0][2:]), rel=0.01)
    # Afterwards the optimizer's state no longer tells, but the weights do.
    after = one_step(model, some_gradients(model))["dense", "kernel"]
    assert "gradient_norm" not in after
    assert after["nan_count"] + after["inf_count"] == 8


def test_a_step_that_mixed_precision_skipped_is_none():
    model = dense(optimizers.LossScaleOptimizer(optimizers.Adam(0.01), initial_scale=8.0))
    apply(model, some_gradients(model, 8))
    gradients = some_gradients(model)
    assert one_step(model, [g * np.inf for g in gradients]) == {}
    told = one_step(model, [g * 4 for g in gradients])["dense", "kernel"]  # the skip halved the scale
    assert told["gradient_norm"] == pytest.approx(norm(gradients[0]), rel=1e-5)


def test_another_optimizer_in_between():
    model = dense(optimizers.Adam(0.01))
    updates = KerasUpdates(model)
    updates.keep()
    apply(model, some_gradients(model))
    model.compile("sgd", "mse")
    told = updates.measure()["dense", "kernel"]
    assert told["update_norm"] > 0
    assert "optimizer_steps" not in told


def test_half_precision_weights_have_norms_and_no_gradient():
    model = dense(optimizers.Adam(0.1), dtype="float16")
    apply(model, [g.astype("float16") for g in some_gradients(model)])
    told = one_step(model, [g.astype("float16") for g in some_gradients(model)])["dense", "kernel"]
    assert told["weight_norm"] == pytest.approx(norm(numpy(model.layers[0].kernel)), rel=1e-3)
    assert "gradient_norm_clipped" not in told


# Which parameters there are.


def policy(optimizer="adam"):
    inputs = keras.Input(X.shape[1:])
    x = layers.LSTM(4, return_sequences=True, name="memory")(inputs)
    x = layers.RNN([layers.GRUCell(3, name="low"), layers.LSTMCell(3, name="high")], return_sequences=True, name="s")(x)
    x = layers.Bidirectional(layers.GRU(3, return_sequences=True, name="gru"), name="both")(x)
    x = layers.TimeDistributed(layers.Dense(5, activation="relu", name="inner"), name="each")(x)
    x = layers.SimpleRNN(4, use_bias=False, name="simple")(x)
    model = keras.Model(inputs, layers.Dense(1, name="head")(x))
    model.compile(optimizer, "mse")
    build_optimizer(model)
    return model


def test_parameters_have_the_names_of_their_layers():
    whole = ["kernel", "recurrent", "bias"]
    assert list(parameters(policy())) == [
        *(("memory", param) for param in whole),
        *(("s/low", param) for param in whole),
        *(("s/high", param) for param in whole),
        *(("both/forward_gru", param) for param in whole),
        *(("both/backward_gru", param) for param in whole),
        ("each/inner", "kernel"),
        ("each/inner", "bias"),
        ("simple", "kernel"),
        ("simple", "recurrent"),
        ("head", "kernel"),
        ("head", "bias"),
    ]


def test_a_single_layer_and_a_nested_model():
    lstm = layers.LSTM(3, name="alone")
    lstm.build((None, 4, 2))
    assert list(parameters(lstm)) == [("alone", "kernel"), ("alone", "recurrent"), ("alone", "bias")]
    inner = keras.Sequential([keras.Input((5,)), layers.Dense(2, name="d")], name="inner")
    assert list(parameters(keras.Sequential([keras.Input((5,)), inner]))) == [
        ("inner/d", "kernel"),
        ("inner/d", "bias"),
    ]
    assert parameters(keras.Sequential([layers.Dense(2)])) == {}  # not built


def test_cells_and_dense_layers_within_layers_of_ones_own():
    class Attending(keras.layers.Layer):
        state_size = 3

        def __init__(self):
            super().__init__(name="attending")
            self.inner = layers.LSTMCell(3, name="inner")
            self.score = layers.Dense(3, name="score")

        def build(self, shape):
            self.inner.build(shape)
            self.score.build((None, 3))

        def call(self, x, states):
            return self.score(x), states

    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__(name="block")
            self.cell = layers.Dense(3, name="mix")

        def build(self, shape):
            self.cell.build(shape)

        def call(self, x):
            return self.cell(x)

    model = keras.Sequential([keras.Input(X.shape[1:]), Block(), layers.RNN(Attending(), name="rnn")])
    assert {layer for layer, _ in parameters(model)} == {"block/mix", "rnn/inner", "rnn/score"}


def test_a_frozen_layer_has_no_points():
    model = policy()
    model.get_layer("memory").trainable = False
    model.get_layer("each").trainable = False
    assert {layer for layer, _ in parameters(model)} == {
        *("s/low", "s/high", "both/forward_gru", "both/backward_gru", "simple", "head")
    }


def test_a_model_that_was_rebuilt_is_looked_at_anew():
    model = keras.Sequential([keras.Input((5,)), layers.Dense(4, name="first"), layers.Dense(3, name="second")])
    updates = KerasUpdates(model)
    updates.keep()
    model.pop()
    model.add(layers.Dense(2, name="third"))
    for layer in model.layers:
        layer.kernel.assign(layer.kernel + 1)
    assert [layer for layer, _ in updates.measure()] == ["first", "first"]
    updates.keep()
    model.get_layer("third").kernel.assign(model.get_layer("third").kernel + 1)
    assert {layer for layer, _ in updates.measure()} == {"first", "third"}


# Real trainings.


@pytest.mark.parametrize("optimizer", [optimizers.Adam(0.01), optimizers.SGD(WHOLE, momentum=0.9, clipnorm=100.0)])
def test_a_training_step_against_the_backends_own_gradients(optimizer):
    model = policy(optimizer)
    for _ in range(3):
        model.train_on_batch(X, Y)
    model.get_layer("each").layer.bias.assign([-100.0, 0, 0, 0, 0])  # a dead unit: its gradients are zero from now on
    model.train_on_batch(X, Y)
    gradients = {id(v): g for v, g in zip(model.trainable_variables, automatic(model, X, Y), strict=True)}
    before = {name: numpy(variable) for name, variable in parameters(model).items()}
    updates = KerasUpdates(model)
    updates.keep()
    model.train_on_batch(X, Y)
    found = updates.measure()
    assert set(found) == set(before)
    for name, variable in parameters(model).items():
        told, gradient, after = found[name], gradients[id(variable)], numpy(variable)
        assert told["gradient_norm"] == pytest.approx(norm(gradient), rel=1e-4, abs=1e-7)
        assert told["zero_count"] == (gradient == 0).sum()
        assert told["weight_norm"] == pytest.approx(norm(after), rel=1e-5)
        assert told["update_norm"] == pytest.approx(norm(after - before[name]), rel=1e-4)
        assert told["update_ratio"] == pytest.approx(norm(after - before[name]) / norm(before[name]), rel=1e-4)
        assert told["update_frequency"] == pytest.approx((after != before[name]).mean())
    assert found["each/inner", "kernel"]["zero_count"] >= 6


class Look(keras.callbacks.Callback):
    def __init__(self, updates):
        super().__init__()
        self.updates, self.found, self.rates = updates, [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.updates.keep()
        self.updates.state.note_rate()

    def on_train_batch_end(self, batch, logs=None):
        self.rates.append(self.updates.rate())
        self.found.append(self.updates.measure())


def small(optimizer, **options):
    model = keras.Sequential([keras.Input(X.shape[1:]), layers.LSTM(3, name="memory"), layers.Dense(1, name="head")])
    model.compile(optimizer, "mse", **options)
    build_optimizer(model)
    return model


@pytest.mark.parametrize("name", ["adam", "momentum-schedule"])
def test_looking_within_fit_changes_nothing_of_the_training(name):
    results = []
    for watched in (False, True):
        keras.utils.set_random_seed(1)
        model = small(EXACT[name]())
        look = Look(KerasUpdates(model))
        model.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[look] if watched else [])
        results.append([numpy(v) for v in [*model.variables, *model.optimizer.variables]])
    for plain, watched in zip(*results, strict=True):
        np.testing.assert_array_equal(plain, watched)
    assert len(look.found) == 8
    assert all(found["memory", "recurrent"]["optimizer_steps"] == 1 for found in look.found)
    assert all("gradient_norm" in found["memory", "recurrent"] for found in look.found[1:])
    assert look.rates == pytest.approx([0.01 if name == "adam" else float(WHOLE(step)) for step in range(8)])


@pytest.mark.parametrize("every", [2, 4])
def test_gradients_that_fit_accumulates(every):
    model, store = small(optimizers.Adam(0.01, gradient_accumulation_steps=3)), Kept()
    kernel, weights = model.get_layer("head").kernel, []
    keep = keras.callbacks.LambdaCallback(on_train_batch_end=lambda *_, **__: weights.append(numpy(kernel)))
    callbacks = [keep, GateMonitor(log_dir=None, probe=X[:2], store=store, every=every)]
    model.fit(
        X, Y, batch_size=2, epochs=1, verbose=0, shuffle=False, callbacks=callbacks
    )  # 16 steps, 5 of the optimizer
    steps, captures = range(3, 17, 3), range(every, 17, every)
    found = store.updates()
    wanted = {capture: [step for step in steps if capture - every < step <= capture] for capture in captures}
    assert sorted(found) == [capture for capture in captures if wanted[capture]]
    for capture, fields in found.items():
        before, after = weights[wanted[capture][-1] - 2], weights[wanted[capture][-1] - 1]
        told = fields["head", "kernel"]
        assert told["update_norm"] == pytest.approx(norm(after - before), rel=1e-4)
        assert told["optimizer_steps"] == 1
        assert told["gradient_norm"] > 0


def test_a_loop_of_ones_own_that_learns_once_in_a_window():
    model, store = small(optimizers.Adam(0.01)), Kept()
    with GateMonitor(model, None, probe=X[:2], store=store, every=3) as monitor:
        for bar in range(24):
            if bar % 5 == 0:
                model.train_on_batch(X, Y)
            monitor.step()
    found = store.updates()
    assert sorted(found) == [6, 12, 18, 21]  # it has learnt at steps 6, 11, 16 and 21
    assert all(fields["head", "kernel"]["gradient_norm_clipped"] > 0 for fields in found.values())


def with_spare(optimizer):
    """A network whose loss does not depend on one of its heads, although it is called."""
    inputs = keras.Input(X.shape[1:])
    x = layers.LSTM(3, name="memory")(inputs)
    outputs = {"price": layers.Dense(1, name="head")(x), "other": layers.Dense(1, name="spare")(x)}
    model = keras.Model(inputs, outputs)
    model.compile(optimizer, {"price": "mse"})
    return model


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("name", ["adam", "adagrad"])
def test_a_layer_that_the_loss_does_not_depend_on_is_named_once_and_not_recorded(name, caplog):
    model, store = with_spare((EXACT | TO_ONE_PERCENT)[name]()), Kept()
    with (
        caplog.at_level(logging.WARNING, "gatewatch"),
        GateMonitor(model, None, probe=X[:2], store=store, every=1) as monitor,
    ):
        for _ in range(8):
            model.train_on_batch(X, {"price": Y})
            monitor.step()
    found = {step: {layer for layer, _ in told} for step, told in store.updates().items()}
    assert all(found[step] == {"memory", "head"} for step in range(5, 9))
    assert [text for text in caplog.messages if "'spare'" in text] == [
        "gatewatch: no gradient has reached 'spare': no update is recorded while that is so; a layer that the loss "
        "depends on has a gradient, unless it is always zero"
    ]


def test_a_layer_that_is_used_no_longer_is_passed_over_and_one_whose_gradient_is_zero_stands_still():
    model = keras.Sequential([keras.Input((5,)), layers.Dense(4, name="dense"), layers.Dense(2, name="second")])
    model.compile(optimizers.Adam(0.01), "mse")
    for _ in range(5):
        apply(model, some_gradients(model))
    second = model.trainable_variables[2:]
    updates = KerasUpdates(model)
    assert one_step(model, some_gradients(model), updates)["dense", "kernel"]["optimizer_steps"] == 1
    updates.keep()
    apply(model, some_gradients(model)[2:], second)
    found = updates.measure()
    assert found["second", "kernel"]["update_norm"] > 0
    assert found["dense", "kernel"]["optimizer_steps"] == 0
    assert "update_norm" not in found["dense", "kernel"]
    for _ in range(2):
        told = one_step(model, [g * 0 for g in some_gradients(model)], updates)["dense", "kernel"]
        assert (told["gradient_norm"], told["zero_count"]) == (0, 20)


@pytest.mark.skipif(ON_TORCH, reason="Keras on torch makes one step an execution")
def test_steps_per_execution():
    model = small(optimizers.Adam(0.01), steps_per_execution=4)
    look = Look(KerasUpdates(model))
    model.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[look])
    assert [found["head", "bias"]["optimizer_steps"] for found in look.found] == [4, 4]
    assert not any("gradient_norm_clipped" in found["head", "bias"] for found in look.found)


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = small(optimizers.Adam(0.01))
    finally:
        keras.config.set_dtype_policy("float32")
    assert type(model.optimizer).__name__ == "LossScaleOptimizer"
    for _ in range(3):
        model.train_on_batch(X, Y)
    gradients = automatic(model, X, Y.astype("float16"))
    updates = KerasUpdates(model)
    updates.keep()
    model.train_on_batch(X, Y)
    told = updates.measure()["memory", "kernel"]
    assert told["gradient_norm"] == pytest.approx(norm(gradients[0]), rel=0.05)

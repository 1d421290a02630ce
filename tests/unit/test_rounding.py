"""A replay that differs by the order of its sums is right, however large the sums are; one that is wrong is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from gatewatch.collector.replay.gru import GRUWeights, replay_gru
from gatewatch.collector.replay.lstm import LSTMWeights, replay_lstm
from gatewatch.collector.replay.rounding import Precision, compare, precision_of

SINGLE = precision_of(["float32"], on_gpu=False)
CELLS = {"lstm": (replay_lstm, LSTMWeights, 4), "gru": (replay_gru, GRUWeights, 3)}


def network(kind, generator, features, units, gain=1.0):
    _, weights, gates = CELLS[kind]

    def uniform(*shape):
        return (generator.uniform(-gain, gain, shape) / np.sqrt(units)).astype(np.float32)

    bias = uniform(gates * units) if kind == "lstm" else uniform(2, gates * units)
    return weights(uniform(features, gates * units), uniform(units, gates * units), bias)


def prices(generator, start, batch, time, features):
    """Random walks with steps of one per cent; standard normal values where `start` is None."""
    steps = generator.normal(size=(batch, time, features))
    if start is None:
        return steps.astype(np.float32)
    return (start * np.exp(generator.normal(size=features) * 0.5 + 0.01 * steps.cumsum(axis=1))).astype(np.float32)


def outputs(replayed):
    return [replayed.outputs, *replayed.states]


def held_to(theirs, kind, x, weights, change=lambda weights: weights, precision=SINGLE):
    """What `compare` says of a replay, whose weights a wrong one changes first."""
    run = CELLS[kind][0]
    ours = outputs(run(x, change(weights)))
    return compare(ours, theirs, precision, lambda moved, rows: outputs(run(x[rows], moved(change(weights)))))


def in_another_order(kind, x, weights, generator):
    """The outputs of the same network, whose features come in another order, and so are added in another."""
    order = generator.permutation(x.shape[2])
    return outputs(CELLS[kind][0](x[:, :, order], replace(weights, kernel=weights.kernel[order])))


@pytest.mark.parametrize("kind", CELLS)
def test_the_order_of_the_sums_changes_nothing(kind):
    beyond = 0
    for seed in range(15):
        generator = np.random.default_rng(seed)
        features, units, batch, time = (
            int(generator.choice(sizes)) for sizes in ([50, 600], [32, 64], [1, 8], [20, 40])
        )
        x = prices(generator, 10.0 ** generator.uniform(3, 5), batch, time, features)
        weights = network(kind, generator, features, units, gain=generator.choice([0.1, 1.0]))
        error, is_exact = held_to(in_another_order(kind, x, weights, generator), kind, x, weights)
        assert is_exact, seed
        beyond += error > 1e-4
    assert beyond >= 2, "else the fixed tolerance would do"


def blocks(weights, kind, order):
    """The weights with the columns of its gates in another order."""
    columns = np.concatenate(np.split(np.arange(weights.kernel.shape[1]), CELLS[kind][2]))
    columns = columns.reshape(CELLS[kind][2], -1)[order].ravel()
    return replace(
        weights,
        kernel=weights.kernel[:, columns],
        recurrent=weights.recurrent[:, columns],
        bias=weights.bias[..., columns],
    )


def another(weights, kind):
    return network(kind, np.random.default_rng(99), weights.kernel.shape[0], weights.recurrent.shape[0])


WRONG = {
    "two gates exchanged": lambda weights, kind: blocks(weights, kind, [1, 0, 2, 3][: CELLS[kind][2]]),
    "another layer's weights": another,
    "without the bias": lambda weights, kind: replace(weights, bias=None),
    "reset before the product": lambda weights, kind: replace(weights, reset_after=False, bias=weights.bias.sum(0)),
}


# Beside sums of hundreds nothing can be told of a bias, nor of when it is added.
VISIBLE = {None: list(WRONG), 100.0: list(WRONG)[:2], 10_000.0: list(WRONG)[:2]}


@pytest.mark.parametrize("start", VISIBLE)
@pytest.mark.parametrize("kind", CELLS)
def test_a_wrong_replay_is_refused(kind, start):
    for wrong in VISIBLE[start][: 3 if kind == "lstm" else 4]:  # an LSTM has no reset gate
        for seed in range(10):
            generator = np.random.default_rng(seed)
            x, weights = prices(generator, start, 4, 20, 50), network(kind, generator, 50, 16)
            theirs = in_another_order(kind, x, weights, generator)
            error, is_exact = held_to(theirs, kind, x, weights, partial(WRONG[wrong], kind=kind))
            assert not is_exact, (wrong, seed, error)


def test_a_replay_of_normalised_inputs_is_held_to_the_fixed_tolerance():
    """A replay that is wrong by twice what is allowed, in a single element, is refused."""
    generator = np.random.default_rng(1)
    x, weights = prices(generator, None, 8, 60, 50), network("lstm", generator, 50, 32)
    theirs = [array.copy() for array in outputs(replay_lstm(x, weights))]
    assert held_to(theirs, "lstm", x, weights) == (0.0, True)
    theirs[0][3, 30, 7] += 0.9e-4
    assert held_to(theirs, "lstm", x, weights)[1]
    theirs[0][3, 30, 7] += 1.1e-4
    error, is_exact = held_to(theirs, "lstm", x, weights)
    assert (round(error, 5), is_exact) == (2e-4, False)


def test_what_is_not_finite_must_be_so_in_both():
    x, weights = np.full((1, 2, 1), np.nan, np.float32), network("lstm", np.random.default_rng(1), 1, 4)
    assert held_to(outputs(replay_lstm(x, weights)), "lstm", x, weights) == (None, True)
    theirs = outputs(replay_lstm(np.zeros_like(x), weights))
    assert held_to(theirs, "lstm", x, weights) == (np.inf, False)


def as_tensor_float(array):
    """Round to the 10 bits that a GPU keeps of the factors of a product."""
    bits = np.ascontiguousarray(array).view(np.uint32).astype(np.uint64)
    return ((bits + 0xFFF + (bits >> 13 & 1)) >> 13 << 13).astype(np.uint32).view(np.float32)


def test_a_gpu_is_allowed_the_roundings_of_its_products():
    """Simulated, by factors that are rounded before they are multiplied."""
    on_gpu, beyond = precision_of(["float32"], on_gpu=True), 0
    for seed in range(20):
        generator = np.random.default_rng(seed)
        x, weights = prices(generator, 10.0 ** generator.uniform(2, 4), 1, 20, 50), network("lstm", generator, 50, 16)
        rounded = replace(weights, kernel=as_tensor_float(weights.kernel), recurrent=as_tensor_float(weights.recurrent))
        theirs = outputs(replay_lstm(as_tensor_float(x), rounded))
        error, is_exact = held_to(theirs, "lstm", x, weights, precision=on_gpu)
        assert is_exact, seed
        beyond += error > 8 * 2**-10
        wrong = held_to(theirs, "lstm", x, weights, partial(WRONG["two gates exchanged"], kind="lstm"), on_gpu)
        assert not wrong[1], seed
    assert beyond >= 3, "else the fixed tolerance would do"


def test_precisions():
    """A GRU of 5 units was measured to differ by 3.4e-4 on a GPU, three times what is allowed elsewhere."""
    single, double = 2.0**-23, 2.0**-52
    assert precision_of(["float32", "float32"], on_gpu=False) == Precision(0, 0, single)
    assert precision_of(["float32", "float32"], on_gpu=True) == Precision(2**-10, 2**-9, single)
    assert precision_of(["float16"], on_gpu=False) == Precision(2**-10, 2**-10, single)
    assert precision_of(["float32", "bfloat16"], on_gpu=True) == Precision(2**-7, 2**-7, single)
    assert precision_of(["float64", "float64"], on_gpu=True) == Precision(0, 0, double)
    assert SINGLE.tolerance(0.5) == 1e-4
    assert SINGLE.tolerance(3.0) == pytest.approx(3e-4)
    assert precision_of(["float16"], on_gpu=False).tolerance(0.1) == pytest.approx(1e-4 + 0.8 * 2**-10)

"""The recurrences themselves: what must hold for any weights, shapes and masks, whatever framework they came from."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewatch.collector.replay.activations import ACTIVATIONS
from gatewatch.collector.replay.gru import GRUWeights, replay_gru
from gatewatch.collector.replay.lstm import LSTMWeights, replay_lstm
from tests import reference

pytestmark = pytest.mark.filterwarnings("error")

CLOSE = {"rtol": 1e-9, "atol": 1e-12}
BOUNDED = ["tanh", "sigmoid", "hard_sigmoid", "softsign", "hard_tanh", "relu6"]


class Case(NamedTuple):
    """A layer and a batch: all that a replay takes, `reverse` aside."""

    run: object
    x: np.ndarray
    weights: LSTMWeights | GRUWeights
    states: tuple[np.ndarray, ...] | None
    mask: np.ndarray | None

    def __call__(self, x=None, states=None, mask=None, **options):
        return self.run(self.x if x is None else x, self.weights, states or self.states, mask, **options)

    @property
    def arrays(self):
        weights = (self.weights.kernel, self.weights.recurrent, self.weights.bias, projection(self.weights))
        return [array for array in (self.x, *weights, *(self.states or ()), self.mask) if array is not None]


def projection(weights):
    return getattr(weights, "projection", None)


def layer(kind, features, units, random, activation="tanh", recurrent_activation="sigmoid", bias="one", **options):
    columns = units * (4 if kind == "lstm" else 3)
    biases = {"none": None, "one": random.normal(size=columns), "two": random.normal(size=(2, columns))}
    kernel, recurrent = random.normal(size=(features, columns)), random.normal(size=(units, columns))
    kind = LSTMWeights if kind == "lstm" else GRUWeights
    return kind(kernel, recurrent, biases[bias], activation, recurrent_activation, **options)


def projected(weights, hidden, random):
    """The weights with a projection whose columns are orthonormal: what it does to a state can be undone."""
    matrix, _ = np.linalg.qr(random.normal(size=(weights.recurrent.shape[0], hidden)))
    return replace(weights, recurrent=weights.recurrent[:hidden], projection=matrix)


@st.composite
def cases(draw):
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    batch, length, features, units = (draw(st.integers(1, most)) for most in (4, 6, 3, 4))
    kind = draw(st.sampled_from(["lstm", "gru"]))
    options = {"activation": draw(st.sampled_from(BOUNDED)), "recurrent_activation": draw(st.sampled_from(BOUNDED))}
    if kind == "gru":
        options["reset_after"] = draw(st.booleans())
    biases = ["none", "one", "two"] if options.get("reset_after") else ["none", "one"]
    weights = layer(kind, features, units, random, bias=draw(st.sampled_from(biases)), **options)
    hidden = units
    if kind == "lstm" and draw(st.booleans()):
        hidden = draw(st.integers(1, units))
        weights = projected(weights, hidden, random)
    sizes = (hidden, units) if kind == "lstm" else (hidden,)
    states = tuple(random.normal(size=(batch, size)) for size in sizes) if draw(st.booleans()) else None
    mask = random.random((batch, length)) < draw(st.sampled_from([0.0, 0.3, 0.8])) if draw(st.booleans()) else None
    x = random.normal(size=(batch, length, features))
    return Case(replay_lstm if kind == "lstm" else replay_gru, x, weights, states, mask)


def flipped(array):
    return None if array is None else array[:, ::-1]


def part(array, where):
    return None if array is None else array[:, where]


def assert_same(found, wanted, where=slice(None), rows=slice(None)):
    """Gates and outputs of the rows and positions are the same."""
    assert list(found.gates) == list(wanted.gates)
    for gate, values in found.gates.items():
        np.testing.assert_allclose(values, wanted.gates[gate][rows, where], **CLOSE, err_msg=gate)
    np.testing.assert_allclose(found.outputs, wanted.outputs[rows, where], **CLOSE)


def assert_same_states(found, wanted, rows=slice(None)):
    for mine, theirs in zip(found.states, wanted.states, strict=True):
        np.testing.assert_allclose(mine, theirs[rows], **CLOSE)


@settings(deadline=None)
@given(cases(), st.booleans())
def test_the_gates_are_those_of_the_papers(case, reverse):
    w, states = case.weights, case.states
    recurrent, matrix = w.recurrent, projection(w)
    if matrix is not None:  # the same as a plain LSTM that projects what it reads of its own output
        recurrent = matrix @ recurrent
        states = None if states is None else (states[0] @ matrix.T, states[1])
    more = {"mask": case.mask, "reverse": reverse, "state": states}
    arguments = (case.x, w.kernel, recurrent, w.bias, w.activation, w.recurrent_activation)
    if isinstance(w, LSTMWeights):
        gates, outputs = reference.lstm(*arguments, **more)
        if matrix is not None:
            gates["hidden"], outputs = gates["hidden"] @ matrix, outputs @ matrix
    else:
        gates, outputs = reference.gru(*arguments, w.reset_after, **more)
    found = case(mask=case.mask, reverse=reverse)
    assert list(found.gates) == list(gates)
    for gate, values in gates.items():
        np.testing.assert_allclose(found.gates[gate], values, **CLOSE, err_msg=gate)
    np.testing.assert_allclose(found.outputs, outputs, **CLOSE)
    np.testing.assert_allclose(found.states[0], outputs[:, 0 if reverse else -1], **CLOSE)


@settings(deadline=None)
@given(cases(), st.booleans())
def test_what_is_given_is_left_as_it_was(case, reverse):
    before = [array.copy() for array in case.arrays]
    for array in case.arrays:
        array.flags.writeable = False
    first, again = (case(mask=case.mask, reverse=reverse) for _ in range(2))
    for array, copy in zip(case.arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)
    assert_same(again, first)
    assert_same_states(again, first)


@settings(deadline=None)
@given(cases())
def test_what_comes_back_shares_no_memory_with_what_was_given(case):
    found = case(mask=case.mask)
    for array in (*found.gates.values(), found.outputs, *found.states):
        assert not any(np.shares_memory(array, given_) for given_ in case.arrays)


@settings(deadline=None)
@given(cases(), st.booleans())
def test_a_sequence_alone_does_what_it_does_in_the_batch(case, reverse):
    whole = case(mask=case.mask, reverse=reverse)
    for n in range(len(case.x)):
        one = slice(n, n + 1)
        states = None if case.states is None else tuple(state[one] for state in case.states)
        mask = None if case.mask is None else case.mask[one]
        alone = case.run(case.x[one], case.weights, states, mask, reverse)
        assert_same(alone, whole, rows=one)
        assert_same_states(alone, whole, rows=one)


@settings(deadline=None)
@given(cases(), st.data())
def test_two_halves_with_the_states_passed_on_are_one_run(case, data):
    cut = data.draw(st.integers(0, case.x.shape[1]))
    early, late = slice(None, cut), slice(cut, None)
    whole = case(mask=case.mask)
    first = case(case.x[:, early], mask=part(case.mask, early))
    second = case(case.x[:, late], first.states, part(case.mask, late))
    assert_same(first, whole, early)
    assert_same(second, whole, late)
    assert_same_states(second, whole)


@settings(deadline=None)
@given(cases())
def test_reverse_is_a_run_over_the_flipped_input(case):
    backwards = case(mask=case.mask, reverse=True)
    ahead = case(flipped(case.x), mask=flipped(case.mask))
    assert_same(backwards, ahead, where=slice(None, None, -1))
    assert_same_states(backwards, ahead)


@settings(deadline=None)
@given(cases(), st.data())
def test_a_masked_tail_is_an_early_stop_whatever_it_holds(case, data):
    stop = data.draw(st.integers(0, case.x.shape[1]))
    mask = np.arange(case.x.shape[1]) < np.full((len(case.x), 1), stop)
    x = case.x.copy()
    x[:, stop:] = data.draw(st.sampled_from([0.0, np.nan, np.inf, 1e300]))
    padded, stopped = case(x, mask=mask), case(case.x[:, :stop])
    assert_same(stopped, padded, slice(None, stop))
    assert_same_states(padded, stopped)
    assert all(np.isnan(values[:, stop:]).all() for values in padded.gates.values())
    np.testing.assert_allclose(padded.outputs[:, stop:], padded.states[0][:, None].repeat(x.shape[1] - stop, 1))


@settings(deadline=None)
@given(cases())
def test_a_mask_of_nothing_but_true_is_no_mask(case):
    everything = case(mask=np.ones(case.x.shape[:2], bool))
    assert_same(everything, case())
    assert_same_states(everything, case())


@settings(deadline=None)
@given(cases())
def test_how_the_input_lies_in_memory_changes_nothing(case):
    wanted = case(mask=case.mask)
    by_time = np.ascontiguousarray(case.x.transpose(1, 0, 2)).transpose(1, 0, 2)
    for x in (by_time, np.asfortranarray(case.x), case.x.repeat(2, axis=1)[:, ::2]):
        before = x.copy()
        assert_same(case(x, mask=case.mask), wanted)
        np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("weight", [np.nan, np.inf, -np.inf, 1e38])
def test_an_exploded_network_is_shown_as_it_is(kind, activation, weight):
    weights = layer(kind, 3, 4, np.random.default_rng(1), activation, activation)
    single = [np.asarray(array, np.float32) for array in (weights.kernel, weights.recurrent, weights.bias)]
    single[1][:] = weight
    weights = type(weights)(*single, activation, activation)
    found = (replay_lstm if kind == "lstm" else replay_gru)(np.full((2, 5, 3), 0.5, np.float32), weights)
    assert {values.dtype for values in found.gates.values()} == {np.dtype(np.float32)}
    if np.isnan(weight):
        assert all(np.isnan(values).all() for values in found.gates.values())


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_one_value_that_is_nan_stays_in_its_sequence_and_spreads_in_time(kind):
    x = np.zeros((3, 5, 2))
    x[1, 2, 0] = np.nan
    found = (replay_lstm if kind == "lstm" else replay_gru)(x, layer(kind, 2, 4, np.random.default_rng(1)))
    for values in found.gates.values():
        lost = np.isnan(values)
        assert lost[1, 2:].all()
        assert lost.sum() == lost[1, 2:].size


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("shape", [(0, 5, 2), (3, 0, 2)])
def test_nothing_in_nothing_out(kind, shape):
    found = (replay_lstm if kind == "lstm" else replay_gru)(
        np.zeros(shape), layer(kind, 2, 4, np.random.default_rng(1))
    )
    assert {values.shape for values in found.gates.values()} == {(*shape[:2], 4)}
    assert all(not state.any() and state.shape == (shape[0], 4) for state in found.states)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_activation_is_the_papers_and_keeps_shape_dtype_and_input(name, dtype):
    x = np.linspace(-9, 9, 721, dtype=dtype).reshape(7, 103)
    before = x.copy()
    found = ACTIVATIONS[name](x)
    np.testing.assert_array_equal(x, before)
    assert (found.dtype, found.shape) == (x.dtype, x.shape)
    assert not np.shares_memory(found, x)
    wanted = np.vectorize(reference.FUNCTIONS[name], otypes=[float])(x.astype(float))
    rounding = 8 * np.finfo(dtype).eps
    np.testing.assert_allclose(found, wanted, rtol=rounding, atol=rounding)


@given(st.floats(-1e30, 1e30))
def test_sigmoid_does_not_overflow(x):
    assert 0 <= ACTIVATIONS["sigmoid"](np.array([x]))[0] <= 1

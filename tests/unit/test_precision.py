"""How many values of a parameter a lower precision holds exactly: NumPy's own formats are the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gatewatch.collector.precision import RoundedBefore, rounded_share

FEW_BITS = np.array([0.5, -0.75, 0.25, 1.5, -1.25, 0.375, 3.0, 0.125, 4.0], np.float32)
"""Nine values, of which the largest does not count."""


def random_weights(shape, kind=np.float32):
    return np.random.default_rng(0).normal(0, 0.1, shape).astype(kind)


def test_values_of_few_bits_are_held_and_one_bit_more_than_half_precision_has_is_not():
    assert rounded_share(FEW_BITS) == 1.0
    assert rounded_share(FEW_BITS * np.float32(1 + 2.0**-10)) < 1.0
    assert rounded_share(np.float32([1 + 2.0**-11] * 8 + [2])) == 0.0
    assert rounded_share(np.float32([1 + 2.0**-10] * 8 + [2])) == 1.0


def test_trained_weights_are_held_by_chance_only():
    assert rounded_share(random_weights((64, 256))) < 0.01
    assert rounded_share(random_weights((64, 256), np.float64)) == 0.0


@pytest.mark.parametrize(("kind", "lower"), [(np.float32, np.float16), (np.float64, np.float32)])
def test_rounded_weights_are_all_held(kind, lower):
    assert rounded_share(random_weights((64, 256), kind).astype(lower).astype(kind)) == 1.0


def test_bfloat16_keeps_fewer_bits_and_is_held_too():
    bits = random_weights(4096).view(np.uint32) & np.uint32(0xFFFF0000)
    assert rounded_share(bits.view(np.float32)) == 1.0


def test_half_precision_itself_is_all_held():
    assert rounded_share(random_weights(100).astype(np.float16)) == 1.0


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(100, np.float32),
        np.ones(100, np.float32),
        np.full(100, np.nan, np.float32),
        np.float32([]),
        FEW_BITS[:8],
        np.clip(random_weights(1000) * 1000, -0.5, 0.5),
        np.eye(16, dtype=np.float32),
    ],
    ids=["zeros", "ones", "NaN", "none", "too few", "cut off", "identity"],
)
def test_round_numbers_that_somebody_has_set_do_not_count(values):
    assert rounded_share(values) in (None, 0.0)


def test_a_parameter_of_several_arrays_is_one():
    assert rounded_share([FEW_BITS, random_weights(8)]) == pytest.approx(8 / 15)


@given(arrays.arrays(np.float32, st.integers(0, 50), elements=st.floats(-70000, 70000, width=32)))
def test_it_is_the_share_that_half_precision_returns_unchanged(values):
    size = np.abs(values)
    counts = (size > 0) & (size < size.max(initial=0))
    # Below its smallest normal number half precision has fewer bits.
    rounds_alike = np.abs(values) >= 2.0**-14
    if (counts & ~rounds_alike).any() or (size > 65504).any():
        return
    expected = (values[counts].astype(np.float16).astype(np.float32) == values[counts]).mean() if counts.any() else 0.0
    assert rounded_share(values) == (pytest.approx(expected) if counts.sum() >= 8 else None)


def test_what_a_process_begins_with_counts_until_the_first_record():
    before = RoundedBefore()
    before.begin([(("lstm", "kernel"), [FEW_BITS]), (("lstm", "bias"), [FEW_BITS[:3]])])
    before.begin([(("lstm", "kernel"), [random_weights(100)])])
    assert before.added(("lstm", "kernel"), {"rounded_share": 0.0, "step": 5}) == {"rounded_share": 1.0, "step": 5}
    assert before.added(("lstm", "bias"), {"rounded_share": 0.0}) == {"rounded_share": 0.0}
    assert before.added(("lstm", "kernel"), {"step": 5}) == {"step": 5}
    before.recorded([("lstm", "kernel")])
    assert before.added(("lstm", "kernel"), {"rounded_share": 0.0}) == {"rounded_share": 0.0}


def test_weights_that_are_rounded_before_the_step_count_once():
    before = RoundedBefore()
    before.begin([])
    before.note([(("lstm", "kernel"), [FEW_BITS])])
    before.note([(("lstm", "kernel"), [random_weights(100)])])
    assert before.added(("lstm", "kernel"), {"rounded_share": 0.0}) == {"rounded_share": 1.0}
    before.recorded([("lstm", "kernel")])
    assert before.added(("lstm", "kernel"), {"rounded_share": 0.0}) == {"rounded_share": 0.0}

"""How far an optimizer's steps can move a parameter, against the rules themselves, run by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewatch.collector.reach import Reach, adam_reach, rmsprop_reach, travel_limit
from gatewatch.collector.travel import OptimizerFacts, travel_fields


def test_adam_moves_a_value_by_727_hundredths_of_its_rate_at_most():
    assert adam_reach(0.9, 0.999) == pytest.approx(7.27, abs=0.005)
    assert adam_reach(0.0, 0.99) == pytest.approx(10)
    assert adam_reach(0.9, 0.81) is None


def test_rmsprop_moves_a_value_by_its_rate_over_the_root_of_what_is_new():
    assert rmsprop_reach(0.99) == pytest.approx(10)
    assert rmsprop_reach(0.99, 0.5) == pytest.approx(20)
    assert rmsprop_reach(1.0) is None


@given(
    st.floats(0, 0.99),
    st.floats(0.5, 0.9999),
    st.lists(st.sampled_from([0.0, 1.0, -1.0, 1e-6, 1e4]), min_size=1, max_size=60),
)
def test_no_gradients_take_adam_further(beta_1, beta_2, gradients):
    if (limit := adam_reach(beta_1, beta_2)) is None:
        return
    mean = square = 0.0
    for count, gradient in enumerate(gradients, 1):
        mean = beta_1 * mean + (1 - beta_1) * gradient
        square = beta_2 * square + (1 - beta_2) * gradient**2
        if square > 1e-200:
            step = (mean / (1 - beta_1**count)) / np.sqrt(square / (1 - beta_2**count))
            assert abs(step) <= limit * (1 + 1e-6)


@given(st.floats(0.01, 0.99), st.integers(1, 400))
def test_the_worst_gradients_take_adam_no_further(beta_1, count):
    """Gradients that grow as β₁/β₂ to the age are those that Cauchy and Schwarz leave equal."""
    beta_2 = 0.999
    gradients = (beta_1 / beta_2) ** np.arange(count)  # the newest first
    mean = (1 - beta_1) * (beta_1 ** np.arange(count) * gradients).sum() / (1 - beta_1**count)
    square = (1 - beta_2) * (beta_2 ** np.arange(count) * gradients**2).sum() / (1 - beta_2**count)
    assert mean / np.sqrt(square) <= adam_reach(beta_1, beta_2) * (1 + 1e-9)


def test_the_limit_of_four_values_over_two_steps():
    # 2 × (√4 × 10 × 0.1) = 2, and a hundredth of 3 + 2 by decay; a thousandth of room
    assert travel_limit(Reach(10, 0.1, 0), steps=2, rate_sum=0.1, size=4, norm=3) == pytest.approx(2.05 * 1.001)


def test_rounding_counts_twice_a_step():
    assert travel_limit(Reach(1, 0, 0.01), steps=5, rate_sum=0, size=1, norm=2) == pytest.approx(0.2 * 1.001)


def test_travel_has_a_limit_where_the_optimizer_and_its_steps_are_known():
    before, after = np.zeros(4, np.float32), np.full(4, 0.5, np.float32)
    facts = OptimizerFacts(None, 12, Reach(10, 0, 0))
    fields = travel_fields(before, after, steps=3, rate_sum=0.1, facts=facts)
    assert fields.pop("travel_limit") == pytest.approx(2 * 1.001)
    assert fields == {"travel": 1, "travel_steps": 3, "rate_sum": 0.1, "step_count": 12}
    assert "travel_limit" not in travel_fields(before, after, steps=3, facts=facts)
    assert "travel_limit" not in travel_fields(None, after, steps=3, rate_sum=0.1, facts=facts)

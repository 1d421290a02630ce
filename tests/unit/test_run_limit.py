"""The limit of a run: an order statistic of what healthy runs reached."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewatch.jobs.scoring.run_limit import RunLimit

TO_19 = np.arange(1.0, 20.0)
"""Runs that went to 1, 2, … 19."""


class TestLimit:
    def test_without_baselines_it_is_the_built_in_one(self):
        assert RunLimit().limit == 1.0

    @pytest.mark.parametrize(
        ("count", "rate", "limit", "held"),
        [
            (19, 0.05, 19.0, 0.05),
            (19, 0.1, 18.0, 0.1),
            (19, 0.5, 10.0, 0.5),
            (99, 0.01, 99.0, 0.01),
            (99, 0.05, 95.0, 0.05),
            (99, 0.29, 71.0, 0.29),  # 100 * 0.29 is 28.999999999999996
            (20, 0.05, 20.0, 1 / 21),
            (38, 0.05, 38.0, 1 / 39),
            (39, 0.05, 38.0, 0.05),
        ],
    )
    def test_it_is_the_order_statistic_that_holds_the_rate(self, count, rate, limit, held):
        found = RunLimit(np.arange(1.0, count + 1), rate)
        assert (found.limit, found.held_rate) == (limit, pytest.approx(held))

    @pytest.mark.parametrize(("count", "held"), [(1, 1 / 2), (3, 1 / 4), (18, 1 / 19)])
    def test_too_few_hold_the_smallest_rate_that_they_can(self, count, held):
        found = RunLimit(np.arange(1.0, count + 1), 0.05)
        assert (found.limit, found.held_rate) == (count, pytest.approx(held))

    def test_calm_baselines_make_it_no_stricter(self):
        assert RunLimit(np.full(19, 0.4)).limit == 1.0

    @given(st.integers(1, 250), st.integers(1, 999))
    def test_its_rank_is_the_one_of_split_conformal_prediction(self, count, thousandths):
        alpha = Fraction(thousandths, 1000)
        rank = min(count, ceil((count + 1) * (1 - alpha)))
        assert RunLimit(np.arange(1.0, count + 1), thousandths / 1000).limit == max(1, rank)

    @given(st.lists(st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0]), min_size=2, max_size=6), st.sampled_from([0.2, 0.4]))
    def test_of_exchangeable_runs_no_more_than_the_rate_exceed_it(self, maxima, rate):
        """Every order of the runs is as likely: in each, the last is new and the others are its baselines."""
        orders = [*permutations(maxima)]
        limits = [RunLimit(np.sort(order[:-1]), rate) for order in orders]
        alarms = sum(order[-1] > limit.limit for order, limit in zip(orders, limits, strict=True))
        assert Fraction(alarms, len(orders)) <= Fraction(limits[0].held_rate).limit_denominator(1000)

    def test_runs_whose_captures_depend_on_each_other_exceed_it_no_more_often(self):
        """60 random walks, each of them new once: 3 of 60 are 5 %."""
        walks = np.abs(np.cumsum(np.random.default_rng(1).normal(size=(60, 200)), axis=1)).max(axis=1) + 1
        limits = [RunLimit(np.sort(np.delete(walks, new)), 0.05).limit for new in range(60)]
        assert sum(walks > limits) == 3


class TestReachedBy:
    def test_a_baseline_that_came_just_as_far_counts(self):
        found = RunLimit(np.array([1.0, 2.0, 2.0, 3.0])).reached_by(np.array([0.5, 2.0, 2.5, 3.0, 3.1, np.nan]))
        assert found.tolist() == [4, 3, 1, 1, 0, 0]

    def test_without_baselines_there_is_none(self):
        assert RunLimit().reached_by(np.array([1.5])).tolist() == [0]


class TestArrays:
    def test_they_make_the_same_limit_again(self):
        limit = RunLimit(TO_19, 0.1, 120)
        again = RunLimit.from_arrays(limit.arrays)
        assert (again.limit, again.rate, again.captures, again.model_id) == (18.0, 0.1, 120, limit.model_id)

    @pytest.mark.parametrize(
        "damage",
        [
            {"maxima": TO_19[::-1]},
            {"maxima": np.array([1.0, np.nan])},
            {"maxima": np.array([-1.0])},
            {"maxima": np.ones((2, 2))},
            {"maxima": np.ones(2, dtype=np.float32)},
            {"rate": np.array([0.0])},
            {"rate": np.array([1.0])},
            {"rate": np.array([np.nan])},
            {"rate": np.empty(0)},
            {"captures": np.array([-1.0])},
            {"captures": np.array([np.inf])},
            {"other": np.ones(1)},
        ],
        ids=str,
    )
    def test_damaged_ones_are_refused(self, damage):
        with pytest.raises(ValueError, match=r"limit|maxima"):
            RunLimit.from_arrays(RunLimit(TO_19).arrays | damage)

    def test_other_maxima_or_another_rate_have_another_id(self):
        ids = [RunLimit(TO_19).model_id, RunLimit(TO_19[1:]).model_id, RunLimit(TO_19, 0.1).model_id]
        assert len(set(ids)) == 3

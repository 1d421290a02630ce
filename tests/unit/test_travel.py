"""How far a parameter has moved since its latest record, in numbers that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from gatewatch.collector.travel import Moments, OptimizerFacts, Travels, travel_fields

NAME, OTHER = ("lstm", "kernel"), ("head", "bias")
ZERO, MOVED = np.zeros(2, np.float32), np.array([3, 4], np.float32)


def test_travel_is_the_norm_of_the_move_whatever_the_number_of_steps():
    fields = travel_fields(ZERO, MOVED, steps=7, rate_sum=0.7, facts=OptimizerFacts(Moments(2.0, 0.999)))
    assert fields == {"travel": 5, "travel_steps": 7, "rate_sum": 0.7, "moment_sum": 2, "moment_decay": 0.999}


def test_several_tensors_of_one_parameter_move_as_one():
    assert travel_fields([ZERO, ZERO], [MOVED, np.array([0, 12], np.float32)])["travel"] == 13


def test_what_is_not_known_has_no_field():
    assert travel_fields(ZERO, MOVED) == {"travel": 5}
    assert travel_fields(ZERO, MOVED, steps=0, rate_sum=0.0) == {"travel": 5, "travel_steps": 0, "rate_sum": 0}
    assert travel_fields(None, MOVED, steps=7, rate_sum=0.7) == {}
    assert travel_fields(None, MOVED, facts=OptimizerFacts(Moments(2.0, 0.9))) == {"moment_sum": 2, "moment_decay": 0.9}


@pytest.mark.parametrize("after", [np.zeros(3), np.zeros((1, 2)), [np.zeros(1), np.zeros(1)]])
def test_a_parameter_of_another_shape_has_no_travel(after):
    assert travel_fields(ZERO, after, steps=1) == {"travel_steps": 1}


def test_a_move_is_taken_over_the_values_that_are_finite():
    before, after = np.array([0, 0, np.nan, 1]), np.array([3, 4, 1, np.inf])
    assert travel_fields(before, after) == {"travel": 5}
    assert travel_fields(before, np.full(4, np.nan)) == {}


@pytest.mark.parametrize("lost", [np.inf, np.nan])
def test_a_sum_of_moments_that_is_not_finite_is_left_out(lost):
    assert travel_fields(ZERO, ZERO, rate_sum=lost, facts=OptimizerFacts(Moments(lost, 0.9))) == {"travel": 0}


def test_a_measurement_that_was_not_recorded_does_not_count():
    travels: Travels[int] = Travels()
    assert travels.latest(NAME) is None
    travels.measured(NAME, [ZERO], 1)
    travels.measured(OTHER, [ZERO], 1)
    assert travels.latest(NAME) is None
    travels.recorded([NAME])
    assert travels.latest(NAME) == ([ZERO], 1)
    assert travels.latest(OTHER) is None
    travels.measured(NAME, [MOVED], 2)
    travels.recorded([OTHER])
    travels.recorded([NAME])
    assert travels.latest(NAME) == ([ZERO], 1)


def test_parameters_that_are_gone_are_forgotten():
    travels: Travels[int] = Travels()
    for name in (NAME, OTHER):
        travels.measured(name, [ZERO], 1)
    travels.keep_only([NAME])
    travels.recorded([NAME, OTHER])
    assert travels.latest(OTHER) is None
    travels.keep_only([])
    assert travels.latest(NAME) is None

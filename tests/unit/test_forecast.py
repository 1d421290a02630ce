"""Forecasts: the line, the usual size of an error, and the pace at which a signal goes."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewatch.jobs.scoring.forecast import finite_median, pace, robust_line, usual_size


def one(values, slope=0.0):
    """The pace of one signal."""
    return float(pace(np.array([slope]), np.array(values, float)[:, None])[0])


def test_a_signal_that_goes_evenly_has_the_pace_of_its_steps():
    assert one([1, 3, 5, 7, 9, 11]) == 2
    assert one([11, 9, 7, 5, 3, 1]) == 2


@pytest.mark.parametrize("jumped", [1, 2, 3, 4, 5])
def test_a_jump_has_no_pace_whenever_it_was(jumped):
    assert one([0] * (6 - jumped) + [100] * jumped) == 0


def test_what_goes_up_and_down_has_hardly_any():
    assert one([0, 10, 0, 10, 0, 10]) <= 10 / 3


def test_the_slope_of_the_forecast_counts_where_it_is_more():
    assert one([0, 1, 2, 3, 4, 5], slope=-4.0) == 4


@pytest.mark.parametrize("values", [[], [1], [np.nan] * 6, [1, np.nan, np.nan, np.nan, np.nan, np.nan]])
def test_where_nothing_is_known_there_is_none(values):
    assert one(values) == 0


def test_a_burst_that_doubles_in_five_captures_keeps_its_pace_within_its_newest_step():
    values = 2.0 ** (np.arange(6) / 5)
    assert 0.5 * (values[-1] - values[-2]) < one(values) < values[-1] - values[-2]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=9), st.floats(0, 8))
def test_the_line_is_that_of_theil_and_sen(values, ahead):
    at = np.arange(len(values), dtype=float)
    slope, _, _, _ = scipy.stats.theilslopes(values, at)
    level = np.median(np.array(values) - slope * (at - at[-1]))
    line, found = robust_line(at[:, None], np.array(values)[:, None], np.array([ahead]))
    np.testing.assert_allclose([line[0], found[0]], [level + slope * ahead, slope], rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.one_of(st.just(np.nan), st.floats(-1e6, 1e6)), max_size=12))
def test_medians_are_of_what_is_finite(values):
    column = np.array(values, float)[:, None]
    finite = column[np.isfinite(column)]
    count, median = finite_median(column)
    assert count[0] == len(finite)
    np.testing.assert_allclose(median[0], np.median(finite) if len(finite) else 0, rtol=1e-12)


def test_the_usual_size_of_normal_errors_is_their_standard_deviation():
    errors = np.abs(np.random.default_rng(0).normal(0, 3, (20_000, 1)))
    assert usual_size(errors)[1][0] == pytest.approx(3, rel=0.03)

"""Checks of a backtest's feed against its training, in captures that a person can work out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewatch.jobs.scoring.captures import Captures
from gatewatch.jobs.scoring.checks import reference
from gatewatch.jobs.scoring.references import feature_sizes

CLOSE, VOLUME, FEED = ("_data", "close"), ("_data", "volume"), ("_data", "feed")


def fed(low, high, *, mean=None, std=None, values=24, largest=(1.0, 1.0), smallest=(2.0, 2.0)):
    """Captures of two features: their percentiles 1 and 99, (captures, 2) each."""
    low, high = np.array(low, dtype=float), np.array(high, dtype=float)
    count = len(low)
    return Captures(
        {"phase": "backtest"},
        np.arange(count) * 10**9,
        np.arange(count, dtype=float),
        {},
        {},
        {},
        {},
        feed={"sequences": np.ones(count), "positions": np.full(count, float(values))},
        features={
            "p01": low,
            "p99": high,
            "mean": (low + high) / 2 if mean is None else np.array(mean, dtype=float),
            "std": (high - low) / 4 if std is None else np.array(std, dtype=float),
        },
        feature_names=("close", "volume"),
        reference={"largest": np.array(largest), "smallest": np.array(smallest)},
    )


def test_raw_prices_are_an_alarm_at_the_first_capture_and_say_how_large_they_are():
    scores = reference.larger_than_training(fed([[180, -2]], [[190, 2]]))
    assert scores[CLOSE].tolist() == [18.0]  # times 10
    assert scores[FEED].tolist() == [18.0]
    assert VOLUME not in scores


@pytest.mark.parametrize(("times", "expected"), [(9.9, 0.0), (10.1, 1.01)])
def test_the_limit_is_ten_times(times, expected):
    scores = reference.larger_than_training(fed([[-times, -2]], [[times, 2]]))
    assert scores[FEED].tolist() == [pytest.approx(expected)]


def test_a_crash_that_moves_one_end_is_no_lost_normaliser():
    assert reference.larger_than_training(fed([[-500, -2]], [[2, 2]]))[FEED].tolist() == [0.0]


def test_a_flag_that_is_set_for_the_whole_window_has_no_size():
    scores = reference.larger_than_training(fed([[22, -2]], [[22, 2]]))
    assert scores[FEED].tolist() == [0.0]
    assert CLOSE not in scores


def test_raw_returns_of_all_features_are_too_small():
    scores = reference.smaller_than_training(fed([[-0.02, -0.05]], [[0.02, 0.05]]))
    assert scores[CLOSE].tolist() == [10.0]  # a hundredth of 2
    assert scores[VOLUME].tolist() == [4.0]


def test_one_feature_of_two_that_is_near_zero_is_none():
    """As a drawdown is while prices rise."""
    assert reference.smaller_than_training(fed([[-0.02, -2]], [[0.0, 2]]))[FEED].tolist() == [0.0]


@pytest.mark.parametrize(("small", "expected"), [(1, 0.0), (2, 2.0)])
def test_one_feature_in_three_that_is_too_small_is_enough_but_two_at_least(small, expected):
    """A lost normaliser has a factor of its own for each: those with a usual size of a half are hardly changed."""
    high = [[0.1] * small + [0.5] * (6 - small)]
    captures = fed(np.negative(high), high, largest=(1.0,) * 6, smallest=(2.0,) * 6)
    assert reference.smaller_than_training(captures)[FEED].tolist() == [expected]


def test_two_features_in_seven_are_too_few():
    high = [[0.1] * 2 + [0.5] * 5]
    captures = fed(np.negative(high), high, largest=(1.0,) * 7, smallest=(2.0,) * 7)
    assert reference.smaller_than_training(captures)[FEED].tolist() == [0.0]


def test_single_bars_are_as_large_as_the_largest_of_sixteen():
    """Of a training's windows the percentile 99 counts, which most of their bars are far below."""
    small = [[0.1 * (-1) ** bar] * 2 for bar in range(16)]
    bars = [*small[:15], [2.0, 2.0], *small]
    scores = reference.smaller_than_training(fed(bars, bars, values=1))[FEED]
    assert np.isnan(scores[:15]).all()
    assert scores[15:].tolist() == [0.0] * 16 + [2.0]


def test_a_feature_that_the_training_saw_at_zero_is_never_too_small():
    scores = reference.smaller_than_training(fed([[-0.02, -0.05]], [[0.02, 0.05]], smallest=(0, 0)))
    assert np.isnan(scores[FEED]).all()


def test_single_bars_are_judged_by_sixteen_together():
    bars = [[100.0 + bar, 1.0] for bar in range(18)]
    scores = reference.larger_than_training(fed(bars, bars, values=1))
    assert np.flatnonzero(scores[FEED] > 1).tolist() == [15, 16, 17]
    outlier = [[1.0, (-1.0) ** bar] for bar in range(8)] + [[500.0, 1.0]] + [[1.0, (-1.0) ** bar] for bar in range(9)]
    assert np.nanmax(reference.larger_than_training(fed(outlier, outlier, values=1))[FEED]) == 0.0


def test_another_number_of_features_is_not_compared():
    assert reference.larger_than_training(fed([[180, -2]], [[190, 2]], largest=(1.0,), smallest=(1.0,))) == {}


def test_the_sizes_of_a_training_are_rounded_outwards_to_a_quarter_of_an_octave():
    # The root of 3² + 4² is 5, and 2^(10/4) = 5.66 the next above it; below 3 lies 2^(6/4) = 2.83.
    columns = {"mean": 3.0, "std": 4.0, "p01": -3.0, "p99": 1.0}
    sizes = feature_sizes(**{name: np.full((4, 1), value) for name, value in columns.items()})
    assert sizes["largest"].tolist() == [pytest.approx(2**2.5)]
    assert sizes["smallest"].tolist() == [pytest.approx(2**1.5)]
    few = feature_sizes(**{name: np.full((3, 1), value) for name, value in columns.items()})
    assert np.isnan(few["largest"]).all()
    assert np.isnan(few["smallest"]).all()


@given(st.lists(st.floats(1e-6, 1e6), min_size=4, max_size=20), st.floats(1e-6, 1e6))
def test_a_training_is_never_outside_of_itself(sizes, deviation):
    """Whatever it was fed, each of its own captures is within its sizes."""
    low, high = -np.array([sizes]).T, np.array([sizes]).T
    mean, std = np.zeros_like(low), np.maximum(high, deviation)
    of_training = feature_sizes(mean, std, low, high)
    captures = fed(np.repeat(low, 2, 1), np.repeat(high, 2, 1), std=np.repeat(std, 2, 1))
    captures.reference.update({key: np.repeat(values, 2) for key, values in of_training.items()})
    for check in (reference.larger_than_training, reference.smaller_than_training):
        assert np.nanmax(check(captures)[FEED]) == 0.0

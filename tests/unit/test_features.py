"""Deviations: what they see, what they do not, and that they never look ahead."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.features import FEATURES, FLOORS, deviations


def learning(captures=120, seed=0, noise=0.5, series=1):
    """Series that drift as a network that learns does, with noise of about one floor."""
    random = np.random.default_rng(seed)
    time = np.linspace(0, 1, captures)[None, :, None]
    slopes = random.normal(size=(series, 1, len(FEATURES))) * 20
    return (slopes * (1 - np.exp(-3 * time)) + noise * random.normal(size=(series, captures, len(FEATURES)))) * FLOORS


def test_the_beginning_says_nothing():
    found = deviations(learning())
    assert np.isnan(found[:, :11]).all()
    assert np.isfinite(found[:, 16:]).all()


def test_steady_learning_is_nothing_unusual():
    found = np.abs(deviations(learning(seed=3, series=20))[:, 32:])
    assert np.quantile(found, 0.99) < 5


def test_a_step_stays_visible_while_it_lasts_and_only_then():
    still = learning(160, seed=5)
    stepped = still.copy()
    stepped[:, 80:120, 0] -= 100 * FLOORS[0]
    found = deviations(stepped)[0, :, 0]
    assert np.abs(found[32:79]).max() < 8
    assert found[82:120].max() < -8
    assert np.abs(found[124:]).max() < 8


def test_a_small_step_becomes_the_new_normal_sooner_than_a_large_one():
    def back_to_normal(size):
        values = learning(400, seed=2)
        values[:, 60:, 1] += size * FLOORS[1]
        found = np.abs(deviations(values)[0, 62:, 1])
        return int(np.argmax(found < 3)) if (found < 3).any() else len(found)

    assert back_to_normal(20) < back_to_normal(60) <= 338


def test_one_odd_capture_alone_raises_nothing():
    values = learning(seed=4)
    found = deviations(values)
    values[:, 70] += 50 * FLOORS
    spiked = deviations(values)
    assert np.abs(spiked[0, 69:75]).max() < np.abs(found[0, 69:75]).max() + 6


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(3, 90))
def test_what_is_said_of_a_capture_does_not_change_with_what_comes_after(seed, cut):
    values = learning(90, seed=seed, series=3)
    values[1, 40:] += 60 * FLOORS
    values[2, 20:23] = np.nan
    np.testing.assert_array_equal(deviations(values)[:, :cut], deviations(values[:, :cut]))


def test_series_do_not_touch_each_other():
    values = learning(series=4, seed=9)
    values[2, 50:] += 100 * FLOORS
    together = deviations(values)
    for k in range(4):
        np.testing.assert_array_equal(together[k], deviations(values[k : k + 1])[0])


def test_what_is_not_finite_has_no_deviation_and_spoils_only_its_neighbours():
    values = learning(seed=6)
    values[0, 60, 2] = np.nan
    found = deviations(values)[0]
    assert np.isnan(found[60:63]).any(axis=1).all()
    assert np.isfinite(found[63:]).all()
    assert np.isfinite(found[20:60]).all()


@pytest.mark.parametrize("captures", [0, 1, 2, 3, 11])
def test_a_short_run_has_none(captures):
    assert np.isnan(deviations(learning(captures))).all()


def test_a_constant_series_is_usual_throughout():
    found = deviations(np.full((1, 80, len(FEATURES)), 0.3))
    np.testing.assert_allclose(found[:, 16:], 0, atol=1e-9)

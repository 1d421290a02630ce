"""Derived metrics against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jobs.derive import DRIFT_CAPTURES, drift, effective_rank, effective_ranks, memory_timescale


def test_a_fresh_lstm_remembers_about_three_steps():
    assert memory_timescale(0.73) == pytest.approx(3.18, abs=0.01)


@given(st.floats(0.01, 0.99))
def test_after_the_timescale_a_state_has_decayed_to_one_over_e(kept):
    assert kept ** memory_timescale(kept) == pytest.approx(1 / math.e)


@pytest.mark.parametrize(("kept", "steps"), [(0.0, 0.0), (1.0, None), (1.2, None), (-0.1, None), (math.nan, None)])
def test_a_gate_at_either_end(kept, steps):
    assert memory_timescale(kept) == steps


def test_drift_is_zero_for_the_same_and_one_without_overlap():
    still = np.tile([0.5, 0.5, 0, 0], (3, 1))
    moved = np.vstack([still, [[0, 0, 0.5, 0.5]]])
    assert drift(moved)[1:] == pytest.approx([0, 0, 1])
    assert math.isnan(drift(moved)[0])


@pytest.mark.filterwarnings("ignore:invalid value encountered in sqrt")  # the oracle's
@given(hnp.arrays(float, (12, 6), elements=st.floats(0.001, 1)))
def test_drift_is_the_jensen_shannon_distance_from_the_mean_of_the_captures_before(raw):
    from scipy.spatial.distance import jensenshannon

    histograms = raw / raw.sum(axis=1, keepdims=True)
    found = drift(histograms)
    for k in range(1, 12):
        before = histograms[max(0, k - DRIFT_CAPTURES) : k].mean(axis=0)
        oracle = np.nan_to_num(jensenshannon(histograms[k], before, base=2))  # its NaN is the root of a rounded zero
        assert found[k] == pytest.approx(oracle, abs=1e-7)


def test_a_capture_without_a_histogram_is_passed_over():
    histograms = np.array([[1.0, 0.0], [np.nan, np.nan], [1.0, 0.0]])
    assert np.isnan(drift(histograms)[:2]).all()
    assert drift(histograms)[2] == 0


def test_effective_rank_counts_the_directions_of_movement():
    random = np.random.default_rng(0)
    one = random.normal(size=(16, 1)) @ random.normal(size=(1, 8))
    assert effective_rank(one + 5) == pytest.approx(1)
    orthogonal = np.linalg.qr(random.normal(size=(16, 4)) - random.normal(size=(1, 4)))[0]
    three = np.linalg.qr(orthogonal - orthogonal.mean(axis=0))[0][:, :3]
    assert effective_rank(three) == pytest.approx(3)


@pytest.mark.parametrize("units", [np.ones((5, 4)), np.ones((1, 4)), np.ones((5, 1)), np.full((5, 4), np.nan)])
def test_what_does_not_move_has_no_rank(units):
    assert effective_rank(units) is None


def test_each_capture_sees_the_captures_up_to_it_alone():
    units = np.random.default_rng(1).normal(size=(40, 5))
    assert effective_ranks(units)[:25] == effective_ranks(units[:25])

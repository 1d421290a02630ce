"""Derived metrics against their definitions."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from scipy.spatial.distance import jensenshannon

from gatewatch.collector.schema import GATE_DERIVED, SCHEMA
from gatewatch.jobs.scoring.metrics import METRICS, gates, learning, units
from gatewatch.jobs.scoring.metrics.gates import (
    DRIFT_CAPTURES,
    REGIME_CAPTURES,
    SATURATION_CAPTURES,
    TREND_CAPTURES,
    VOLATILITY_STEPS,
    drift,
    drift_from,
    entropy_trend,
    input_forget_coupling,
    memory_timescale,
    regime_sensitivity,
    saturation,
    saturation_change,
    volatility,
)
from gatewatch.jobs.scoring.metrics.learning import (
    GAP_POINTS,
    GRADIENT_CAPTURES,
    generalisation_gap,
    gradient_ratio,
    gradient_state,
    update_band,
)
from gatewatch.jobs.scoring.metrics.units import (
    FROZEN_CAPTURES,
    RANK_CAPTURES,
    dead_share,
    effective_ranks,
    frozen_share,
)

LOOK_BACK = 64
"""As many captures as any function here looks back, and more."""

SERIES, CAPTURES, UNITS, BINS = 3, 150, 5, 6


def of_captures(seed: int = 0, *last: int, missing: float = 0.1) -> np.ndarray:
    """(SERIES, CAPTURES, *last), between 0 and 1, some NaN."""
    random = np.random.default_rng(seed)
    values = random.uniform(size=(SERIES, CAPTURES, *last))
    values[random.uniform(size=(SERIES, CAPTURES)) < missing] = np.nan
    return values


ALL = {
    memory_timescale: (of_captures(1),),
    drift: (of_captures(2, BINS),),
    drift_from: (of_captures(3, BINS), of_captures(4, BINS)),
    saturation: (of_captures(5), of_captures(6)),
    saturation_change: (of_captures(5), of_captures(6)),
    entropy_trend: (of_captures(7),),
    input_forget_coupling: (of_captures(8, UNITS), of_captures(9, UNITS)),
    volatility: (of_captures(10),),
    regime_sensitivity: (of_captures(11), of_captures(12)),
    dead_share: (of_captures(13), of_captures(14)),
    frozen_share: (np.round(of_captures(15, UNITS, missing=0.01), 0) / 1e7,),
    effective_ranks: (of_captures(16, UNITS),),
    update_band: (of_captures(17) ** 20,),
    gradient_ratio: (of_captures(18),),
    gradient_state: (of_captures(19) ** 15,),
    generalisation_gap: (of_captures(20) - 0.5, of_captures(21) - 0.5),
}


def test_every_metric_is_among_those_below():
    public = {
        name
        for module in (gates, learning, units)
        for name, value in inspect.getmembers(module, inspect.isfunction)
        if value.__module__ == module.__name__ and not name.startswith("_")
    }
    assert {function.__name__ for function in ALL} == public


def test_the_fields_and_how_far_they_look_back():
    assert {metric.field: metric.look_back for metric in METRICS} == {
        "saturation": 0,
        "saturation_change": 16,
        "drift": 8,
        "entropy_trend": 15,
        "drift_baseline": 0,
        "memory_timescale": 0,
        "effective_rank": 15,
        "frozen_units": 15,
        "dead_share": 0,
        "input_forget_coupling": 0,
        "regime_sensitivity": 83,
        "window_s": 15,
        "dead_units": 0,
        "gradient_ratio": 32,
        "update_band": 0,
        "gradient_state": 32,
    }


def test_every_metric_is_declared_in_the_schema_with_its_unit_and_type():
    rows = {row.name: (row.unit, row.type) for row in SCHEMA[GATE_DERIVED]}
    assert {metric.field: (metric.unit, int if metric.whole else float) for metric in METRICS} == {
        name: row for name, row in rows.items() if name != "generalisation_gap"
    }


@pytest.mark.parametrize(("metric", "values"), ALL.items(), ids=lambda given: getattr(given, "__name__", ""))
def test_a_capture_is_told_by_itself_and_a_bounded_past_to_the_last_bit(metric, values):
    whole = metric(*values)
    assert whole.shape == (SERIES, CAPTURES)
    assert np.isfinite(whole[:, -1]).any()
    back = {volatility: VOLATILITY_STEPS, generalisation_gap: GAP_POINTS}.get(metric, LOOK_BACK)
    for end in (1, 2, back, back + 1, CAPTURES - 1):
        np.testing.assert_array_equal(metric(*(each[:, :end] for each in values)), whole[:, :end])
    for begin in (back, CAPTURES - 3, CAPTURES - 1):
        late = metric(*(each[:, begin - back :] for each in values))
        np.testing.assert_array_equal(late[:, back:], whole[:, begin:])
        if "newest" in inspect.signature(metric).parameters:
            for size in (CAPTURES - begin, CAPTURES + 1):
                np.testing.assert_array_equal(metric(*values, newest=size), whole[:, -size:])
    for number in range(SERIES):
        np.testing.assert_array_equal(metric(*(each[number] for each in values)), whole[number])


@pytest.mark.parametrize(("metric", "values"), ALL.items(), ids=lambda given: getattr(given, "__name__", ""))
def test_nothing_gives_nothing(metric, values):
    assert metric(*(each[:, :0] for each in values)).shape == (SERIES, 0)
    assert metric(*(each[:0] for each in values)).shape == (0, CAPTURES)
    assert np.isnan(metric(*(np.full(each.shape, np.nan) for each in values))).all()


def test_a_fresh_lstm_remembers_about_three_steps():
    assert memory_timescale(0.73) == pytest.approx(3.18, abs=0.01)


@given(hnp.arrays(float, 5, elements=st.floats(0.01, 0.99)))
def test_after_the_timescale_a_state_has_decayed_to_one_over_e(kept):
    assert kept ** memory_timescale(kept) == pytest.approx(np.full(5, 1 / math.e))


def test_a_gate_at_either_end():
    np.testing.assert_array_equal(memory_timescale([0.0, 1.0, 1.2, -0.1, np.nan]), [0.0, *[np.nan] * 4])


def test_drift_is_zero_for_the_same_and_one_without_overlap():
    still = np.tile([0.5, 0.5, 0, 0], (3, 1))
    moved = np.vstack([still, [[0, 0, 0.5, 0.5]]])
    assert drift(moved)[1:] == pytest.approx([0, 0, 1])
    assert math.isnan(drift(moved)[0])


@pytest.mark.filterwarnings("ignore:invalid value encountered in sqrt")  # the oracle's
@given(hnp.arrays(float, (2, 12, 6), elements=st.floats(0.001, 1)))
def test_drift_is_the_jensen_shannon_distance_from_the_mean_of_the_captures_before(raw):
    histograms = raw / raw.sum(axis=-1, keepdims=True)
    found = drift(histograms)
    for k in range(1, 12):
        before = histograms[0, max(0, k - DRIFT_CAPTURES) : k].mean(axis=0)
        oracle = np.nan_to_num(jensenshannon(histograms[0, k], before, base=2))  # its NaN is the root of a rounded zero
        assert found[0, k] == pytest.approx(oracle, abs=1e-7)
        assert drift_from(histograms[0, k], before) == pytest.approx(oracle, abs=1e-7)


def test_a_capture_without_a_histogram_is_passed_over():
    histograms = np.array([[1.0, 0.0], [np.nan, np.nan], [1.0, 0.0]])
    assert np.isnan(drift(histograms)[:2]).all()
    assert drift(histograms)[2] == 0


def test_a_baseline_is_compared_with_every_capture():
    histograms = np.array([[1.0, 0.0], [0.0, 1.0], [np.nan, 1.0]])
    np.testing.assert_array_equal(drift_from(histograms, np.array([1.0, 0.0])), [0, 1, np.nan])


def test_saturation_counts_both_ends():
    assert saturation(np.array([0.1, np.nan]), np.array([0.3, 0.2]))[0] == pytest.approx(0.4)


def test_a_gate_that_is_always_open_has_not_changed_and_one_that_collapses_has():
    low, high = np.zeros(40), np.full(40, 0.9)
    assert saturation_change(low, high)[4:].tolist() == [0.0] * 36
    low[30:], high[30:] = 0.95, 0.0
    assert saturation_change(low, high)[30] == pytest.approx(0.95)
    assert saturation_change(np.zeros(40), high)[30] == pytest.approx(-0.9)


@given(hnp.arrays(float, 40, elements=st.floats(0, 1) | st.just(np.nan)))
def test_saturation_is_compared_with_the_median_before(high):
    found = saturation_change(np.zeros(40), high)
    for k in range(40):
        past = high[max(0, k - SATURATION_CAPTURES) : k]
        known = past[np.isfinite(past)]
        expected = high[k] - np.median(known) if len(known) >= 4 else np.nan
        assert found[k] == pytest.approx(expected, nan_ok=True)


@given(hnp.arrays(float, 24, elements=st.floats(0, 5) | st.just(np.nan)))
def test_the_trend_of_entropy_is_the_slope_of_theil_and_sen(entropy):
    found = entropy_trend(entropy)
    for k in range(24):
        window = entropy[max(0, k + 1 - TREND_CAPTURES) : k + 1]
        known = np.flatnonzero(np.isfinite(window))
        expected = stats.theilslopes(window[known], known).slope if len(known) >= 4 else np.nan
        assert found[k] == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_coupled_gates_are_told_from_free_ones():
    random = np.random.default_rng(0)
    taken = random.uniform(size=(4, 32))
    assert input_forget_coupling(taken, 1 - taken) == pytest.approx(np.ones(4))
    assert input_forget_coupling(taken, taken) == pytest.approx(-np.ones(4))
    forgotten = random.uniform(size=(4, 32))
    expected = [np.corrcoef(taken[k], 1 - forgotten[k])[0, 1] for k in range(4)]
    assert input_forget_coupling(taken, forgotten) == pytest.approx(expected)
    forgotten[0, :3] = np.nan
    assert input_forget_coupling(taken, forgotten)[0] == pytest.approx(
        np.corrcoef(taken[0, 3:], -forgotten[0, 3:])[0, 1]
    )
    assert np.isnan(input_forget_coupling(taken, np.full((4, 32), 0.3))).all()
    assert np.isnan(input_forget_coupling(taken[:, :3], forgotten[:, :3])).all()


def test_volatility_is_the_deviation_of_logarithmic_returns():
    price = np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.01, 80)))
    price[[20, 21, 50]] = np.nan, 0.0, -3.0
    returns = pd.Series(np.log(np.where(price > 0, price, np.nan))).diff()
    oracle = returns.rolling(VOLATILITY_STEPS, min_periods=4).std()
    np.testing.assert_allclose(volatility(price), oracle, rtol=1e-9)


@given(hnp.arrays(float, (2, 80), elements=st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.7, np.nan])))
def test_regime_sensitivity_is_kendalls_tau(both):
    mean, wild = both
    found = regime_sensitivity(mean, wild)
    for k in (2, 3, 10, 63, 64, 79):
        pair = both[:, max(0, k + 1 - REGIME_CAPTURES) : k + 1]
        pair = pair[:, np.isfinite(pair).all(axis=0)]
        oracle = stats.kendalltau(*pair).statistic if pair.shape[1] >= 4 else np.nan
        assert found[k] == pytest.approx(oracle, nan_ok=True)


def test_a_gate_that_shuts_in_wild_markets_is_told():
    random = np.random.default_rng(3)
    wild = np.repeat([0.01, 0.04, 0.01, 0.06], 40) * random.uniform(0.9, 1.1, 160)
    calm = np.full(160, 0.5) + random.normal(0, 0.01, 160)
    assert regime_sensitivity(0.8 - 5 * wild, wild)[100:].max() < -0.95
    assert np.abs(regime_sensitivity(calm, wild)[100:]).max() < 0.35


def test_effective_rank_counts_the_directions_of_movement():
    random = np.random.default_rng(0)
    one = random.normal(size=(16, 1)) @ random.normal(size=(1, 8))
    assert effective_ranks(one + 5)[-1] == pytest.approx(1)
    orthogonal = np.linalg.qr(random.normal(size=(16, 4)) - random.normal(size=(1, 4)))[0]
    three = np.linalg.qr(orthogonal - orthogonal.mean(axis=0))[0][:, :3]
    assert effective_ranks(three)[-1] == pytest.approx(3)


def test_effective_rank_is_that_of_its_definition_at_every_capture():
    units = np.random.default_rng(1).normal(size=(40, 7))
    units[5] = np.nan  # nothing is known of the capture
    units[20, 3] = np.nan  # nor of one unit at another
    found = effective_ranks(units)
    for k in range(1, 40):
        window = units[max(0, k + 1 - RANK_CAPTURES) : k + 1]
        window = window[np.isfinite(window).any(axis=1)]
        window = window[:, np.isfinite(window).all(axis=0)]
        shares = np.linalg.svd(window - window.mean(axis=0), compute_uv=False)
        shares = (shares / shares.sum())[shares > 1e-12]
        assert found[k] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    assert math.isnan(found[0])


@pytest.mark.parametrize("units", [np.ones((5, 4)), np.ones((1, 4)), np.ones((5, 1)), np.full((5, 4), np.nan)])
def test_what_does_not_move_has_no_rank(units):
    assert np.isnan(effective_ranks(units)).all()


def test_units_that_stand_still_are_frozen():
    units = np.cumsum(np.full((40, 4), 0.01), axis=0)
    units[10:, 0] = 0.5
    units[10:, 1] = 0.5 + 5e-8 * np.sin(np.arange(30))  # as rounding does
    units[:, 3] = np.nan
    found = frozen_share(units)
    assert np.isnan(found[: FROZEN_CAPTURES - 1]).all()
    assert found[FROZEN_CAPTURES - 1 : 9 + FROZEN_CAPTURES].tolist() == [0.0] * 10
    assert found[9 + FROZEN_CAPTURES :] == pytest.approx(np.full(31 - FROZEN_CAPTURES, 2 / 3))
    assert frozen_share(units * 6, width=6.0)[-1] == pytest.approx(2 / 3)


def test_dead_units_are_a_share_where_the_layer_is_known():
    np.testing.assert_array_equal(dead_share(np.array([0.0, 3.0, np.nan]), 12), [0.0, 0.25, np.nan])
    np.testing.assert_array_equal(dead_share(np.array([3.0, 3.0]), np.array([6, 0])), [0.5, np.nan])


def test_updates_are_too_small_too_large_or_right():
    assert update_band(np.array([0.0, 9e-6, 1e-5, 1e-3, 1e-1, 0.11])).tolist() == [-1, -1, 0, 0, 0, 1]


@given(hnp.arrays(float, 50, elements=st.floats(1e-9, 1e3) | st.just(np.nan)))
def test_a_gradient_is_measured_by_its_median_before(norm):
    found = gradient_ratio(norm)
    for k in range(50):
        past = norm[max(0, k - GRADIENT_CAPTURES) : k]
        known = past[np.isfinite(past)]
        expected = norm[k] / np.median(known) if len(known) >= 4 else np.nan
        assert found[k] == pytest.approx(expected, nan_ok=True)


def test_gradients_vanish_and_explode():
    norm = np.ones(20)
    norm[[10, 12, 14, 16]] = 11.0, 9.0, 5e-8, np.nan
    state = np.zeros(20)
    state[[10, 14, 16]] = 1, -1, np.nan
    np.testing.assert_array_equal(gradient_state(norm), state)
    assert np.isnan(gradient_ratio(np.zeros(20))).all()
    assert (gradient_state(np.zeros(20)) == -1).all()
    assert gradient_state(np.array([*[1e-200] * 8, 1e200]))[-1] == 1


def test_a_loss_beyond_measure_has_no_finite_gap():
    huge = np.array([1e308, -1e308])
    assert not np.isfinite(generalisation_gap(huge, -huge)).all()


def test_a_gap_is_told_for_losses_of_any_sign():
    loss = np.array([1.0, 0.5, 0.2])
    assert generalisation_gap(loss, loss).tolist() == [0, 0, 0]
    assert generalisation_gap(loss, loss + 0.4)[-1] == pytest.approx(0.4 / 0.8)  # of how far the loss went
    profit = -np.array([90.0, 95.0, 100.0])
    assert generalisation_gap(profit, profit + 30)[-1] == pytest.approx(0.3)
    through_zero = np.array([5.0, 0.0, -5.0])
    assert generalisation_gap(through_zero, through_zero + 2)[1:] == pytest.approx([2 / 5, 2 / 10])
    assert generalisation_gap(through_zero, through_zero - 2)[-1] == pytest.approx(-2 / 10)  # better elsewhere
    assert np.isnan(generalisation_gap(np.zeros(3), np.ones(3))).all()
    assert np.isnan(generalisation_gap(loss, np.array([np.nan, 1.0, 1.0]))).tolist() == [True, False, False]


@given(
    hnp.arrays(float, (2, 20), elements=st.floats(-1e3, 1e3)),
    st.sampled_from([2.0**-10, 0.5, 2.0**10]),
)
def test_a_gap_does_not_depend_on_the_unit_of_the_loss(losses, scale):
    loss, val_loss = np.where(np.abs(losses) < 1e-6, 0, losses)
    np.testing.assert_array_equal(
        generalisation_gap(loss * scale, val_loss * scale), generalisation_gap(loss, val_loss)
    )
    assert ((generalisation_gap(loss, val_loss) > 0) <= (val_loss > loss)).all()


def test_a_validation_at_the_end_of_an_epoch_is_compared_with_the_mean_of_its_steps():
    none = np.nan
    loss = np.array([9.0, 9.0, none, 4.0, 2.0, none, none, 1.0])
    val_loss = np.array([none, none, 9.0, none, none, 6.0, 7.0, none])
    gap = generalisation_gap(loss, val_loss)
    assert gap[[2, 5]].tolist() == [0.0, pytest.approx((6 - 3) / 7)]  # the loss went from 9 to 2
    assert np.isnan(gap[[0, 1, 3, 4, 6, 7]]).all()  # of a second validation in a row no step says anything


def test_a_gap_is_measured_by_the_latest_movement_alone():
    loss = np.concatenate([[100.0], np.ones(GAP_POINTS)])
    gap = generalisation_gap(loss, loss + 1)
    assert gap[GAP_POINTS - 1] == pytest.approx(1 / 99)
    assert gap[GAP_POINTS] == pytest.approx(1)

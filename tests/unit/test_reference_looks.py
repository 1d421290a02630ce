"""What a backtest's features look like against its training, in captures that a person can work out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewatch.jobs.scoring.captures import Captures
from gatewatch.jobs.scoring.checks.reference_looks import columns_permuted, moves_less_than_training
from gatewatch.jobs.scoring.feature_profile import persistence, profile_of
from gatewatch.jobs.scoring.references import feature_looks
from tests.unit.test_feed_checks import alarms

NAMES = ("return", "return of 5", "return of 20", "range")
MEAN, STD, KEPT = [0.0, 0.1, 0.2, -0.5], [1.0, 0.5, 0.2, 0.4], [0.0, 0.7, 0.9, 0.2]
LAG1 = [-1 / 24, 0.583, 0.745, 0.135]
"""What sequences of 24 bars have of `KEPT`."""


def walked(order=(0, 1, 2, 3), count=20, positions=24, factor=1.0, usual=None, **differs):
    """Captures of one window each, of the features in some order, and a training of them in the first one."""
    looks = {"mean": MEAN, "std": STD, "lag1": LAG1, **differs}
    tables = {name: np.tile(np.array(values, dtype=float)[list(order)], (count, 1)) for name, values in looks.items()}
    tables["mean"], tables["std"] = factor * tables["mean"], factor * tables["std"]
    return Captures(
        {"phase": "backtest"},
        np.arange(count) * 10**9,
        np.arange(count, dtype=float),
        *({}, {}, {}, {}),
        feed={"sequences": np.ones(count), "positions": np.full(count, float(positions))},
        features=tables,
        feature_names=NAMES,
        reference={
            name: np.array(values)
            for name, values in {
                "mean": MEAN,
                "std": STD,
                "persistence": KEPT,
                "least_std": STD,
                **(usual or {}),
            }.items()
        },
    )


def test_columns_in_another_order_from_the_first_bar_on_are_found_with_the_sixteenth_window_and_named():
    scores = columns_permuted(walked([3, 0, 1, 2]))
    assert alarms(scores) == [15, 16, 17, 18, 19]
    assert {gate for _, gate in scores} == {"feed", *NAMES}


def test_two_columns_that_are_exchanged_are_named_and_the_others_are_not():
    assert {gate for _, gate in columns_permuted(walked([2, 1, 0, 3]))} == {"feed", "return", "return of 20"}


@pytest.mark.parametrize("factor", [0.2, 0.5, 2.0, 5.0])
def test_a_market_that_is_calmer_or_wilder_exchanges_nothing(factor):
    assert alarms(columns_permuted(walked(factor=factor))) == []


@pytest.mark.parametrize("factor", [0.7, 1.5])
def test_a_market_that_is_a_little_calmer_or_wilder_hides_nothing(factor):
    assert alarms(columns_permuted(walked([3, 0, 1, 2], factor=factor)))[0] == 15


@pytest.mark.parametrize("differs", [{"mean": [-0.4, -0.5, -0.3, 0.1]}, {"lag1": [0.1, 0.4, 0.6, -0.1]}])
def test_a_trend_or_another_pace_exchanges_nothing(differs):
    assert alarms(columns_permuted(walked(**differs))) == []


def test_raw_prices_look_like_no_column_of_the_training():
    assert alarms(columns_permuted(walked(mean=[180, 180, 180, 4], std=[5, 5, 5, 1]))) == []


def test_columns_that_look_alike_cannot_be_told_apart():
    alike = {"mean": [0.0, 0.0, 0.1, 0.1], "std": [1.0, 0.9, 0.8, 1.1], "persistence": [0.1, 0.2, 0.0, 0.1]}
    captures = walked([3, 0, 1, 2], mean=alike["mean"], std=alike["std"], lag1=[0.05, 0.14, -0.04, 0.05], usual=alike)
    assert alarms(columns_permuted(captures)) == []


def test_windows_may_be_shorter_than_those_of_the_training():
    """Four bars of a feature that keeps 0.9 have an autocorrelation of 0.03."""
    four = {"positions": 4, "lag1": [-0.25, -0.02, 0.03, -0.18], "count": 60}
    assert alarms(columns_permuted(walked(**four))) == []
    assert alarms(columns_permuted(walked([3, 0, 1, 2], **four)))[0] == 55


def test_fifteen_windows_say_nothing():
    assert columns_permuted(walked([3, 0, 1, 2], count=15)) == {}


def test_single_bars_are_not_compared():
    assert columns_permuted(walked([3, 0, 1, 2], count=80, positions=1, lag1=[np.nan] * 4)) == {}


def test_another_number_of_columns_is_not_compared():
    usual = {"mean": MEAN[:3], "std": STD[:3], "persistence": KEPT[:3], "least_std": STD[:3]}
    assert columns_permuted(walked([3, 0, 1, 2], usual=usual)) == {}
    assert moves_less_than_training(walked(factor=0.01, usual=usual)) == {}


@given(st.permutations(range(4)))
def test_whatever_the_order_each_column_that_is_elsewhere_is_named(order):
    apart = {"mean": [0.0] * 4, "std": [1.0, 0.3, 0.1, 0.03]}
    usual = {**apart, "persistence": [0.0, 0.9, 0.0, 0.9]}
    captures = walked(order, **apart, lag1=[-1 / 24, 0.745] * 2, usual=usual)
    named = {gate for _, gate in columns_permuted(captures)} - {"feed"}
    assert named == {NAMES[at] for at, column in enumerate(order) if at != column}


def test_prices_near_one_that_hardly_move_were_not_scaled():
    scores = moves_less_than_training(walked(mean=[1.1, 1.1, 1.1, 0.001], std=[0.01, 0.01, 0.01, 0.001]))
    assert alarms(scores) == [15, 16, 17, 18, 19]
    assert scores["_data", "return"][-1] == pytest.approx(10.0)  # a hundredth of 1, in units of a tenth


@pytest.mark.parametrize(("still", "found"), [(0, []), (1, []), (2, [15, 16, 17, 18, 19])])
def test_a_slow_feature_may_stand_nearly_still_by_itself(still, found):
    assert alarms(moves_less_than_training(walked(std=[0.01] * still + STD[still:]))) == found


def test_a_market_five_times_as_calm_is_scaled():
    assert alarms(moves_less_than_training(walked(factor=0.2))) == []


def test_a_feature_that_moves_between_windows_moves():
    captures = walked(std=[0.001] * 4)
    captures.features["mean"][::2] += 1.0
    assert alarms(moves_less_than_training(captures)) == []


def test_features_of_several_captures_are_taken_together_by_their_values():
    one, two = np.array([[0.0], [2.0]]), np.array([[1.0], [1.0]])
    together = profile_of(one, two, np.full((2, 1), np.nan), np.array([1.0, 1.0]), np.array([24.0, 24.0]))
    assert together.mean.tolist() == [1.0]
    assert together.std.tolist() == [pytest.approx(np.sqrt(2))]  # 1 within them, and 1 between their means
    assert np.isnan(together.persistence).all()
    uneven = profile_of(one, two, np.full((2, 1), np.nan), np.array([3.0, 1.0]), np.array([24.0, 24.0]))
    assert uneven.mean.tolist() == [0.5]


@pytest.mark.parametrize(("lag1", "positions", "kept"), [(-1 / 24, 24, 0.0), (0.745, 24, 0.9), (0.029, 4, 0.9)])
def test_short_sequences_have_less_autocorrelation_of_the_same_process(lag1, positions, kept):
    assert persistence(np.array([lag1]), positions).tolist() == [pytest.approx(kept, abs=0.005)]


def test_the_persistence_of_simulated_sequences_is_that_of_their_process():
    random = np.random.default_rng(0)
    for positions in (4, 24):
        x = np.empty((20_000, positions))
        x[:, 0] = random.normal(size=20_000)
        for t in range(1, positions):
            x[:, t] = 0.8 * x[:, t - 1] + 0.6 * random.normal(size=20_000)
        apart = x - x.mean(axis=1, keepdims=True)
        lag1 = (apart[:, :-1] * apart[:, 1:]).sum() / np.square(apart).sum()
        assert persistence(np.array([lag1]), positions).tolist() == [pytest.approx(0.8, abs=0.02)]


def test_the_looks_of_a_training_are_rounded_so_that_they_stay_while_it_goes_on():
    def looks(std):
        return feature_looks(
            np.full((4, 1), 0.3), np.full((4, 1), std), np.full((4, 1), 0.745), np.full(4, 32.0), np.full(4, 24.0)
        )

    exact = {name: values.tolist() for name, values in looks(1.0).items()}
    assert exact == {"mean": [0.25], "std": [1.0], "persistence": [pytest.approx(0.9)], "least_std": [1.0]}
    assert {name: values.tolist() for name, values in looks(1.03).items()} == exact
    assert np.isnan(looks(np.nan)["std"]).all()

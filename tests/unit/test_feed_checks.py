"""Checks of the feed, in captures that a person can work out."""

from __future__ import annotations

import numpy as np
import pytest

from gatewatch.collector.schema import GATE_STATS_FIELDS
from gatewatch.jobs.scoring.captures import Captures
from gatewatch.jobs.scoring.checks import feed

FEED = ("_data", "feed")


def fed(stats=None, features=None, names=("close", "volume"), nan_count=None):
    """Captures of a feed; with `nan_count` also of a gate."""
    gates = {}
    if nan_count is not None:
        gates["lstm", "forget"] = np.full((len(nan_count), len(GATE_STATS_FIELDS)), np.nan)
        gates["lstm", "forget"][:, GATE_STATS_FIELDS.index("nan_count")] = nan_count
    tables = [*(stats or {}).values(), *(features or {}).values()]
    count = len(tables[0])
    return Captures(
        {},
        np.arange(count) * 10**9,
        np.arange(count, dtype=float),
        gates,
        {},
        {},
        {},
        feed={name: np.array(values, dtype=float) for name, values in (stats or {}).items()},
        features={name: np.array(values, dtype=float) for name, values in (features or {}).items()},
        feature_names=names,
    )


def two(first, second):
    """(captures, 2): the values of two features."""
    return np.stack([np.array(first, dtype=float), np.array(second, dtype=float)], axis=1)


def alarms(scores, series=FEED):
    return np.flatnonzero(scores[series] > 1).tolist() if series in scores else None


def test_nan_is_named_by_its_feature():
    captures = fed({"nan_share": [0, 0.01, 0]}, {"nan_share": two([0, 0, 0], [0, 0.02, 0])})
    scores = feed.not_finite_fed(captures)
    assert alarms(scores) == [1]
    assert alarms(scores, ("_data", "volume")) == [1]
    assert ("_data", "close") not in scores


def test_infinite_values_count_too():
    assert alarms(feed.not_finite_fed(fed({"nan_share": [0, 0], "inf_share": [0, 0.1]}))) == [1]


def test_a_feature_without_a_name_has_that_of_its_field():
    captures = fed(features={"nan_share": two([0, 1], [0, 0])}, names=())
    assert alarms(feed.not_finite_fed(captures), ("_data", "f000")) == [1]


def test_targets_that_are_not_finite_alarm_where_the_network_becomes_so_with_them():
    captures = fed({"targets_not_finite": [0, 0.25, 0.25]}, nan_count=[0, 0, 8])
    assert alarms(feed.targets_not_finite(captures), ("_data", "targets")) == [2]


def test_targets_that_a_loss_leaves_out_are_no_fault():
    captures = fed({"targets_not_finite": [0.5, 0.25]}, nan_count=[0, 0])
    assert alarms(feed.targets_not_finite(captures), ("_data", "targets")) == []


def test_without_targets_nothing_is_said_of_them():
    assert feed.targets_not_finite(fed({"nan_share": [0, 0]}, nan_count=[0, 8])) == {}


def test_a_feature_that_stands_still_in_two_captures_after_sixteen_that_moved():
    moving = [1.0] * 20
    scores = feed.stands_still(fed(features={"std": two([1.0] * 16 + [0.0] * 4, moving)}))
    assert alarms(scores, ("_data", "close")) == [17, 18, 19]
    assert ("_data", "volume") not in scores
    assert alarms(feed.stands_still(fed(features={"std": two([1.0] * 15 + [0.0] * 5, moving)}))) == []


def test_a_flag_that_is_constant_now_and_then_is_no_constant_feature():
    flag = [1.0] * 18 + [0.0] + [1.0] * 17 + [0.0] * 2
    assert alarms(feed.stands_still(fed(features={"std": two(flag, [1.0] * 38)}))) == []


@pytest.mark.parametrize(("factor", "expected"), [(11, [19, 20]), (1 / 11, [19, 20]), (9, []), (1 / 9, [])])
def test_a_scale_that_jumps_by_more_than_ten(factor, expected):
    deviation = [1.0] * 18 + [factor] * 6
    scores = feed.scale_jumped(fed(features={"std": two(deviation, [1.0] * 24), "mean": two([0.0] * 24, [0.0] * 24)}))
    assert alarms(scores) == expected
    assert alarms(scores, ("_data", "close")) == (expected or None)


def test_a_mean_that_is_no_longer_taken_off_is_a_jump_of_the_scale():
    mean = [0.0] * 18 + [100.0] * 3
    scores = feed.scale_jumped(fed(features={"std": two([1.0] * 21, [1.0] * 21), "mean": two(mean, [0.0] * 21)}))
    assert alarms(scores, ("_data", "close")) == [19, 20]


def test_a_wilder_market_is_no_jump():
    deviation = [0.4] * 8 + [1.0] * 10 + [5.0] * 8
    captures = fed(features={"std": two(deviation, deviation), "mean": two([0.0] * 26, [0.0] * 26)})
    assert alarms(feed.scale_jumped(captures)) == []


@pytest.mark.parametrize(("after", "expected"), [(-0.05, [19, 20, 21]), (0.45, [19, 20, 21]), (0.8, []), (-0.9, [])])
def test_bars_whose_order_was_lost(after, expected):
    # Sequences of 20 bars: shuffled ones have an autocorrelation of -0.05.
    lag = [0.9] * 18 + [after] * 4
    captures = fed({"positions": [20] * 22, "sequences": [32] * 22}, {"lag1": two(lag, [-0.05] * 22)})
    assert alarms(feed.order_lost(captures)) == expected


def test_a_single_window_says_nothing_of_the_order():
    captures = fed({"positions": [20] * 22, "sequences": [1] * 22}, {"lag1": two([0.9] * 18 + [0.1] * 4, [0.9] * 22)})
    assert alarms(feed.order_lost(captures)) == []


def test_white_noise_says_nothing_of_the_order():
    captures = fed({"positions": [20] * 20, "sequences": [32] * 20}, {"lag1": two([0.1] * 20, [-0.05] * 20)})
    assert np.isnan(feed.order_lost(captures)[FEED]).all()


def test_sequences_of_another_length_are_not_compared():
    captures = fed(
        {"positions": [20] * 18 + [40] * 4, "sequences": [32] * 22}, {"lag1": two([0.9] * 18 + [0.1] * 4, [0.9] * 22)}
    )
    assert alarms(feed.order_lost(captures)) == []


@pytest.mark.parametrize(
    ("differ", "sequences", "expected"),
    [
        (18, 32, [19, 20]),  # as of a pool of 24
        (25, 32, []),  # of 60, which may be a fifth of what there was
        (31, 32, []),
        (5, 8, []),
    ],
)
def test_a_pool_that_fell_to_a_few_sequences(differ, sequences, expected):
    captures = fed({"distinct_share": [1.0] * 18 + [differ / sequences] * 3, "sequences": [sequences] * 21})
    assert alarms(feed.few_sequences(captures)) == expected


def test_larger_batches_of_the_same_pool_hold_more_sequences_twice():
    """Of a pool of 120, 16 are 15 different ones on average, 128 are 79."""
    captures = fed({"distinct_share": [15 / 16] * 20 + [79 / 128] * 20, "sequences": [16] * 20 + [128] * 20})
    assert alarms(feed.few_sequences(captures)) == []


def test_a_small_pool_from_the_beginning_is_the_users_own():
    captures = fed({"distinct_share": [0.5] * 20, "sequences": [32] * 20})
    assert alarms(feed.few_sequences(captures)) == []


def test_a_batch_that_is_fed_three_times_in_a_row():
    mean = [*range(16), 99, 99, 99, 99]
    captures = fed(features={"mean": two(mean, mean), "std": two([1.0] * 20, [1.0] * 20)})
    assert alarms(feed.batch_repeated(captures)) == [18]


def test_a_training_on_one_batch_or_in_rounds_repeats_nothing():
    for mean in ([7] * 40, [*range(10)] * 4, [*range(20), *[3] * 20]):
        captures = fed(features={"mean": two(mean, mean), "std": two([1.0] * 40, [1.0] * 40)})
        assert not alarms(feed.batch_repeated(captures))


def test_a_feature_that_is_the_target_needs_no_history():
    captures = fed({"target_correlation": [1.0, 0.999, 1.0], "sequences": [32, 32, 31]})
    assert alarms(feed.target_told(captures)) == [0]


@pytest.mark.parametrize(("usual", "expected"), [(0.5, [19, 20]), (0.9, [])])
def test_a_feature_that_has_come_to_tell_the_target(usual, expected):
    captures = fed({"target_correlation": [usual] * 18 + [0.99] * 3, "sequences": [32] * 21})
    assert alarms(feed.target_told(captures)) == expected

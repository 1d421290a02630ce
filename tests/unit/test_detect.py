"""The isolation forest and its contract: 0 to 1 is normal, above 1 anomalous."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.detect import CONTAMINATION, Forest


def normal(rows=200, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, 5))


def test_what_is_usual_is_below_one_and_what_is_far_off_above():
    forest = Forest(normal())
    assert (forest.score(normal(seed=1)) > 1).mean() <= CONTAMINATION
    far = normal(50, seed=2)
    far[:, 0] = 140
    far[:, 2] = -60
    assert forest.score(far).min() > 1
    assert forest.score(far).max() < 2


def test_nothing_deviating_is_the_most_normal_of_all():
    forest = Forest(normal())
    assert forest.score(np.zeros((1, 5)))[0] <= forest.score(normal(300, seed=3)).min()


def test_a_statistic_that_stood_still_may_move_as_much_as_is_usual_but_not_more():
    rows = normal()
    rows[:, 4] = 0
    forest = Forest(rows)
    nudged, thrown = np.zeros((2, 1, 5))
    nudged[0, 4], thrown[0, 4], thrown[0, 0] = 2.5, 90, 90
    assert forest.score(nudged)[0] < 1 < forest.score(thrown)[0]


def test_nan_in_no_score_out():
    rows = normal(4)
    rows[1, 2] = np.nan
    assert np.isnan(Forest(normal()).score(rows)).tolist() == [False, True, False, False]
    assert np.isnan(Forest(normal()).score(np.full((2, 5), np.nan))).all()


def test_the_same_rows_make_the_same_forest():
    one, other, different = Forest(normal()), Forest(normal()), Forest(normal(seed=1))
    assert one.model_id == other.model_id != different.model_id
    rows = normal(seed=5)
    np.testing.assert_array_equal(one.score(rows), other.score(rows))
    np.testing.assert_array_equal(one.score(rows[:7]), one.score(rows)[:7])


def test_too_little_to_learn_from_is_said():
    rows = normal(20)
    rows[5:] = np.nan
    with pytest.raises(ValueError, match="5 finite rows"):
        Forest(rows)

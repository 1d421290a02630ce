"""Columns that have been exchanged, in captures that a person can work out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewatch.jobs.scoring.checks.columns import Profile, columns_exchanged, places
from tests.unit.test_feed_checks import alarms, fed

# Mean, percentiles 1 and 99, deviation and autocorrelation of four features; batches move each by 0.1 at random.
LOOKS = {
    "mean": [0.0, 0.2, 0.5, -0.3],
    "p01": [-2.5, -1.5, -1.0, -1.8],
    "p99": [2.5, 2.0, 2.2, 1.0],
    "std": [1.0, 0.7, 0.5, 0.6],
    "lag1": [0.0, 0.6, 0.9, 0.3],
}


def batches(order=(), at=40, count=60, seed=0, **factors):
    """Features of `count` batches; from `at` on in another order, and with statistics multiplied."""
    random = np.random.default_rng(seed)
    tables = {}
    for name, usual in LOOKS.items():
        table = np.array(usual) * (1 + 0.1 * random.normal(size=(count, len(usual))))
        table[at:] *= factors.get(name, 1.0)
        if len(order):
            table[at:] = table[at:][:, list(order)]
        tables[name] = table
    return fed(features=tables, names=("return", "return of 5", "return of 20", "range"))


def test_columns_that_are_rolled_are_found_with_the_third_capture_and_all_are_named():
    scores = columns_exchanged(batches([3, 0, 1, 2]))
    assert alarms(scores)[0] == 42
    assert {key[1] for key in scores} == {"feed", "return", "return of 5", "return of 20", "range"}


def test_two_columns_that_are_exchanged_are_named_and_the_others_are_not():
    scores = columns_exchanged(batches([0, 2, 1, 3]))
    assert alarms(scores)[0] == 42
    assert {key[1] for key in scores} == {"feed", "return of 5", "return of 20"}


def test_it_is_said_until_the_new_order_is_the_usual_one():
    assert alarms(columns_exchanged(batches([3, 0, 1, 2], count=160)))[-1] < 80


@pytest.mark.parametrize(
    "moved",
    [
        {},
        {"std": 3.0, "p01": 3.0, "p99": 3.0},
        {"std": 0.2, "p01": 0.2, "p99": 0.2},
        {"mean": -5.0},
        {"lag1": 0.0},
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_another_market_exchanges_nothing(moved, seed):
    assert alarms(columns_exchanged(batches(seed=seed, **moved))) == []


def test_features_that_look_alike_cannot_be_told_apart():
    alike = fed(features={name: np.repeat([[value]], 60, 0).repeat(2, 1) for name, [value, *_] in LOOKS.items()})
    assert alarms(columns_exchanged(alike)) == []


def test_less_than_sixteen_earlier_captures_say_nothing():
    assert columns_exchanged(batches([3, 0, 1, 2], at=9, count=18)) == {}


def test_without_an_autocorrelation_the_others_say_it():
    captures = batches([3, 0, 1, 2])
    del captures.features["lag1"]
    assert alarms(columns_exchanged(captures))[0] == 42


def test_a_column_that_stands_still_keeps_its_place():
    captures = batches([3, 0, 2, 1])
    for table in captures.features.values():
        table[:, 2] = 0.0
    assert {key[1] for key in columns_exchanged(captures)} == {"feed", "return", "return of 5", "range"}


def test_one_column_or_none_is_no_exchange():
    assert columns_exchanged(fed(features={name: np.zeros((60, 0)) for name in LOOKS}, names=())) == {}
    single = fed(features={name: np.full((60, 1), 1.0) for name in LOOKS}, names=())
    assert alarms(columns_exchanged(single)) == []


@given(st.permutations(range(6)))
def test_what_was_permuted_is_given_back(order):
    """Six columns ten spreads apart: each is found where it went, whatever the order."""
    centre = 10.0 * np.arange(6)[:, None] + np.zeros((6, 5))
    given = places(centre[order], Profile(centre, np.ones((6, 5))))
    assert given.tolist() == list(order)

"""Checks: what each says of captures that a person can work out, and that pieces of a run give the same."""

from __future__ import annotations

import numpy as np
import pytest

from gatewatch.collector.schema import LAYER_UPDATES_FIELDS
from gatewatch.jobs.scoring.captures import Captures
from gatewatch.jobs.scoring.checks import CHECKS, optimizer
from gatewatch.jobs.scoring.checks.base import WINDOW

KERNEL = ("memory", "kernel")


def of_updates(series=KERNEL, **fields):
    """Captures with these fields of `layer_updates` of one parameter."""
    count = len(next(iter(fields.values())))
    table = np.full((count, len(LAYER_UPDATES_FIELDS)), np.nan)
    for name, values in fields.items():
        table[:, LAYER_UPDATES_FIELDS.index(name)] = values
    return some(count, updates={series: table})


def some(count, **tables):
    step = np.arange(count)
    given = {name: tables.get(name, {}) for name in ("updates", "metrics", "feed", "features", "state")}
    return Captures(
        {}, step * 10**9, step.astype(float), {}, {}, **given, feature_names=tables.get("feature_names", ())
    )


def none_or(values):
    """The scores as a list, None for none."""
    return [None if np.isnan(value) else float(value) for value in values]


def test_each_check_is_declared_once_and_says_what_people_need():
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    for check in CHECKS:
        assert check.name.replace("_", "a").isalpha()
        assert check.look_back <= WINDOW
        assert check.sentence[0].islower()
        assert check.errors


def test_moments_may_fall_by_their_decay_and_no_further():
    captures = of_updates(
        # 0.9² of 100 is 81; 0.9³ of 81 is 59.05
        moment_sum=[100.0, 81.0, 59.0, 500.0],
        moment_decay=[0.9] * 4,
        travel_steps=[np.nan, 2, 3, 1],
    )
    assert none_or(optimizer.moments_fell(captures)[KERNEL]) == [None, 0.0, 2.0, 0.0]


def test_moments_that_rounding_alone_made_smaller_have_not_fallen():
    value = np.float32(1.0)
    for _ in range(500):
        value = np.float32(value * np.float32(0.999))
    captures = of_updates(moment_sum=[1.0, float(value)], moment_decay=[0.999] * 2, travel_steps=[np.nan, 500])
    assert none_or(optimizer.moments_fell(captures)[KERNEL]) == [None, 0.0]


@pytest.mark.parametrize(
    "change", [{"moment_decay": [0.9, 0.8]}, {"travel_steps": [np.nan, np.nan]}, {"moment_sum": [np.nan, 1.0]}]
)
def test_moments_are_not_compared_where_something_is_not_known(change):
    fields = {"moment_sum": [100.0, 1.0], "moment_decay": [0.9, 0.9], "travel_steps": [np.nan, 1]} | change
    assert optimizer.moments_fell(of_updates(**fields)) == {}

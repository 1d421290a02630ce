"""Moments in every form a user has them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewatch.collector.times import SteadyTime, nanoseconds

NOON = 1_704_110_400_000_000_000  # 2024-01-01 12:00 UTC


@pytest.mark.parametrize(
    "moment",
    [
        NOON,
        np.int64(NOON),
        datetime(2024, 1, 1, 12),
        datetime(2024, 1, 1, 12, tzinfo=UTC),
        datetime(2024, 1, 1, 7, tzinfo=timezone(timedelta(hours=-5))),
        np.datetime64("2024-01-01T12"),
        pd.Timestamp("2024-01-01 12:00"),
        pd.Timestamp("2024-01-01 13:00", tz="Europe/Berlin"),
    ],
)
def test_one_moment_in_many_forms(moment):
    assert nanoseconds(moment) == NOON


def test_a_day_is_its_beginning():
    assert nanoseconds(date(2024, 1, 1)) == nanoseconds(pd.Period("2024-01-01", "D")) == NOON - 12 * 3600 * 10**9


@given(st.integers(-(2**61), 2**61))
def test_pandas_keeps_every_nanosecond(time):
    assert nanoseconds(pd.Timestamp(time)) == nanoseconds(np.datetime64(time, "ns")) == time


@pytest.mark.parametrize("other", ["2024-01-01", None, 1.5, True, np.datetime64("NaT"), pd.NaT])
def test_what_is_no_time_is_said(other):
    with pytest.raises(ValueError, match="is no time"):
        nanoseconds(other)


@pytest.mark.parametrize(
    "far",
    [
        2**70,
        -(2**70),
        datetime.max,
        datetime.min,
        np.datetime64("9999-01-01"),
        np.datetime64("3000-01-01T00:00"),
        np.datetime64("1600"),
        np.datetime64(2**62, "s"),
    ],
)
def test_what_is_beyond_64_bits_is_said(far):
    with pytest.raises(ValueError, match="1678 to 2262"):
        nanoseconds(far)


class Clocks:
    def __init__(self):
        self.time, self.at = NOON, 100.0

    def steady(self):
        return SteadyTime(lambda: self.time, lambda: self.at)


def test_time_goes_by_as_the_clock_says():
    clocks = Clocks()
    steady = clocks.steady()
    assert steady() == NOON
    clocks.time += 5
    assert steady() == NOON + 5


def test_no_moment_comes_twice():
    steady = Clocks().steady()
    assert [steady() for _ in range(3)] == [NOON, NOON + 1, NOON + 2]


def test_a_clock_that_jumps_back_is_not_followed_and_time_goes_on_at_its_pace():
    clocks = Clocks()
    steady = clocks.steady()
    steady()
    clocks.time -= 3600 * 10**9
    for seconds in (1, 2):
        clocks.time += 10**9
        clocks.at += 1
        assert steady() == NOON + seconds * 10**9
    clocks.time = NOON + 60 * 10**9
    assert steady() == NOON + 60 * 10**9

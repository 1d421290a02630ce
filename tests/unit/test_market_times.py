"""Market times that come again: no two bars share one, and none is moved further than it must be."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewatch.collector.market_times import MarketTimes

DAY = 86_400 * 10**9
MARKET = 17_532 * DAY  # 2018-01-01
SERIES = st.lists(st.integers(0, 12), min_size=1, max_size=60)


def placed(times, market=None):
    """Where these times are put, in order, relative to the market's beginning."""
    market = market or MarketTimes()
    return [market.place(MARKET + time, step) - MARKET for step, time in enumerate(times, 1)]


def test_times_that_go_on_are_kept():
    assert placed([0, DAY, 2 * DAY, 9 * DAY]) == [0, DAY, 2 * DAY, 9 * DAY]


def test_three_symbols_bar_by_bar():
    assert placed([0, 0, 0, DAY, DAY, DAY]) == [0, 1, 2, DAY, DAY + 1, DAY + 2]


def test_three_symbols_one_after_the_other():
    assert placed([0, DAY, 0, DAY, 0, DAY]) == [0, DAY, 1, DAY + 1, 2, DAY + 2]


def test_two_episodes_of_two_symbols():
    assert placed([0, 0, DAY, DAY] * 2) == [0, 1, DAY, DAY + 1, 2, 3, DAY + 2, DAY + 3]


def test_what_is_later_than_all_before_is_kept_after_a_pass_back():
    assert placed([0, DAY, 0, DAY, 2 * DAY]) == [0, DAY, 1, DAY + 1, 2 * DAY]


def test_a_tick_that_is_late():
    assert placed([0, 2000, 1000, 3000, 3000]) == [0, 2000, 1001, 3000, 3001]


def test_nanoseconds_that_come_again_without_room_between_them_are_put_after_the_newest():
    assert placed([0, 1, 2, 0, 1, 2, 3]) == [0, 1, 2, 3, 4, 5, 6]


def test_a_thousand_episodes_stay_within_the_microsecond():
    assert max(placed([0, DAY] * 1000)) == DAY + 999


@given(SERIES, st.sampled_from([1, 2, 5, 1000, 60 * 10**9]))
def test_no_time_is_given_twice_and_time_goes_on_with_each_pass(times, spacing):
    times = [time * spacing for time in times]
    found = placed(times)
    assert len(set(found)) == len(times)
    assert all(at >= time for at, time in zip(found, times, strict=True))
    for (before, time), (earlier, later) in zip(pairwise(times), pairwise(found), strict=True):
        assert later > earlier or time < before
    if spacing >= 1000:
        assert max(at - time for at, time in zip(found, times, strict=True)) < 60


@given(SERIES, st.integers(0, 60))
def test_a_process_that_goes_on_places_bars_as_one_that_was_not_interrupted(times, cut):
    times = [time * 1000 for time in times]
    market = MarketTimes()
    first = placed(times[:cut], market)
    assert first + placed(times[cut:], MarketTimes.from_dict(asdict(market))) == placed(times)


@given(SERIES, st.integers(0, 60), st.sampled_from([1, 7, 500, 1000, 60 * 10**9]))
def test_a_process_that_goes_on_by_what_is_stored_meets_nothing(times, cut, spacing):
    times = [time * spacing for time in times]
    stored = placed(times[:cut])
    steps = np.arange(1, len(stored) + 1)
    market = MarketTimes.from_stored(np.array(stored, dtype=np.int64) + MARKET, steps)
    found = stored + placed(times[cut:], market)
    assert len(set(found)) == len(times)


@pytest.mark.parametrize("content", [None, 3, {}, {"front": "x", "other": 1}])
def test_a_note_that_says_nothing(content):
    assert MarketTimes.from_dict(content) == MarketTimes()

"""Numbers, durations and lists as people read them."""

from __future__ import annotations

import pytest

from gatewatch.jobs.text import duration, first_few, join_words, number


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.123456, 3, "0.123"),
        (12.3456, 3, "12.3"),
        (999.4, 3, "999"),
        (999.7, 3, "1,000"),
        (12345.6, 3, "12,346"),
        (99.4, 2, "99"),
        (100.3, 2, "100"),
        (-100.3, 2, "-100"),
        (1e-7, 2, "1e-07"),
        (1234.0, 2, "1,234"),
        (float("nan"), 3, "–"),
        (None, 3, "–"),
    ],
)
def test_a_number_has_no_exponent_where_it_is_large(value, digits, text):
    assert number(value, digits) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (60, "1 min"),
        (125, "2 min 5 s"),
        (7199, "1 h 59 min"),
        (7200, "2 h"),
        (90_061, "1 d 1 h"),
        (-1, "–"),
        (float("nan"), "–"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds, text):
    assert duration(seconds) == text


def test_a_list_is_joined_as_in_a_sentence():
    assert [join_words(list(names)) for names in ("", "a", "ab", "abc")] == ["", "a", "a and b", "a, b and c"]


def test_a_long_list_is_cut_and_says_how_many_more_there_are():
    assert first_few(["a", "b", "c"]) == "a, b, c"
    assert first_few(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"

"""Text as people read it: numbers, durations, lists, and text of unknown origin."""

from __future__ import annotations

import re

import pytest

from gatewatch.collector.errors import ConfigError, GatewatchError, WriteRejected, WriteUnavailable
from gatewatch.collector.log import log
from gatewatch.collector.text import nearest, one_line, safe_repr
from gatewatch.jobs.text import duration, first_few, join_words, number, plotly_text, printable
from tests.conftest import ROOT

HOSTILE = "a\x1b]0;owned\x07\rb\x00\x9b\u202ec\u2066\ud800\u2028\x7f\ufeff"
"""What a terminal obeys, what turns the direction of text, what no encoding can hold, and what ends a line."""


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


def test_text_of_unknown_origin_becomes_one_line_that_no_terminal_obeys():
    line = one_line(f"{HOSTILE}\n\n  next")
    assert line == r"a\x1b]0;owned\x07 b\x00\x9b\u202ec\u2066\ud800 \x7f\ufeff next"
    assert printable(HOSTILE) == r"a\x1b]0;owned\x07\rb\x00\x9b\u202ec\u2066\ud800\u2028\x7f\ufeff"
    assert plotly_text(HOSTILE).isprintable()


def test_colours_of_another_programs_message_are_left_out():
    assert one_line("\x1b[1mLayer\x1b[0m failed") == "Layer failed"


def test_letters_of_every_script_stay_as_they_are():
    assert one_line("Ærø  2 日本 e\u0301 🇩🇪") == "Ærø  2 日本 e\u0301 🇩🇪"
    assert one_line("1\u00a0000\u3000é") == "1 000 é"


def test_a_long_line_loses_its_middle_and_keeps_what_to_do():
    line = one_line(f"run={'x' * 65536!r}: is too long; choose another")
    assert len(line) == 1000
    assert line.startswith("run='xxx")
    assert line.endswith("x': is too long; choose another")
    assert len(safe_repr("x" * 65536)) == 300


@pytest.mark.parametrize(
    "error",
    [
        GatewatchError(HOSTILE * 1000),
        ConfigError(HOSTILE * 1000),
        WriteUnavailable(HOSTILE * 1000),
        WriteRejected([HOSTILE * 1000, "another"]),
    ],
)
def test_the_text_of_every_error_is_one_bounded_line(error):
    text = str(error)
    assert len(text) == 1000
    assert text.isprintable()


class _Odd:
    def __str__(self):
        raise ValueError("no text")


def test_whatever_is_logged_is_one_bounded_line(caplog):
    log.warning("gatewatch: run %r: %s", "r", HOSTILE * 1000)
    log.warning(f"gatewatch: {HOSTILE} 100 %")
    log.warning("gatewatch: %s", _Odd())
    long, plain, odd = (record.getMessage() for record in caplog.records)
    assert long.startswith("gatewatch: run 'r': a")
    assert len(long) == 1000
    assert plain.endswith(" 100 %")
    assert odd == "gatewatch: %s"
    assert (long + plain).isprintable()


def test_nobody_makes_a_logger_beside_it():
    makes = re.compile(r"getLogger\(\"gatewatch")
    sources = [path for folder in ("collector", "jobs", "gatewatch") for path in (ROOT / folder).rglob("*.py")]
    assert {path.name for path in sources if makes.search(path.read_text())} == {"log.py"}


def test_the_nearest_name_is_asked_for():
    assert nearest("goog-1", ["eurusd-1", "goog-2"]) == "; did you mean 'goog-2'?"
    assert nearest("goog-1", ["eurusd", ""]) == ""

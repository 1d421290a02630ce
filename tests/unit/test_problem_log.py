"""What goes wrong is said once, and once that it is over."""

from __future__ import annotations

import pytest

from gatewatch.jobs.service.problem_log import ProblemLog, duration


@pytest.fixture
def said():
    return []


@pytest.fixture
def troubles(said):
    moments = iter(range(1000))
    return ProblemLog(said.append, lambda: next(moments))


def found(troubles, text="away", what="store", **options):
    troubles.found(what, text, "it is back", **options)


def test_many_attempts_are_two_lines(troubles, said):
    troubles.over("store")
    for _ in range(5):
        found(troubles)
    assert "store" in troubles
    troubles.over("store")
    troubles.over("store")
    assert said == ["away", "it is back after 1.0 s"]
    assert "store" not in troubles


def test_it_is_over_when_it_is_for_everybody_who_met_it(troubles, said):
    found(troubles, source="a")
    found(troubles, source="b")
    troubles.over("store", "a")
    troubles.over("store", "c")
    assert len(said) == 1
    troubles.over("store", "b")
    assert len(said) == 2


def test_what_turns_lasting_is_said_again(troubles, said):
    found(troubles, "away")
    found(troubles, "the token is refused", lasting=True)
    found(troubles, "the token is refused", lasting=True)
    found(troubles, "away again")
    assert said == ["away", "the token is refused", "away again"]


def test_one_trouble_does_not_end_another(troubles, said):
    found(troubles)
    found(troubles, "stuck", what="score")
    troubles.over("score")
    assert "store" in troubles
    assert said == ["away", "stuck", "it is back after 1.0 s"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.9, "9.9 s"), (10, "10 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2.0 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text

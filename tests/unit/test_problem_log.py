"""Log each problem once when it begins and once when it has ended."""

from __future__ import annotations

import pytest

from gatewatch.jobs.service.problem_log import ProblemLog


@pytest.fixture
def lines():
    return []


@pytest.fixture
def problems(lines):
    seconds = iter(range(1000))
    return ProblemLog(lines.append, lambda: next(seconds))


def fail(problems, text="away", key="store", **options):
    problems.raise_problem(key, text, "it is back", **options)


def test_many_failed_attempts_are_two_lines(problems, lines):
    problems.clear("store")
    for _ in range(5):
        fail(problems)
    assert "store" in problems
    problems.clear("store")
    problems.clear("store")
    assert lines == ["away", "it is back after 1.0 s"]
    assert "store" not in problems


def test_a_problem_ends_when_it_has_ended_for_every_source(problems, lines):
    fail(problems, source="a")
    fail(problems, source="b")
    problems.clear("store", "a")
    problems.clear("store", "c")
    assert len(lines) == 1
    problems.clear("store", "b")
    assert len(lines) == 2


def test_a_problem_that_turns_lasting_or_transient_is_logged_again(problems, lines):
    fail(problems, "away")
    fail(problems, "the token is refused", lasting=True)
    fail(problems, "the token is refused", lasting=True)
    fail(problems, "away again")
    assert lines == ["away", "the token is refused", "away again"]


def test_the_end_of_one_problem_does_not_end_another(problems, lines):
    fail(problems)
    fail(problems, "stuck", key="score")
    problems.clear("score")
    assert "store" in problems
    assert lines == ["away", "stuck", "it is back after 1.0 s"]

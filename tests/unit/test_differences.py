"""What differs between the settings of runs."""

from __future__ import annotations

import pytest

from gatewatch.collector.schema import Point
from gatewatch.jobs.findings.differences import Difference, differences
from gatewatch.jobs.findings.finding import Finding
from gatewatch.jobs.findings.run_points import read_points
from gatewatch.jobs.findings.run_state import run_row
from gatewatch.jobs.report.comparison import anomalous, what_differs
from tests.integration.test_report import SECOND, START, seed, store  # noqa: F401 - a fixture

ALARM = Finding(sentence="Something is wrong.", level="alarm", what="it is wrong", step=300)
CALM = Finding(sentence="All is well.", level="fact")


def of(store, **configs):  # noqa: F811
    for run, config in configs.items():
        seed(store, run, captures=3, fault=99, scored=False, config=config)
    abouts = [run_row(store, run) for run in configs]
    return [(each.kind, each.name, each.values) for each in differences([(a, read_points(store, a)) for a in abouts])]


def test_what_was_set_comes_before_the_versions_and_nested_settings_have_a_path(store):  # noqa: F811
    assert of(
        store,
        a={"config": {"rate": 0.3, "net": {"units": 24}}, "versions": {"keras": "3.12.0"}, "host": "x", "pid": 1},
        b={"config": {"rate": 0.001, "net": {"units": 8}}, "versions": {"keras": "3.11.0"}, "host": "y", "pid": 2},
    ) == [
        ("own", "rate", ["0.3", "0.001"]),
        ("own", "net.units", ["24", "8"]),
        ("version", "keras", ["3.12.0", "3.11.0"]),
    ]


def test_a_setting_that_only_one_run_has_differs_and_equal_ones_are_left_out(store):  # noqa: F811
    assert of(store, a={"config": {"units": 24, "clip": 1}}, b={"config": {"units": 24}}) == [
        ("own", "clip", ["1", ""])
    ]


def test_a_learning_rate_that_was_logged_is_a_setting_and_one_that_changed_says_how(store):  # noqa: F811
    for run, rates in {"a": [0.001] * 4, "b": [0.001, 0.001, 0.3, 0.3]}.items():
        tags = {"run": run, "symbol": "GOOG", "phase": "train"}
        points = [{"learning_rate": rate, "score": i * len(run)} for i, rate in enumerate(rates)]
        store.write([Point("train_metrics", tags, each, START + i * SECOND) for i, each in enumerate(points)])
    assert of(store, a={}, b={}) == [("logged", "learning_rate", ["0.001", "from 0.001 to 0.3"])]


@pytest.mark.parametrize("config", [{}, {"config": None}, {"config": "text"}, {"versions": []}])
def test_a_run_without_settings_of_its_own_differs_in_nothing(store, config):  # noqa: F811
    assert [each for each in of(store, a=config, b=config) if each[0] == "own"] == []


def test_the_sentence_names_each_anomalous_run_and_those_that_are_not():
    assert anomalous(["a", "b", "c"], [ALARM, CALM, None]) == (
        "a is anomalous since step 300: it is wrong. b is not anomalous. c cannot be judged."
    )
    assert anomalous(["a", "b"], [CALM, CALM]) == "Nothing is anomalous in a and b."


def test_the_sentence_names_three_differences_and_counts_the_rest():
    changed = [Difference(name, "own", ["1", ""]) for name in "pqrs"]
    assert what_differs(["a", "b"], changed) == (
        "What was set differs in p (1 in a, none in b), q (1 in a, none in b), r (1 in a, none in b) and 1 more."
    )
    assert what_differs(["a", "b"], []) == "Nothing that was recorded of their settings differs."

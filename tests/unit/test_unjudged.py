"""Which phases of a run cannot be called healthy, and what is missing."""

from __future__ import annotations

import pandas as pd
import pytest

from gatewatch.jobs.findings.series import Key
from gatewatch.jobs.findings.unjudged import count_captures, unjudged

LEARNING = (
    "The run cannot be judged: after 50 captures its network was still learning fast, so only rules and checks have "
    "scored it. Train longer, or capture more often (every=)."
)


def said(captured, derived, detectors, *, is_going=False, broken=()):
    """The sentences about phases with so many captures, of which so many are scored, by some detectors."""
    stats = {
        Key(phase, "lstm", gate): pd.DataFrame({"step": range(count), "nan_count": int((phase, gate) in broken)})
        for phase, count in captured.items()
        for gate in ("forget", "input")
    }
    scored = {key: pd.DataFrame({"window_s": [1.0] * derived[key.phase]}) for key in stats}
    rows = [
        {"phase": phase, "detector": name, "anomaly_score": 0.5} for phase, names in detectors.items() for name in names
    ]
    return [
        each.sentence for each in unjudged(stats, count_captures(stats, scored), pd.DataFrame(rows), is_going=is_going)
    ]


@pytest.mark.parametrize(
    ("captures", "scored", "detectors", "sentence"),
    [
        (14, 14, [], "it has 14 of the 33 captures that scores need. Train longer, or capture more often (every=)."),
        (14, 0, [], "it has 14 of the 33 captures that scores need. Train longer, or capture more often (every=)."),
        (32, 32, ["checks", "data"], "it has 32 of the 33 captures that scores need. Train longer, or capture more"),
        (70, 0, [], "70 of its 70 captures are not scored yet, which gatewatch jobs --once does."),
        (110, 70, ["robust", "consensus"], "40 of its 110 captures are not scored yet, which gatewatch jobs --once"),
        (70, 70, ["rules"], "none of its 70 captures has a score."),
    ],
)
def test_what_is_missing(captures, scored, detectors, sentence):
    (one,) = said({"train": captures}, {"train": scored}, {"train": detectors})
    assert one.startswith(f"The run cannot be judged: {sentence}")


def test_a_run_that_ends_while_its_network_learns_is_too_short():
    assert said({"train": 50}, {"train": 50}, {"train": ["rules"]}) == [LEARNING]
    assert said({"train": 50}, {"train": 50}, {"train": ["rules", "robust"]}) == []


def test_nothing_is_captured_yet():
    assert said({}, {}, {}) == ["The run cannot be judged: nothing is captured yet."]


def test_phases_are_told_apart():
    detectors = {"train": ["consensus"], "validation": []}
    assert said({"train": 40, "validation": 20}, {"train": 40, "validation": 20}, detectors) == [
        "The phase validation cannot be judged: it has 20 of the 33 captures that scores need. Train longer, or "
        "capture more often (every=)."
    ]


def test_live_goes_on_with_the_scores_of_its_backtest():
    detectors = {"backtest": ["consensus"], "live": ["consensus"]}
    assert said({"backtest": 40, "live": 3}, {"backtest": 40, "live": 3}, detectors) == []


@pytest.mark.parametrize(("scored", "is_judged"), [(110, True), (78, True), (77, False)])
def test_while_a_run_goes_on_its_newest_captures_may_wait(scored, is_judged):
    found = said({"train": 110}, {"train": scored}, {"train": ["robust"]}, is_going=True)
    assert (found == []) == is_judged


def test_values_that_are_not_finite_are_said_elsewhere():
    everywhere = {("train", "forget"), ("train", "input")}
    assert said({"train": 50}, {"train": 50}, {"train": ["rules"]}, broken=everywhere) == []
    assert said({"train": 50}, {"train": 50}, {"train": ["rules"]}, broken={("train", "forget")}) == [LEARNING]


def test_stores_of_an_early_version_have_one_detector_without_a_name():
    stats = {Key("", "lstm", "forget"): pd.DataFrame({"step": range(40)})}
    derived = {Key("", "lstm", "forget"): pd.DataFrame({"window_s": [1.0] * 40})}
    assert unjudged(stats, count_captures(stats, derived), pd.DataFrame({"anomaly_score": [0.5]})) == []


def test_a_finding_says_for_programs_what_is_missing():
    stats = {Key("train", "lstm", "forget"): pd.DataFrame({"step": range(14)})}
    (one,) = unjudged(stats, count_captures(stats, {}), pd.DataFrame())
    assert one.level == "undecided"
    assert one.evidence == {"phase": "train", "captures": 14, "needed": 33}

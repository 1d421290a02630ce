"""How far healthy runs came, in the words of mails and reports."""

from __future__ import annotations

import pandas as pd
import pytest

from gatewatch.jobs.findings.run_limits import limit_sentences, reached_by


def scored(**fields):
    return pd.DataFrame({"anomaly_score": [0.5, 1.8], **fields})


def test_each_score_with_baselines_says_how_many_came_this_far():
    frame = scored(baselines=[None, 19], reached_by=[None, 2])
    assert reached_by(frame) == ["", "2 of 19 healthy runs of this network came this far"]
    assert reached_by(scored(baselines=[1, 3], reached_by=[1, 0])) == [
        "1 of 1 healthy run of this network came this far",
        "none of 3 healthy runs of this network came this far",
    ]


def test_a_score_that_lost_its_baselines_says_nothing():
    assert reached_by(scored(baselines=[0, 0], reached_by=[None, 2])) == ["", ""]
    assert reached_by(scored()) == []


@pytest.mark.parametrize(
    ("fields", "sentences"),
    [
        (
            {"baselines": [None, 19], "reached_by": [None, 0], "limit_rate": [None, 0.05]},
            [
                "At its worst none of 19 healthy runs of this network came this far: at most 5 % of healthy runs go "
                "above the limit."
            ],
        ),
        (
            {"baselines": [None, 3], "reached_by": [None, 0], "limit_rate": [None, 0.25]},
            [
                "At its worst none of 3 healthy runs of this network came this far: at most 25 % of healthy runs go "
                "above the limit."
            ],
        ),
        (
            {"baselines": [None, 3], "reached_by": [None, 0]},
            [
                "At its worst none of 3 healthy runs of this network came this far; it is longer than they were, so no "
                "rate of false alarms is known for it."
            ],
        ),
        (
            {"why_entropy": [None, 12.0]},
            [
                "The limit is the built-in one, above which 2 of 158 healthy runs of other networks went: gatewatch "
                "baseline add RUN makes it that of healthy runs of yours."
            ],
        ),
        ({"why_not_finite": [None, 2.0]}, []),  # a statement that is true or not has no limit
    ],
)
def test_a_run_with_an_anomaly_says_whose_limit_it_exceeded(fields, sentences):
    assert limit_sentences(scored(**fields)) == sentences


def test_a_run_without_one_says_nothing():
    assert limit_sentences(pd.DataFrame({"anomaly_score": [0.5, 1.0]})) == []
    assert limit_sentences(pd.DataFrame()) == []

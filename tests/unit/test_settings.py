"""What was set in a training and jumped is told from what follows from it, whatever its name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from gatewatch.jobs.findings.findings import run_findings
from gatewatch.jobs.findings.series import by_series
from gatewatch.jobs.findings.settings import jump_places, jumps

BEGIN = pd.Timestamp("2026-01-01", tz="UTC")
N, STRIKE = 120, 60


def noisy(level, seed=0, share=0.05):
    return level * (1 + share * np.random.default_rng(seed).normal(size=len(level)))


CONSTANT = np.full(N, 1e-3)
COSINE = 1e-3 * (1 + np.cos(np.pi * np.arange(N) / N)) / 2
JUMPED = np.where(np.arange(N) < STRIKE, 1.0, 300.0)


@pytest.mark.parametrize(
    "values",
    [
        CONSTANT * JUMPED,
        COSINE * JUMPED,
        np.linspace(0, 1e-3, N) * JUMPED,
        1e-3 * 0.99 ** np.arange(N) * JUMPED,
        np.where(np.arange(N) < STRIKE, 32.0, 64.0),
        np.where(np.arange(N) < STRIKE, 32.0, 2.0),
        np.where(np.arange(N) < STRIKE, 0.0, 1.0),  # a switch
        np.where(np.arange(N) < STRIKE, -1.0, 1.0),  # a sign
        np.where((np.arange(N) < STRIKE) | (np.arange(N) > STRIKE + 1), 1.0, 9.0),  # for two values
    ],
)
def test_a_setting_that_jumps_is_found_where_it_does(values):
    assert STRIKE in jump_places(values)


@pytest.mark.parametrize(
    "values",
    [
        CONSTANT,
        COSINE,
        np.linspace(1e-5, 1e-3, N),
        0.9 ** np.arange(N),
        np.repeat(np.arange(N // 10), 10).astype(float),  # epochs
        np.arange(N) % 10.0,  # steps of an episode
        noisy(np.ones(N)),  # a loss
        noisy(JUMPED),  # a loss that explodes
        noisy(1 / JUMPED),  # a reward that collapses
        np.where(np.arange(N) < STRIKE, noisy(np.ones(N)), 0.693),  # a loss whose network died
        np.full(N, np.inf)[:3],
        np.array([]),
        np.array([1.0, 2.0]),
    ],
)
def test_schedules_counts_and_what_follows_from_a_training_are_no_settings_that_jump(values):
    assert list(jump_places(values)) == []


def logged(**metrics):
    return pd.DataFrame(
        {
            "time": [BEGIN + pd.Timedelta(seconds=k) for k in range(N)],
            "step": 10 * np.arange(N),
            "phase": "train",
            **metrics,
        }
    )


def scored(begin):
    values = np.where(np.arange(N) < begin, 0.5, 9.0)
    frame = logged().assign(layer="lstm", gate="forget", anomaly_score=values)
    return by_series(frame)


def test_what_was_set_and_jumped_comes_before_what_followed():
    metrics = logged(learning_rate=CONSTANT * JUMPED, batch=np.full(N, 32.0), loss=noisy(JUMPED))
    found = run_findings({}, scored(STRIKE + 2), metrics)
    assert found[0].sentence == (
        "First at step 600, learning_rate went from 0.001 to 0.3, 300 times as large: what follows began then."
    )
    assert (found[0].source, found[0].step, found[0].level) == ("optimizer", 600, "alarm")
    assert found[0].evidence == {"phase": "train", "setting": "learning_rate", "before": 0.001, "after": 0.3}
    assert found[1].sentence.startswith("What stands out is the forget gate of lstm")


@pytest.mark.parametrize("begin", [STRIKE - 5, STRIKE + 30])
def test_a_jump_long_before_or_after_what_went_wrong_is_not_its_cause(begin):
    found = run_findings({}, scored(begin), logged(learning_rate=CONSTANT * JUMPED))
    assert "learning_rate" not in found[0].sentence


def test_a_jump_after_which_nothing_goes_wrong_was_meant():
    (found,) = run_findings({}, scored(N), logged(learning_rate=CONSTANT * JUMPED))
    assert found.level == "fact"


@pytest.mark.parametrize(
    ("name", "source"), [("lr-Adam", "optimizer"), ("batch_size", "data"), ("clip", None), ("train/lr", "optimizer")]
)
def test_any_metric_may_be_a_setting(name, source):
    (jump,) = jumps(logged(**{name: JUMPED / 300}))
    assert jump.finding().source == source


def test_a_setting_that_falls_is_told_as_a_part():
    (jump,) = jumps(logged(batch_size=np.where(np.arange(N) < STRIKE, 32.0, 2.0)))
    assert jump.words == "batch_size went from 32 to 2, to 1/16 of it"

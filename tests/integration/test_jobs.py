"""A pass over what is not a nice long run."""

from __future__ import annotations

import numpy as np
import pytest

from collector import open_store
from collector.capture import gate_points
from collector.schema import GATE_DERIVED, GATE_SCORES, RUNS, Point
from jobs.cli import main
from jobs.features import WARM_UP
from jobs.once import run_pass

RUN = {"run": "r", "phase": "train"}


class Captured:
    mask = None

    def __init__(self, **gates):
        self.gates = gates


@pytest.fixture
def store(tmp_path):
    store = open_store(f"sqlite:///{tmp_path / 'points.db'}")
    store.write([Point(RUNS, RUN, {"event": "started", "step": 0}, 1)])
    return store


def captures(count, first=0, tags=RUN, layer="lstm", change=None):
    random = np.random.default_rng(first)
    for k in range(first, first + count):
        forget = random.uniform(0.6, 0.8, size=(2, 5, 4)).astype("float32")
        if change is not None:
            forget = change(k, forget)
        yield from gate_points({layer: Captured(forget=forget)}, tags, 10**9 * (k + 1), k, 0)


def scores(store):
    return store.read(GATE_SCORES)


def test_an_empty_run(store):
    assert run_pass(store)[0].unchanged


@pytest.mark.parametrize("count", [1, 2, 5, WARM_UP])
def test_a_run_within_its_warm_up_has_metrics_but_no_scores(store, count):
    store.write(captures(count))
    done = run_pass(store)[0]
    assert (done.derived, done.scored) == (count, 0)
    assert scores(store).empty
    assert run_pass(store)[0].unchanged


def test_the_first_capture_after_the_warm_up_is_scored(store):
    store.write(captures(WARM_UP + 1))
    run_pass(store)
    assert scores(store)["step"].tolist() == [WARM_UP]


def test_a_constant_gate_is_normal(store):
    store.write(captures(60, change=lambda k, forget: np.full_like(forget, 0.5)))
    run_pass(store)
    assert (scores(store)["anomaly_score"] < 1).all()


def test_nan_has_no_score_and_does_not_stop_the_pass(store):
    store.write(captures(60, change=lambda k, forget: np.full_like(forget, np.nan) if k in (40, 41) else forget))
    done = run_pass(store)[0]
    assert done.derived == 60
    missing = {*range(WARM_UP, 60)} - {*scores(store)["step"]}
    assert missing == {40, 41, 42, 43}
    derived = store.read(GATE_DERIVED).set_index("window_s")
    assert derived["memory_timescale"].notna().sum() == 58


def test_all_nan(store):
    store.write(captures(50, change=lambda k, forget: np.full_like(forget, np.nan)))
    assert run_pass(store)[0].scored == 0
    assert run_pass(store)[0].unchanged


def test_a_layer_that_joins_late_is_scored_by_the_forest_of_the_warm_up(store):
    store.write(captures(80))
    run_pass(store)
    before = scores(store)
    store.write(captures(40, first=40, layer="late"))
    run_pass(store)
    after = scores(store)
    late = after[after["layer"] == "late"]
    assert len(late) > 0
    assert after[after["layer"] == "lstm"]["anomaly_score"].tolist() == before["anomaly_score"].tolist()
    assert set(late["model_id"]) == set(before["model_id"])


def test_phases_and_tags_are_runs_of_their_own(store):
    store.write(captures(50))
    store.write(captures(50, tags={"run": "r", "phase": "backtest", "symbol": "GOOG"}))
    store.write(captures(50, tags={"run": "r", "phase": "backtest", "symbol": 'a,b "c" \''}))
    run_pass(store)
    found = scores(store)
    assert found.groupby(["phase", "symbol"], dropna=False).size().tolist() == [50 - WARM_UP] * 3
    assert found["model_id"].nunique() >= 1


def test_a_gap_of_hours_counts_as_one_capture(store):
    together = list(captures(60))
    store.write(together)
    run_pass(store)
    dense = scores(store)["anomaly_score"].tolist()
    apart = [
        Point(
            p.measurement,
            {**p.tags, "run": "apart"},
            p.fields,
            p.time + (5 * 3600 * 10**9 if p.time > 45 * 10**9 else 0),
        )
        for p in together
    ]
    store.write([*apart, Point(RUNS, {**RUN, "run": "apart"}, {"event": "started", "step": 0}, 1)])
    run_pass(store, "apart")
    assert store.read(GATE_SCORES, run="apart")["anomaly_score"].tolist() == dense


def test_captures_are_counted_by_phase_and_the_short_ones_are_named(store, capsys):
    store.write(captures(40, tags={"run": "r", "phase": "backtest"}))
    store.write(captures(20, tags={"run": "r", "phase": "live"}))
    assert main(["jobs", "--once", "--store", store.url]) == 0
    printed = capsys.readouterr().out
    assert f"Scores begin after {WARM_UP} captures of a phase: r live has 20. For more" in printed
    assert set(scores(store)["phase"]) == {"backtest"}
    (again,) = run_pass(store)
    assert again.unchanged
    assert again.phases == {"backtest": 40, "live": 20}


def test_a_phase_that_the_users_tags_part_counts_its_shortest_part(store):
    store.write(captures(40, tags={**RUN, "symbol": "GOOG"}))
    store.write(captures(10, tags={**RUN, "symbol": "EURUSD"}))
    assert run_pass(store)[0].phases == {"train": 10}


def test_long_enough_phases_need_no_hint(store, capsys):
    store.write(captures(WARM_UP + 1))
    assert main(["jobs", "--once", "--store", store.url]) == 0
    assert "Scores begin" not in capsys.readouterr().out


def test_a_run_without_captures_is_told_when_scores_begin(store, capsys):
    assert main(["jobs", "--once", "--store", store.url]) == 0
    assert f"Scores begin after {WARM_UP} captures of a phase: r has 0." in capsys.readouterr().out

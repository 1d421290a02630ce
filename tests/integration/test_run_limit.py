"""The limit of a run comes from its baselines: what that does to its scores, live and in a backfill."""

from __future__ import annotations

import numpy as np
import pytest

from gatewatch import open_store
from gatewatch.collector.schema import FEED_STATS, GATE_SCORES, Point
from gatewatch.jobs import baselines
from gatewatch.jobs.baselines import Baselines
from gatewatch.jobs.scoring.scoring_pass import run_pass
from tests.recorded import end, fill, moment, recorded

LONG_AGO = -10_000
GATES = (("memory", "forget"), ("memory", "input"))
FACTS = ["baselines", "reached_by", "limit_rate"]


@pytest.fixture
def store(tmp_path):
    return open_store(f"sqlite:///{tmp_path / 'points.db'}")


@pytest.fixture(params=["sqlite", "influxdb"])
def either(request):
    if request.param == "sqlite":
        return request.getfixturevalue("store")
    return request.getfixturevalue("influxd").store()


@pytest.fixture(autouse=True)
def small_forests(monkeypatch):
    """For speed: nothing here is about what a forest finds."""
    monkeypatch.setattr("gatewatch.jobs.scoring.detectors.isolation_forest.TREES", 10)


def lowered(since, by=0.6):
    """Gates that close somewhat, which breaks no rule: to 0.6 gives a robust score of 1.64 in the run, seed 0."""
    return lambda k, gate, values: values * by if k >= since else values


def healthy(store, run, seed, captures=60, **options):
    """A run of long ago, which is a baseline."""
    fill(store, recorded(captures, run=run, seed=seed, at=lambda k: moment(k + LONG_AGO), **options))
    end(store, run=run)
    baselines.add(store, run, lambda: moment(seed))


def scores(store, run="r", detector="consensus", gate="forget"):
    found = store.read(GATE_SCORES, run=run, tags={"gate": gate, "detector": detector}).set_index("step")
    return found.reindex(columns=dict.fromkeys([*found.columns, *FACTS]))


def limit(store, rate=0.05):
    return Baselines(store, rate).run_limit("r", "train", GATES)


def test_an_alarm_says_how_many_healthy_runs_came_this_far(either):
    for seed in (1, 2, 3):
        healthy(either, f"calm {seed}", seed, captures=50)
    fill(either, recorded(60, change=lowered(45)))
    run_pass(either, "r")
    found = scores(either)
    alarms = found[found["anomalous"] == 1]
    assert alarms.index[0] == 46  # the median of three captures
    assert alarms["baselines"].tolist() == [3] * len(alarms)
    assert alarms["reached_by"].tolist() == [0] * len(alarms)
    assert set(alarms["limit_rate"][alarms.index < 50]) == {0.25}
    assert alarms["limit_rate"][alarms.index >= 50].isna().all()  # it is longer than its baselines were
    assert found.loc[found["anomalous"] == 0, FACTS].isna().all(axis=None)


def test_what_a_healthy_run_did_too_is_no_alarm(store):
    healthy(store, "calm", 2)
    healthy(store, "moved", 1, change=lowered(45, 0.3))
    fill(store, recorded(60, change=lowered(45)))
    run_pass(store, "r")
    found, robust = scores(store), scores(store, detector="robust")
    assert robust["anomalous"].sum() >= 5
    assert found["anomalous"].sum() == 0
    moved = limit(store)
    assert (moved.baselines, moved.captures) == (2, 60)
    assert moved.limit == moved.maxima[1] > robust["anomaly_score"].max() > 1 > moved.maxima[0]
    np.testing.assert_array_equal(found["anomaly_score"], robust["anomaly_score"] / moved.limit)
    assert set(found["model_id"]) == {moved.model_id}


def test_a_run_that_goes_as_far_as_some_is_above_the_limit_of_a_larger_rate(store):
    healthy(store, "calm", 2)
    healthy(store, "moved", 1, change=lowered(45, 0.3))
    fill(store, recorded(60, change=lowered(45)))
    run_pass(store, "r", false_alarm_rate=0.5)
    assert scores(store)["anomalous"].sum() == 0  # of 2 baselines and the run 1 may be the largest, not 1.5
    healthy(store, "calm too", 3)
    run_pass(store, "r", again=True, false_alarm_rate=0.5)
    alarms = scores(store)
    alarms = alarms[alarms["anomalous"] == 1]
    assert set(alarms["baselines"]) == {3}
    assert set(alarms["reached_by"]) == {1}
    assert set(alarms["limit_rate"]) == {0.5}


def test_pieces_have_the_same_as_a_backfill(store, tmp_path):
    healthy(store, "calm", 1)
    healthy(store, "moved", 2, change=lowered(45, 0.5))
    columns = ["anomaly_score", "anomalous", "model_id", *FACTS]
    for k, capture in enumerate(recorded(64, change=lowered(45))):
        fill(store, [capture])
        if k > 28:
            run_pass(store, "r", state=tmp_path / "state", finish=False)
    run_pass(store, "r", state=tmp_path / "state")
    live = scores(store)[columns]
    assert live["anomalous"].sum() >= 5
    assert live["reached_by"].notna().sum() == live["anomalous"].sum()
    run_pass(store, "r", again=True)
    assert scores(store)[columns].equals(live)
    fill(store, recorded(64, run="whole", change=lowered(45)))
    run_pass(store, "whole")
    assert scores(store, "whole")[columns].equals(live)


def test_baselines_of_the_middle_of_a_run_change_nothing_until_it_is_scored_anew(store, tmp_path):
    healthy(store, "calm", 1)
    fill(store, recorded(50, change=lowered(45)))
    run_pass(store, "r", state=tmp_path)
    healthy(store, "moved", 2, change=lowered(45, 0.2))
    fill(store, recorded(10, first=50, change=lowered(45)))
    run_pass(store, "r", state=tmp_path)
    found = scores(store)
    assert found["model_id"].nunique() == 1
    assert set(found.loc[found["anomalous"] == 1, "baselines"]) == {1}
    run_pass(store, "r", state=tmp_path, again=True)
    found = scores(store)
    assert set(found["model_id"]) == {limit(store).model_id}
    assert found["anomalous"].sum() == 0


def test_without_baselines_a_score_has_none_and_what_it_had_is_gone(store):
    healthy(store, "calm", 1)
    fill(store, recorded(60, change=lowered(45)))
    run_pass(store, "r")
    had = scores(store)
    baselines.remove(store, "calm")
    run_pass(store, "r", again=True)
    found, robust = scores(store), scores(store, detector="robust")
    assert set(had["baselines"].dropna()) == {1}
    assert set(found["baselines"].dropna()) == {0}
    assert (found["anomaly_score"] >= robust["anomaly_score"]).all()
    assert found["model_id"].str.startswith("isolation_forest-").all()


def test_a_broken_rule_is_measured_by_itself(store):
    def broken(k, gate, values):
        return np.full_like(values, np.nan) if k == 50 else values

    healthy(store, "moved", 1, change=lowered(45, 0.3))
    fill(store, recorded(60, change=broken))
    run_pass(store, "r")
    at = scores(store).loc[50]
    assert at["anomaly_score"] == 2.0
    assert at[FACTS].isna().all()


@pytest.mark.parametrize(
    "other",
    [{"layers": ("other",)}, {"gates": ("forget",)}, {"phase": "backtest"}, {"captures": 30}],
    ids=str,
)
def test_another_network_or_phase_or_a_run_without_scores_is_no_baseline(store, other):
    healthy(store, "other", 1, **other)
    fill(store, recorded(40))
    assert limit(store).baselines == 0


def test_a_run_is_none_of_its_own(store):
    healthy(store, "calm", 1)
    assert Baselines(store).run_limit("calm", "train", GATES).baselines == 0


def test_what_the_feed_explains_does_not_count_in_a_baseline(store):
    healthy(store, "fed otherwise", 1, change=lowered(45, 0.3))
    assert limit(store).maxima[0] > 1
    named = {"run": "fed otherwise", "phase": "train"}
    distances = [0.001 * (k % 3) + (0.9 if 45 <= k < 48 else 0.0) for k in range(60)]
    at = [moment(k + LONG_AGO) for k in range(60)]
    store.write(
        Point(FEED_STATS, named, {"distance": value, "step": k}, time)
        for k, (value, time) in enumerate(zip(distances, at, strict=True))
    )
    assert limit(store).maxima[0] == 1.0

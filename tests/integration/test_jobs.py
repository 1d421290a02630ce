"""What a pass says of runs that are no nice long runs, and of several phases and runs of one store."""

from __future__ import annotations

import zlib

import numpy as np
import pandas as pd
import pytest

from gatewatch import open_store
from gatewatch.collector.schema import GATE_DERIVED, GATE_SCORES, GATE_STATS, LAYER_UPDATES, RUNS, TRAIN_METRICS, Point
from gatewatch.jobs.cli import main
from gatewatch.jobs.scoring.residuals import WARM_UP
from gatewatch.jobs.scoring.scoring_pass import run_pass
from tests.passes import assert_same, only, scores, undisturbed, until_done
from tests.recorded import GATES, SECOND, end, fill, moment, recorded, shut

DETECTORS = {"isolation_forest", "robust", "rules", "consensus"}
SERIES = [("memory", part) for part in (*GATES, "kernel", "recurrent")] + [("_model", "loss")]


@pytest.fixture(autouse=True)
def small_forests(monkeypatch):
    """For speed: nothing here is about what a forest finds."""
    monkeypatch.setattr("gatewatch.jobs.scoring.detectors.isolation_forest.TREES", 10)


@pytest.fixture
def store(tmp_path):
    return open_store(f"sqlite:///{tmp_path / 'points.db'}")


@pytest.fixture
def other(tmp_path):
    """A second store, in which all went as it should."""
    return open_store(f"sqlite:///{tmp_path / 'undisturbed.db'}")


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


class TestScores:
    def test_an_empty_run(self, store):
        fill(store, recorded(0))
        store.write([Point(RUNS, {"run": "r", "phase": "train"}, {"event": "started", "step": 0}, 1)])
        assert only(store).unchanged

    @pytest.mark.parametrize("count", [1, 2, 5, WARM_UP])
    def test_a_run_within_its_warm_up_has_metrics_but_no_scores(self, store, count):
        fill(store, recorded(count))
        done = only(store)
        assert done.scored == 0
        assert len(store.read(GATE_DERIVED, tags={"gate": "forget"})) == count
        assert scores(store).empty
        assert only(store).unchanged

    def test_the_first_capture_after_the_warm_up_is_scored_by_every_detector(self, store):
        fill(store, recorded(WARM_UP + 1))
        only(store)
        found = scores(store)
        assert set(found["step"]) == {WARM_UP}
        told = found.groupby(["layer", "gate"])["detector"].agg(set).to_dict()
        assert told == {
            series: DETECTORS - ({"isolation_forest"} if series[1] not in GATES else set()) for series in SERIES
        }

    def test_scores_keep_their_contract(self, store):
        fill(store, recorded(140, change=shut(80)))
        end(store)
        done = only(store)
        found = scores(store)
        assert (found["anomalous"] == (found["anomaly_score"] > 1)).all()
        assert (found["anomaly_score"] >= 0).all()
        assert found["step"].between(WARM_UP, 139).all()
        assert (found["time"].astype(np.int64) == [moment(step) for step in found["step"]]).all()
        assert done.anomalous == (found["anomalous"] * (found["detector"] == "consensus")).sum() > 0
        assert done.scored == len(found)
        forest = found["detector"].isin(["isolation_forest", "consensus"])
        assert found.loc[forest, "model_id"].nunique() == 1
        assert found.loc[~forest, "model_id"].isna().all()
        causes = found.filter(regex="^why_")
        assert causes[found["anomalous"] == 0].isna().all(axis=None)
        assert causes[found["anomalous"] == 1].notna().sum(axis=1).between(1, 3).all()

    def test_a_gate_that_is_driven_shut_is_found_and_what_is_healthy_is_not(self, store):
        fill(store, recorded(140, change=shut(80)))
        fill(store, recorded(140, run="healthy", seed=1))
        for run in ("r", "healthy"):
            end(store, run=run)
        run_pass(store)
        assert store.read(GATE_SCORES, run="healthy")["anomalous"].sum() == 0
        found = store.read(GATE_SCORES, run="r", tags={"gate": "forget"})
        for detector in ("robust", "rules", "consensus"):
            rows = found[found["detector"] == detector].set_index("step")["anomalous"]
            assert rows[rows.index < 80].sum() == 0
            assert rows[(rows.index > 80) & (rows.index <= 130)].all()  # then it has been usual for long
        worst = found[(found["detector"] == "consensus") & (found["step"] == 90)].iloc[0]
        assert worst["why_collapsed"] > 1
        assert worst["why_saturated"] > 1

    def test_a_constant_network_is_normal(self, store):
        fill(store, recorded(60, params=(), loss=False, change=lambda k, gate, values: np.full_like(values, 0.5)))
        only(store)
        found = scores(store)
        assert set(found["detector"]) == DETECTORS
        assert (found["anomaly_score"] < 1).all()

    def test_nan_has_no_score_but_is_said_at_once_and_does_not_stop_the_pass(self, store):
        def broken(k, gate, values):
            return np.full_like(values, np.nan) if k in (40, 41) and gate == "forget" else values

        fill(store, recorded(60, change=broken))
        end(store)
        only(store)
        found = scores(store, gate="forget")
        by_detector = {name: {*rows["step"]} for name, rows in found.groupby("detector")}
        scored = {*range(WARM_UP, 60)}
        for detector in ("isolation_forest", "robust"):
            assert scored - by_detector[detector] == {40, 41, 42, 43}
        assert by_detector["rules"] == scored
        assert scored - by_detector["consensus"] == {42, 43}
        wrong = found[found["step"].isin([40, 41])]
        assert set(wrong["detector"]) == {"rules", "consensus"}
        assert (wrong["anomaly_score"] == 2).all()
        assert (wrong["why_not_finite"] == 2).all()
        assert len(store.read(GATE_DERIVED, tags={"gate": "forget"})) == 60
        assert store.read(GATE_DERIVED)["memory_timescale"].notna().sum() == 58

    def test_all_nan(self, store):
        fill(store, recorded(50, params=(), loss=False, change=lambda k, gate, values: np.full_like(values, np.nan)))
        end(store)
        assert only(store).anomalous == 2 * (50 - WARM_UP)
        found = scores(store)
        assert set(found["detector"]) == {"rules", "consensus"}
        assert (found["anomaly_score"] == 2).all()
        assert only(store).unchanged

    @pytest.mark.parametrize("param", ["kernel", "bias"])
    def test_nan_in_an_update_is_said(self, store, param):
        points = [
            [
                Point(p.measurement, p.tags, {"nan_count": 9, "inf_count": 0, "step": k}, p.time)
                if p.measurement == LAYER_UPDATES and p.tags["param"] == param and k >= 50
                else p
                for p in capture
            ]
            for k, capture in enumerate(recorded(60))
        ]
        fill(store, points)
        only(store)
        found = scores(store, gate=param, detector="consensus").set_index("step")
        assert found.index[found["anomalous"] == 1].tolist() == [*range(50, 60)]
        assert (found.loc[50:, "why_not_finite"] == 2).all()

    def test_a_parameter_that_is_no_longer_trained_is_said(self, store):
        points = [
            [p for p in capture if k < 50 or p.tags.get("param") != "recurrent"]
            for k, capture in enumerate(recorded(60))
        ]
        fill(store, points)
        only(store)
        found = scores(store, gate="recurrent", detector="consensus").set_index("step")
        assert found.index[found["anomalous"] == 1].tolist() == [*range(51, 60)]
        assert (found.loc[51:, "why_frozen"] == 2).all()
        others = scores(store)
        assert others[others["gate"] != "recurrent"]["anomalous"].sum() == 0

    def test_a_layer_that_joins_late_is_scored_by_the_forest_of_the_warm_up(self, store):
        fill(store, recorded(80))
        only(store)
        before = scores(store)
        fill(store, recorded(40, 40, layers=("late",), params=(), loss=False))
        only(store)
        after = scores(store)
        late = after[(after["layer"] == "late") & (after["detector"] == "isolation_forest")]
        assert late["step"].tolist() == sorted([*range(40 + 16, 80)] * len(GATES))
        assert set(late["model_id"]) == set(before["model_id"].dropna())
        columns = ["time", "layer", "gate", "detector", "anomaly_score"]
        same = after["step"] < 40
        pd.testing.assert_frame_equal(after[same][columns], before[before["step"] < 40][columns])

    def test_phases_and_tags_are_runs_of_their_own(self, store):
        fill(store, recorded(50))
        fill(store, recorded(50, phase="backtest", tags={"symbol": "GOOG"}))
        fill(store, recorded(50, phase="backtest", tags={"symbol": 'a,b "c" \''}))
        only(store)
        found = scores(store)
        parts = found[["phase", "symbol"]].fillna("")
        assert sorted(set(map(tuple, parts.to_numpy()))) == [
            ("backtest", "GOOG"),
            ("backtest", 'a,b "c" \''),
            ("train", ""),
        ]
        alone = [rows["anomaly_score"].tolist() for _, rows in found.groupby([parts["phase"], parts["symbol"]])]
        assert alone[0] == alone[1] == alone[2]

    def test_a_gap_of_hours_counts_as_one_capture(self, store):
        fill(store, recorded(60))
        fill(store, recorded(60, run="apart", at=lambda k: moment(k) + (5 * 3600 * SECOND if k > 45 else 0)))
        run_pass(store)
        dense, apart = (store.read(GATE_SCORES, run=run) for run in ("r", "apart"))
        assert apart["anomaly_score"].tolist() == dense["anomaly_score"].tolist()
        assert apart["step"].tolist() == dense["step"].tolist()

    @pytest.mark.parametrize("name", ["../x", 'a "b", c=d', "λ/∅", "_model"])
    def test_names_are_only_names(self, store, state, name):
        fill(store, recorded(40, run=name, layers=(name,), gates=(name, "forget"), params=(name,), tags={"m": name}))
        end(store, run=name, tags={"m": name})
        done = only(store, state=state)
        assert done.scored > 0
        assert only(store, state=state, again=True).scored == done.scored
        found = scores(store)
        assert set(found["run"]) == set(found["m"]) == {name}
        assert {(name, name), (name, "forget")} <= set(zip(found["layer"], found["gate"], strict=True))

    def test_one_run_of_odd_points_does_not_keep_the_others_from_theirs(self, store):
        fill(store, recorded(40))
        odd = {"run": "odd", "phase": "train"}
        store.write([Point(RUNS, odd, {"event": "started", "step": 0}, 1)])
        store.write([Point(GATE_STATS, {**odd, "layer": "l", "gate": "forget"}, {"mean": 0.5, "step": 1}, 1)])
        store.write([Point(GATE_STATS, {**odd, "gate": "forget"}, {"step": 2}, 2)])
        store.write([Point(GATE_STATS, odd, {"step": 3}, 3)])
        passes = {done.run: done for done in run_pass(store)}
        assert passes["r"].scored > 0


class TestHints:
    """What is said of phases that are too short."""

    def test_captures_are_counted_by_phase_and_the_short_ones_are_named(self, store, capsys):
        fill(store, recorded(40, phase="backtest"))
        fill(store, recorded(20, phase="validation"))
        assert main(["jobs", "--once", "--store", store.url]) == 0
        printed = capsys.readouterr().out
        assert f"Scores begin after {WARM_UP} captures of a phase: r validation has 20. For more" in printed
        assert set(scores(store)["phase"]) == {"backtest"}
        again = only(store)
        assert again.unchanged
        assert again.phases == {"validation": 20, "backtest": 40}

    def test_a_phase_that_the_users_tags_part_counts_its_shortest_part(self, store):
        fill(store, recorded(40, tags={"symbol": "GOOG"}))
        fill(store, recorded(10, tags={"symbol": "EURUSD"}))
        assert only(store).phases == {"train": 10}

    def test_long_enough_phases_need_no_hint(self, store, capsys):
        fill(store, recorded(WARM_UP + 1))
        assert main(["jobs", "--once", "--store", store.url]) == 0
        assert "Scores begin" not in capsys.readouterr().out

    def test_a_run_without_captures_is_told_when_scores_begin(self, store, capsys):
        store.write([Point(RUNS, {"run": "r", "phase": "train"}, {"event": "started", "step": 0}, 1)])
        assert main(["jobs", "--once", "--store", store.url]) == 0
        assert f"Scores begin after {WARM_UP} captures of a phase: r has 0." in capsys.readouterr().out


class TestLive:
    """The live phase of a network goes on where its backtest ended."""

    def test_it_is_scored_from_its_first_capture_and_by_the_same_forest(self, store, capsys):
        fill(store, recorded(60, phase="backtest"))
        fill(store, recorded(15, 60, phase="live", change=shut(70)))
        done = only(store)
        assert done.phases == {"backtest": 60, "live": 15}
        live, backtest = scores(store, phase="live"), scores(store, phase="backtest")
        assert live["step"].min() == 60
        assert set(live["model_id"].dropna()) == set(backtest["model_id"].dropna())
        found = live[(live["gate"] == "forget") & (live["detector"] == "consensus")].set_index("step")["anomalous"]
        assert found[found.index < 70].sum() == 0
        assert found[found.index > 70].all()

    def test_it_is_scored_as_if_the_backtest_had_not_ended(self, store, other):
        fill(store, [*recorded(60, phase="backtest"), *recorded(40, 60, phase="live")])
        fill(other, recorded(100, phase="backtest"))
        for each in (store, other):
            only(each)
        # What a channel looks back over begins anew: the levels of updates and losses, and how far units moved.
        found, wanted = (scores(each, gate="forget", detector="isolation_forest") for each in (store, other))
        columns = ["time", "anomaly_score", "model_id"]
        pd.testing.assert_frame_equal(found[columns], wanted[columns])

    @pytest.mark.parametrize("between", [{"phase": "train"}, {"phase": "backtest", "tags": {"symbol": "GOOG"}}])
    def test_only_after_a_backtest_and_of_the_same_tags(self, store, between):
        fill(store, recorded(60, **between))
        fill(store, recorded(40, 60, phase="live"))
        only(store)
        assert scores(store, phase="live")["step"].min() == 60 + WARM_UP

    def test_one_side_by_side_with_its_backtest_is_on_its_own(self, store):
        fill(store, recorded(60, phase="backtest"))
        fill(store, recorded(60, phase="live", seed=2))
        only(store)
        assert scores(store, phase="live")["step"].min() == WARM_UP

    def test_a_backtest_that_was_too_short_counts_towards_the_warm_up(self, store):
        fill(store, recorded(20, phase="backtest"))
        fill(store, recorded(30, 20, phase="live"))
        only(store)
        assert scores(store, phase="live")["step"].min() == WARM_UP
        assert scores(store, phase="backtest").empty

    def test_it_waits_for_the_end_of_a_long_backtest(self, store, other, state):
        captures = [*recorded(60, phase="backtest"), *recorded(30, 60, phase="live")]
        undisturbed(other, captures, "backtest", "live")
        fill(store, captures)
        for phase in ("backtest", "live"):
            end(store, phase=phase)
        first = only(store, state=state, finish=False, limit=40)
        assert first.phases == {"backtest": 40}
        assert first.behind == 21
        until_done(store, state=state, finish=False, limit=40)
        assert_same(store, other)


class TestManyRuns:
    def test_shards_part_the_runs_among_them(self, store):
        names = [f"run {number}" for number in range(12)]
        for name in names:
            fill(store, recorded(3, run=name, params=(), loss=False))
        shards = [[done.run for done in run_pass(store, shard=(number, 3))] for number in range(3)]
        assert sorted(name for shard in shards for name in shard) == sorted(names)
        assert [{zlib.crc32(name.encode()) % 3 for name in shard} for shard in shards] == [{0}, {1}, {2}]

    def test_two_runs_of_one_shard_do_not_touch_each_other(self, store, other, state):
        names = [name for name in (f"run {number}" for number in range(20)) if zlib.crc32(name.encode()) % 3 == 1][:2]
        both = [
            a + b
            for a, b in zip(
                recorded(70, run=names[0]), recorded(70, run=names[1], seed=1, change=shut(50)), strict=True
            )
        ]
        fill(other, both)
        run_pass(other)
        for begin in range(0, 70, 13):
            fill(store, both[begin : begin + 13])
            for number in range(3):
                run_pass(store, state=state, shard=(number, 3), finish=False)
        for name in names:
            end(store, run=name)
        until_done(store, state=state, finish=False)
        assert_same(store, other)
        assert run_pass(store, state=state, shard=(0, 3)) == []

    def test_one_run_of_many(self, store):
        for name in ("a", "b"):
            fill(store, recorded(3, run=name))
        assert [done.run for done in run_pass(store, "b")] == ["b"]
        assert not store.count(GATE_DERIVED, "window_s", run="a")


class TestGaps:
    """The generalisation gap, where a validation loss is logged."""

    def losses(self, store, steps):
        tags = {"run": "r", "phase": "train"}
        store.write(
            Point(TRAIN_METRICS, tags, {"loss": 1.0 - k / 1000, "val_loss": 1.0 + k / 100, "step": k}, moment(k) + 2000)
            for k in steps
        )

    def gaps(self, store):
        found = store.read(GATE_DERIVED, tags={"layer": "_model"})
        return found["generalisation_gap"].dropna().tolist() if len(found) else []

    def test_each_is_told_once_and_as_soon_as_it_is_there(self, store, other, state):
        fill(store, recorded(40, loss=False))
        self.losses(store, range(0, 40, 10))
        only(store, state=state)
        told = self.gaps(store)
        assert len(told) > 0
        self.losses(store, [40])  # at the end of an epoch without a capture
        assert only(store, state=state).derived == 1
        assert self.gaps(store)[:-1] == told
        assert only(store, state=state).unchanged
        fill(other, recorded(40, loss=False))
        self.losses(other, range(0, 41, 10))
        only(other)
        assert self.gaps(other) == self.gaps(store)

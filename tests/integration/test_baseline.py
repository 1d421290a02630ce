"""Baselines: which runs are taken as healthy, and what others of the same network owe to them."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest

from gatewatch import open_store
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.schema import (
    BASELINES,
    GATE_DERIVED,
    GATE_SCORES,
    GATE_STATS,
    HISTOGRAM_FIELDS,
    RUNS,
    Point,
)
from gatewatch.jobs import baselines, checkpoint
from gatewatch.jobs.baselines import MOST, Baselines
from gatewatch.jobs.scoring.detectors.isolation_forest import FEATURES
from gatewatch.jobs.scoring.metrics.gates import drift_from
from gatewatch.jobs.scoring.residuals import WARM_UP
from gatewatch.jobs.scoring.scoring_pass import run_pass
from tests.recorded import end, fill, moment, recorded, shut

GATES = (("memory", "forget"), ("memory", "input"))
LONG_AGO = -10_000


@pytest.fixture(params=["sqlite", "influxdb"])
def either(request):
    if request.param == "sqlite":
        return request.getfixturevalue("store")
    return request.getfixturevalue("influxd").store()


@pytest.fixture
def store(tmp_path):
    return open_store(f"sqlite:///{tmp_path / 'points.db'}")


@pytest.fixture(autouse=True)
def small_forests(monkeypatch):
    """For speed: nothing here is about what a forest finds."""
    monkeypatch.setattr("gatewatch.jobs.scoring.detectors.isolation_forest.TREES", 10)


def past(store, run, seed, captures=60, **options):
    """A healthy run of long ago."""
    fill(store, recorded(captures, run=run, seed=seed, at=lambda k: moment(k + LONG_AGO), **options))
    end(store, run=run, phase=options.get("phase", "train"))


def add(store, *runs):
    """Each is added after the one before, however coarse the clock."""
    for number, run in enumerate(runs):
        baselines.add(store, run, lambda number=number: moment(number))


def model_id(store, run, **tags):
    found = store.read(GATE_SCORES, run=run, tags={"detector": "isolation_forest", **tags})
    (only,) = set(found["model_id"])
    return only


def provenance(store, state, run, **tags):
    run_pass(store, run, state=state)
    return checkpoint.load(state, run, {"run": run, "phase": "train", **tags}).scoring.detectors[0].model.provenance


def drop(store, run):
    """What a retention policy does to a run of long ago."""
    with store._lock, store._transaction("IMMEDIATE") as connection:
        connection.execute(
            "DELETE FROM points WHERE series_id IN (SELECT id FROM series WHERE run = ? AND measurement IN (?, ?))",
            (run, GATE_STATS, RUNS),
        )


class TestList:
    def test_the_one_that_was_added_last_comes_first(self, either):
        clock = count(moment(0)).__next__
        for run in ("a", "b", "c"):
            fill(either, recorded(1, run=run))
        assert baselines.listed(either) == []
        for run in ("a", "b", "c"):
            baselines.add(either, run, clock)
        assert baselines.listed(either) == ["c", "b", "a"]
        baselines.remove(either, "b", clock)
        assert baselines.listed(either) == ["c", "a"]
        baselines.add(either, "a", clock)
        assert baselines.listed(either) == ["a", "c"]
        baselines.add(either, "b", clock)
        assert baselines.listed(either) == ["b", "a", "c"]

    @pytest.mark.parametrize("run", ["nobody", "", "a b'c\"d"])
    def test_a_run_without_captures_cannot_be_one(self, either, run):
        fill(either, recorded(1))
        with pytest.raises(ConfigError, match=r"no run .* in .*: there is 'r'") as raised:
            baselines.add(either, run)
        assert repr(run) in str(raised.value)
        with pytest.raises(ConfigError, match=r"is no baseline in .*; `gatewatch baseline list` lists"):
            baselines.remove(either, run)
        assert baselines.listed(either) == []

    @pytest.mark.parametrize("run", ["../x", 'a "b", c=d', "λ/∅"])
    def test_names_are_only_names(self, either, run):
        fill(either, recorded(1, run=run))
        baselines.add(either, run)
        assert baselines.listed(either) == [run]

    def test_points_without_a_run_make_no_baseline(self, either):
        fill(either, recorded(1))
        either.write([Point(GATE_STATS, {}, {"step": 1}, 1), Point(BASELINES, {}, {"state": "added"}, 1)])
        assert baselines.listed(either) == []
        with pytest.raises(ConfigError, match=r"no run '' in .*: there is 'r'"):
            baselines.add(either, "")

    def test_it_is_no_baseline_twice_over(self, store):
        fill(store, recorded(1))
        baselines.add(store, "r")
        baselines.remove(store, "r")
        with pytest.raises(ConfigError, match="'r' is no baseline"):
            baselines.remove(store, "r")


class TestForest:
    def test_it_learns_from_them_in_place_of_the_warm_up(self, store, tmp_path):
        past(store, "one", 1)
        past(store, "two", 2)
        fill(store, recorded(50))
        fill(store, recorded(50, run="alone", seed=3))
        alone = provenance(store, tmp_path / "state", "alone")
        assert (alone["source"], alone["captures"]) == ("warm-up", WARM_UP)
        add(store, "one", "two")
        found = provenance(store, tmp_path / "state", "r")
        assert found["source"] == "baselines"
        assert found["features"] == list(FEATURES)
        assert found["rows"] == 2 * 2 * (60 - 16)  # of so many captures all deviations are known
        assert alone["rows"] == 2 * (WARM_UP - 16)

    def test_runs_with_the_same_baselines_have_the_same_one(self, store):
        past(store, "healthy", 1)
        add(store, "healthy")
        for number in range(2):
            fill(store, recorded(40, run=f"run {number}", seed=5 + number))
        run_pass(store)
        assert model_id(store, "run 0") == model_id(store, "run 1") != model_id(store, "healthy")

    def test_scores_begin_when_they_would_without(self, store):
        past(store, "healthy", 1)
        add(store, "healthy")
        fill(store, recorded(40))
        run_pass(store)
        assert store.read(GATE_SCORES, run="r")["step"].min() == WARM_UP

    @pytest.mark.parametrize(
        "other",
        [
            {"layers": ("memory", "second")},
            {"layers": ("other",)},
            {"gates": ("forget",)},
            {"gates": ("update", "reset")},
            {"phase": "backtest"},
            {"captures": WARM_UP},
        ],
        ids=str,
    )
    def test_another_network_or_phase_or_too_short_a_run_is_none(self, store, tmp_path, other):
        past(store, "healthy", 1, **other)
        add(store, "healthy")
        fill(store, recorded(40))
        assert provenance(store, tmp_path, "r")["source"] == "warm-up"
        assert "drift_baseline" not in store.read(GATE_DERIVED, run="r")

    def test_of_several_only_the_same_network_counts(self, store):
        past(store, "same", 1)
        past(store, "other", 2, layers=("other",))
        add(store, "same", "other")
        fill(store, recorded(40))
        run_pass(store)
        baselines.remove(store, "other")
        fill(store, recorded(40, run="again"))
        run_pass(store)
        assert model_id(store, "r") == model_id(store, "again")

    def test_a_run_is_not_compared_with_itself(self, store, tmp_path):
        past(store, "healthy", 1)
        add(store, "healthy")
        assert provenance(store, tmp_path, "healthy")["source"] == "warm-up"
        assert "drift_baseline" not in store.read(GATE_DERIVED, run="healthy")

    def test_the_tags_of_a_run_are_its_own(self, store, tmp_path):
        past(store, "healthy", 1, tags={"symbol": "GOOG"})
        add(store, "healthy")
        fill(store, recorded(40, tags={"symbol": "EURUSD"}))
        assert provenance(store, tmp_path, "r", symbol="EURUSD")["source"] == "baselines"

    def test_one_that_was_removed_is_none(self, store, tmp_path):
        past(store, "healthy", 1)
        add(store, "healthy")
        baselines.remove(store, "healthy")
        fill(store, recorded(40))
        assert provenance(store, tmp_path, "r")["source"] == "warm-up"

    def test_one_whose_points_are_gone_says_nothing(self, store, tmp_path):
        past(store, "gone", 1)
        add(store, "gone")
        drop(store, "gone")
        assert baselines.listed(store) == ["gone"]
        fill(store, recorded(40))
        assert provenance(store, tmp_path, "r")["source"] == "warm-up"
        past(store, "there", 2)
        add(store, "there")
        fill(store, recorded(40, run="later"))
        assert provenance(store, tmp_path, "later")["source"] == "baselines"
        baselines.remove(store, "gone")
        assert baselines.listed(store) == ["there"]

    def test_baselines_of_nothing_but_nan_leave_no_forest_and_no_failure(self, store):
        past(store, "odd", 1, change=lambda k, gate, values: np.full_like(values, np.nan))
        add(store, "odd")
        fill(store, recorded(40))
        done = {each.run: each for each in run_pass(store)}
        assert done["r"].failed is None
        found = store.read(GATE_SCORES, run="r")
        assert set(found["detector"]) == {"robust", "rules", "consensus"}

    def test_the_newest_are_enough(self, store):
        runs = [f"healthy {number}" for number in range(MOST + 2)]
        for number, run in enumerate(runs):
            past(store, run, number, captures=WARM_UP + 1, params=(), loss=False)
        add(store, *runs)
        normal = Baselines(store).normal("r", "train", GATES)
        assert len(normal.profiles[GATES[0]]) == MOST
        assert len(normal.rows) == MOST * 2 * (WARM_UP + 1)
        without = Baselines(store).normal(runs[-1], "train", GATES)
        assert len(without.profiles[GATES[0]]) == MOST
        assert not np.array_equal(normal.rows, without.rows, equal_nan=True)

    def test_a_fault_is_found_against_them(self, store):
        for seed in (1, 2):
            past(store, f"healthy {seed}", seed)
        add(store, "healthy 1", "healthy 2")
        fill(store, recorded(90, change=shut(60)))
        run_pass(store)
        found = store.read(GATE_SCORES, run="r", tags={"gate": "forget", "detector": "consensus"}).set_index("step")
        assert found.index[found["anomalous"] == 1].tolist() == [*range(61, 90)]


class TestDrift:
    def histograms(self, store, run, gate="forget"):
        found = store.read(GATE_STATS, run=run, tags={"gate": gate}).set_index("step")
        return found[list(HISTOGRAM_FIELDS)]

    def drifts(self, store, run, gate="forget"):
        found = store.read(GATE_DERIVED, run=run, tags={"gate": gate})
        return found["drift_baseline"].to_numpy()

    def test_it_is_the_distance_from_their_mean_at_the_same_steps(self, store):
        past(store, "one", 1)
        past(store, "two", 2)
        add(store, "one", "two")
        fill(store, recorded(70))
        run_pass(store)
        for gate in ("forget", "input"):
            own, one, two = (self.histograms(store, run, gate) for run in ("r", "one", "two"))
            last = np.minimum(own.index, 59)  # the baselines have no more
            usual = (one.loc[last].to_numpy() + two.loc[last].to_numpy()) / 2
            np.testing.assert_allclose(self.drifts(store, "r", gate), drift_from(own.to_numpy(), usual), atol=1e-12)

    def test_of_a_baseline_the_newest_capture_until_then_counts(self, store):
        past(store, "healthy", 1)
        add(store, "healthy")
        normal = Baselines(store).normal("r", "train", GATES)
        profile = self.histograms(store, "healthy").to_numpy()
        found = normal.histograms(GATES[0], np.array([-5.0, 0.0, 3.9, 4.0, 58.5, 1e9]))
        np.testing.assert_array_equal(found, profile[[0, 0, 3, 4, 58, 59]])
        assert normal.histograms(("memory", "output"), np.array([1.0])) is None

    def test_captures_of_a_baseline_that_hold_nothing_are_passed_over(self, store):
        def broken(k, gate, values):
            return np.full_like(values, np.nan) if k == 20 else values

        past(store, "healthy", 1, change=broken)
        add(store, "healthy")
        normal = Baselines(store).normal("r", "train", GATES)
        found = normal.histograms(GATES[0], np.array([19.0, 20.0, 21.0]))
        assert np.isfinite(found).all()
        np.testing.assert_array_equal(found[0], found[1])

    def test_a_network_that_goes_elsewhere_is_far_from_them(self, store):
        past(store, "healthy", 1)
        add(store, "healthy")
        fill(store, recorded(60, change=shut(40)))
        run_pass(store)
        found = self.drifts(store, "r")
        assert found[:40].max() < 0.6
        assert found[40:].min() > 0.9

    def test_without_baselines_there_is_none(self, store):
        fill(store, recorded(40))
        run_pass(store)
        assert "drift_baseline" not in store.read(GATE_DERIVED)

    def test_pieces_have_the_same(self, store, tmp_path):
        past(store, "healthy", 1)
        add(store, "healthy")
        for k, capture in enumerate(recorded(45)):
            fill(store, [capture])
            if k > 25:
                run_pass(store, "r", state=tmp_path / "state", finish=False)
        fill(store, recorded(45, run="whole"))
        run_pass(store)
        np.testing.assert_array_equal(self.drifts(store, "r"), self.drifts(store, "whole"))
        assert model_id(store, "r") == model_id(store, "whole")


def test_a_backfill_takes_the_baselines_that_there_are_now(store, tmp_path):
    past(store, "healthy", 1)
    fill(store, recorded(50))
    run_pass(store, state=tmp_path)
    before = model_id(store, "r")
    add(store, "healthy")
    run_pass(store, state=tmp_path)
    assert model_id(store, "r") == before
    run_pass(store, "r", state=tmp_path, again=True)
    assert model_id(store, "r") != before

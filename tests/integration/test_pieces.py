"""Runs in whatever pieces, orders and numbers their captures come: what is written is what one pass would write."""

from __future__ import annotations

import logging
import random
import shutil
import threading

import numpy as np
import pandas as pd
import pytest

from gatewatch import open_store
from gatewatch.collector.schema import GATE_DERIVED, GATE_SCORES, LAYER_UPDATES, RUNS, Point
from gatewatch.jobs.scoring.scoring_pass import run_pass
from tests.passes import assert_same, only, scores, undisturbed, until_done
from tests.recorded import SECOND, end, fill, moment, recorded, shut


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


def fault_and_nan(k, gate, values):
    values = np.array(values)
    if 60 <= k < 63 and gate == "input":
        values[:] = np.nan
    if k == 20:
        values[0, 0, 0] = np.inf
    return shut(80)(k, gate, values)


def unit_lost(k, gate, values):
    values = np.array(values)
    values[:, :, 0] = 0
    if k >= 35:
        values[:, :, -1] = np.nan
    return values


def rate_unknown(where):
    return [
        [
            Point(
                p.measurement,
                p.tags,
                {name: value for name, value in p.fields.items() if name != "learning_rate"},
                p.time,
            )
            if where(k)
            else p
            for p in capture
        ]
        for k, capture in enumerate(recorded(140, change=shut(120)))
    ]


def of_two(later, first=0, **options):
    """A network whose second layer is captured only sometimes."""
    one, two = recorded(120, **options), recorded(120, layers=("second",), loss=False, **options)
    return [a + b if later(k) else a for k, (a, b) in enumerate(zip(one, two, strict=True))]


def without_updates(where):
    return [
        [p for p in capture if not (where(k) and p.measurement == LAYER_UPDATES)]
        for k, capture in enumerate(recorded(150))
    ]


CASES = {
    "a fault and NaN": (lambda: [*recorded(120, change=fault_and_nan)], ["train"]),
    "a unit that is lost": (lambda: [*recorded(130, change=unit_lost, params=())], ["train"]),
    "a layer that joins": (lambda: of_two(lambda k: k >= 80), ["train"]),
    "a layer that leaves": (lambda: of_two(lambda k: k < 30), ["train"]),
    "updates that begin": (lambda: without_updates(lambda k: k < 60), ["train"]),
    "updates that end": (lambda: without_updates(lambda k: k >= 50), ["train"]),
    "a learning rate that is logged from somewhere on": (lambda: rate_unknown(lambda k: k < 80), ["train"]),
    "a learning rate that is logged until somewhere": (lambda: rate_unknown(lambda k: k >= 40), ["train"]),
    "a backtest that goes live": (
        lambda: [*recorded(50, phase="backtest", params=()), *recorded(40, 50, phase="live", params=())],
        ["backtest", "live"],
    ),
    "two symbols": (
        lambda: [
            a + b
            for a, b in zip(
                recorded(60, tags={"symbol": "GOOG"}), recorded(60, tags={"symbol": "a,b 'c'"}, seed=3), strict=True
            )
        ],
        ["train"],
    ),
    "two trainings of one name": (
        lambda: [
            capture
            for pair in zip(recorded(60), recorded(60, seed=5, at=lambda k: moment(k) + SECOND // 3), strict=True)
            for capture in pair
        ],
        ["train"],
    ),
}


@pytest.mark.parametrize(("seed", "case"), [*enumerate([*CASES, "a fault and NaN"])])
def test_passes_along_the_way_write_what_one_at_the_end_writes(store, other, state, seed, case):
    make, phases = CASES[case]
    chosen, captures = random.Random(seed), make()
    undisturbed(other, captures, *phases)
    begin = 0
    while begin < len(captures):
        size = chosen.choice([1, 1, 2, 7, 20])
        fill(store, captures[begin : begin + size])
        begin += size
        (done,) = run_pass(store, state=state, finish=False, limit=chosen.choice([3, 25, None]))
        assert done.failed is None
        if case == "a fault and NaN" and chosen.random() < 0.1:
            shutil.rmtree(state)  # which costs time and nothing else, but hides what pieces do
    for phase in phases:
        end(store, phase=phase)
    until_done(store, state=state, finish=False, limit=15)
    assert_same(store, other, old_causes=True)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_long_run_is_read_in_pieces(store, other, monkeypatch, size):
    captures = [*recorded(100, change=shut(70))]
    undisturbed(other, captures)
    monkeypatch.setattr("gatewatch.jobs.scoring.run_scorer.CHUNK", size)
    undisturbed(store, captures)
    assert_same(store, other)


class TestWaiting:
    """What is left for a later pass."""

    def test_the_newest_capture_waits_until_a_newer_one_is_there(self, store, state):
        fill(store, recorded(50))
        done = only(store, state=state, finish=False)
        assert (done.captures, done.behind) == (49, 1)
        fill(store, recorded(1, 50))
        done = only(store, state=state, finish=False)
        assert (done.captures, done.behind) == (50, 1)
        assert store.read(GATE_DERIVED)["time"].max().value == moment(49)

    def test_or_until_it_has_not_changed_from_one_pass_to_the_next(self, store, state):
        fill(store, recorded(50))
        only(store, state=state, finish=False)
        done = only(store, state=state, finish=False)
        assert (done.captures, done.behind) == (50, 0)
        assert only(store, state=state, finish=False).unchanged

    def test_or_until_the_run_has_ended(self, store, state):
        fill(store, recorded(50))
        end(store)
        done = only(store, state=state, finish=False)
        assert (done.captures, done.behind) == (50, 0)

    def test_half_a_capture_is_not_taken(self, store, other, state):
        captures = [*recorded(40, change=shut(34))]
        undisturbed(other, captures)
        fill(store, captures[:30])
        for capture in captures[30:]:
            for part in (capture[:5], capture[5:7], capture[7:]):
                fill(store, [part])
                assert only(store, state=state, finish=False).captures < int(capture[0].fields["step"]) + 1
        end(store)
        until_done(store, state=state, finish=False)
        assert_same(store, other)

    def test_a_pass_takes_no_more_than_it_is_told_to(self, store, other, state):
        captures = [*recorded(100)]
        undisturbed(other, captures)
        fill(store, captures)
        end(store)
        told = []
        while not told or told[-1][1]:
            done = only(store, state=state, finish=False, limit=30)
            told.append((done.captures, done.behind))
        assert told == [(30, 70), (60, 40), (90, 10), (100, 0)]
        assert_same(store, other)

    def test_without_a_folder_for_checkpoints_all_is_scored_all_the_same(self, store, other, state, caplog):
        captures = [*recorded(60)]
        undisturbed(other, captures)
        state.write_text("a file where the folder should be")
        with caplog.at_level(logging.WARNING, "gatewatch"):
            for begin in range(0, 60, 20):
                fill(store, captures[begin : begin + 20])
                only(store, state=state, finish=False)
        end(store)
        until_done(store, state=state, finish=False)
        assert_same(store, other)
        assert "cannot be stored" in caplog.text

    def test_what_is_done_is_not_read_again(self, store, state):
        fill(store, recorded(300))
        end(store)
        first = only(store, state=state)
        again = only(store, state=state)
        assert again.unchanged
        assert again.rows_read == 0
        fill(store, recorded(1, 300))
        more = only(store, state=state)
        assert more.written > 0
        rows = first.rows_read / 300  # of a capture
        assert more.rows_read < (83 + 3) * rows  # the longest look-back is 83


class TestLate:
    """Captures that come when later ones are scored already."""

    @pytest.fixture(params=["sqlite", "influxdb"])
    def either(self, request):
        if request.param == "sqlite":
            return request.getfixturevalue("store")
        return request.getfixturevalue("influxd").store()

    def test_they_are_scored_and_so_is_what_came_after_them(self, either, other, state):
        captures = [*recorded(110, change=shut(70, until=90))]
        late = [*range(10, 13), 75, 76, 77, 78]
        undisturbed(other, captures)
        fill(either, [capture for k, capture in enumerate(captures) if k not in late and k < 100])
        only(either, state=state, finish=False)
        fill(either, [captures[k] for k in late])
        assert not only(either, state=state, finish=False).unchanged
        fill(either, captures[100:])
        end(either)
        until_done(either, state=state, finish=False)
        assert_same(either, other, old_causes=True)

    def test_a_cause_that_is_none_any_more_is_0(self, store, state):
        def rise(k, gate, values):  # which looks abrupt to who does not see it
            return values + 0.01 * np.clip(k - 40, 0, 20)

        captures = [*recorded(90, change=rise)]
        fill(store, captures[:40] + captures[60:])
        end(store)
        only(store, state=state)
        before = scores(store).set_index(["time", "layer", "gate", "detector"])
        fill(store, captures[40:60])
        only(store, state=state)
        after = scores(store).set_index(["time", "layer", "gate", "detector"]).loc[before.index]
        causes = before.filter(regex="^why_").columns
        gone = before[causes].notna() & (after[causes] == 0)
        assert gone.to_numpy().sum() > 0
        normal = after["anomalous"] == 0
        assert (after.loc[normal, causes].fillna(0) == 0).all(axis=None)

    def test_one_late_capture_in_the_middle_of_a_service(self, store, other, state):
        captures = [*recorded(60)]
        undisturbed(other, captures)
        fill(store, captures[:30])
        for k in [*range(30, 40), *range(41, 50), 40, *range(50, 60)]:
            fill(store, [captures[k]])
            only(store, state=state, finish=False)
        end(store)
        until_done(store, state=state, finish=False)
        assert_same(store, other, old_causes=True)

    def test_points_from_the_future(self, store, other, state):
        captures = [*recorded(50)]
        wrong = [*recorded(1, 35, at=lambda k: 2**62)]  # a clock that was wrong once
        captures[35:36] = wrong
        undisturbed(other, captures)
        for begin in range(0, 50, 3):
            fill(store, captures[begin : begin + 3])
            only(store, state=state, finish=False)
        end(store)
        until_done(store, state=state, finish=False)
        assert_same(store, other, old_causes=True)
        assert scores(store)["time"].max().value == 2**62

    def test_a_backtest_whose_end_comes_after_live_began(self, store, other, state):
        backtest, live = [*recorded(60, phase="backtest")], [*recorded(40, 60, phase="live")]
        undisturbed(other, backtest + live, "backtest", "live")
        fill(store, backtest[:40] + live[:20])
        for phase in ("backtest", "live"):
            end(store, phase=phase)
        only(store, state=state, finish=False)
        fill(store, backtest[40:])
        only(store, state=state, finish=False)
        fill(store, live[20:])
        only(store, state=state, finish=False)
        assert_same(store, other, old_causes=True)


class TestCheckpoints:
    @pytest.mark.parametrize("how", ["lost", "truncated", "foreign", "another version"])
    @pytest.mark.parametrize("which", ["*.npz", "*.skops"])
    def test_one_that_cannot_be_used_costs_time_and_nothing_else(self, store, other, state, monkeypatch, which, how):
        captures = [*recorded(80, change=shut(50))]
        undisturbed(other, captures)
        fill(store, captures[:60])
        only(store, state=state)
        (file,) = state.rglob(which)
        match how:
            case "lost":
                file.unlink()
            case "truncated":
                file.write_bytes(file.read_bytes()[:-100])
            case "foreign":
                file.write_bytes(b"\x00" * 1000)
            case _:
                monkeypatch.setattr("gatewatch.jobs.checkpoint.VERSION", 0)
        fill(store, captures[60:])
        end(store)
        only(store, state=state)
        assert_same(store, other)
        monkeypatch.undo()
        assert only(store, state=state).unchanged
        fill(store, recorded(1, 80))
        if how != "another version":
            assert only(store, state=state).scored == 17  # the checkpoint is sound again

    def test_a_run_that_was_deleted_and_made_again_is_another_run(self, tmp_path, other, state):
        """Of the same name and length, at the same address."""
        path = tmp_path / "again.db"
        for seed, later in ((0, 0), (1, 1000)):
            path.unlink(missing_ok=True)
            made = open_store(f"sqlite:///{path}")
            fill(made, recorded(60, seed=seed, at=lambda k, later=later: moment(k + later)))
            end(made)
            only(made, state=state, finish=False)
            made.close()
        undisturbed(other, recorded(60, seed=1, at=lambda k: moment(k + 1000)))
        assert_same(open_store(f"sqlite:///{path}"), other)

    def test_a_store_that_drops_what_is_old_takes_nothing_back(self, store, other, state):
        captures = [*recorded(120, change=shut(100))]
        undisturbed(other, captures)
        fill(store, captures[:90])
        only(store, state=state)
        drop(store, before=moment(50))
        for capture in captures[90:]:
            fill(store, [capture])
            only(store, state=state, finish=False)
        end(store)
        only(store, state=state)
        found, wanted = (scores(each) for each in (store, other))
        wanted = wanted[wanted["step"] >= 50].reset_index(drop=True)
        pd.testing.assert_frame_equal(found, wanted[found.columns], check_exact=True)

    def test_live_goes_on_when_the_store_drops_its_backtest(self, store, state):
        fill(store, recorded(60, phase="backtest"))
        fill(store, recorded(20, 60, phase="live"))
        only(store, state=state)
        drop(store, before=moment(30))
        for k in range(80, 90):
            fill(store, recorded(1, k, phase="live"))
            only(store, state=state, finish=False)
        assert scores(store, phase="live")["step"].max() == 88
        drop(store, before=moment(60))
        fill(store, recorded(5, 90, phase="live"))
        only(store, state=state)
        assert scores(store, phase="live")["step"].max() == 94

    def test_two_passes_at_once_write_what_one_writes(self, store, other, state):
        captures = [*recorded(120, change=shut(80))]
        undisturbed(other, captures)
        failures = []

        def work(folder):
            own = open_store(store.url)
            try:
                for _ in range(6):
                    failures.extend(filter(None, (done.failed for done in run_pass(own, state=folder, finish=False))))
            except Exception as error:
                failures.append(error)
            finally:
                own.close()

        fill(store, captures[:50])
        workers = [threading.Thread(target=work, args=[folder]) for folder in (state, state, state / "other", None)]
        for worker in workers:
            worker.start()
        for begin in range(50, 120, 10):
            fill(store, captures[begin : begin + 10])
        for worker in workers:
            worker.join()
        assert failures == []
        end(store)
        until_done(store, state=state, finish=False)
        assert_same(store, other)


def drop(store, before):
    """What a retention policy does."""
    with store._lock, store._transaction("IMMEDIATE") as connection:
        connection.execute(
            "DELETE FROM points WHERE time < ? AND series_id IN (SELECT id FROM series WHERE measurement != ?)",
            (before, RUNS),
        )


class TestAgain:
    def test_a_backfill_writes_the_same_points(self, store, other, state):
        captures = [*recorded(90, change=shut(60))]
        undisturbed(other, captures)
        fill(store, captures)
        end(store)
        first = only(store, state=state, finish=False)
        again = only(store, state=state, again=True)
        assert (again.scored, again.derived) == (first.scored, first.derived)
        assert not again.unchanged
        assert_same(store, other)
        assert only(store, state=state).unchanged

    def test_it_writes_what_is_missing(self, store, other):
        captures = [*recorded(60)]
        undisturbed(other, captures)
        undisturbed(store, captures)
        with store._lock, store._transaction("IMMEDIATE") as connection:
            connection.execute(
                "DELETE FROM points WHERE series_id IN (SELECT id FROM series WHERE measurement = ?)", (GATE_SCORES,)
            )
        assert only(store).unchanged  # the derived points say that all is done
        only(store, again=True)
        assert_same(store, other)

"""The labelled fault benchmark: when a fault counts as found, that every fault does what it says, and the splits."""

from __future__ import annotations

from dataclasses import asdict
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.faults.cases import JUDGE_ONLY, WEAK, Case, cases
from bench.faults.controls import CONTROLS
from bench.faults.estimate import listing
from bench.faults.evaluate import evaluate
from bench.faults.faults import FAULTS
from bench.faults.judge import LATEST, Outcome, delay, judge, stretches, summarise
from bench.faults.market import TREND, market, prices
from bench.faults.peers import SKETCH_LIMIT, departures, fixed_thresholds, sketch_scores
from bench.faults.program import Program
from bench.faults.readings import Readings, read
from bench.faults.recorder import key, load, meaning, record
from bench.faults.shapes import SHAPES
from bench.faults.table import aims, lines
from bench.faults.walk import CALL, EPISODE, Walk

STRIKE = 60
NONE = (np.array([], "datetime64[ns]"), np.array([], bool))
SHAPE = "torch-lstm-16-16"


def alarms(*captures, of=120):
    mask = np.zeros(of, bool)
    mask[list(captures)] = True
    return mask


# What counts as found.


def test_two_alarms_within_five_captures_find_a_fault():
    assert delay(alarms(60, 61), STRIKE) == 0
    assert delay(alarms(63, 67), STRIKE) == 3
    assert delay(alarms(63, 68), STRIKE) is None
    assert delay(alarms(63), STRIKE) is None


def test_a_failed_check_finds_a_fault_by_itself():
    assert delay(alarms(63), STRIKE, least=1) == 3
    assert delay(alarms(59, 63), STRIKE, least=1) is None


def test_a_lone_alarm_before_the_pair_does_not_begin_it():
    assert delay(alarms(62, 70, 71), STRIKE) == 10


def test_the_first_alarm_comes_at_most_fifteen_captures_after_the_fault():
    assert LATEST == 15
    assert delay(alarms(75, 79), STRIKE) == 15
    assert delay(alarms(76, 77), STRIKE) is None


def test_an_alarm_that_was_on_before_finds_nothing():
    assert delay(alarms(*range(120)), STRIKE) is None
    assert delay(alarms(57, 61, 62), STRIKE) is None
    assert delay(alarms(59, *range(60, 90)), STRIKE) is None
    assert delay(alarms(*range(0, 120, 4)), STRIKE) is None


def test_an_alarm_that_ended_before_may_begin_anew():
    assert delay(alarms(54, 55, 60, 61), STRIKE) == 0
    assert delay(alarms(59, 64, 65), STRIKE) == 4
    assert delay(alarms(59, 60, 61, 70, 71), STRIKE) == 10


def test_alarms_before_the_fault_do_not_find_it():
    assert delay(alarms(40, 41), STRIKE) is None


@given(st.lists(st.booleans(), max_size=80).map(lambda mask: np.array(mask, bool)))
def test_every_alarm_is_of_one_stretch(mask):
    found = stretches(mask)
    assert sum(count for _, count in found) == mask.sum()
    assert all(mask[first] and not mask[max(0, first - 4) : first].any() for first, _ in found)


def test_a_run_is_judged_by_the_times_of_its_captures():
    captures = np.arange(100, 220)
    outcome = judge(captures, 60, np.arange(130, 220), alarms(32, 33, 80, of=90))
    assert outcome == Outcome(faulty=True, delay=2, judged=90, alarms=3)
    assert judge(captures, None, np.arange(130, 220), alarms(5, of=90)) == Outcome(False, None, 90, 1)
    with pytest.raises(ValueError, match="no capture"):
        judge(captures, None, np.array([99]), alarms(of=1))


def test_false_alarms_are_counted_on_healthy_runs_alone():
    summary = summarise(
        [
            Outcome(faulty=True, delay=2, judged=100, alarms=40),
            Outcome(faulty=True, delay=None, judged=100, alarms=0),
            Outcome(faulty=False, delay=None, judged=100, alarms=1),
            Outcome(faulty=False, delay=None, judged=300, alarms=0),
        ]
    )
    assert (summary.recall, summary.delay, summary.false_per_thousand) == (0.5, 2, 2.5)
    assert (summary.healthy_alarmed, summary.judged) == (0.5, 400)
    assert summarise([]).recall is None


# The peers.


def test_a_departure_is_measured_against_the_trend_and_what_is_usual_for_the_series():
    random = np.random.default_rng(0)
    values = np.arange(100.0) * 0.3 + random.normal(0, 0.1, 100)
    usual = departures(values)
    assert np.isnan(usual[:18]).all()
    assert np.nanmedian(usual) < 2
    values[70:] += 5
    jumped = departures(values)
    np.testing.assert_array_equal(jumped[:70], usual[:70])
    assert np.nanmax(jumped[70:73]) > 10
    assert np.nanmedian(jumped[90:]) < 2


def test_thresholds_are_fixed():
    readings = Readings(
        times=np.arange(3),
        steps=np.arange(3),
        gates={
            ("lstm", "forget", "saturated_low"): np.array([0.0, 0.3, 0.3]),
            ("lstm", "forget", "saturated_high"): np.array([0.0, 0.4, 0.1]),
        },
        updates={
            ("lstm", "kernel", "gradient_norm"): np.array([0.1, 0.1, np.nan]),
            ("lstm", "kernel", "gradient_norm_clipped"): np.array([0.1, 0.1, 0.7]),
            ("head", "kernel", "gradient_norm_clipped"): np.array([0.1, 0.1, 0.7]),
        },
    )
    assert fixed_thresholds(readings)[1].tolist() == [False, True, True]


# Programs and walks.


def case(fault=None, control="seed", kind="training", shape=SHAPE, symbol="GOOG", seed=3, strike=0.6):
    return Case("develop", shape, symbol, seed, kind, fault, None if fault else control, strike)


def batches(fault, steps):
    program = Program(case(fault))
    return program, [program.batch(step) for step in range(1, steps + 1)]


def test_a_fault_touches_nothing_before_it_strikes():
    healthy, untouched = batches(None, 300)
    for name in ("stuck-feed", "overfit", "shuffled-time"):
        program, struck = batches(name, 300)
        first = program.strikes_at - 1
        assert first < 300
        for mine, theirs in zip(struck[:first], untouched[:first], strict=True):
            np.testing.assert_array_equal(mine.x, theirs.x)
        assert not np.array_equal(struck[first].x, untouched[first].x)
    assert healthy.fault is None


def test_an_overfit_training_sees_few_windows():
    program = Program(case("overfit"))
    seen = {program.batch(step).y.tobytes() for step in range(1, program.strikes_at)}
    few = np.unique(np.concatenate([program.batch(step).y for step in range(program.strikes_at, program.steps)]))
    assert len(seen) > 100
    assert len(few) <= 24


def test_a_state_that_is_kept_is_never_reset_again():
    for seed, calls in ((3, EPISODE // CALL), (4, 1)):
        for fault, resets in (("state-kept", False), (None, True)):
            walk = Walk(case(fault, "episodes", "backtest", "torch-lstm-32", seed=seed, strike=0.62))
            called = [walk.call(number) for number in range(1, len(walk) + 1)]
            assert [call.starts for call in called] == [k % calls == 0 for k in range(len(walk))]
            reset = [call.resets for call in called]
            assert reset[: walk.strikes_at - 1] == [k % calls == 0 for k in range(walk.strikes_at - 1)]
            assert any(reset[walk.strikes_at - 1 :]) is resets
        assert walk.call(len(walk)).x.shape == (4, walk.bars, 4)


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_a_shifted_mask_resets_the_state_a_call_after_the_start_of_an_episode(seed):
    walk = Walk(case("mask-shifted", None, "backtest", "torch-lstm-32", seed=seed, strike=0.62))
    called = [walk.call(number) for number in range(1, len(walk) + 1)]
    before, after = called[: walk.strikes_at - 1], called[walk.strikes_at - 1 :]
    assert all(call.starts == call.resets for call in before)
    assert [k for k, call in enumerate(after) if call.starts][:2] == [0, 10]
    assert [k for k, call in enumerate(after) if call.resets][:2] == [1, 11]
    assert walk.starts(after[0]).tolist() == [True] * 4
    assert walk.starts(after[1]).tolist() == [False] * 4


@pytest.mark.parametrize("seed", [3, 4])
def test_a_market_turns_wild_in_the_middle_of_a_backtest(seed):
    for control in ("calm-to-wild", "wild-to-calm"):
        walk = Walk(case(control=control, kind="backtest", shape="torch-lstm-32", seed=seed))
        spread = [market("GOOG").volatility[walk.bars_of(number)].mean() for number in range(1, len(walk) + 1)]
        before, after = np.mean(spread[:72]), np.mean(spread[72:])
        assert (after > 1.5 * before) if control == "calm-to-wild" else (before > 1.5 * after)


# Healthy runs, and the splits.


@pytest.mark.parametrize("symbol", ["GOOG", "EURUSD", "BTCUSD", "FOREX", "STOCKS"])
def test_what_a_network_is_given_is_finite_and_knows_no_future(symbol):
    bars = market(symbol)
    assert len(bars) > 100
    for part in asdict(bars).values():
        assert np.isfinite(part).all()
    assert abs(np.corrcoef(bars.known[:, 0], bars.following)[0, 1]) < 0.25
    np.testing.assert_allclose(bars.known[1:, 0], bars.following[:-1], atol=0.5)


@pytest.mark.parametrize("control", [name for name, one in CONTROLS.items() if one.kind == "training"])
def test_a_healthy_training_has_batches_and_rates_to_its_end(control):
    program = Program(case(control=control, symbol="BTCUSD"))
    for step in (1, program.last // 2, program.last):
        batch = program.batch(step)
        doubled = control == "batch-doubled" and step >= program.strikes_at
        assert batch.x.shape == (program.setup.batch * (2 if doubled else 1), program.shape.length, 4)
        assert 0 < program.rate(step) <= program.setup.rate * 1.0001
    assert len(program.unseen) > 0


@pytest.mark.parametrize(("low", "high"), [("calm", "wild"), ("falling", "rising")])
def test_a_market_turns_at_one_step_of_a_training(low, high):
    def measured(program, step):
        indices = program._draw(step)
        windows = program._windows
        return (windows.volatility if high == "wild" else windows.x[:, -1, TREND])[indices].mean()

    upwards = Program(case(control=f"regime-{low}-to-{high}"))
    downwards = Program(case(control=f"regime-{high}-to-{low}"))
    at = upwards.strikes_at
    assert measured(upwards, at) - measured(upwards, at - 1) > 0
    assert measured(downwards, at) - measured(downwards, at - 1) < 0


def test_the_splits_share_no_day_of_the_same_prices():
    for develop, judge_ in (("GOOG", "STOCKS"), ("EURUSD", "FOREX")):
        first, second = (prices(symbol).index for symbol in (develop, judge_))
        assert not first.normalize().intersection(second.normalize()).size
        assert min(len(first), len(second)) > 1_000


def test_each_split_has_faults_and_controls_of_every_kind():
    develop, judge_ = cases("develop"), cases("judge")
    assert {one.fault for one in judge_ if one.fault} == set(FAULTS)
    assert {one.fault for one in develop if one.fault} == set(FAULTS) - set(JUDGE_ONLY)
    for split, found in (("develop", develop), ("judge", judge_)):
        assert {one.control for one in found if one.control} == {n for n, c in CONTROLS.items() if split in c.splits}
        assert all((one.fault is None) is (one.control is not None) for one in found)
        assert len({one.name for one in found}) == len(found)
        first = {name for name, fault in FAULTS.items() if fault.from_the_start}
        assert all((one.strike == 0) if one.fault in first else (0.5 <= one.strike <= 0.75) for one in found)


def test_the_judge_split_has_enough_runs_to_prove_its_numbers():
    found = cases("judge")
    healthy = [one.data for one in found if one.fault is None]
    assert healthy.count("steady") >= 60
    assert healthy.count("changing") >= 60
    assert all(sum(one.fault == name for one in found) >= 20 for name in WEAK)


def test_the_splits_share_no_network_no_prices_no_seed_and_no_optimizer():
    develop, judge_ = cases("develop"), cases("judge")

    def optimizer(one):
        chosen = CONTROLS[one.control].setup.optimizer if one.control else None
        return chosen or SHAPES[one.shape].optimizer

    for of in (lambda c: c.shape, lambda c: c.symbol, lambda c: c.seed, optimizer):
        assert not {of(one) for one in develop} & {of(one) for one in judge_}
    for one, other in product({SHAPES[c.shape] for c in develop}, {SHAPES[c.shape] for c in judge_}):
        assert (one.cell, one.units, one.length) != (other.cell, other.units, other.length)


def test_more_runs_of_one_fault_leave_those_of_others_as_they_are(monkeypatch):
    before = {one.name for one in cases("judge") if one.fault != "overfit"}
    monkeypatch.setattr("bench.faults.cases.WEAK", tuple(name for name in WEAK if name != "overfit"))
    assert {one.name for one in cases("judge") if one.fault != "overfit"} == before


# All of it.


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("faults")


def test_a_run_is_recorded_once_and_judged(folder):
    wanted = [case("forget-shut"), case(control="episodes", kind="backtest", shape="torch-lstm-32")]
    first = record(folder, wanted, processes=1)
    written = [one.path.stat().st_mtime_ns for one in first]
    assert [one.strike_step for one in first] == [217, None]
    again = record(folder, wanted, processes=1)
    assert [one.path.stat().st_mtime_ns for one in again] == written

    outcomes = evaluate(again, scorer)
    assert outcomes["fixed thresholds"][0][1] == Outcome(faulty=True, delay=0, judged=120, alarms=48)
    assert outcomes["fixed thresholds"][1][1] == Outcome(faulty=False, delay=None, judged=120, alarms=0)
    assert [one.path.stat().st_mtime_ns for one in again] == written
    table = "\n".join(lines(outcomes))
    assert "1 faulty runs of 1 kinds, 1 healthy runs of 1 kinds, 0 with another regime" in table
    assert "forget-shut (1; gate)" in table
    assert any("no consensus" in line for line in aims(outcomes))

    listed = list(listing(folder, "develop", [*wanted, case("overfit")], 1))
    assert listed[0] == "develop: 2 faulty runs, 1 healthy runs"
    assert "1 runs,    1 recorded" in next(line for line in listed if "forget-shut" in line)
    assert "2 of 3 recorded" in listed[-1]


def test_a_detector_without_a_verdict_on_a_run_found_nothing_in_it(folder):
    wanted = [case("forget-shut"), case(control="episodes", kind="backtest", shape="torch-lstm-32")]
    silent = evaluate(record(folder, wanted, processes=1), lambda _, run: {"rules": NONE} if "shut" in run else {})
    assert [outcome for _, outcome in silent["rules"]] == [Outcome(True, None, 0, 0), Outcome(False, None, 0, 0)]


def scorer(path, run):
    readings = read(path, run)
    assert np.nanmax(sketch_scores(readings)) > 0
    assert SKETCH_LIMIT > 0
    shut = [value for key, value in readings.gates.items() if key[1:] == ("forget", "saturated_low")]
    return {"fixed thresholds": (readings.times, np.max(shut, axis=0) > 0.5)}


def test_the_consensus_has_found_what_a_failed_check_found(folder):
    wanted = [case("forget-shut")]
    outcomes = evaluate(record(folder, wanted, processes=1), one_alarm)
    assert outcomes["checks"][0][1] == outcomes["consensus"][0][1] == Outcome(True, 3, 120, 1)
    assert outcomes["rules"][0][1] == Outcome(True, None, 120, 1)


def one_alarm(path, run):
    times = read(path, run).times
    alarm = np.arange(len(times)) == 75  # the fault strikes at capture 72
    return dict.fromkeys(("checks", "consensus", "rules"), (times, alarm))


def test_what_was_recorded_otherwise_is_recorded_anew(folder, monkeypatch):
    one = case("forget-shut", strike=0.7)
    assert not load(folder, [one])
    assert key(one) != key(case("forget-shut"))


def test_a_recording_stays_valid_where_only_imports_comments_and_docstrings_change():
    before = 'from gatewatch import GateMonitor\n\ndef run():\n    """Run."""\n    return GateMonitor()\n'
    after = "from gatewatch import GateMonitor  # moved\n\ndef run():\n    return GateMonitor()\n"
    assert meaning(before) == meaning(after)
    assert meaning(before) != meaning(after.replace("GateMonitor()", "GateMonitor(every=2)"))

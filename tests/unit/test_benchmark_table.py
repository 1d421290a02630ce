"""The table of the benchmark: intervals, what counts as a false alarm, and the aims."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.faults.cases import Case
from bench.faults.judge import Outcome
from bench.faults.recorder import Record
from bench.faults.table import aims, lines, missed
from bench.faults.wilson import wilson_interval


def test_an_interval_says_how_far_a_share_of_few_runs_may_be_off():
    assert wilson_interval(65, 69) == pytest.approx((0.860, 0.977), abs=1e-3)
    assert wilson_interval(0, 59) == pytest.approx((0.0, 0.061), abs=1e-3)
    assert wilson_interval(3, 3) == pytest.approx((0.438, 1.0), abs=1e-3)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_ends_where_the_score_test_begins_to_reject(counts):
    hits, trials = counts
    low, high = wilson_interval(hits, trials)
    share = hits / trials
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1
    assert low < high
    for end in (low, high):
        assert (share - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / trials, abs=1e-9)


# The table.


def record_of(fault=None, control="seed", kind="training"):
    case = Case("develop", "torch-lstm-32", "GOOG", 3, kind, fault, None if fault else control, 0.6)
    return Record(case, Path("nowhere"), 100)


def table_of(**outcomes):
    """Consensus, checks or data → records and outcomes."""
    return "\n".join([*lines(outcomes), *aims(outcomes), *missed(outcomes)])


def test_a_notice_is_right_where_the_data_change_and_false_where_they_are_steady():
    changing = record_of(control="regime-calm-to-wild")
    noticed = Outcome(faulty=False, delay=2, judged=100, alarms=9)
    quiet, false = Outcome(False, None, 100, 0), Outcome(False, None, 100, 1)
    drifting = record_of(control="curriculum")
    table = table_of(
        consensus=[(changing, quiet), (record_of(), quiet), (drifting, quiet)],
        data=[(changing, noticed), (record_of(), false), (drifting, noticed)],
    )
    cells = {line[:46].strip(): line[46:].split() for line in table.splitlines() if line[:46].strip()}
    assert cells["another regime, followed by an alarm or notice"[:46]][-1] == "1.00"
    assert cells["false alarms per 1,000 healthy captures"][-2:] == ["0.0", "10.0"]
    assert "met" in next(line for line in table.splitlines() if "share of healthy runs" in line)


def test_an_alarm_at_a_change_of_regime_is_a_false_one():
    table = table_of(consensus=[(record_of(control="calm-to-wild", kind="backtest"), Outcome(False, 0, 100, 7))])
    assert "aim: false alarms per 1,000 healthy captures at most 1: 70.00, MISSED" in table
    assert "aim: share of healthy runs with an alarm at most 0.05: 1.000 (0.21 to 1.00; 1 of 1), MISSED" in table
    assert "7 false alarms: healthy-calm-to-wild" in table


def test_the_recall_that_is_aimed_at_leaves_out_what_only_the_loss_can_show():
    found, not_found = Outcome(True, 1, 100, 5), Outcome(True, None, 100, 0)
    runs = [(record_of("forget-shut"), found)] * 40 + [(record_of("half-once"), not_found)]
    assert "its lower bound 0.9: 1.000 (0.91 to 1.00; 40 of 40), met" in table_of(consensus=runs)
    assert "1.000 (0.84 to 1.00; 20 of 20), MISSED" in table_of(consensus=runs[20:])


def test_the_checks_are_to_find_all_that_breaks_an_exact_statement_and_nothing_else():
    found, not_found = Outcome(True, 1, 100, 5), Outcome(True, None, 100, 0)
    runs = [(record_of("moments-dropped"), found), (record_of("forget-shut"), not_found)]
    table = table_of(consensus=runs, checks=[*runs, (record_of(), Outcome(False, None, 100, 0))])
    assert "found by the checks: all: 1 of 1, met" in table
    assert "healthy runs that a check alarms: none: 0 of 1, met" in table
    runs = [(record_of("moments-dropped"), not_found)]
    assert "found by no check: moments-dropped" in table_of(consensus=runs, checks=runs)

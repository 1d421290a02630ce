"""What the jobs say of themselves."""

from __future__ import annotations

import pytest

from gatewatch.collector.schema import JOBS_HEALTH
from gatewatch.jobs.service.health import REPORT_SECONDS, Health
from gatewatch.jobs.service.tasks import Turn


class Done:
    """A run's part of a turn, as far as it is counted."""

    def __init__(self, scored=0, rows_read=0, written=0, behind=0, failed=None):
        self.scored, self.rows_read, self.written, self.behind, self.failed = scored, rows_read, written, behind, failed
        self.phases = {"train": 40, "validation": 40}


class Alerts:
    rows_read, points_written, failures = 5, 2, 1


@pytest.fixture
def health():
    return Health(["score", "alerts"], 100.0)


def told(health, now=1000.0, time=9):
    return {point.tags["job"]: dict(point.fields) for point in health.take(now, time)}


def test_each_turn_is_a_point_and_counters_only_grow(health):
    health.begun("score", 110.0)
    health.done("score", Turn((Done(3, 40, 7), Done(1, 10, 2, failed="odd")), seconds=0.5), 112.0, 1)
    health.begun("score", 120.0)
    health.done("score", Turn((Done(2, 30, 4),), seconds=0.25), 121.0, 2)
    first, second = health.take(122.0, 3)
    assert (first.measurement, first.tags, first.time) == (JOBS_HEALTH, {"job": "score"}, 1)
    counted = {"windows": 4, "rows_read": 50, "points_written": 9, "failures": 1, "missed": 0}
    assert first.fields == {"duration_s": 0.5, "lag_s": 2.0} | counted
    counted = {"windows": 6, "rows_read": 80, "points_written": 13, "failures": 1, "missed": 0}
    assert second.fields == {"duration_s": 0.25, "lag_s": 1.0} | counted
    assert health.take(122.0, 4) == []


def test_the_lag_grows_until_a_turn_leaves_nothing_behind(health):
    lags = []
    for began, turn in [
        (110.0, Turn((Done(behind=30),))),
        (120.0, Turn((Done(behind=5), Done()))),
        (130.0, Turn(problem="away")),
        (140.0, Turn((Done(), Done(behind=2)))),  # the newest of each phase, which may not be whole yet
        (150.0, Turn((Done(behind=3),))),
    ]:
        health.begun("score", began)
        health.done("score", turn, began + 2, 1)
        lags.append(told(health, began + 3)["score"]["lag_s"])
    assert lags == [12.0, 22.0, 32.0, 2.0, 12.0]


def test_a_job_that_does_not_end_is_told_of_all_the_same(health):
    health.begun("score", 110.0)
    assert told(health, 100.0 + REPORT_SECONDS - 1) == {}
    assert set(told(health, 100.0 + REPORT_SECONDS)) == {"score", "alerts"}
    assert told(health, 101.0 + REPORT_SECONDS) == {}
    later = told(health, 100.0 + 2 * REPORT_SECONDS)["score"]
    assert later["lag_s"] == 2 * REPORT_SECONDS
    assert later["duration_s"] == 0.0


def test_failures_and_missed_turns_are_counted(health):
    health.begun("score", 110.0)
    health.missed("score")
    health.missed("score")
    health.failed("score", 113.0, 1)
    health.done("score", Turn(problem="away"), 120.0, 2)
    health.done("alerts", Turn(alerts=Alerts()), 120.0, 2)
    points = health.take(121.0, 3)
    assert points[0].fields["duration_s"] == 3.0
    found = {point.tags["job"]: point.fields for point in points}
    assert (found["score"]["failures"], found["score"]["missed"]) == (2, 2)
    assert [found["alerts"][name] for name in ("rows_read", "points_written", "failures")] == [5, 2, 1]


def test_what_could_not_be_written_waits_in_its_order_and_not_without_bound(health):
    for k in range(3):
        health.done("score", Turn(), 110.0 + k, k)
    points = health.take(115.0, 9)
    health.done("score", Turn(), 116.0, 3)
    health.give_back(points)
    assert [point.time for point in health.take(117.0, 9)] == [0, 1, 2, 3]
    health.give_back([points[0]] * 9_999 + [points[1]] * 2)
    health.done("score", Turn(), 118.0, 4)
    kept = health.take(119.0, 9)
    assert len(kept) == 10_000
    assert [point.time for point in kept[-3:]] == [1, 1, 4]
    health.give_back(kept)
    health.give_back([points[0]])  # there is no room left
    assert health.take(120.0, 9) == kept


def test_who_runs_and_since_when_it_is_silent(health):
    assert health.running(105.0) == []
    health.begun("score", 110.0)
    health.heard("score", " at run 'r'", 115.0)
    (running,) = health.running(118.0)
    assert (running.job, running.at, running.silent) == ("score", " at run 'r'", 3.0)
    health.done("score", Turn(), 119.0, 1)
    assert health.running(120.0) == []

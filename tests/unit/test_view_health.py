"""What the page of alerts says of the events, the collector's health and the jobs."""

from __future__ import annotations

import pandas as pd

from gatewatch.jobs.view.fired import fired
from gatewatch.jobs.view.health import jobs, recordings

SECOND = 10**9


def events(*rows):
    """Points of `alert_events`: seconds, state, rule, run, layer."""
    frame = pd.DataFrame(rows, columns=["seconds", "state", "rule", "run", "layer"])
    return frame.assign(time=pd.to_datetime(frame["seconds"], unit="s", utc=True), value=4.0, threshold=1.0)


def row(run, state="completed", seen=100, worst=None, now=None):
    return {"run": run, "state": state, "seen": seen * 1000, "trend": {"worst": worst, "now": now}}


def worst(score=4.0):
    return {"score": score, "phase": "train", "layer": "lstm", "gate": "cell", "since": 250, "since_time": 50_000}


def test_alerts_of_one_rule_and_run_are_one_entry_named_after_the_first():
    found = fired(
        events(
            (10, "firing", "anomaly", "a", "second"),
            (5, "firing", "anomaly", "a", "first"),
            (12, "repeated", "anomaly", "a", "first"),
        ),
        [],
    )
    assert [(one.state, one.places, one.since) for one in found] == [("fires", ("first", "second"), 5 * SECOND)]
    assert found[0].evidence == "anomaly score 4, limit 1"


def test_an_alert_that_fires_again_counts_from_then_on():
    again = events(
        (5, "firing", "anomaly", "a", "x"), (6, "recovered", "anomaly", "a", "x"), (9, "firing", "anomaly", "a", "x")
    )
    assert [(one.state, one.since, one.until) for one in fired(again, [])] == [("fires", 9 * SECOND, None)]


def test_a_rule_of_the_configuration_is_shown_by_its_name_without_a_remedy():
    [one] = fired(events((5, "firing", "mine", "a", "x")), [])
    assert (one.what, one.to_do, one.is_critical) == ("mine", [], False)


def test_a_store_without_events_has_the_scores_of_the_list():
    rows = [
        row("live", "live", worst=worst(), now=4.0),
        row("calm", "live", worst=worst(), now=0.5),
        row("ended", worst=worst(), now=4.0),
        row("healthy", worst=worst(0.9), now=0.9),
        row("unread") | {"trend": None},
    ]
    found = fired(pd.DataFrame(), rows)
    assert [(one.run, one.state) for one in found] == [("live", "fires"), ("ended", "ended"), ("calm", "over")]
    assert found[0].evidence == "score up to 4, since step 250"


def test_what_an_event_tells_is_not_listed_again_from_the_scores():
    rows = [row("a", "live", worst=worst(), now=4.0), row("gone", "died")]
    found = fired(events((5, "firing", "anomaly", "a", "lstm"), (6, "firing", "run_died", "gone", "")), rows)
    assert sorted((one.run, one.rule) for one in found) == [("a", "anomaly"), ("gone", "run_died")]


def test_runs_with_losses_come_first_and_what_waited_at_a_capture_is_no_loss():
    newest = pd.DataFrame(
        {
            "run": ["sound", "waited", "full", "forgotten"],
            "phase": "train",
            "captured": [40.0, 40.0, 40.0, 1.0],
            "spooled_bytes": [0, 900, 4096, 9],
            "dropped": [0.0, float("nan"), 1200.0, 5],
        }
    )
    found = recordings(newest, ["sound", "waited", "full"])
    assert [(one.run, len(one.problems), one.captured, one.waiting) for one in found] == [
        ("full", 1, 40, 4096),
        ("sound", 0, 40, 0),
        ("waited", 0, 40, 900),
    ]
    assert found[0].problems[0].startswith("Points lost: 1,200. The spool")


def test_a_store_that_no_job_scores_has_no_jobs():
    assert jobs(pd.DataFrame(), 0) == []

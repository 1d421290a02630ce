"""The rules about the monitoring itself: runs that fall silent, the collector, the store, the jobs."""

from __future__ import annotations

from typing import Final

from gatewatch.collector.schema import ALERT_EVENTS, COLLECTOR_HEALTH, DIED_SECONDS, GATE_SCORES, JOBS_HEALTH, RUNS
from gatewatch.jobs.alerts.rule import JOB, PARAM, RUN, Condition, InGrafana, Quantity, Rule

SILENT_SPACINGS: Final = 10.0
"""Captures or turns have stalled after this many typical intervals without a new one."""
UNSCORED_SECONDS: Final = 300.0
"""A capture without a score for this long will get none."""
STORE_SECONDS: Final = 300.0
"""A store that has not answered for this long is away."""
JOBS_SECONDS: Final = 300.0
"""Jobs report every minute. After this long without a report they are considered dead."""
QUIET_SECONDS: Final = 600.0
"""If no run or job has written a point for this long, something is wrong with writing."""

SERVICE_RULES: Final = (
    Rule(
        "run_died",
        "a run fell silent without an end",
        "Look at its machine: the process was killed (memory?) or has lost the store; `gatewatch spool status` there.",
        Quantity(RUNS, "event", "time without a sign of life", RUN, "run_silence", "s"),
        Condition(above=DIED_SECONDS, severity="critical"),
        InGrafana("runs", "Runs", lookback_seconds=24 * 3600, wait_seconds=60),
    ),
    Rule(
        "captures_stalled",
        "a run lives but captures nothing any more",
        "See whether its loop still steps: a hanging data feed or environment looks like this.",
        Quantity(
            COLLECTOR_HEALTH, "captured", "time since the last capture, in usual spacings", RUN, "capture_silence"
        ),
        Condition(above=SILENT_SPACINGS),
        InGrafana("health", "Steps from capture to capture", lookback_seconds=6 * 3600, wait_seconds=60),
    ),
    Rule(
        "scores_stale",
        "captures get no anomaly scores any more",
        "See that the detecting job runs: `gatewatch jobs --once` says what fails.",
        Quantity(GATE_SCORES, "anomaly_score", "time that a capture has waited for its score", RUN, "score_delay", "s"),
        Condition(above=UNSCORED_SECONDS),
        InGrafana("health", "Lag", lookback_seconds=3600, wait_seconds=120),
    ),
    Rule(
        "points_dropped",
        "points are lost",
        "The spool of that machine is full or broken: give it room ([spool] max_mb), mend the store.",
        Quantity(COLLECTOR_HEALTH, "dropped", "points lost since the capture before", RUN, "rise"),
        Condition(above=0.0, within=10, severity="critical"),
        InGrafana("health", "Points dropped", lookback_seconds=1800),
    ),
    Rule(
        "points_rejected",
        "the store refuses points",
        "`gatewatch spool status` on that machine shows the store's reason and the points.",
        Quantity(COLLECTOR_HEALTH, "rejected", "points refused since the capture before", RUN, "rise"),
        Condition(above=0.0, within=10),
        InGrafana("health", "Points lost", lookback_seconds=1800),
    ),
    Rule(
        "captures_failing",
        "captures fail",
        "The log of the training names the reason once (logger gatewatch).",
        Quantity(COLLECTOR_HEALTH, "failures", "failures since the capture before", RUN, "rise"),
        Condition(above=0.0, within=10),
        InGrafana("health", "Captures failed", lookback_seconds=1800),
    ),
    Rule(
        "spool_growing",
        "points wait longer and longer for the store",
        "The store takes less than the run gives: look at its load, or capture less often (every=).",
        Quantity(COLLECTOR_HEALTH, "spooled_bytes", "growth from heartbeat to heartbeat", RUN, "growth", "B"),
        Condition(above=65536.0, for_captures=5, lasting=True),
        InGrafana("health", "Waiting in the spool"),
    ),
    Rule(
        "store_away",
        "the store does not answer",
        "Start it again: trainings go on meanwhile, their points wait on their machines (`gatewatch spool status`).",
        Quantity(RUNS, "event", "time without an answer", (), "store_silence", "s"),
        Condition(above=STORE_SECONDS, severity="critical"),
        InGrafana("health", "Last sign of a run", wait_seconds=int(STORE_SECONDS)),
    ),
    Rule(
        "jobs_late",
        "a job lags behind the runs",
        "Give the jobs more workers ([jobs] workers), or look for the run that takes them so long.",
        Quantity(JOBS_HEALTH, "lag_s", "time that the job is behind", JOB, unit="s"),
        Condition(above=300.0, recovery=60.0, for_captures=3),
        InGrafana("health", "Lag"),
    ),
    Rule(
        "jobs_failing",
        "a job fails again and again",
        "The log of the jobs names the reason. If scoring fails, `gatewatch jobs --once` shows it on the terminal too.",
        Quantity(JOBS_HEALTH, "failures", "failures since the point before", JOB, "rise"),
        Condition(above=0.0, for_captures=3, within=5),
        InGrafana("health", "Failures", lookback_seconds=1800),
    ),
    Rule(
        "jobs_missed",
        "a job misses its turns",
        "A pass takes longer than its interval: raise [jobs] interval_seconds or workers.",
        Quantity(JOBS_HEALTH, "missed", "turns missed since the point before", JOB, "rise"),
        Condition(above=0.0, for_captures=5, within=10),
        InGrafana("health", "Turns missed", lookback_seconds=1800),
    ),
    Rule(
        "jobs_stuck",
        "a job has not ended for long",
        "It hangs, or the service is gone: look at the log of the jobs, then start the service again.",
        Quantity(JOBS_HEALTH, "duration_s", "time since its last end, in usual spacings", JOB, "turn_silence"),
        Condition(above=SILENT_SPACINGS, severity="critical"),
        InGrafana("health", "Duration of a turn", lookback_seconds=6 * 3600, wait_seconds=60),
    ),
    Rule(
        "jobs_silent",
        "the jobs no longer report",
        "Start them again (`gatewatch jobs`): until then nothing is scored, and no mail comes from them.",
        Quantity(JOBS_HEALTH, "duration_s", "time since the last report of a job", (), "jobs_silence", "s"),
        Condition(above=JOBS_SECONDS, severity="critical"),
        # Jobs that are gone cannot mail that they are.
        InGrafana("health", "Duration of a turn", lookback_seconds=24 * 3600, wait_seconds=60, alone=True),
    ),
    Rule(
        "nothing_written",
        "nothing at all is written any more",
        "See that the jobs run and that their token may write: `gatewatch check` says what is wrong.",
        Quantity(JOBS_HEALTH, "duration_s", "time since anything was written", (), "write_silence", "s"),
        Condition(above=QUIET_SECONDS, severity="critical"),
        InGrafana("health", "Last sign of a run", lookback_seconds=1800, wait_seconds=300, alone=True),
    ),
    Rule(
        "backtest_alert",
        "the jobs found a fault in a backtest",
        "See the runbook's section of the rule that is named here, and the report of the run.",
        Quantity(
            ALERT_EVENTS,
            "state",
            "alerts firing",
            (*PARAM, "gate", "rule"),
            "last_event",
            where={"phase": ("backtest",)},
        ),
        Condition(above=0.0),
        # Points of a backtest have the market's time, where the other rules do not look.
        InGrafana("health", "Alerts found by the jobs", lookback_seconds=3600, alone=True),
    ),
)

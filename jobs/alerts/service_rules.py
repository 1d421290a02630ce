"""The rules about who watches: runs that fall silent, the collector, the store, the jobs."""

from __future__ import annotations

from typing import Final

from gatewatch.collector.schema import COLLECTOR_HEALTH, GATE_SCORES, JOBS_HEALTH, RUNS
from gatewatch.jobs.alerts.rule import Rule
from gatewatch.jobs.findings.run_state import DIED_SECONDS

SILENT_SPACINGS: Final = 10.0
"""Who was not heard of for so many times the usual spacing has stalled."""
UNSCORED_SECONDS: Final = 300.0
"""A capture that has no score after so long has been forgotten."""
STORE_SECONDS: Final = 300.0
"""A store that does not answer for so long is away."""

SERVICE_RULES: Final = (
    Rule(
        "run_died",
        RUNS,
        "event",
        "a run fell silent without an end",
        "Look at its machine: the process was killed (memory?) or has lost the store; `gatewatch spool status` there.",
        measure="silence",
        quantity="seconds without a sign of life",
        above=DIED_SECONDS,
        severity="critical",
    ),
    Rule(
        "captures_stalled",
        COLLECTOR_HEALTH,
        "captured",
        "a run lives but captures nothing any more",
        "See whether its loop still steps: a hanging data feed or environment looks like this.",
        measure="silence",
        quantity="time since the last capture, in usual spacings",
        above=SILENT_SPACINGS,
    ),
    Rule(
        "scores_stale",
        GATE_SCORES,
        "anomaly_score",
        "captures get no anomaly scores any more",
        "See that the detecting job runs: `gatewatch jobs --once` says what fails.",
        measure="silence",
        quantity="seconds that a capture waits for its score",
        above=UNSCORED_SECONDS,
    ),
    Rule(
        "points_dropped",
        COLLECTOR_HEALTH,
        "dropped",
        "points are lost",
        "The spool of that machine is full or broken: give it room ([spool] max_mb), mend the store.",
        measure="rise",
        quantity="points lost since the capture before",
        above=0.0,
        within=10,
        severity="critical",
    ),
    Rule(
        "points_rejected",
        COLLECTOR_HEALTH,
        "rejected",
        "the store refuses points",
        "`gatewatch spool status` on that machine shows the store's reason and the points.",
        measure="rise",
        quantity="points refused since the capture before",
        above=0.0,
        within=10,
    ),
    Rule(
        "captures_failing",
        COLLECTOR_HEALTH,
        "failures",
        "captures fail",
        "The log of the training names the reason once (logger gatewatch).",
        measure="rise",
        quantity="failures since the capture before",
        above=0.0,
        within=10,
    ),
    Rule(
        "spool_growing",
        COLLECTOR_HEALTH,
        "spooled_bytes",
        "points wait longer and longer for the store",
        "The store takes less than the run gives: look at its load, or capture less often (every=).",
        measure="growth",
        quantity="bytes more than a heartbeat before",
        above=65536.0,
        for_captures=5,
        within=5,
        lasting=True,
    ),
    Rule(
        "store_away",
        RUNS,
        "event",
        "the store does not answer",
        "Start it again: trainings go on meanwhile, their points wait on their machines (`gatewatch spool status`).",
        measure="silence",
        quantity="seconds without an answer",
        above=STORE_SECONDS,
        severity="critical",
    ),
    Rule(
        "jobs_late",
        JOBS_HEALTH,
        "lag_s",
        "a job lags behind the runs",
        "Give the jobs more workers ([jobs] workers), or look for the run that takes them so long.",
        quantity="seconds behind",
        above=300.0,
        recovery=60.0,
        for_captures=3,
        within=3,
    ),
    Rule(
        "jobs_failing",
        JOBS_HEALTH,
        "failures",
        "a job fails again and again",
        "The log of the jobs names the reason; `gatewatch jobs --once` shows it on the terminal.",
        measure="rise",
        quantity="failures since the point before",
        above=0.0,
        for_captures=3,
        within=5,
    ),
    Rule(
        "jobs_missed",
        JOBS_HEALTH,
        "missed",
        "a job misses its turns",
        "A pass takes longer than its interval: raise [jobs] interval_seconds or workers.",
        measure="rise",
        quantity="turns missed since the point before",
        above=0.0,
        for_captures=5,
        within=10,
    ),
    Rule(
        "jobs_stuck",
        JOBS_HEALTH,
        "duration_s",
        "a job has not ended for long",
        "It hangs, or the service is gone: look at the log of the jobs, then start the service again.",
        measure="silence",
        quantity="time since its last end, in usual spacings",
        above=SILENT_SPACINGS,
        severity="critical",
    ),
)

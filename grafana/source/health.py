"""Health: whether monitoring itself works, from the collectors in the trainings to the jobs and their mails."""

from __future__ import annotations

from typing import Any, Final

from gatewatch.collector.schema import COLLECTOR_HEALTH, JOBS_HEALTH, RUNS
from grafana.source.board import Section, board
from grafana.source.flux import flux, keep, pipe, points, window
from grafana.source.links import HEALTH
from grafana.source.panels import graded, limit, lines, number
from grafana.source.queries import only_largest, series
from grafana.source.tables import alerts, ordered

MOST_RUNS: Final = 20
"""Lines of a panel: of more runs, those with the largest values."""


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    return board(
        HEALTH,
        "Health",
        "Whether the watching itself works: collectors, spools, jobs, mails.",
        [],
        [
            Section("", _summary()),
            Section("Collectors", _collectors()),
            Section("Jobs and mails", _jobs()),
        ],
    )


def _summary() -> list[Any]:
    ago = "map(fn: (r) => ({_value: float(v: int(v: now()) - int(v: r._time)) / 1000000000.0}))"
    heard = pipe("last()", "group()", 'max(column: "_time")', ago)
    lag = pipe("last()", "group()", "max()", keep("_value"))
    lost = ((None, "green"), (1, "red"))
    return [
        number(
            "Last sign of a run",
            "How long ago any run was heard of. Healthy: under two minutes while something trains.",
            flux(points(RUNS, ["event"], start="-30d", stop=""), heard),
            "s",
            graded(120, 3600),
        ),
        number(
            "Points lost",
            "Points that collectors had to drop or the store refused, in the time range. Healthy: 0. `gatewatch spool "
            "status` on that machine says why.",
            _increase(COLLECTOR_HEALTH, "dropped", "rejected"),
            "none",
            lost,
        ),
        number(
            "Captures failed",
            "In the time range. Healthy: 0. The log of the training names the reason once.",
            _increase(COLLECTOR_HEALTH, "failures"),
            "none",
            lost,
        ),
        number(
            "Scores lag",
            "How long a capture may wait for its score at the most. Healthy: about the jobs' interval; above 5 minutes "
            "they do not keep up.",
            flux(points(JOBS_HEALTH, ["lag_s"]), lag),
            "s",
            graded(120, 300),
        ),
        number(
            "Jobs failed",
            "Turns and runs that failed in the time range. Healthy: 0.",
            _increase(JOBS_HEALTH, "failures"),
            "none",
            graded(1, 10),
        ),
        number(
            "Waiting in spools",
            "Bytes that wait on the trainings' machines, all together. Healthy: near 0; growing: the store is away.",
            flux(points(COLLECTOR_HEALTH, ["spooled_bytes"], start="-5m", stop=""), pipe("last()", "group()", "sum()")),
            "bytes",
            graded(1e6, 1e8),
        ),
    ]


def _increase(measurement: str, *fields: str) -> str:
    """Return by how much counters rose in the time range, all together; a new process counts from 0.

    It reads all points: with the last of each window, what was counted before a process ended would be lost.
    """
    return flux(points(measurement, fields), pipe("increase()", "last()", "group()", "sum()"))


def _collectors() -> list[Any]:
    return [
        _by_run(
            "Cost of watching",
            "Share of the training's time that captures take. Healthy: up to the budget, 1 % where none was set.",
            "overhead_ratio",
            "percentunit",
            low=0,
            bands=limit(0.05),
        ),
        _by_run(
            "Time of a capture",
            "Healthy: steady. It sets how often a run can be looked at within its budget.",
            "capture_ms",
            "ms",
            low=0,
        ),
        _by_run(
            "Waiting in the spool",
            "What the store has not taken yet. Healthy: near 0, short peaks. Growing: the store is away.",
            "spooled_bytes",
            "bytes",
            low=0,
        ),
        _by_run(
            "Steps from capture to capture",
            "Healthy: steady. Growing: captures have become dear, or steps quick.",
            "every",
            low=0,
        ),
        _by_run(
            "Error of the replay",
            "How far the gates that were computed are from what the network itself said. Healthy: below 1e-4.",
            "replay_error",
            "sci",
            bands=limit(1e-4),
            logarithmic=True,
        ),
        _by_run(
            "Points dropped",
            "Points dropped for want of room, counted since the run began. Healthy: 0.",
            "dropped",
            "none",
            low=0,
        ),
    ]


def _by_run(title: str, description: str, field: str, unit: str = "short", **options: Any) -> Any:
    key = 'r.run + "\\n" + r.phase'
    query = only_largest(
        "most", MOST_RUNS, "last()", key, points(COLLECTOR_HEALTH, [field]), window("mean", "run", "phase")
    )
    description = f"{description} Of many runs the {MOST_RUNS} with the largest."
    return lines(title, description, query, "${__field.labels.run} ${__field.labels.phase}", unit, **options)


def _jobs() -> list[Any]:
    table = alerts(
        "Alerts found by the jobs",
        "What the jobs found, and whether a mail server took the mail. Healthy: delivered.",
        "No alert in this time range",
        ["state", "value", "threshold", "delivered"],
        [],
    )
    columns = ("_time", "rule", "state", "delivered", "value", "threshold", "run", "phase", "layer", "gate", "job")
    return [
        _by_job(
            "Lag",
            "How long a capture may have waited for it. Healthy: about the jobs' interval; 5 minutes are late.",
            "lag_s",
            "s",
            bands=limit(300),
        ),
        _by_job("Duration of a turn", "Healthy: well below the jobs' interval, and steady.", "duration_s", "s"),
        _by_job(
            "Failures",
            "Since the service began. Healthy: 0, or flat. A stair: a run that fails each time.",
            "failures",
            "none",
        ),
        _by_job(
            "Turns missed",
            "Since the service began. Healthy: 0. Rising: turns take longer than their interval.",
            "missed",
            "none",
        ),
        ordered(table, *columns),
    ]


def _by_job(title: str, description: str, field: str, unit: str, **options: Any) -> Any:
    query = series(JOBS_HEALTH, [field], fn="max", by=["job"])
    return lines(title, description, query, "${__field.labels.job}", unit, low=0, **options)

"""Health: whether the watching itself works, from the collectors in the trainings to the jobs and their mails."""

from __future__ import annotations

from typing import Any, Final

from gatewatch.collector.schema import ALERT_EVENTS, COLLECTOR_HEALTH, JOBS_HEALTH, RUNS
from grafana.source.board import Section, board
from grafana.source.flux import apart, flux, points, window
from grafana.source.links import HEALTH
from grafana.source.panels import CLEAR, GREEN, RED, YELLOW, banded, column, lines, logarithmic, number
from grafana.source.runbook import COLUMN, WAY, with_section
from grafana.source.tables import link, ordered, rows

MOST_RUNS: Final = 20
"""Lines of a picture: of more runs, those with the largest values."""
_OF_RUN: Final = "${__field.labels.run} ${__field.labels.phase}"
_OF_JOB: Final = "${__field.labels.job}"
_KEY: Final = 'r.run + "\\n" + r.phase'


def dashboard() -> dict[str, Any]:
    """The dashboard."""
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
    heard = flux(
        points(RUNS, ["event"], start="-30d", stop=""),
        "  |> last()",
        "  |> group()",
        '  |> max(column: "_time")',
        "  |> map(fn: (r) => ({_value: float(v: int(v: now()) - int(v: r._time)) / 1000000000.0}))",
    )
    return [
        number(
            "Last sign of a run",
            "How long ago any run was heard of. Healthy: under two minutes while something trains.",
            heard,
            "s",
            *((None, GREEN), (120, YELLOW), (3600, RED)),
        ),
        number(
            "Points lost",
            "Points that collectors had to drop or the store refused, in the time range. Healthy: 0. `gatewatch spool "
            "status` on that machine says why.",
            _risen(COLLECTOR_HEALTH, "dropped", "rejected"),
            "none",
            *((None, GREEN), (1, RED)),
        ),
        number(
            "Captures failed",
            "In the time range. Healthy: 0. The log of the training names the reason once.",
            _risen(COLLECTOR_HEALTH, "failures"),
            "none",
            *((None, GREEN), (1, RED)),
        ),
        number(
            "Scores lag",
            "How long a capture may wait for its score at the most. Healthy: about the jobs' interval; above 5 minutes "
            "they do not keep up.",
            flux(points(JOBS_HEALTH, ["lag_s"]), "  |> last()", "  |> group()", "  |> max()", _VALUE),
            "s",
            *((None, GREEN), (120, YELLOW), (300, RED)),
        ),
        number(
            "Jobs failed",
            "Turns and runs that failed in the time range. Healthy: 0.",
            _risen(JOBS_HEALTH, "failures"),
            "none",
            *((None, GREEN), (1, YELLOW), (10, RED)),
        ),
        number(
            "Waiting in spools",
            "Bytes that wait on the trainings' machines, all together. Healthy: near 0; growing: the store is away.",
            flux(
                points(COLLECTOR_HEALTH, ["spooled_bytes"], start="-5m", stop=""),
                "  |> last()",
                "  |> group()",
                "  |> sum()",
            ),
            "bytes",
            *((None, GREEN), (1e6, YELLOW), (1e8, RED)),
        ),
    ]


_VALUE: Final = '  |> keep(columns: ["_value"])'


def _risen(measurement: str, *fields: str) -> str:
    """By how much counters rose in the time range, all together; one begins anew with its process."""
    return flux(
        points(measurement, fields),  # all of them: of a window's last, what was counted before an end would be lost
        "  |> increase()",
        "  |> last()",
        "  |> group()",
        "  |> sum()",
    )


def _collectors() -> list[Any]:
    return [
        banded(
            _of_runs(
                "Cost of watching",
                "Share of the training's time that captures take. Healthy: up to the budget, 1 % where none was set.",
                "overhead_ratio",
                "percentunit",
            ),
            (None, CLEAR),
            (0.05, RED),
        ).min(0),
        _of_runs(
            "Time of a capture",
            "Healthy: steady. It sets how often a run can be looked at within its budget.",
            "capture_ms",
            "ms",
        ).min(0),
        _of_runs(
            "Waiting in the spool",
            "What the store has not taken yet. Healthy: near 0, short peaks. Growing: the store is away.",
            "spooled_bytes",
            "bytes",
        ).min(0),
        _of_runs(
            "Steps from capture to capture",
            "Healthy: steady. Growing: captures have become dear, or steps quick.",
            "every",
            "short",
        ).min(0),
        logarithmic(
            banded(
                _of_runs(
                    "Error of the replay",
                    "How far the gates that were computed are from what the network itself said. Healthy: below 1e-4.",
                    "replay_error",
                    "sci",
                ),
                (None, CLEAR),
                (1e-4, RED),
            )
        ),
        _of_runs(
            "Points dropped",
            "Points dropped for want of room, counted since the run began. Healthy: 0.",
            "dropped",
            "none",
        ).min(0),
    ]


def _of_runs(title: str, description: str, field: str, unit: str) -> Any:
    read = points(COLLECTOR_HEALTH, [field])
    query = flux(
        f"most = {read}",
        "  |> last()",
        "  |> group()",
        f'  |> top(n: {MOST_RUNS}, columns: ["_value"])',
        f"  |> map(fn: (r) => ({{name: {_KEY}}}))",
        '  |> findColumn(fn: (key) => true, column: "name")',
        read,
        window("mean", "run", "phase"),
        f"  |> filter(fn: (r) => contains(set: most, value: {_KEY}))",
    )
    return lines(title, f"{description} Of many runs the {MOST_RUNS} with the largest.", query, _OF_RUN, unit)


def _jobs() -> list[Any]:
    return [
        banded(
            _of_jobs(
                "Lag",
                "How long a capture may have waited for it. Healthy: about the jobs' interval; 5 minutes are late.",
                "lag_s",
                "s",
            ),
            (None, CLEAR),
            (300, RED),
        ).min(0),
        _of_jobs("Duration of a turn", "Healthy: well below the jobs' interval, and steady.", "duration_s", "s").min(0),
        _of_jobs(
            "Failures",
            "Since the service began. Healthy: 0, or flat. A stair: a run that fails each time.",
            "failures",
            "none",
        ).min(0),
        _of_jobs(
            "Turns missed",
            "Since the service began. Healthy: 0. Rising: turns take longer than their interval.",
            "missed",
            "none",
        ).min(0),
        _mails(),
    ]


def _of_jobs(title: str, description: str, field: str, unit: str) -> Any:
    return lines(title, description, flux(points(JOBS_HEALTH, [field]), window("max", "job")), _OF_JOB, unit)


def _mails() -> Any:
    query = flux(
        'import "dict"',
        points(ALERT_EVENTS, ["state", "value", "threshold", "delivered"]),
        apart("state", "value", "threshold", "delivered", COLUMN),
        '  |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")',
        "  |> group()",
        '  |> drop(columns: ["_start", "_stop", "_measurement"])',
        '  |> sort(columns: ["_time"], desc: true)',
        "  |> limit(n: 100)",
        with_section(),
    )
    panel = (
        rows(
            "Alerts found by the jobs",
            "What the jobs found, and whether a mail server took the mail. Healthy: delivered.",
            query,
        )
        .no_value("No alert in this time range")
        .override_by_name("_time", column(displayName="time", custom__width=170))
        .override_by_name("rule", column(links=[link("What to do", WAY)]))
        .override_by_name(COLUMN, column(custom__hidden=True))
    )
    return ordered(
        panel, "_time", "rule", "state", "delivered", "value", "threshold", "run", "phase", "layer", "gate", "job"
    )

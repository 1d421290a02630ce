"""Health: whether monitoring itself works, from the collectors in the trainings to the jobs and their mails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from grafana_foundation_sdk.builders.dashboard import Panel

from gatewatch.collector.schema import COLLECTOR_HEALTH, JOBS_HEALTH, RUNS
from gatewatch.jobs.alerts.service_rules import JOBS_SECONDS
from gatewatch.jobs.queries.flux_values import literal
from grafana.source.alert_table import alert_table
from grafana.source.board import board
from grafana.source.flux import Series, flux, inline_union, keep_where, pipe, points
from grafana.source.flux_steps import column_values, extend, keep, map_to
from grafana.source.panels import stat, text_stat, time_series
from grafana.source.queries import MOST_LINES, life, only_worst, series
from grafana.source.values import GREEN, RED, YELLOW, Values, graded, limit

_OF_MANY: Final = f"Of many runs the {MOST_LINES} with the largest."
MOST_COST: Final = 0.05
"""Watching that takes more than this share of a training's time is dear: five times the default budget."""
_SILENT_JOBS: Final = "The jobs that score are silent"
_LOST: Final = "Points were lost"
_FAILING: Final = "Captures failed"
_LATE: Final = "The jobs are late"
_JOBS_FAIL: Final = "Turns of the jobs failed"
_DEAR: Final = "Watching slows a training down: see Cost of watching"
_WAITING: Final = "Points wait in spools"
_NO_JOBS: Final = "Trainings are recorded, no jobs score them"
_WORKS: Final = "Works"
_IDLE: Final = "Works; nothing trains"
_UNHEARD: Final = "Nothing was heard of any run or job"
STATES: Final = {
    **dict.fromkeys((_SILENT_JOBS, _LOST, _FAILING, _LATE), RED),
    **dict.fromkeys((_DEAR, _JOBS_FAIL, _WAITING, _NO_JOBS), YELLOW),
    **dict.fromkeys((_WORKS, _IDLE), GREEN),
}
"""What the first panel says, the worst first, and its colour."""
_GO_ON: Final = {
    **dict.fromkeys((_LOST, _FAILING, _JOBS_FAIL), ' + r.of + ", first " + lasts(since: r._time) + " ago"'),
    _SILENT_JOBS: ' + ", for " + lasts(since: r._time)',
}
"""How some of them go on, as expressions in `r`: whose it is, and since when."""
_OF_RUN: Final = '" of " + r.run'
_OF_JOB: Final = '": " + r.job'
_LASTS: Final = """
  lasts = (since) => {
    minutes = (int(v: now()) - int(v: since)) / 60000000000
    return if minutes < 120 then string(v: minutes) + " min"
      else if minutes < 2880 then string(v: minutes / 60) + " h" else string(v: minutes / 1440) + " days"
  }
"""


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    table = alert_table(
        "Alerts found by the jobs",
        fields=["state", "value", "threshold", "delivered"],
        columns=["_time", "rule", "state", "delivered", "value", "threshold", "run", "phase", "layer", "gate", "job"],
        no_value="No rule fired in this time range, if the jobs run: see Lag",
    ).description(
        "What the jobs found, and whether a mail server took the mail. `ended`: the run ended while the rule fired. "
        "Healthy: empty while the jobs run, or delivered; where the jobs mail nobody nothing is."
    )
    return board(
        "Health",
        "Whether the watching itself works: collectors, spools, jobs, mails.",
        [],
        [_state(), *_summary(), "Collectors", *_collectors(), "Jobs and mails", *_jobs(), table],
    )


def _state() -> Panel:
    """Return the panel that says in words whether watching works: the worst of what is known."""
    newest = pipe("group()", 'max(column: "_time")')
    old = keep_where(f"int(v: now()) - int(v: r._time) > {int(JOBS_SECONDS * 1e9)}")
    known = {
        _SILENT_JOBS: "jobs" + newest + pipe(old),
        _LOST: _first_of(COLLECTOR_HEALTH, ["dropped", "rejected"], _OF_RUN),
        _FAILING: _first_of(COLLECTOR_HEALTH, ["failures"], _OF_RUN),
        _LATE: "jobs" + pipe(keep_where(f"r._value > {JOBS_SECONDS}"), "group()", "limit(n: 1)"),
        _DEAR: points(COLLECTOR_HEALTH, ["overhead_ratio"])
        + pipe("last()", keep_where(f"r._value > {MOST_COST}"), "group()", "limit(n: 1)"),
        _JOBS_FAIL: _first_of(JOBS_HEALTH, ["failures"], _OF_JOB),
        _WAITING: _waiting() + pipe(keep_where("r._value > 1000000")),
        _NO_JOBS: "runs" + newest + pipe(keep_where("length(arr: heard) == 0")),
        _WORKS: "runs" + pipe(keep_where(f'({life()}) == "live"'), "group()", "limit(n: 1)"),
        _IDLE: inline_union(f"runs |> {keep('_time')}", f"jobs |> {keep('_time')}") + newest,
    }
    ranked = (
        f"state{rank} = {known[text]}"
        + pipe(
            extend(f"rank: {rank}, state: {literal(text)}" + _GO_ON.get(text, "")),
            keep("rank", "state"),
        )
        for rank, text in enumerate(STATES)
    )
    query = flux(
        _LASTS,
        "jobs = " + points(JOBS_HEALTH, ["lag_s"], start="-24h", stop="") + pipe("last()"),
        f"heard = jobs{newest}" + pipe(column_values("_time")),
        "runs = " + points(RUNS, ["event"], start="-30d", stop="") + pipe("last()"),
        *ranked,
        inline_union(*(f"state{rank}" for rank, _ in enumerate(STATES)))
        + pipe("group()", 'sort(columns: ["rank"])', "limit(n: 1)", keep("state")),
    )
    colours = {f"^({text}{'.*' if text in _GO_ON else ''})$": colour for text, colour in STATES.items()}
    return (
        text_stat(
            "Does the watching work?", query, colours, patterns=True, no_value="Nothing was heard of any run or job"
        )
        .description(
            "The worst of what the panels below show. Healthy: Works, also while nothing trains. If this panel shows "
            "an error, Grafana cannot read the store: run `gatewatch check`."
        )
        .span(24)
        .height(3)
    )


def _summary() -> list[Panel]:
    silent = "float(v: int(v: now()) - int(v: r._time)) / 1000000000.0"
    last_sign = points(RUNS, ["event"], start="-30d", stop="") + pipe(
        "last()", "group()", 'max(column: "_time")', map_to(f"_value: {silent}")
    )
    since_then = map_to(f"_value: if {silent} > {float(JOBS_SECONDS)} then r._value + {silent} else r._value")
    lag = points(JOBS_HEALTH, ["lag_s"]) + pipe("last()", since_then, "group()", "max()", keep("_value"))
    losses = Values("none", bands=((None, GREEN), (1, RED)))
    shown = [
        stat("Last sign of a run", last_sign, Values("s")).description(
            "How long ago any run was heard of. Healthy: under two minutes while something trains, any time while "
            "nothing does."
        ),
        stat("Points lost", _increase(COLLECTOR_HEALTH, "dropped", "rejected"), losses).description(
            "Points that collectors had to drop or the store refused, in the time range. Healthy: 0. `gatewatch spool "
            "status` on that machine says why."
        ),
        stat("Captures failed", _increase(COLLECTOR_HEALTH, "failures"), losses).description(
            "In the time range. Healthy: 0. The log of the training names the reason once."
        ),
        stat("Scores lag", lag, Values("s", bands=graded(120, 300))).description(
            "How long a capture may wait for its score at the most. Healthy: about the jobs' interval; above 5 minutes "
            "they do not keep up."
        ),
        stat("Jobs failed", _increase(JOBS_HEALTH, "failures"), Values("none", bands=graded(1, 10))).description(
            "Turns and runs that failed in the time range. Healthy: 0."
        ),
        stat("Waiting in spools", _waiting(), Values("bytes", bands=graded(1e6, 1e8))).description(
            "Bytes that wait on the trainings' machines, all together. Healthy: near 0; growing: the store is away."
        ),
    ]
    # Wide enough for their titles.
    return [panel.span(8).height(3) for panel in shown]


def _waiting() -> str:
    return points(COLLECTOR_HEALTH, ["spooled_bytes"], start="-5m", stop="") + pipe("last()", "group()", "sum()")


def _first_of(measurement: str, fields: Sequence[str], whose: str) -> str:
    """Return the first report in the time range in which one of these counters had grown, and whose it is.

    Args:
        measurement: of the counters.
        fields: their names.
        whose: the text, as an expression in `r`.
    """
    grown = points(measurement, fields) + pipe("increase()", keep_where("r._value > 0"), "first()")
    return grown + pipe("group()", 'sort(columns: ["_time"])', "limit(n: 1)", extend(f"of: {whose}"))


def _increase(measurement: str, *fields: str) -> str:
    """Return the query for the total increase of counters in the time range; a new process counts from 0.

    It reads all points: the last point of each window would miss what a process counted before it ended.
    """
    return points(measurement, fields) + pipe("increase()", "last()", "group()", "sum()")


def _collectors() -> list[Panel]:
    share = Values("percentunit", low=0, bands=limit(MOST_COST))
    error = Values("sci", decimals=1, bands=limit(1e-4), logarithmic=True)
    return [
        time_series("Cost of watching", _by_run("overhead_ratio"), share).description(
            "Share of the whole time since the run's first capture that captures took; none before the second capture. "
            f"Healthy: up to the budget, 1 % where none was set. {_OF_MANY}"
        ),
        time_series("Time of a capture", _by_run("capture_ms"), Values("ms", low=0)).description(
            f"Healthy: steady. It sets how often a run can be looked at within its budget. {_OF_MANY}"
        ),
        time_series("Waiting in the spool", _by_run("spooled_bytes"), Values("bytes", low=0)).description(
            f"What the store has not taken yet. Healthy: near 0, short peaks. Growing: the store is away. {_OF_MANY}"
        ),
        time_series("Steps from capture to capture", _by_run("every"), Values(low=0)).description(
            f"Healthy: steady. Growing: captures have become dear, or steps quick. {_OF_MANY}"
        ),
        time_series("Error of the replay", _by_run("replay_error"), error).description(
            "How far the gates that were computed are from what the network itself said. Healthy: below 1e-4; more "
            "where inputs are not normalised, as far as rounding explains it. "
            f"{_OF_MANY}"
        ),
        time_series("Points dropped", _by_run("dropped"), Values("none", low=0, soft_high=4)).description(
            f"Points dropped for want of room, counted since the run began. Healthy: 0. {_OF_MANY}"
        ),
    ]


def _by_run(field: str) -> Series:
    """Return a field of the collectors' health over time, one series per run and phase."""
    return only_worst(points(COLLECTOR_HEALTH, [field]), "mean", ("run", "phase"), peak="last")


def _jobs() -> list[Panel]:
    return [
        time_series("Lag", _by_job("lag_s"), Values("s", low=0, bands=limit(300))).description(
            "How long a capture may have waited for it. Healthy: about the jobs' interval; 5 minutes are late."
        ),
        time_series("Duration of a turn", _by_job("duration_s"), Values("s", low=0)).description(
            "Healthy: well below the jobs' interval, and steady."
        ),
        time_series("Failures", _by_job("failures"), Values("none", low=0)).description(
            "Since the service began. Healthy: 0, or flat. A stair: a run that fails each time."
        ),
        time_series("Turns missed", _by_job("missed"), Values("none", low=0)).description(
            "Since the service began. Healthy: 0. Rising: turns take longer than their interval."
        ),
    ]


def _by_job(field: str) -> Series:
    return series(JOBS_HEALTH, [field], fn="max", by=["job"])

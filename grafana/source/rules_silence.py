"""What a rule about silence compares, as Flux: the length of a silence of a run, a job or the store."""

from __future__ import annotations

from typing import Final

from gatewatch.collector.schema import (
    COLLECTOR_HEALTH,
    DIED_SECONDS,
    GATE_SCORES,
    GATE_STATS,
    HEARTBEAT_SECONDS,
    JOBS_HEALTH,
    RUNS,
)
from gatewatch.jobs.alerts.rule import JOB, RUN, Rule
from gatewatch.jobs.alerts.service_rules import JOBS_SECONDS, UNSCORED_SECONDS
from gatewatch.jobs.queries.flux_values import literal
from gatewatch.jobs.scoring.residuals import WARM_UP
from grafana.source.flux import flux, keep_where, pipe, points
from grafana.source.flux_steps import GOES_ON, OLDEST_FIRST, extend, group, keep
from grafana.source.rules_flux import NOW, SINCE, START, ago, beside, by, compared, field_of, parts

TURN_SECONDS: Final = 60.0
"""Smallest usual time between turns of a job; shorter ones count as this."""
_AGE: Final = pipe(extend("_value: since(time: r._time)"))


def run_silence(rule: Rule) -> str:
    """Compare the seconds since the last event of a run; 0 for a run that has ended."""
    silence = extend(f"_value: if {GOES_ON} then since(time: r._time) else 0.0")
    last = field_of(rule) + pipe("last()", keep("_time", "_value", *RUN), *_newest(RUN), silence)
    return flux(SINCE, last + compared(rule))


def capture_silence(rule: Rule) -> str:
    """Compare the time since the last capture of a live run, in multiples of its usual time between captures."""
    usual = "if r.counted > r.begun then (r.began - r.captured) / (r.counted - r.begun) else 0.0"
    of_run = ("toFloat()", group(*RUN), OLDEST_FIRST)
    tables = {"begun": "oldest", "began": f"oldest{_AGE}", "heard": f"newest{_AGE}"}
    tables |= {"counted": "highest", "captured": f"highest{_AGE}"}
    return flux(
        SINCE,
        f"oldest = {field_of(rule)}" + pipe("first()", *of_run, "limit(n: 1)"),
        f"newest = {field_of(rule)}" + pipe("last()", *of_run, "tail(n: 1)"),
        f"highest = {field_of(rule)}" + pipe("max()", *of_run, "max()"),
        parts(RUN, **tables),
        beside(tables, RUN)
        + pipe(_heard_within(DIED_SECONDS), extend(f"usual: {usual}"))
        + compared(rule, _spacings("r.captured", HEARTBEAT_SECONDS)),
    )


def score_delay(rule: Rule) -> str:
    """Compare the seconds that the newest capture of a live run which should have a score has waited for it."""
    newest = pipe("last()", "toFloat()", keep("_time", "_value", *RUN), *_newest(RUN))
    due = points(GATE_STATS, ("nan_count",), "r._value == 0", stop=ago(f"{UNSCORED_SECONDS:.0f}s"))
    scored = points(GATE_SCORES, (rule.quantity.field,), 'r.detector == "consensus"')
    warm = keep_where(f"exists r.due and r.heard <= {literal(DIED_SECONDS)} and r.captured > {literal(float(WARM_UP))}")
    return flux(
        'import "date"\n',
        SINCE,
        parts(RUN, due=due + newest + _AGE, scored=scored + newest + _AGE),
        f"newest = {points(COLLECTOR_HEALTH, ('captured',))}{newest}",
        parts(RUN, captured="newest", heard=f"newest{_AGE}"),
        beside(("due", "scored", "captured", "heard"), RUN)
        + pipe(warm)
        + compared(rule, "if exists r.scored and r.scored <= r.due then 0.0 else r.due"),
    )


def turn_silence(rule: Rule) -> str:
    """Compare the time since a job that still reports ended a turn, in multiples of its usual time between ends."""
    usual = "if r.turns > 0.0 then (r.began - r.ended) / r.turns else 0.0"
    counted = pipe("count()", extend("_value: float(v: r._value) - 1.0"))
    changes = "reports" + pipe("difference()", keep_where("r._value != 0.0"))
    return flux(
        SINCE,
        f"reports = {field_of(rule)}" + pipe("toFloat()") + by(JOB) + pipe(OLDEST_FIRST),
        "oldest = reports" + pipe("limit(n: 1)"),
        f"ends = union(tables: [oldest, {changes}])" + pipe(OLDEST_FIRST),
        parts(JOB, began=f"oldest{_AGE}", heard=f"reports{pipe('tail(n: 1)')}{_AGE}"),
        parts(JOB, ended=f"ends{pipe('tail(n: 1)')}{_AGE}", turns=f"ends{counted}"),
        beside(("began", "heard", "ended", "turns"), JOB)
        + pipe(_heard_within(JOBS_SECONDS), extend(f"usual: {usual}"))
        + compared(rule, _spacings("r.ended", TURN_SECONDS)),
    )


def jobs_silence(rule: Rule) -> str:
    """Compare the seconds since the last report of any job."""
    last = field_of(rule) + pipe("last()", keep("_time"), *_newest(()))
    return flux(SINCE, last + compared(rule, "since(time: r._time)"))


def write_silence(rule: Rule) -> str:
    """Compare the seconds since a run or a job wrote anything; without any point, the length of the time range."""
    written = ((RUNS, "event"), (COLLECTOR_HEALTH, "captured"), (JOBS_HEALTH, "duration_s"))
    last = pipe("last()", keep("_time"), "group()")
    return _since_the_newest(rule, START, *(points(measurement, (field,)) + last for measurement, field in written))


def store_silence(rule: Rule) -> str:
    """Compare the seconds without an answer: 0 as soon as the store answers. Where it does not, the query fails."""
    return _since_the_newest(rule, NOW, field_of(rule) + pipe("limit(n: 1)", keep("_time"), "group()"))


def _since_the_newest(rule: Rule, otherwise: str, *rows: str) -> str:
    tables = ", ".join([f"array.from(rows: [{{_time: {otherwise}}}])", *rows])
    newest = f"union(tables: [{tables}])" + pipe(*_newest(()))
    return flux('import "array"\n', SINCE, newest + compared(rule, "since(time: r._time)"))


def _newest(labels: tuple[str, ...]) -> tuple[str, ...]:
    return group(*labels), OLDEST_FIRST, "tail(n: 1)"


def _heard_within(seconds: float) -> str:
    return keep_where(f"exists r.heard and r.heard <= {literal(seconds)}")


def _spacings(seconds: str, least: float) -> str:
    """Return the expression for a time in multiples of the usual spacing `r.usual`, at least `least` seconds."""
    return f"{seconds} / (if r.usual > {literal(least)} then r.usual else {literal(least)})"

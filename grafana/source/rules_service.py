"""The queries of the rules about who watches: runs that fall silent, the collector, the store, the jobs."""

from __future__ import annotations

from typing import Final

from gatewatch.collector.schema import COLLECTOR_HEALTH, GATE_SCORES, GATE_STATS, HEARTBEAT_SECONDS, JOBS_HEALTH, RUNS
from gatewatch.jobs.alerts.rule import Rule
from gatewatch.jobs.alerts.service_rules import UNSCORED_SECONDS
from gatewatch.jobs.findings.run_state import DIED_SECONDS
from gatewatch.jobs.queries.flux_values import literal
from gatewatch.jobs.scoring.residuals import WARM_UP
from grafana.source.flux import points, texts
from grafana.source.rules_flux import (
    JOB,
    MINUTE,
    NOW,
    RUN,
    SINCE,
    ago,
    beside,
    compared,
    field_of,
    part,
    reached,
    spans,
)

AGE: Final = "\n  |> map(fn: (r) => ({r with _value: since(time: r._time)}))"
"""Flux for how old the points of a table are."""
GOING: Final = ("started", "heartbeat")
"""The events of a run that has not ended."""
TOLD_SECONDS: Final = 300
"""A job that runs is told of far more often."""
GAP_SECONDS: Final = 300
"""A series of which there is nothing for so long, and then something, has begun: heartbeats come far more often."""
TURN_SECONDS: Final = 60.0
"""A spacing of a job's turns below this counts as this."""


def silent(rule: Rule) -> str:
    """Seconds since a run was heard of that has not said how it ended; 0 of one that has."""
    going = " or ".join(f'r._value == "{event}"' for event in GOING)
    return f"""{SINCE}

{field_of(rule)}
  |> last()
  |> keep(columns: {texts(["_time", "_value", *RUN])})
  |> group(columns: {texts(RUN)})
  |> sort(columns: ["_time"])
  |> tail(n: 1)
  |> map(fn: (r) => ({{r with _value: if {going} then since(time: r._time) else 0.0}}))\
{compared(rule, RUN)}"""


def stalled(rule: Rule) -> str:
    """How long a run that lives has captured nothing, in its usual spacings of captures."""
    counted = field_of(rule)
    one = f"""
  |> toFloat()
  |> group(columns: {texts(RUN)})
  |> sort(columns: ["_time"])"""
    usual = "if r.counted > r.begun then (r.began - r.captured) / (r.counted - r.begun) else 0.0"
    return f"""{SINCE}

oldest = {counted}
  |> first(){one}
  |> limit(n: 1)
newest = {counted}
  |> last(){one}
  |> tail(n: 1)
highest = {counted}
  |> max(){one}
  |> max()
begun = oldest{part("begun", RUN)}
began = oldest{AGE}{part("began", RUN)}
heard = newest{AGE}{part("heard", RUN)}
counted = highest{part("counted", RUN)}
captured = highest{AGE}{part("captured", RUN)}
{beside(("begun", "began", "heard", "counted", "captured"), RUN)}
  |> filter(fn: (r) => exists r.heard and r.heard <= {literal(DIED_SECONDS)})
  |> map(fn: (r) => ({{r with usual: {usual}}}))\
{compared(rule, RUN, spacings("r.captured", HEARTBEAT_SECONDS))}"""


def spacings(seconds: str, least: float) -> str:
    """So many seconds in usual spacings, `r.usual`, of at least so many."""
    return f"{seconds} / (if r.usual > {literal(least)} then r.usual else {literal(least)})"


def unscored(rule: Rule) -> str:
    """How long the newest capture that should have a score by now has waited, of a run that lives; 0 where it has."""
    one = f"""
  |> last()
  |> toFloat()
  |> keep(columns: {texts(["_time", "_value", *RUN])})
  |> group(columns: {texts(RUN)})
  |> sort(columns: ["_time"])
  |> tail(n: 1)"""
    due = points(GATE_STATS, ("nan_count",), "r._value == 0", stop=ago(int(UNSCORED_SECONDS)))
    return f"""import "date"

{SINCE}

due = {due}{one}{AGE}{part("due", RUN)}
scored = {points(GATE_SCORES, (rule.field,), 'r.detector == "consensus"')}{one}{AGE}{part("scored", RUN)}
newest = {points(COLLECTOR_HEALTH, ("captured",))}{one}
captured = newest{part("captured", RUN)}
heard = newest{AGE}{part("heard", RUN)}
{beside(("due", "scored", "captured", "heard"), RUN)}
  |> filter(fn: (r) => exists r.due and r.heard <= {literal(DIED_SECONDS)} and r.captured > {literal(float(WARM_UP))})\
{compared(rule, RUN, "if exists r.scored and r.scored <= r.due then 0.0 else r.due")}"""


def rise(rule: Rule) -> str:
    """By how much a counter rose over the last minutes. One that begins among them has begun at 0."""
    begun = f"r.minutes <= {rule.within} and int(v: r.first) - int(v: v.timeRangeStart) > {GAP_SECONDS}000000000"
    return f"""{field_of(rule)}{spans(MINUTE, RUN, "max")}
  |> tail(n: {rule.within + 1})
  |> sort(columns: ["_time"], desc: true)
  |> reduce(
    identity: {{rise: 0.0, later: 0.0, minutes: 0, first: {NOW}}},
    fn: (r, accumulator) => ({{
      rise: accumulator.rise
        + (if accumulator.minutes > 0 and accumulator.later > r._value then accumulator.later - r._value else 0.0),
      later: r._value,
      minutes: accumulator.minutes + 1,
      first: r._time,
    }}),
  ){compared(rule, RUN, f"if {begun} then r.rise + r.later else r.rise")}"""


def rises(rule: Rule) -> str:
    """By how much a counter rose in each of so many of the last minutes, in the least of them."""
    return f"""{field_of(rule)}{spans(MINUTE, JOB, "max")}
  |> difference(nonNegative: true)
  |> filter(fn: (r) => exists r._value){reached(rule)}{compared(rule, JOB)}"""


def growth(rule: Rule) -> str:
    """By how much a number grew from heartbeat to heartbeat, in the mildest of the last minutes."""
    heartbeats = literal(60 / HEARTBEAT_SECONDS)
    return f"""{field_of(rule)}{spans(MINUTE, RUN, "last")}
  |> difference()
  |> map(fn: (r) => ({{r with _value: r._value / {heartbeats}}})){reached(rule)}{compared(rule, RUN)}"""


def stuck(rule: Rule) -> str:
    """How long no turn of a job has ended of which the service still tells, in its usual spacings."""
    usual = "if r.turns > 0.0 then (r.began - r.ended) / r.turns else 0.0"
    return f"""{SINCE}

told = {field_of(rule)}{spans(MINUTE, JOB, "last")}
oldest = told
  |> limit(n: 1)
ends = union(tables: [oldest, told
  |> difference()
  |> filter(fn: (r) => r._value != 0.0)])
  |> sort(columns: ["_time"])
began = oldest{AGE}{part("began", JOB)}
heard = told
  |> tail(n: 1){AGE}{part("heard", JOB)}
ended = ends
  |> tail(n: 1){AGE}{part("ended", JOB)}
turns = ends
  |> count()
  |> map(fn: (r) => ({{r with _value: float(v: r._value) - 1.0}})){part("turns", JOB)}
{beside(("began", "heard", "ended", "turns"), JOB)}
  |> filter(fn: (r) => exists r.heard and r.heard <= {literal(float(TOLD_SECONDS))})
  |> map(fn: (r) => ({{r with usual: {usual}}}))\
{compared(rule, JOB, spacings("r.ended", TURN_SECONDS))}"""


def quiet(rule: Rule) -> str:
    """Seconds since any job was told of."""
    return f"""{SINCE}

{field_of(rule)}
  |> last()
  |> keep(columns: ["_time"])
  |> group()
  |> sort(columns: ["_time"])
  |> tail(n: 1){compared(rule, (), "since(time: r._time)")}"""


def unwritten(rule: Rule) -> str:
    """Seconds since anything was written of runs or jobs; as many as are looked at where nothing was."""
    told = {RUNS: "event", COLLECTOR_HEALTH: "captured", JOBS_HEALTH: "duration_s"}
    parts = "".join(
        f"""{measurement} = {points(measurement, (field,))}
  |> last()
  |> keep(columns: ["_time"])
  |> group()
"""
        for measurement, field in told.items()
    )
    return f"""import "array"

{SINCE}

{parts}union(tables: [array.from(rows: [{{_time: v.timeRangeStart}}]), {", ".join(told)}])
  |> group()
  |> sort(columns: ["_time"])
  |> tail(n: 1){compared(rule, (), "since(time: r._time)")}"""


def answered(rule: Rule) -> str:
    """Seconds without an answer: 0 as soon as the store gives one. Where it does not, the query fails."""
    return f"""import "array"

{SINCE}

heard = {field_of(rule)}
  |> limit(n: 1)
  |> keep(columns: ["_time"])
  |> group()
union(tables: [array.from(rows: [{{_time: {NOW}}}]), heard])
  |> group()
  |> sort(columns: ["_time"])
  |> tail(n: 1){compared(rule, (), "since(time: r._time)")}"""

"""The pieces of Flux that alert rules are made of.

Grafana compares one number a series, so a query ends in one row for each: what is compared, and when. What is read is
first taken together by spans of time, which InfluxDB does where the points lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gatewatch.jobs.alerts.rule import Rule
from gatewatch.jobs.queries.flux_values import literal
from grafana.source.flux import one_of, points, text, texts

RUN: Final = ("run", "phase")
LAYER: Final = (*RUN, "layer")
GATE: Final = (*LAYER, "gate")
PARAM: Final = (*LAYER, "param")
JOB: Final = ("job",)

MOST_SERIES: Final = 900
"""The worst so many series are compared: of more than 1,000 Grafana's datasource makes an error."""
CAPTURES: Final = "10s"
"""Captures of so short a time count as one: few to read, and yet a training of a minute is told of."""
MINUTE: Final = "1m"
"""Jobs tell of themselves once in it, and runs twice."""
NOW: Final = "v.timeRangeStop"
SINCE: Final = f"since = (time) => float(v: int(v: {NOW}) - int(v: time)) / 1000000000.0"
"""Flux for how long ago a time was, in seconds."""


def field_of(rule: Rule, *fields: str, start: str = "v.timeRangeStart") -> str:
    """The points that a rule is about.

    Args:
        rule: says which.
        fields: instead of the rule's own.
        start: of what is read.
    """
    conditions = [one_of(tag, *values) for tag, values in rule.where.items()]
    return points(rule.measurement, fields or (rule.field,), *conditions, start=start)


def ago(seconds: int) -> str:
    """So many seconds before now; the query imports `date`."""
    return f"date.sub(d: {seconds}s, from: {NOW})"


def spans(every: str, labels: Sequence[str], fn: str) -> str:
    """One number for each span of time in which a series has points, oldest first."""
    return f"""
  |> aggregateWindow(every: {every}, fn: {fn}, createEmpty: false)
  |> toFloat(){by(labels)}
  |> sort(columns: ["_time"])"""


def by(labels: Sequence[str]) -> str:
    """A table for each series, of its times and values and nothing else."""
    return f"""
  |> keep(columns: {texts(["_time", "_value", *labels])})
  |> group(columns: {texts(labels)})"""


def taken(rule: Rule) -> str:
    """What of a span counts: its mildest value where every span must lie beyond the threshold, else its worst."""
    mildest = rule.for_captures == rule.within
    return "min" if (rule.above is not None) is mildest else "max"


def reached(rule: Rule, fields: int = 1) -> str:
    """The value that `for_captures` of the last `within` spans reach; nothing of a series that has not as many.

    Args:
        rule: says how many of how many.
        fields: that a series has, each of which tells of a span.
    """
    return f"""
  |> tail(n: {rule.within * fields})
  |> sort(columns: ["_value"], desc: {literal(rule.above is not None)})
  |> limit(n: 1, offset: {rule.for_captures - 1})"""


def part(name: str, labels: Sequence[str]) -> str:
    """Calls the value of a series by a name, so that it can be put beside another of the same series."""
    return f"""
  |> set(key: "part", value: {text(name)})
  |> keep(columns: {texts(["part", "_value", *labels])})
  |> group(columns: {texts(labels)})"""


def beside(parts: Sequence[str], labels: Sequence[str]) -> str:
    """A row for each series, with a column for each of its parts."""
    return f"""
union(tables: [{", ".join(parts)}])
  |> group()
  |> pivot(rowKey: {texts(labels)}, columnKey: ["part"], valueColumn: "_value")"""


def compared(rule: Rule, labels: Sequence[str], value: str | None = None) -> str:
    """The end of every query: the worst series, a row for each.

    Args:
        rule: says whether more is worse.
        labels: what a series is known by.
        value: what is compared, in terms of `r`; None: `_value`, at its own time.
    """
    mapped = f"\n  |> map(fn: (r) => ({{r with _time: {NOW}, _value: {value}}}))" if value else ""
    return f"""{mapped}
  |> group()
  |> sort(columns: ["_value"], desc: {literal(rule.above is not None)})
  |> limit(n: {MOST_SERIES}){by(labels)}
"""

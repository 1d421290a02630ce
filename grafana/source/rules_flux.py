"""The pieces of Flux that alert rules are made of.

Grafana compares one number a series, so each query ends in one row a series: a value that lies beyond the rule's
threshold exactly where the rule fires. Which captures make it fire, and which resolve it, is counted in Flux as
`gatewatch.jobs.alerts.series_state` counts them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gatewatch.jobs.alerts.rule import Rule
from gatewatch.jobs.queries.flux_values import literal
from grafana.source.flux import one_of, points, text, texts

MOST_SERIES: Final = 900
"""The worst so many series are compared: of more than 1,000 Grafana's datasource makes an error."""
MOST_CAPTURES: Final = 300
"""The newest captures of a series that are looked at."""
SEEN_SECONDS: Final = 90
"""What fired within this time fires: an evaluation a minute misses nothing that was over before it."""
NOW: Final = "v.timeRangeStop"
START: Final = "v.timeRangeStart"
SINCE: Final = f"since = (time) => float(v: int(v: {NOW}) - int(v: time)) / 1000000000.0"
"""A function in Flux: the seconds since a time."""
_NEVER: Final = f"{-(10**9)}"
_AFTER_ALL: Final = "2200-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Counter:
    """How a measure takes its value from a capture and those before, in Flux.

    In the expressions `r` is the capture, `a` the accumulator, and `known` whether the capture has a value.

    Attributes:
        value: what is compared.
        known: whether the capture has a value.
        fields: of the accumulator: name → initial value, and the value after a capture.
    """

    value: str
    known: str
    fields: Mapping[str, tuple[str, str]]


def field_of(rule: Rule, *fields: str, start: str = START) -> str:
    """Return the points that a rule reads; `fields` in place of the rule's own."""
    conditions = [one_of(tag, *values) for tag, values in rule.quantity.where.items()]
    return points(rule.quantity.measurement, fields or (rule.quantity.field,), *conditions, start=start)


def ago(seconds: int) -> str:
    """Return the time so many seconds before now; the query must import `date`."""
    return f"date.sub(d: {seconds}s, from: {NOW})"


def by(labels: Sequence[str]) -> str:
    """Make one table a series, of times and values only."""
    return f"""
  |> keep(columns: {texts(["_time", "_value", *labels])})
  |> group(columns: {texts(labels)})"""


def captures(rule: Rule, *fields: str, most: int = MOST_CAPTURES) -> str:
    """Return one row a capture, newest first: the largest of its values, where it has several."""
    return f"""{field_of(rule, *fields)}
  |> toFloat(){by(rule.quantity.series)}
  |> sort(columns: ["_time", "_value"], desc: true)
  |> unique(column: "_time")
  |> limit(n: {most})"""


def scaled(rows: str, scales: str, labels: Sequence[str]) -> str:
    """Divide captures by a number of their series; a series without one is left out.

    Args:
        rows: the captures.
        scales: a row a series, with the number in `_value`.
        labels: of the series.
    """
    return f"""union(tables: [
  {rows},
  {scales}
    |> map(fn: (r) => ({{r with _time: {_AFTER_ALL}, scale: r._value}})),
])
  |> group(columns: {texts(labels)})
  |> sort(columns: ["_time"], desc: true)
  |> fill(column: "scale", usePrevious: true)
  |> filter(fn: (r) => r._time < {_AFTER_ALL} and r.scale > 0.0)
  |> map(fn: (r) => ({{r with _value: r._value / r.scale}}))"""


def firing(rule: Rule, rows: str, counter: Counter | None = None) -> str:
    """Return the end of a query that counts captures: what each series that fires is compared by.

    The rows that neither can fire nor keep a rule from being resolved are dropped first, since Flux takes its time for
    each row that it reduces; their number is kept in `rank`, which counts captures from the newest.

    Args:
        rule: says how many of how many captures, and the thresholds.
        rows: the captures, newest first, with `_time` and `_value`.
        counter: how a value is taken from `_value` and the captures before; None: it is `_value`.
    """
    if counter is None:
        counter, first, position = Counter("r._value", "true", {}), _NEVER, "-r.rank"
        rows = _with_inside(
            rule,
            f"""{rows}
  |> map(fn: (r) => ({{r with rank: 1}}))
  |> cumulativeSum(columns: ["rank"])
  |> filter(fn: (r) => r.rank == 1 or {_past(rule, "r._value", _recovery(rule))})""",
        )
    else:
        first, position = "0", "a.position + 1"
    worse = "value > a.worst" if rule.condition.is_upper else "value < a.worst"
    newest = [f"newest{k}" for k in range(1, rule.condition.for_captures + 1)]
    fields = {
        "captures": ("0", "a.captures + (if known then 1 else 0)"),
        "inside": (literal(not rule.condition.after_inside), "inside"),
        "position": (first, "if counts then position else a.position"),
        "calm": ("0", "if counts then calm else a.calm"),
        "firing": ("false", "if counts then firing else a.firing"),
        "value": ("0.0", "if counts then value else a.value"),
        "worst": ("0.0", f"if counts and firing and (not lasts or {worse}) then value else a.worst"),
        "at": ("time(v: 0)", "if counts and firing and ill then r._time else a.at"),
    }
    for name, before in zip(newest, ["position", *(f"a.{name}" for name in newest)], strict=False):
        fields[name] = (_NEVER, f"if counts and beyond then {before} else a.{name}")
    fields |= counter.fields
    oldest = fields[newest[-1]][1]
    recent = f" or int(v: r.at) > int(v: {NOW}) - {SEEN_SECONDS}000000000" if not rule.condition.lasting else ""
    return f"""{rows}
  |> sort(columns: ["_time"])
  |> reduce(
    identity: {{{", ".join(f"{name}: {initial}" for name, (initial, _) in fields.items())}}},
    fn: (r, accumulator) => {{
      a = accumulator
      known = {counter.known}
      value = {counter.value}
      position = {position}
      beyond = {_past(rule, "value", _threshold(rule))}
      ill = {_past(rule, "value", _recovery(rule))}
      inside = a.inside or (known and not beyond)
      counts = known and inside
      lasts = a.firing and a.calm + position - a.position - 1 < {rule.condition.within}
      calm = if ill then 0 else a.calm + position - a.position
      fires = beyond and position - ({oldest}) < {rule.condition.within}
      firing = fires or (lasts and calm < {rule.condition.within})

      return {{
{"".join(f"        {name}: {following},{chr(10)}" for name, (_, following) in fields.items())}      }}
    }},
  )
  |> filter(fn: (r) => r.captures > {int(rule.condition.after_inside)})\
{compared(rule, f"if r.firing{recent} then r.worst else {_within(rule, 'r.value')}")}"""


def _with_inside(rule: Rule, rows: str) -> str:
    """Add the first capture within the thresholds, which may lie further back, where the rule asks for one."""
    if not rule.condition.after_inside:
        return rows
    inside = f"not {_past(rule, 'r._value', _threshold(rule))}"
    return f"""union(tables: [
  {rows},
  {field_of(rule, start=ago(INSIDE_SECONDS))}
  |> filter(fn: (r) => {inside})
  |> first()
  |> toFloat(){by(rule.quantity.series)}
  |> sort(columns: ["_time"])
  |> limit(n: 1)
  |> map(fn: (r) => ({{r with rank: {MOST_CAPTURES + 1}}})),
])
  |> group(columns: {texts(rule.quantity.series)})"""


INSIDE_SECONDS: Final = 6 * 3600
"""How far back a series may have been within its thresholds, for a rule that asks whether it was."""


def _threshold(rule: Rule) -> float:
    return rule.condition.threshold()


def _recovery(rule: Rule) -> float:
    return _threshold(rule) if rule.condition.recovery is None else rule.condition.recovery


def _past(rule: Rule, value: str, threshold: float) -> str:
    return f"({value} {'>' if rule.condition.is_upper else '<'} {literal(threshold)})"


def _within(rule: Rule, value: str) -> str:
    """Bring a value that lies beyond the threshold back to it: Grafana is to take it for well."""
    limit = literal(_threshold(rule))
    return f"(if {_past(rule, value, _threshold(rule))} then {limit} else {value})"


def part(name: str, labels: Sequence[str]) -> str:
    """Name the value of each series, so that it can be put beside another of the same series."""
    return f"""
  |> set(key: "part", value: {text(name)})
  |> keep(columns: {texts(["part", "_value", *labels])})
  |> group(columns: {texts(labels)})"""


def beside(parts: Sequence[str], labels: Sequence[str]) -> str:
    """Make one row a series, with a column for each of its parts."""
    return f"""
union(tables: [{", ".join(parts)}])
  |> group()
  |> pivot(rowKey: {texts(labels)}, columnKey: ["part"], valueColumn: "_value")"""


def compared(rule: Rule, value: str | None = None) -> str:
    """Return the end of every query: the worst series, a row each.

    Args:
        rule: says whether more is worse.
        value: what is compared, in terms of `r`; None: `_value`, at its own time.
    """
    mapped = f"\n  |> map(fn: (r) => ({{r with _time: {NOW}, _value: {value}}}))" if value else ""
    return f"""{mapped}
  |> group()
  |> sort(columns: ["_value"], desc: {literal(rule.condition.is_upper)})
  |> limit(n: {MOST_SERIES}){by(rule.quantity.series)}
"""

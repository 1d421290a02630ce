"""The pieces of Flux that alert rules are made of.

Grafana compares one number per series, so each query returns one row per series. The row's value lies beyond the rule's
threshold if and only if the rule fires. Flux counts the captures that make a rule fire, and those that resolve it, as
`gatewatch.jobs.alerts.series_state` does.

What is evaluated of a series ends with its newest capture and not now. So the answer about a run that has ended stays
what it was at its end, until the whole series leaves the time range; captures that left it one by one would look like a
recovery.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gatewatch.jobs.alerts.rule import Condition, Rule
from gatewatch.jobs.queries.flux_values import literal
from grafana.source.flux import inline_union, keep_where, one_of, pipe, points
from grafana.source.flux_steps import OLDEST_FIRST, extend, group, keep

MOST_SERIES: Final = 900
"""Maximum number of series that a query returns, the worst ones: Grafana's datasource fails for more than 1,000."""
MOST_CAPTURES: Final = 300
"""Number of captures of a series that are evaluated: the newest ones."""
SEEN_SECONDS: Final = 90
"""A rule that fired within this time still fires. Grafana evaluates once a minute, and so misses no short firing."""
RUN_DAYS: Final = 90
"""How far back the first capture of a run is looked for, and how large its layers are, which it records then."""
INSIDE_SECONDS: Final = 6 * 3600
"""How far back a series whose first capture was not within its thresholds may have been, for a rule that asks that."""
NOW: Final = "v.timeRangeStop"
START: Final = "v.timeRangeStart"
SINCE: Final = f"since = (time) => float(v: int(v: {NOW}) - int(v: time)) / 1000000000.0\n"
"""A function in Flux: the seconds since a time."""
_NEVER: Final = f"{-(10**9)}"
_LEFT_OUT: Final = 'float(v: "1e300")'
"""Stands for the value of a capture that another rule alerts about."""


@dataclass(frozen=True, slots=True)
class Counter:
    """How a measure computes its value from a capture and the captures before, in Flux.

    In the expressions `r` is the capture, `a` the accumulator, and `known` whether the capture has a value.

    Attributes:
        value: expression for the value that is compared.
        known: expression for whether the capture has a value.
        fields: fields of the accumulator: name → its initial value, and the expression for its value after a capture.
        first: an assignment that comes before them all, for an expression that several use; may be empty.
    """

    value: str
    known: str
    fields: Mapping[str, tuple[str, str]]
    first: str = ""


def field_of(rule: Rule, *fields: str, start: str = START) -> str:
    """Return the query for the points that a rule reads; `fields` replace the rule's own field."""
    conditions = [one_of(tag, *values) for tag, values in rule.quantity.where.items()]
    return points(rule.quantity.measurement, fields or (rule.quantity.field,), *conditions, start=start)


def ago(duration: str) -> str:
    """Return the expression for the time a duration before now, such as `90d`; the query must import `date`."""
    return f"date.sub(d: {duration}, from: {NOW})"


def by(labels: Sequence[str]) -> str:
    """Return the steps that make one table per series, with only its tags, times and values."""
    return pipe(keep("_time", "_value", *labels), group(*labels))


def captures(rule: Rule, *fields: str, most: int | None = MOST_CAPTURES) -> str:
    """Return the query for one row per capture, newest first: the largest of its values, where it has several.

    It reads twice Grafana's time range, for `firing` to take as much of it as lies before the newest capture.
    """
    # Those of each stored series alone are ordered by time already: so few are left to be sorted.
    few, newest = ([f"tail(n: {most})"], [f"limit(n: {most})"]) if most else ([], [])
    by_time = ('sort(columns: ["_time", "_value"], desc: true)', 'unique(column: "_time")')
    rows = field_of(rule, *fields, start=earlier(rule)) + pipe(*few, "toFloat()")
    if not rule.quantity.unless:
        return rows + by(rule.quantity.series) + pipe(*by_time, *newest)
    # The capture that is left out has this value at its time, which is larger than its own, and is then dropped.
    others = [one_of(tag, value) for tag, value in rule.quantity.unless.items()]
    marks = points(rule.quantity.measurement, (rule.quantity.field,), *others, start=earlier(rule)) + pipe(
        keep_where(_past(rule.condition, "r._value")), *few, extend(f"_value: {_LEFT_OUT}")
    )
    kept = keep_where(f"r._value < {_LEFT_OUT}")
    return inline_union(rows, marks) + by(rule.quantity.series) + pipe(*by_time, kept, *newest)


def up_to_newest(rule: Rule) -> str:
    """Return the steps that keep what lies before the newest capture of a series by no more than Grafana's time range.

    They drop a series whose newest capture lies before that range. The rows are newest first and numbered
    from 1 in `rank`; the time of the newest goes into `newest`, in nanoseconds.
    """
    within = f"r.newest >= int(v: {START}) and int(v: r._time) >= r.newest - {lookback(rule)}000000000"
    newest = extend("newest: if r.rank == 1 then int(v: r._time) else 0")
    return pipe(newest, 'cumulativeSum(columns: ["newest"])', keep_where(within))


def earlier(rule: Rule) -> str:
    """Return the expression for the time that lies as long before Grafana's time range as that is long."""
    return f"time(v: int(v: {START}) - {lookback(rule)}000000000)"


def lookback(rule: Rule) -> int:
    """Return the length of Grafana's time range, in seconds; 0 for a rule that only the jobs evaluate."""
    return rule.grafana.lookback_seconds if rule.grafana else 0


def firing(rule: Rule, rows: str, counter: Counter | None = None) -> str:
    """Return a query that counts captures, and ends in the value that Grafana compares for each series.

    Flux is slow for each row that it reduces. So the rows that can neither make the rule fire nor keep it from being
    resolved are dropped first. Each row keeps its position in `rank`, which counts captures from the newest.

    Args:
        rule: says how many of how many captures must lie beyond which threshold.
        rows: the captures, newest first, with `_time` and `_value`.
        counter: how the value is computed from `_value` and the captures before; None: it is `_value`.
    """
    condition = rule.condition
    rows += pipe(extend("rank: 1"), 'cumulativeSum(columns: ["rank"])')
    if counter is None:
        rows += pipe(keep_where(f"r.rank == 1 or {_past(condition, 'r._value', recovering=True)}"))
    rows += up_to_newest(rule)
    if counter is None:
        counter, first, position = Counter("r._value", "true", {}), _NEVER, "-r.rank"
        if condition.after_inside:
            rows = inline_union(rows, _first_inside(rule)) + pipe(group(*rule.quantity.series))
    else:
        first, position = "0", "a.position + 1"
    worse = "value > a.worst" if condition.is_upper else "value < a.worst"
    newest = [f"newest{k}" for k in range(1, condition.for_captures + 1)]
    fields = {
        "captures": ("0", "a.captures + (if known then 1 else 0)"),
        "inside": (literal(not condition.after_inside), "inside"),
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
    recent = f" or int(v: r.at) > int(v: {NOW}) - {SEEN_SECONDS}000000000" if not condition.lasting else ""
    reduced = f"""reduce(
    identity: {{{", ".join(f"{name}: {initial}" for name, (initial, _) in fields.items())}}},
    fn: (r, accumulator) => {{
      a = accumulator{f"{chr(10)}      {counter.first}" if counter.first else ""}
      known = {counter.known}
      value = {counter.value}
      position = {position}
      beyond = {_past(condition, "value")}
      ill = {_past(condition, "value", recovering=True)}
      inside = a.inside or (known and not beyond)
      counts = known and inside
      lasts = a.firing and a.calm + position - a.position - 1 < {condition.within}
      calm = if ill then 0 else a.calm + position - a.position
      fires = beyond and position - ({oldest}) < {condition.within}
      firing = fires or (lasts and calm < {condition.within})

      return {{
{"".join(f"        {name}: {following},{chr(10)}" for name, (_, following) in fields.items())}      }}
    }},
  )"""
    counted = pipe(OLDEST_FIRST, reduced, keep_where(f"r.captures > {int(condition.after_inside)}"))
    # Grafana must not alert about a series that does not fire: its value is held at the threshold if it lies beyond.
    limit = literal(condition.threshold())
    calm = f"(if {_past(condition, 'r.value')} then {limit} else r.value)"
    return rows + counted + compared(rule, f"if r.firing{recent} then r.worst else {calm}")


def _first_inside(rule: Rule) -> str:
    """Return a capture within the thresholds, which may lie further back than the others.

    It is the first of the run, which is quick to find, or else the first in some hours.
    """
    inside = keep_where(f"not {_past(rule.condition, 'r._value')}")
    begun = field_of(rule, start=ago(f"{RUN_DAYS}d")) + pipe("first()", "toFloat()", inside)
    lately = field_of(rule, start=ago(f"{INSIDE_SECONDS}s")) + pipe(inside, "first()", "toFloat()")
    either = inline_union(begun, lately) + by(rule.quantity.series)
    return either + pipe(OLDEST_FIRST, "limit(n: 1)", extend(f"rank: {MOST_CAPTURES + 1}"))


def _past(condition: Condition, value: str, *, recovering: bool = False) -> str:
    """Return the expression for whether a value lies past the threshold; `recovering`: past the one for recovery."""
    recovery = condition.recovery if recovering else None
    threshold = condition.threshold() if recovery is None else recovery
    return f"({value} {'>' if condition.is_upper else '<'} {literal(threshold)})"


def parts(labels: Sequence[str], **tables: str) -> str:
    """Return one line of Flux per table. It names the table's values, so that `beside` can make columns of them."""
    return "\n".join(
        f"{name} = {table}"
        + pipe(f'set(key: "part", value: "{name}")', keep("part", "_value", *labels), group(*labels))
        for name, table in tables.items()
    )


def beside(names: Iterable[str], labels: Sequence[str]) -> str:
    """Return the query for one row per series, with one column per part."""
    pivot = f'pivot(rowKey: {literal([*labels])}, columnKey: ["part"], valueColumn: "_value")'
    return f"\nunion(tables: [{', '.join(names)}])" + pipe("group()", pivot)


def compared(rule: Rule, value: str | None = None) -> str:
    """Return the last steps of every query: the worst series, one row per series.

    Args:
        rule: says whether larger values are worse.
        value: expression in `r` for what is compared; None: `_value`, at its own time.
    """
    worst_first = f'sort(columns: ["_value"], desc: {literal(rule.condition.is_upper)})'
    now = [extend(f"_time: {NOW}, _value: {value}")] if value else []
    return pipe(*now, "group()", worst_first, f"limit(n: {MOST_SERIES})") + by(rule.quantity.series) + "\n"

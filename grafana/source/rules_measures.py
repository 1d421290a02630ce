"""What a rule about captures compares, as Flux: one function per measure.

`gatewatch.jobs.alerts.evaluator` and `series_state` compute the same measures for the jobs.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

from gatewatch.collector.schema import HEARTBEAT_SECONDS, RUNS
from gatewatch.jobs.alerts.rule import LAYER, RUN, Rule
from gatewatch.jobs.alerts.series_state import FEWEST_CAPTURES, RISE_POINTS
from gatewatch.jobs.queries.flux_values import literal
from grafana.source.flux import flux, inline_union, keep_where, pipe, points
from grafana.source.flux_steps import NEWEST_FIRST, OLDEST_FIRST, extend, group, keep
from grafana.source.rules_flux import (
    MOST_CAPTURES,
    RUN_DAYS,
    Counter,
    ago,
    by,
    captures,
    compared,
    earlier,
    field_of,
    firing,
    lookback,
)

BEGUN_SECONDS: Final = 300
"""A series is new if its first point comes this long after the beginning of what is evaluated: an older series would
have had a heartbeat before."""
_EVERY: Final = 1_000_000


def value(rule: Rule) -> str:
    """Compare the field itself."""
    imports = 'import "date"\n\n' if rule.condition.after_inside else ""
    fires = imports + firing(rule, captures(rule))
    return _with_severity(rule, fires) if rule.critical_for else fires


def not_finite(rule: Rule) -> str:
    """Compare the number of NaN or of Inf, whichever is larger."""
    return firing(rule, captures(rule, "nan_count", "inf_count"))


def times_median(rule: Rule) -> str:
    """Compare the field as a multiple of its median over twice the time range, from `FEWEST_CAPTURES` captures on."""
    rows = "all" + pipe(OLDEST_FIRST, f"limit(n: {_EVERY}, offset: {FEWEST_CAPTURES})", f"tail(n: {MOST_CAPTURES})")
    kept = [keep_where(f"r._value >= {literal(rule.quantity.floor)}")] if rule.quantity.floor else []
    medians = "all" + pipe(*kept, 'median(method: "exact_mean")')
    scaled = _scaled(rows, medians, rule.quantity.series)
    return f"all = {captures(rule, most=None)}\n\n{firing(rule, scaled)}"


def frozen(rule: Rule) -> str:
    """Compare the largest update of a layer's parameters, at the captures at which some layer of the run moves."""
    newest = pipe('sort(columns: ["_time", "_value"], desc: true)', 'unique(column: "_time")')
    of_layer = pipe(f"limit(n: {MOST_CAPTURES})", 'set(key: "part", value: "layer")')
    of_run = pipe('duplicate(column: "_value", as: "moving")', 'set(key: "part", value: "run")')
    rows = inline_union(f"norms{by(LAYER)}{newest}{of_layer}", f"norms{by(RUN)}{newest}{of_run}") + pipe(
        group(*RUN),
        'sort(columns: ["_time", "part"], desc: true)',
        'fill(column: "moving", usePrevious: true)',
        keep_where(f'r.part == "layer" and r.moving >= {literal(rule.condition.below or 0.0)}'),
        group(*LAYER),
        NEWEST_FIRST,
    )
    norms = field_of(rule, start=earlier(rule)) + pipe(f"tail(n: {MOST_CAPTURES})", "toFloat()")
    return f"norms = {norms}\n\n{firing(rule, rows)}"


def share_of_units(rule: Rule) -> str:
    """Compare a count of units as a share of the layer's size, which the run records when it starts."""
    config = points(RUNS, ("config",), start=ago(f"{RUN_DAYS}d")) + pipe("last()") + by(RUN)
    config += pipe('rename(columns: {_value: "config"})', OLDEST_FIRST, "tail(n: 1)", 'drop(columns: ["_time"])')
    sizes = (
        f"""join(
    tables: {{
      layer: counted |> limit(n: 1),
      run: {config},
    }},
    on: {literal([*RUN])},
  )"""
        + pipe(extend("_value: units(config: r.config, layer: r.layer)"))
        + by(rule.quantity.series)
    )
    return flux(
        'import "date"',
        'import "regexp"',
        'import "strings"',
        f"\n{_UNITS}",
        f"counted = {captures(rule)}\n",
        firing(rule, _scaled("counted", sizes, rule.quantity.series)),
    )


def rise(rule: Rule) -> str:
    """Compare by how much a counter exceeds the largest of the points before; a new series rises from 0."""
    before = [f"before{k}" for k in range(1, RISE_POINTS + 1)]
    largest = functools.reduce(lambda a, b: f"(if {a} > {b} then {a} else {b})", (f"a.{name}" for name in before))
    values_before = ["r._value", *(f"a.{name}" for name in before)]
    fields = {name: ("0.0", value) for name, value in zip(before, values_before, strict=False)}
    late = f"r.newest - int(v: r._time) < {lookback(rule) - BEGUN_SECONDS}000000000"
    counter = Counter(
        value=f"if r._value > {largest} then r._value - {largest} else 0.0",
        known=f"begun or a.points >= {RISE_POINTS}",
        fields=fields | {"begun": ("false", "begun"), "points": ("0", "a.points + 1")},
        first=f"begun = a.begun or (a.points == 0 and {late})",
    )
    return firing(rule, captures(rule, most=None), counter)


def growth(rule: Rule) -> str:
    """Compare by how much a number exceeds its value one heartbeat earlier."""
    counter = Counter(
        value="if a.captures > 0 then r._value - a.before else 0.0",
        known=f"a.captures == 0 or int(v: r._time) - int(v: a.heartbeat) >= {HEARTBEAT_SECONDS * 0.9e9:.0f}",
        fields={
            "before": ("0.0", "if known then r._value else a.before"),
            "heartbeat": ("time(v: 0)", "if known then r._time else a.heartbeat"),
        },
    )
    return firing(rule, captures(rule), counter)


def last_event(rule: Rule) -> str:
    """Compare 1 for an alert whose last event is not `recovered`, else 0."""
    fires = extend('_value: if r._value == "recovered" then 0.0 else 1.0')
    return field_of(rule) + pipe("last()", fires) + by(rule.quantity.series) + pipe("max()") + compared(rule)


def _with_severity(rule: Rule, fires: str) -> str:
    """Tell series by their severity too, which becomes a label of the alert.

    It is that of the rule where one of the causes that make it so was beyond the threshold in what is evaluated.
    """
    causes = [f"why_{name}" for name in sorted(rule.critical_for)]
    marks = field_of(rule, *causes, start=earlier(rule)) + pipe(
        keep_where(f"r._value > {literal(rule.condition.threshold())}"),
        "last()",
        extend(f"_time: {_AFTER_ALL}, _value: 0.0, is_marked: true"),
        keep("_time", "_value", "is_marked", *rule.quantity.series),
    )
    severity = f'if exists r.is_marked then "{rule.condition.severity}" else "warning"'
    labels = (*rule.quantity.series, "severity")
    return inline_union(fires.rstrip(), marks) + pipe(
        group(*rule.quantity.series),
        NEWEST_FIRST,
        'fill(column: "is_marked", usePrevious: true)',
        keep_where(f"r._time < {_AFTER_ALL}"),
        extend(f"severity: {severity}"),
        keep("_time", "_value", *labels),
        group(*labels),
    )


def _scaled(rows: str, scales: str, labels: Sequence[str]) -> str:
    """Divide the captures of each series by a number; a series without such a number is left out.

    Args:
        rows: the captures.
        scales: one row per series, with the number in `_value`.
        labels: the tags that distinguish the series.
    """
    last = extend(f"_time: {_AFTER_ALL}, scale: r._value")
    return inline_union(rows, f"{scales}\n    |> {last}") + pipe(
        group(*labels),
        NEWEST_FIRST,
        'fill(column: "scale", usePrevious: true)',
        keep_where(f"r._time < {_AFTER_ALL} and r.scale > 0.0"),
        extend("_value: r._value / r.scale"),
    )


_AFTER_ALL: Final = "2200-01-01T00:00:00Z"
# As `evaluator.units_of` in the jobs: the layer's own entry, else that of the path that it lies below. A run records
# its configuration as JSON, which escapes names. A character that is not ASCII matches any other one.
_UNITS: Final = r"""json = (v) => regexp.replaceAllString(
  r: /[^\x00-\x7f]/,
  v: regexp.quoteMeta(v: strings.replaceAll(v: strings.replaceAll(v: v, t: "\\", u: "\\\\"), t: "\"", u: "\\\"")),
  t: "(?:\\\\u[0-9a-f]{4}){1,2}",
)
either = (a, b) => if a == "" then b else a
entry_of = (config, layer, name) => regexp.findString(
  r: /[0-9]+$/,
  v: regexp.findString(
    r: regexp.compile(v: "\"" + json(v: layer) + "\": \\{[^{}]*\"" + name + "\": [1-9][0-9]*"),
    v: config,
  ),
)
entry = (config, layer) => either(
  a: entry_of(config: config, layer: layer, name: "units"),
  b: either(
    a: entry_of(config: config, layer: layer, name: "proj_size"),
    b: entry_of(config: config, layer: layer, name: "hidden_size"),
  ),
)
above = (layer) => regexp.replaceAllString(r: /\/[^\/]*$/, v: layer, t: "")
units = (config, layer) => {
  digits = either(a: entry(config: config, layer: layer), b: entry(config: config, layer: above(layer: layer)))

  return if digits == "" then 0.0 else float(v: digits)
}"""

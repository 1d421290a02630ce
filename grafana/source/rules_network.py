"""The queries of the rules about what a network does."""

from __future__ import annotations

from typing import Final

from gatewatch.collector.schema import RUNS
from gatewatch.jobs.alerts.rule import Rule
from gatewatch.jobs.alerts.series_state import FEWEST_CAPTURES, MEDIAN_CAPTURES
from gatewatch.jobs.queries.flux_values import literal
from grafana.source.flux import points, texts
from grafana.source.rules_flux import (
    CAPTURES,
    GATE,
    LAYER,
    NOW,
    PARAM,
    RUN,
    ago,
    beside,
    by,
    compared,
    field_of,
    part,
    reached,
    spans,
    taken,
)

RECENT_SECONDS: Final = 900
"""How far back the last captures may lie: of a run that captures less often nothing is said."""
INSIDE_SECONDS: Final = 6 * 3600
"""How far back it is looked whether a gate has been within its thresholds."""
USUAL_SECONDS: Final = 2 * 3600
"""How far back a gradient is compared with itself."""
GAP_SECONDS: Final = 6 * 3600
"""How far back the last two validations may lie."""
RUN_DAYS: Final = 90
"""How far back the beginning of a run may lie, which tells the size of its layers."""
SMALL: Final = 1e-3


def unit(rule: Rule) -> float:
    """What 1 in the query is. Grafana 9 compares six decimals: what is small is told as a multiple of its threshold."""
    threshold = rule.above if rule.above is not None else rule.below
    return threshold if threshold and threshold < SMALL else 1.0


def value(rule: Rule, labels: tuple[str, ...], *fields: str) -> str:
    """A field as it is; of several, whichever is worse."""
    scaled = f"\n  |> map(fn: (r) => ({{r with _value: r._value / {literal(unit(rule))}}}))"
    found = field_of(rule, *fields) + spans(CAPTURES, labels, taken(rule)) + reached(rule, max(1, len(fields)))
    return found + (scaled if unit(rule) != 1.0 else "") + compared(rule, labels)


def once_inside(rule: Rule) -> str:
    """A field, of gates that have been within the thresholds before."""
    inside, bound = (
        ("min", f"r.inside <= {literal(rule.above)}")
        if rule.above is not None
        else ("max", f"r.inside >= {literal(rule.below or 0.0)}")
    )
    recent = field_of(rule, start=ago(RECENT_SECONDS)) + spans(CAPTURES, GATE, taken(rule)) + reached(rule)
    return f"""import "date"

inside = {field_of(rule)}
  |> {inside}()
  |> toFloat()
  |> group(columns: {texts(GATE)})
  |> {inside}(){part("inside", GATE)}
recent = {recent}{part("recent", GATE)}
{beside(("inside", "recent"), GATE)}
  |> filter(fn: (r) => exists r.recent and exists r.inside and {bound}){compared(rule, GATE, "r.recent")}"""


def times_median(rule: Rule) -> str:
    """A field as a multiple of its own median, from which the last captures are left out."""
    recent = field_of(rule, start=ago(RECENT_SECONDS)) + spans(CAPTURES, PARAM, taken(rule)) + reached(rule)
    return f"""import "date"

before = {field_of(rule)}{spans(CAPTURES, PARAM, "mean")}
  |> tail(n: {MEDIAN_CAPTURES}, offset: {rule.within})
usual = before
  |> median(method: "exact_mean"){part("usual", PARAM)}
enough = before
  |> limit(n: 1, offset: {FEWEST_CAPTURES - 1}){part("enough", PARAM)}
recent = {recent}{part("recent", PARAM)}
{beside(("usual", "enough", "recent"), PARAM)}
  |> filter(fn: (r) => exists r.recent and exists r.enough and exists r.usual and r.usual > 0.0)\
{compared(rule, PARAM, "r.recent / r.usual")}"""


def frozen(rule: Rule) -> str:
    """The update of each layer over all its parameters, where some layer of the run moved at each of the captures."""
    largest = f'\n  |> aggregateWindow(every: {CAPTURES}, fn: max, createEmpty: false, timeSrc: "_start")'
    return f"""norms = {field_of(rule)}{largest}
  |> toFloat()
  |> keep(columns: {texts(["_start", "_stop", "_time", "_value", *LAYER])})
layers = norms
  |> group(columns: {texts([*LAYER, "_start", "_stop"])})
  |> sort(columns: ["_time"]){largest}{reached(rule)}
  |> keep(columns: {texts(["_time", "_value", *LAYER])})
runs = norms
  |> group(columns: {texts([*RUN, "_start", "_stop"])})
  |> sort(columns: ["_time"]){largest}
  |> tail(n: {rule.within})
  |> min()
  |> rename(columns: {{_value: "moving"}})
  |> keep(columns: {texts(["moving", *RUN])})
join(tables: {{layer: layers, run: runs}}, on: {texts(RUN)})
  |> filter(fn: (r) => r.moving > 0.0){compared(rule, LAYER, f"r._value / {literal(unit(rule))}")}"""


def share_of_units(rule: Rule) -> str:
    """A count of units as a share of their layer's, whose size the run tells when it begins."""
    return f"""import "date"
import "regexp"
import "strings"

{_UNITS}
counted = {field_of(rule)}{spans(CAPTURES, GATE, taken(rule))}{reached(rule)}
runs = {points(RUNS, ("config",), start=f"date.sub(d: {RUN_DAYS}d, from: {NOW})")}
  |> last(){by(RUN)}
  |> rename(columns: {{_value: "config"}})
  |> sort(columns: ["_time"])
  |> tail(n: 1)
  |> drop(columns: ["_time"])
join(tables: {{layer: counted, run: runs}}, on: {texts(RUN)})
  |> map(fn: (r) => ({{r with units: units(config: r.config, layer: r.layer)}}))
  |> filter(fn: (r) => r.units > 0.0){compared(rule, GATE, "r._value / r.units")}"""


# As `jobs/alerts/values.units_of` has it: the layer's own entry, else that of the path that it lies below. A run tells
# of itself in JSON, in which a name is escaped; whatever is no ASCII stands for any such character.
_UNITS: Final = r"""json = (v) => regexp.replaceAllString(
  r: /[^\x00-\x7f]/,
  v: regexp.quoteMeta(v: strings.replaceAll(v: strings.replaceAll(v: v, t: "\\", u: "\\\\"), t: "\"", u: "\\\"")),
  t: "(?:\\\\u[0-9a-f]{4}){1,2}",
)
either = (a, b) => if a == "" then b else a
told = (config, layer, name) => regexp.findString(
  r: /[0-9]+$/,
  v: regexp.findString(
    r: regexp.compile(v: "\"" + json(v: layer) + "\": \\{[^{}]*\"" + name + "\": [1-9][0-9]*"),
    v: config,
  ),
)
entry = (config, layer) => either(
  a: told(config: config, layer: layer, name: "units"),
  b: either(
    a: told(config: config, layer: layer, name: "proj_size"),
    b: told(config: config, layer: layer, name: "hidden_size"),
  ),
)
above = (layer) => regexp.replaceAllString(r: /\/[^\/]*$/, v: layer, t: "")
units = (config, layer) => {
  digits = either(a: entry(config: config, layer: layer), b: entry(config: config, layer: above(layer: layer)))

  return if digits == "" then 0.0 else float(v: digits)
}"""

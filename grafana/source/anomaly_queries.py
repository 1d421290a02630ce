"""The queries of the dashboard Anomalies: how much is anomalous, what, since when, and why."""

from __future__ import annotations

from typing import Final

from gatewatch.collector.schema import GATE_SCORES
from gatewatch.jobs.findings.explanations import BROKEN
from gatewatch.jobs.queries.flux_values import literal
from gatewatch.jobs.scoring.signals import PHRASES
from grafana.source.flux import chosen, dictionary, flux, keep_where, pattern, pipe, points
from grafana.source.flux_steps import (
    OLDEST_FIRST,
    aggregate_window,
    column_values,
    extend,
    group,
    held,
    keep,
    map_to,
)
from grafana.source.queries import CONSENSUS, OF_LAYER, UNSAID, run_end, scores, until_end, worst_names

MOST_ROWS: Final = 20
MOST_CAUSES: Final = 100
MOST_WINDOWS: Final = 1000
"""Number of windows in which causes are summed up: the same on every screen, so that all show the same cause first."""
CHOSEN: Final = (*OF_LAYER, chosen("gate"))
BY_GATE: Final = ("layer", "gate")
_STATE: Final = 'if r._value > 1.0 then "anomalous" else if r._value > 0.8 then "nearly" else "normal"'
_HIGH: Final = keep_where("r._value > 1.0")
_COUNTED: Final = """reduce(identity: {scored: 0, anomalous: 0}, fn: (r, accumulator) => ({
      scored: accumulator.scored + 1,
      anomalous: accumulator.anomalous + (if r._value > 1.0 then 1 else 0),
    }))"""
_COUNT: Final = '(if r.anomalous == 0 then "none" else string(v: r.anomalous)) + " of " + string(v: r.scored)'
_SUMMED: Final = """reduce(
      identity: {windows: 0, size: 0.0},
      fn: (r, accumulator) => ({windows: accumulator.windows + 1, size: accumulator.size + r.size}),
  )"""
_CAUSE: Final = """
      layer: r.layer,
      gate: r.gate,
      broken: r.broken,
      cause: dict.get(dict: phrases, key: r._field + " " + r.sign, default: r.feature + (if r.sign == "+" then " rose" \
else " fell")),
      "size": r.size / float(v: r.windows),
      "times seen": r.windows,
    """
_UNKNOWN: Final = """
      layer: r.layer, gate: r.gate, broken: -1, cause: "no cause was recorded", size: 0.0, "times seen": 0,
    """
_EXTENT: Final = """reduce(identity: {_time: time(v: 9223372036854775807), worst: 0.0}, fn: (r, accumulator) => ({
      _time: if r._time < accumulator._time then r._time else accumulator._time,
      worst: if r._value > accumulator.worst then r._value else accumulator.worst,
    }))"""


def anomalous_of_scored() -> str:
    """Return one text: of how many series a score was above 1, and how many have scores; nothing where none has."""
    return scores(*CHOSEN) + pipe("max()", group(*BY_GATE), "max()", "group()", _COUNTED, map_to(f"_value: {_COUNT}"))


def what_is_wrong() -> str:
    """Return a row for each series with a score above 1: where, source, why, since when, how bad.

    What has its cause elsewhere than in the network comes first, the first in time first, since the network may only
    follow; then the worst first.
    """
    steps, sources = (
        points(GATE_SCORES, [field], CONSENSUS, *CHOSEN, start="begin", stop="end")
        + pipe(keep_where("contains(set: times, value: r._time)"), "group()", map_to(_named(f"{field}: r._value")))
        for field in ("step", "source")
    )
    score = scores(*CHOSEN)
    rows = """
      where: r.layer + " " + r.gate,
      source: r.source,
      why: r.cause,
      since: r._time,
      "at step": r.step,
      worst: r.worst,
      now: r.now,
      layer: r.layer,
    """
    return flux(
        _causes_found(),
        f"high = {score}" + pipe(_HIGH, group(*BY_GATE), _EXTENT, "group()", OLDEST_FIRST),
        "unknown = high" + pipe(map_to(_UNKNOWN)),
        "first = union(tables: [causes, unknown])" + pipe(group(*BY_GATE), _largest_first(), "limit(n: 1)", "group()"),
        f"times = high |> {column_values('_time')}",
        "begin = if length(arr: times) > 0 then times[0] else v.timeRangeStart",
        "newest = if length(arr: times) > 0 then times[length(arr: times) - 1] else v.timeRangeStart",
        "end = time(v: int(v: newest) + 1)",
        f"steps = {steps}",
        # Scores of before there were sources have none; a join would drop them.
        "unsaid = high" + pipe(map_to(_named(f"source: {literal(UNSAID)}"))),
        f"sources = union(tables: [{sources}, unsaid])"
        + pipe(group("_time", *BY_GATE), 'sort(columns: ["source"])', "limit(n: 1)", "group()"),
        f"now = {score}" + pipe("last()", "group()", map_to(_named("now: r._value", time=False))),
        'scored = join(tables: {high: high, now: now}, on: ["layer", "gate"])',
        'since = join(tables: {scored: scored, steps: steps}, on: ["_time", "layer", "gate"])',
        'said = join(tables: {since: since, sources: sources}, on: ["_time", "layer", "gate"])',
        'join(tables: {said: said, first: first}, on: ["layer", "gate"])'
        + pipe(
            extend(f'follows: if r.source == "network" or r.source == {literal(UNSAID)} then 1 else 0'),
            extend("rank: if r.follows == 1 then -r.worst else float(v: int(v: r._time))"),
            'sort(columns: ["follows", "rank", "layer", "gate"])',
            f"limit(n: {MOST_ROWS})",
            map_to(rows),
        ),
    )


def states() -> str:
    """Return the state of the worst gates over time in words; a run that is over has `ended` after its last capture."""
    names, is_worst = worst_names(scores(*CHOSEN), BY_GATE)
    states = scores(*CHOSEN, stop="end") + pipe(
        held("max", "_start"),
        keep("_time", "_value", *BY_GATE),
        group(*BY_GATE),
        is_worst,
        extend(f"_value: {_STATE}"),
    )
    return flux(names, run_end(), until_end(states))


def every_cause() -> str:
    """Return a row for each cause of the scores above 1, the largest first."""
    return (
        _causes_found() + "\ncauses" + pipe(_largest_first(), f"limit(n: {MOST_CAUSES})", 'drop(columns: ["broken"])')
    )


def _causes_found() -> str:
    """Return the lines that make `causes`: what contributed to scores above 1, joined window by window."""
    both = {**PHRASES, **{name: (phrase, phrase) for name, phrase in BROKEN.items()}}
    phrases = {
        f"why_{name} {sign}": text for name, texts in both.items() for sign, text in zip("+-", texts, strict=True)
    }
    windows = scores(*CHOSEN) + pipe(aggregate_window("max"), _HIGH, keep("_time", "_value", *BY_GATE), "group()")
    why = points(GATE_SCORES, (), "r._field =~ /^why_/", CONSENSUS, *CHOSEN) + pipe(
        aggregate_window("mean"), keep("_time", "_value", "_field", *BY_GATE), "group()"
    )
    is_broken = f"r._field =~ {pattern(*(f'why_{name}' for name in BROKEN))}"
    return flux(
        'import "dict"',
        'import "math"',
        'import "strings"',
        f"phrases = {dictionary(phrases)}",
        f"windows = {windows}",
        f"why = {why}",
        'causes = join(tables: {high: windows, why: why}, on: ["_time", "layer", "gate"])'
        + pipe(
            extend('sign: if r._value_why < 0.0 then "-" else "+"'),
            extend("size: math.abs(x: r._value_why)"),
            group(*BY_GATE, "_field", "sign"),
            _SUMMED,
            "group()",
            extend(f'feature: strings.trimPrefix(v: r._field, prefix: "why_"), broken: if {is_broken} then 1 else 0'),
            map_to(_CAUSE),
        ),
    )


def _named(columns: str, time: bool = True) -> str:
    """Return the columns of a row about one gate."""
    return f"layer: r.layer, gate: r.gate, {columns}" + (", _time: r._time" if time else "")


def _largest_first() -> str:
    return 'sort(columns: ["broken", "size"], desc: true)'

"""The queries of the dashboard Feed: whether what is fed changed, when, and which feature moved furthest."""

from __future__ import annotations

from typing import Final

from gatewatch.collector.schema import FEED_FEATURES, GATE_SCORES, RUNS
from gatewatch.jobs.findings.explanations import BROKEN
from gatewatch.jobs.queries.flux_values import literal
from grafana.source.feature_rows import FURTHEST, IS_FEATURE, NAMES_IMPORTS, SAME, extent, feature_names
from grafana.source.flux import dictionary, flux, inline_union, keep_where, one_of, pipe, points
from grafana.source.flux_steps import column_values, extend, group, keep, map_to
from grafana.source.queries import OF_RUN

JUDGED: Final = '(r.detector == "data" or (r.detector == "checks" and r.layer == "_data"))'
"""The condition that leaves the scores of what is fed."""
_HIGH: Final = keep_where("r._value > 1.0")
UNJUDGED: Final = "Not judged: `gatewatch jobs` has not scored it"
UNRECORDED: Final = "Not recorded: pass batch= to step(), or wrap what fit is given in monitor.feed()"
HARDLY: Final = 0.1
"""Standard deviations, or doublings, that are nothing to speak of."""
_SIDES: Final = ("before", "since")
_MOVED: Final = f"""
      feature: name(field: r._field),
      "mean before": r["mean before"],
      "mean since": r["mean since"],
      "spread before": r["std before"],
      "spread since": r["std since"],
      away: if same(a: r["mean before"], b: r["mean since"]) then 0.0
        else if r["std before"] > 0.0 then math.abs(x: r["mean since"] - r["mean before"]) / r["std before"]
        else {FURTHEST},
      doublings: if same(a: r["std before"], b: r["std since"]) then 0.0
        else if r["std before"] > 0.0 and r["std since"] > 0.0 then math.log2(x: r["std since"] / r["std before"])
        else if r["std since"] > 0.0 then {FURTHEST} else {-FURTHEST},
    """
_WORDS: Final = f"""
      moved: if r.away > math.abs(x: r.doublings) then r.away else math.abs(x: r.doublings),
      how: if r.away == 0.0 and r.doublings == 0.0 then "it did not move"
        else if r.away < {HARDLY} and math.abs(x: r.doublings) < {HARDLY} then "it hardly moved"
        else if r.doublings == {FURTHEST} then "it was constant and is not any more"
        else if r.doublings == {-FURTHEST} then "it has become constant"
        else if r.away == {FURTHEST} then "it was constant and has another value"
        else if r.away >= math.abs(x: r.doublings)
        then "its mean moved by " + short(x: r.away) + " of its standard deviations"
        else if r.doublings > 0.0 then "its spread is " + short(x: math.pow(x: 2.0, y: r.doublings)) + " times as large"
        else "its spread is " + short(x: math.pow(x: 2.0, y: -r.doublings)) + " times as small",
    """


def what_changed() -> str:
    """Return one text: whether the jobs found that what is fed changed, at which step, how, and the feature."""
    phrases = dictionary({f"why_{name}": phrase for name, phrase in BROKEN.items()})
    at_change = {"start": "time(v: at)", "stop": "time(v: at + 1)"}
    why = points(GATE_SCORES, (), "r._field =~ /^why_/", JUDGED, *OF_RUN, **at_change)
    cause = 'dict.get(dict: phrases, key: r._field, default: strings.trimPrefix(v: r._field, prefix: "why_"))'
    largest = pipe("group()", _HIGH, 'top(n: 1, columns: ["_value"])', map_to(f"cause: {cause}"))
    steps = points(GATE_SCORES, ["step"], JUDGED, *OF_RUN, **at_change) + pipe("last()", "group()", "max()")
    newest = points(GATE_SCORES, ["anomaly_score"], JUDGED, *OF_RUN) + pipe("last()", "group()", "max()")
    known = points(RUNS, ["event"], *OF_RUN, start="0", stop="") + pipe("last()", "group()", "limit(n: 1)")
    return flux(
        _moves(),
        f"phrases = {phrases}",
        f"newest = {newest}" + pipe(column_values("_value")),
        f"causes = {why}{largest}" + pipe(column_values("cause")),
        f"steps = {steps}" + pipe(column_values("_value")),
        f"furthest = moves |> {column_values('feature')}",
        f"ways = moves |> {column_values('how')}",
        'how = if changed and detectors[0] == "checks" then ", a check failed" else ", it changed"',
        # A check of one feature has its name in the place of the gate.
        'named = if changed and detectors[0] == "checks" and gates[0] != "feed" then gates[0] else ""',
        'step = if length(arr: steps) > 0 then " at step " + string(v: steps[0]) else ""',
        'place = if named == "" then "" else " in " + named',
        'cause = if length(arr: causes) > 0 then ": " + causes[0] else ""',
        "moved = length(arr: furthest) > 0",
        'most = if moved and named == "" then "; furthest moved " + furthest[0] + ", " + ways[0] else ""',
        "lasts = length(arr: newest) > 0 and newest[0] > 1.0",
        'over = if lasts then "" else "; the newest captures are normal again"',
        'said = if changed then "Yes" + how + step + place + cause + most + over',
        '  else if length(arr: newest) > 0 then "No"',
        f'  else if length(arr: captured) > 0 then "{UNJUDGED}" else "{UNRECORDED}"',
        # With a column in it: InfluxDB makes no row of a text that does not depend on one.
        known + pipe(extend('text: ""'), map_to("_value: said + r.text")),
    )


def changed_at() -> str:
    """Return the time of the first capture at which what is fed had changed, in milliseconds; no row if it did not."""
    return points(GATE_SCORES, ["anomaly_score"], JUDGED, *OF_RUN) + pipe(
        _HIGH, "first()", "group()", 'min(column: "_time")', map_to("_value: int(v: r._time) / 1000000")
    )


def features() -> str:
    """Return a row for each feature, the one that moved furthest first: its mean and spread before and since."""
    return _moves() + "\nmoves" + pipe('drop(columns: ["away", "doublings", "moved"])')


def _moves() -> str:
    """Return the lines that make `moves`, a row for each feature.

    Before and since the change that the jobs found; where they found none, or at the first capture that is shown, the
    two halves of what is shown.
    """
    high = points(GATE_SCORES, ["anomaly_score"], JUDGED, *OF_RUN) + pipe(
        _HIGH, "first()", "group()", 'sort(columns: ["_time", "detector"])'
    )
    sides = [
        points(FEED_FEATURES, (), IS_FEATURE, *OF_RUN, one_of("statistic", "mean", "std"), start=start, stop=stop)
        + pipe("mean()", keep("_value", "_field", "statistic"), extend(f'side: r.statistic + " {side}"'))
        for side, start, stop in (("before", "begin", "split"), ("since", "split", "end"))
    ]
    known = " and ".join(f'exists r["{statistic} {side}"]' for statistic in ("mean", "std") for side in _SIDES)
    return flux(
        'import "math"',
        *(f'import "{module}"' for module in NAMES_IMPORTS),
        extent(),
        feature_names(),
        f"high = {high}",
        f"changes = high |> {column_values('_time')}",
        f"detectors = high |> {column_values('detector')}",
        f"gates = high |> {column_values('gate')}",
        "changed = length(arr: changes) > 0",
        "at = if changed then int(v: changes[0]) else 0",
        "middle = int(v: begin) + (int(v: end) - int(v: begin)) / 2",
        "split = time(v: if at > int(v: begin) and at < int(v: end) then at else middle)",
        f"same = (a, b) => math.abs(x: a - b) <= {literal(SAME)} * math.abs(x: a)",
        "short = (x) => string(v: float(v: int(v: x * 10.0 + 0.5)) / 10.0)",
        f"moves = {inline_union(*sides)}"
        + pipe(
            group("_field"),
            'pivot(rowKey: ["_field"], columnKey: ["side"], valueColumn: "_value")',
            "group()",
            keep_where(known),
            map_to(_MOVED),
            extend(_WORDS),
            'sort(columns: ["moved"], desc: true)',
        ),
    )

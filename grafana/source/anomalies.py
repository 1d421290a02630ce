"""Anomalies: which gate behaves as it has not before, since when, and why."""

from __future__ import annotations

from typing import Any, Final

from grafana_foundation_sdk.builders.dashboard import Panel

from gatewatch.collector.schema import GATE_SCORES
from gatewatch.jobs.findings.explanations import BROKEN
from gatewatch.jobs.scoring.signals import PHRASES
from grafana.source import variables
from grafana.source.alert_table import alert_table
from grafana.source.board import board, closed_row
from grafana.source.flux import Series, chosen, dictionary, flux, keep_where, pattern, pipe, points
from grafana.source.flux_steps import aggregate_window, column_values, extend, group, held, keep, map_to, newest
from grafana.source.links import CHOSEN_RUN, link
from grafana.source.panels import state_timeline, table, text_stat, time_series
from grafana.source.queries import (
    CONSENSUS,
    MOST_LINES,
    OF_LAYER,
    OF_RUN,
    last_capture,
    only_worst,
    scores,
    state,
    worst_by,
    worst_names,
)
from grafana.source.summary import run_state, score_stats
from grafana.source.values import (
    CLEAR,
    GREEN,
    HIDDEN,
    RED,
    SCORE,
    SCORE_BANDS,
    YELLOW,
    Values,
    limit,
    override,
    thresholds,
)

MOST_ROWS: Final = 20
MOST_CAUSES: Final = 100
_CHOSEN: Final = (*OF_LAYER, chosen("gate"))
_GATE: Final = ("layer", "gate")
_STATES: Final = {"normal": GREEN, "nearly": YELLOW, "anomalous": RED, "ended": CLEAR}
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
_EXTENT: Final = """reduce(identity: {_time: time(v: 9223372036854775807), worst: 0.0}, fn: (r, accumulator) => ({
      _time: if r._time < accumulator._time then r._time else accumulator._time,
      worst: if r._value > accumulator.worst then r._value else accumulator.worst,
    }))"""
_NONE_HIGH: Final = "No score above 1 in this time range, of those that “Anomalous” counts"
_GATES: Final = link(
    "Look at the gates of this layer", "gates", **CHOSEN_RUN, layer="${__data.fields.layer:percentencode}"
)


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    worst = only_worst(scores(*_CHOSEN), "max", _GATE)
    by_detector = worst_by(points(GATE_SCORES, ["anomaly_score"], *_CHOSEN), "detector")
    return board(
        "Anomalies",
        "Which gate behaves as it has not before, since when, and why.",
        [*variables.of_run(), variables.layers(GATE_SCORES), variables.scored()],
        [
            *_summary(),
            _wrong(),
            time_series("Anomaly score", worst, SCORE, size=(24, 11), grey_below=0.8).description(
                "Consensus of the detectors, a line for each gate, parameter and the loss; of many, the "
                f"{MOST_LINES} with the largest. Grey: never above 0.8. Healthy: up to 1, the red line. During the "
                "warm-up (the first 32 captures) there is no score."
            ),
            state_timeline("State of each gate", Series(_states(), _GATE), _STATES).description(
                f"Normal up to a score of 0.8, anomalous above 1; the {MOST_LINES} with the largest. It ends where the "
                "run ended. Healthy: green. A fault stays red."
            ),
            alert_table(
                "Alerts of this run",
                chosen("run"),
                fields=["state", "value", "threshold"],
                columns=["_time", "rule", "state", "value", "threshold", "layer", "gate", "phase"],
                no_value="No rule fired in this time range, if the jobs run: Health says so",
                dropped=["run"],
            )
            .description(
                "What the jobs found: the rule (its section in the runbook says what to do), where, and the value. "
                "`ended`: the run ended while the rule fired. Healthy: empty, or all recovered. Where the jobs do not "
                "run it is empty too: Health says whether they do."
            )
            .height(7),
            closed_row(
                "Every cause, and what each detector says",
                _causes(),
                time_series(
                    "What each detector says",
                    Series(by_detector, ["detector"]),
                    Values(low=0, bands=limit(1)),
                    size=(24, 10),
                ).description(
                    "The largest score of each detector. Healthy: up to 1. Rules and robust alone are enough for the "
                    "consensus; an isolation forest counts only where they nearly agree: training drifts away from its "
                    "own warm-up by nature."
                ),
            ),
        ],
    )


def _summary() -> list[Panel]:
    """Return the panels that say in one line whether anything is wrong."""
    count = scores(*_CHOSEN) + pipe("max()", group(*_GATE), "max()", "group()", _COUNTED, map_to(f"_value: {_COUNT}"))
    return [
        run_state().span(6),
        text_stat(
            "Anomalous", count, {"^(none of .*)$": GREEN, "^(.*)$": RED}, patterns=True, no_value="not scored here"
        )
        .span(6)
        .description(
            "Of how many gates, parameters and losses a score was above 1, and how many have scores. Healthy: none. "
            "Not scored: the jobs have not come to it, or it has fewer than 32 captures."
        ),
        *(panel.span(6) for panel in score_stats(*_CHOSEN)),
    ]


def _wrong() -> Panel:
    """Return the table of what is anomalous: a row for each gate, parameter and loss."""
    of_run = points(GATE_SCORES, ["step"], CONSENSUS, *_CHOSEN)
    score = scores(*_CHOSEN)
    rows = """
      where: r.layer + " " + r.gate,
      why: r.cause,
      since: r._time,
      "at step": r.step,
      worst: r.worst,
      now: r.now,
      layer: r.layer,
    """
    query = flux(
        _causes_found(),
        "first = causes" + pipe(group(*_GATE), _largest_first(), "limit(n: 1)", "group()"),
        f"high = {score}" + pipe(_HIGH, group(*_GATE), _EXTENT, "group()"),
        f"times = high |> {column_values('_time')}",
        f"steps = {of_run}"
        + pipe(keep_where("contains(set: times, value: r._time)"), "group()", map_to(_named("step: r._value"))),
        f"now = {score}" + pipe("last()", "group()", map_to(_named("now: r._value", time=False))),
        'scored = join(tables: {high: high, now: now}, on: ["layer", "gate"])',
        'since = join(tables: {scored: scored, steps: steps}, on: ["_time", "layer", "gate"])',
        'join(tables: {since: since, first: first}, on: ["layer", "gate"])'
        + pipe(newest(MOST_ROWS, "worst"), map_to(rows)),
    )
    coloured = override(
        thresholds=thresholds(SCORE_BANDS), custom__displayMode="color-text", decimals=2, custom__width=80
    )
    return (
        table(
            "What is wrong, and why",
            query,
            columns=("where", "why", "since", "at step", "worst", "now", "layer"),
            height=7,
            no_value=_NONE_HIGH,
        )
        .description(
            "Each gate, parameter or loss whose score was above 1, the worst first: the main cause, the first such "
            "capture, its largest score and its newest. Healthy: no row, and scores in the panel above."
        )
        .override_by_name("where", override(links=[_GATES], custom__width=170))
        .override_by_name("why", override(custom__minWidth=380))
        .override_by_name("since", override(custom__width=170, unit="dateTimeAsIso"))
        .override_by_name("at step", override(custom__width=90))
        .override_by_name("worst", coloured)
        .override_by_name("now", coloured)
        .override_by_name("layer", HIDDEN)
    )


def _named(columns: str, time: bool = True) -> str:
    """Return the columns of a row about one gate."""
    return f"layer: r.layer, gate: r.gate, {columns}" + (", _time: r._time" if time else "")


def _largest_first() -> str:
    return 'sort(columns: ["broken", "size"], desc: true)'


def _states() -> str:
    """Return the state of the worst gates over time in words; a run that is over has `ended` after its last capture."""
    names, is_worst = worst_names(scores(*_CHOSEN), _GATE)
    is_in_range = "newest >= int(v: v.timeRangeStart) and newest < int(v: v.timeRangeStop)"
    return flux(
        names,
        f"captured = {last_capture(*OF_RUN, start='0', stop='')}",
        f"heard = {state()} |> {column_values('_value')}",
        "newest = if length(arr: captured) > 0 then int(v: captured[0]) else 0",
        f'over = {is_in_range} and (length(arr: heard) == 0 or heard[0] != "live")',
        "end = if over then time(v: newest + 1) else v.timeRangeStop",
        f"states = {scores(*_CHOSEN, stop='end')}"
        + pipe(
            held("max", "_start"),
            keep("_time", "_value", *_GATE),
            group(*_GATE),
            is_worst,
            extend(f"_value: {_STATE}"),
        ),
        'ended = states |> last() |> filter(fn: (r) => over) |> map(fn: (r) => ({r with _time: end, _value: "ended"}))',
        'union(tables: [states, ended]) |> sort(columns: ["_time"])',
    )


def _causes() -> Panel:
    """Return the table of what contributed to scores above 1."""
    query = (
        _causes_found() + "\ncauses" + pipe(_largest_first(), f"limit(n: {MOST_CAUSES})", 'drop(columns: ["broken"])')
    )
    columns = ("layer", "gate", "cause", "size", "times seen")
    return (
        table("Causes", query, columns=columns, no_value=_NONE_HIGH)
        .description(
            "What contributed to scores above 1 in the time range, the largest first. The size of a signal is the mean "
            "multiple of its usual distance from the forecast; that of a rule (which come first) its score. Healthy: "
            "none, and scores in the panels above."
        )
        .override_by_name("layer", override(links=[_GATES], custom__width=160))
        .override_by_name("gate", override(custom__width=110))
        .override_by_name("size", override(decimals=1, custom__width=80))
        .override_by_name("times seen", override(custom__width=110))
    )


def _causes_found() -> str:
    """Return the lines that make `causes`: what contributed to scores above 1, joined window by window."""
    both = {**PHRASES, **{name: (phrase, phrase) for name, phrase in BROKEN.items()}}
    phrases = {
        f"why_{name} {sign}": text for name, texts in both.items() for sign, text in zip("+-", texts, strict=True)
    }
    windows = scores(*_CHOSEN) + pipe(aggregate_window("max"), _HIGH, keep("_time", "_value", *_GATE), "group()")
    why = points(GATE_SCORES, (), "r._field =~ /^why_/", CONSENSUS, *_CHOSEN) + pipe(
        aggregate_window("mean"), keep("_time", "_value", "_field", *_GATE), "group()"
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
            group(*_GATE, "_field", "sign"),
            _SUMMED,
            "group()",
            extend(f'feature: strings.trimPrefix(v: r._field, prefix: "why_"), broken: if {is_broken} then 1 else 0'),
            map_to(_CAUSE),
        ),
    )

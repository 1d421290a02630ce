"""Anomalies: which gate behaves as it has not before, since when, and why."""

from __future__ import annotations

from typing import Any, Final

from gatewatch.collector.schema import GATE_SCORES
from gatewatch.jobs.findings.explanations import BROKEN, PHRASES
from grafana.source import variables
from grafana.source.board import Section, board
from grafana.source.flux import chosen, combined, flux, keep, newest, pipe, points, text, window
from grafana.source.links import ANOMALIES, GATES, dashboard_url
from grafana.source.panels import SCORES, column, limit, lines, rows, states
from grafana.source.queries import CONSENSUS, OF_LAYER, only_largest
from grafana.source.tables import alerts, link, linked, ordered

MOST_SERIES: Final = 20
"""Lines of a panel; of a large network those with the largest scores."""
MOST_ROWS: Final = 100
_OF_GATE: Final = "${__field.labels.layer} ${__field.labels.gate}"
_SCORED: Final = (CONSENSUS, *OF_LAYER, chosen("gate"))


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    chosen_layers = [variables.tag(), variables.value(), variables.run(), variables.phase()]
    return board(
        ANOMALIES,
        "Anomalies",
        "Which gate behaves as it has not before, since when, and why.",
        [*chosen_layers, variables.layers(GATE_SCORES), variables.scored()],
        [Section("", [_scores(), _states(), _explanations(), _detectors(), _alerts()])],
    )


def _scores() -> Any:
    return (
        lines(
            "Anomaly score",
            f"Consensus of the detectors, a line for each gate, parameter and the loss; of many, the {MOST_SERIES} "
            "with the largest. Healthy: up to 1, the red line. During the warm-up (the first 32 captures) there is no "
            "score.",
            _worst_series(),
            _OF_GATE,
            low=0,
            decimals=2,
            bands=limit(1),
        )
        .span(24)
        .height(10)
    )


def _states() -> Any:
    return states(
        "State of each gate",
        "Green up to 0.8, yellow nearly, red above 1. Healthy: green. A fault stays red.",
        _worst_series(),
        _OF_GATE,
        SCORES,
    )


def _worst_series() -> str:
    read = points(GATE_SCORES, ["anomaly_score"], *_SCORED)
    key = 'r.layer + "\\n" + r.gate'
    return only_largest("worst", MOST_SERIES, "max()", key, read, window("max", "layer", "gate"))


def _explanations() -> Any:
    """Return the table of what contributed to scores above 1, joined window by window."""
    phrases = {
        f"why_{name} {sign}": phrase for name, both in PHRASES.items() for sign, phrase in zip("+-", both, strict=True)
    }
    phrases |= {f"why_{name} {sign}": phrase for name, phrase in BROKEN.items() for sign in "+-"}
    listed = ", ".join(f"{text(name)}: {text(phrase)}" for name, phrase in phrases.items())
    query = flux(
        'import "dict"',
        'import "math"',
        'import "strings"',
        f"phrases = [{listed}]",
        f"high = {points(GATE_SCORES, ['anomaly_score'], *_SCORED)}",
        pipe(
            "aggregateWindow(every: v.windowPeriod, fn: max, createEmpty: false)",
            "filter(fn: (r) => r._value > 1.0)",
            keep("_time", "_value", "layer", "gate"),
            "group()",
        ),
        f"why = {points(GATE_SCORES, (), 'r._field =~ /^why_/', *_SCORED)}",
        pipe(
            "aggregateWindow(every: v.windowPeriod, fn: mean, createEmpty: false)",
            keep("_time", "_value", "_field", "layer", "gate"),
            "group()",
        ),
        'join(tables: {high: high, why: why}, on: ["_time", "layer", "gate"])',
        pipe(
            'map(fn: (r) => ({r with sign: if r._value_why < 0.0 then "-" else "+"}))',
            "map(fn: (r) => ({r with size: math.abs(x: r._value_why)}))",
            'group(columns: ["layer", "gate", "_field", "sign"])',
            _SUMMED,
            "group()",
            newest(MOST_ROWS, "size"),
            'map(fn: (r) => ({r with feature: strings.trimPrefix(v: r._field, prefix: "why_")}))',
            _EXPLAINED,
        ),
    )
    panel = rows(
        "Why",
        "What contributed to scores above 1 in the time range, the largest first. Empty is healthy: no score was "
        "above 1.",
        query,
        no_value="No score is above 1 in this time range",
    )
    chosen_run = {name: f"${{{name}:percentencode}}" for name in ("run", "phase")}
    gates = link(
        "Look at the gates of this layer", dashboard_url(GATES, **chosen_run, layer="${__value.raw:percentencode}")
    )
    panel = (
        panel.override_by_name("cause", column(custom__width=560))
        .override_by_name("worst score", column(decimals=2))
        .override_by_name("times its usual", column(decimals=1))
        .override_by_name("layer", linked(gates))
    )
    return ordered(panel, "cause", "layer", "gate", "worst score", "times its usual", "times seen")


_SUMMED: Final = """reduce(
      identity: {windows: 0, score: 0.0, size: 0.0},
      fn: (r, accumulator) => ({
          windows: accumulator.windows + 1,
          score: if r._value_high > accumulator.score then r._value_high else accumulator.score,
          size: accumulator.size + r.size,
      }),
  )"""
_EXPLAINED: Final = """map(fn: (r) => ({
      layer: r.layer,
      gate: r.gate,
      cause: dict.get(dict: phrases, key: r._field + " " + r.sign, default: r.feature + (if r.sign == "+" then " rose" \
else " fell")),
      "worst score": r.score,
      "times its usual": r.size / float(v: r.windows),
      "times seen": r.windows,
    }))"""


def _detectors() -> Any:
    read = points(GATE_SCORES, ["anomaly_score"], *OF_LAYER, chosen("gate"))
    return lines(
        "What each detector says",
        "The largest score of each detector. Healthy: up to 1. Rules and robust alone are enough for the consensus; an "
        "isolation forest counts only where they nearly agree: training drifts away from its own warm-up by nature.",
        flux(read, combined("max", "detector")),
        "${__field.labels.detector}",
        low=0,
        bands=limit(1),
    ).height(10)


def _alerts() -> Any:
    panel = alerts(
        "Alerts of this run",
        "What the jobs have mailed about it: the rule (its section in the runbook says what to do), where, and the "
        "value. Empty is healthy.",
        "No alert about this run in this time range",
        ["state", "value", "threshold"],
        ["run"],
        chosen("run"),
    )
    return ordered(panel.span(12), "_time", "rule", "state", "value", "threshold", "layer", "gate", "phase")

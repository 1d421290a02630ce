"""Anomalies: which gate behaves as it has not before, since when, and why."""

from __future__ import annotations

from typing import Any, Final

from gatewatch.collector.schema import ALERT_EVENTS, GATE_SCORES
from gatewatch.jobs.findings.explanations import BROKEN, PHRASES
from grafana.source import variables
from grafana.source.board import Section, board
from grafana.source.flux import apart, chosen, combined, flux, points, text, window
from grafana.source.links import ANOMALIES, GATES, to
from grafana.source.panels import CLEAR, GREEN, RED, YELLOW, banded, column, lines, states
from grafana.source.queries import CONSENSUS, OF_LAYER
from grafana.source.runbook import COLUMN, WAY, with_section
from grafana.source.tables import link, ordered, rows

MOST_SERIES: Final = 20
"""Lines of a picture; of a large network those with the largest scores."""
MOST_ROWS: Final = 100
_OF_GATE: Final = "${__field.labels.layer} ${__field.labels.gate}"
_SCORED: Final = (CONSENSUS, *OF_LAYER, chosen("gate"))


def dashboard() -> dict[str, Any]:
    """The dashboard."""
    chosen_layers = [
        variables.tag(),
        variables.value(),
        variables.run(),
        variables.phase(),
        variables.layers(GATE_SCORES),
    ]
    return board(
        ANOMALIES,
        "Anomalies",
        "Which gate behaves as it has not before, since when, and why.",
        [*chosen_layers, variables.scored()],
        [Section("", [_scores(), _states(), _causes(), _detectors(), _alerts()])],
    )


def _scores() -> Any:
    panel = lines(
        "Anomaly score",
        f"Consensus of the detectors, a line for each gate, parameter and the loss; of many, the {MOST_SERIES} with "
        "the largest. Healthy: up to 1, the red line. During the warm-up (the first 32 captures) there is no score.",
        flux(_worst(), points(GATE_SCORES, ["anomaly_score"], *_SCORED), window("max", "layer", "gate"), _only_worst()),
        _OF_GATE,
    )
    return banded(panel.span(24).height(10).min(0).decimals(2), (None, CLEAR), (1, RED))


def _states() -> Any:
    return states(
        "State of each gate",
        "Green up to 0.8, yellow nearly, red above 1. Healthy: green. A fault stays red.",
        flux(_worst(), points(GATE_SCORES, ["anomaly_score"], *_SCORED), window("max", "layer", "gate"), _only_worst()),
        _OF_GATE,
        *((None, GREEN), (0.8, YELLOW), (1, RED)),
    )


def _worst() -> str:
    """The series with the largest scores, by name."""
    query = points(GATE_SCORES, ["anomaly_score"], *_SCORED)
    return flux(
        f"worst = {query}",
        "  |> max()",
        "  |> group()",
        f'  |> top(n: {MOST_SERIES}, columns: ["_value"])',
        '  |> map(fn: (r) => ({name: r.layer + "\\n" + r.gate}))',
        '  |> findColumn(fn: (key) => true, column: "name")',
    )


def _only_worst() -> str:
    return '  |> filter(fn: (r) => contains(set: worst, value: r.layer + "\\n" + r.gate))'


def _causes() -> Any:
    """What contributed to scores above 1, window by window: there a score and its causes are found together."""
    phrases = {
        **{
            f"why_{name} {sign}": words
            for name, both in PHRASES.items()
            for sign, words in zip("+-", both, strict=True)
        }
    }
    phrases |= {f"why_{name} {sign}": words for name, words in BROKEN.items() for sign in "+-"}
    known = ", ".join(f"{text(name)}: {text(words)}" for name, words in phrases.items())
    query = flux(
        'import "dict"',
        'import "math"',
        'import "strings"',
        f"phrases = [{known}]",
        f"high = {points(GATE_SCORES, ['anomaly_score'], *_SCORED)}",
        "  |> aggregateWindow(every: v.windowPeriod, fn: max, createEmpty: false)",
        "  |> filter(fn: (r) => r._value > 1.0)",
        '  |> keep(columns: ["_time", "_value", "layer", "gate"])',
        "  |> group()",
        f"why = {points(GATE_SCORES, (), 'r._field =~ /^why_/', *_SCORED)}",
        "  |> aggregateWindow(every: v.windowPeriod, fn: mean, createEmpty: false)",
        '  |> keep(columns: ["_time", "_value", "_field", "layer", "gate"])',
        "  |> group()",
        'join(tables: {high: high, why: why}, on: ["_time", "layer", "gate"])',
        '  |> map(fn: (r) => ({r with sign: if r._value_why < 0.0 then "-" else "+"}))',
        "  |> map(fn: (r) => ({r with size: math.abs(x: r._value_why)}))",
        '  |> group(columns: ["layer", "gate", "_field", "sign"])',
        "  |> reduce(",
        "      identity: {windows: 0, score: 0.0, size: 0.0},",
        "      fn: (r, accumulator) => ({",
        "          windows: accumulator.windows + 1,",
        "          score: if r._value_high > accumulator.score then r._value_high else accumulator.score,",
        "          size: accumulator.size + r.size,",
        "      }),",
        "  )",
        "  |> group()",
        '  |> sort(columns: ["size"], desc: true)',
        f"  |> limit(n: {MOST_ROWS})",
        '  |> map(fn: (r) => ({r with feature: strings.trimPrefix(v: r._field, prefix: "why_")}))',
        "  |> map(fn: (r) => ({",
        "      layer: r.layer,",
        "      gate: r.gate,",
        '      cause: dict.get(dict: phrases, key: r._field + " " + r.sign, '
        'default: r.feature + (if r.sign == "+" then " rose" else " fell")),',
        '      "worst score": r.score,',
        '      "times its usual": r.size / float(v: r.windows),',
        '      "times seen": r.windows,',
        "    }))",
    )
    panel = (
        rows(
            "Why",
            "What contributed to scores above 1 in the time range, the largest first. Empty is healthy: no score was "
            "above 1.",
            query,
        )
        .no_value("No score is above 1 in this time range")
        .override_by_name("cause", column(custom__width=560))
        .override_by_name("worst score", column(decimals=2))
        .override_by_name("times its usual", column(decimals=1))
        .override_by_name(
            "layer",
            column(
                links=[
                    link(
                        "Look at the gates of this layer",
                        to(
                            GATES,
                            run="${run:percentencode}",
                            phase="${phase:percentencode}",
                            layer="${__value.raw:percentencode}",
                        ),
                    )
                ]
            ),
        )
    )
    return ordered(panel, "cause", "layer", "gate", "worst score", "times its usual", "times seen")


def _detectors() -> Any:
    query = flux(
        points(GATE_SCORES, ["anomaly_score"], *OF_LAYER, chosen("gate")),
        combined("max", "detector"),
    )
    panel = lines(
        "What each detector says",
        "The largest score of each detector. Healthy: up to 1. Rules and robust alone are enough for the consensus; an "
        "isolation forest counts only where they nearly agree: training drifts away from its own warm-up by nature.",
        query,
        "${__field.labels.detector}",
    )
    return banded(panel.min(0).height(10), (None, CLEAR), (1, RED))


def _alerts() -> Any:
    query = flux(
        'import "dict"',
        points(ALERT_EVENTS, ["state", "value", "threshold"], chosen("run")),
        apart("state", "value", "threshold", COLUMN),
        '  |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")',
        "  |> group()",
        '  |> drop(columns: ["_start", "_stop", "_measurement", "run"])',
        '  |> sort(columns: ["_time"], desc: true)',
        f"  |> limit(n: {MOST_ROWS})",
        with_section(),
    )
    panel = (
        rows(
            "Alerts of this run",
            "What the jobs have mailed about it: the rule (its section in the runbook says what to do), where, and the "
            "value. Empty is healthy.",
            query,
        )
        .span(12)
        .no_value("No alert about this run in this time range")
        .override_by_name("_time", column(displayName="time", custom__width=170))
        .override_by_name("rule", column(links=[link("What to do", WAY)]))
        .override_by_name(COLUMN, column(custom__hidden=True))
    )
    return ordered(panel, "_time", "rule", "state", "value", "threshold", "layer", "gate", "phase")

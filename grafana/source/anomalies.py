"""Anomalies: which gate behaves as it has not before, since when, and why."""

from __future__ import annotations

from typing import Any, Final

from grafana_foundation_sdk.builders.dashboard import Panel

from gatewatch.collector.schema import GATE_SCORES
from gatewatch.jobs.findings.explanations import BROKEN
from gatewatch.jobs.scoring.signals import PHRASES
from grafana.source import variables
from grafana.source.alert_table import alert_table
from grafana.source.board import board
from grafana.source.flux import Series, chosen, dictionary, flux, keep_where, pipe, points
from grafana.source.flux_steps import aggregate_window, extend, group, keep, map_to, newest
from grafana.source.links import link
from grafana.source.panels import state_timeline, table, time_series
from grafana.source.queries import CONSENSUS, MOST_LINES, OF_LAYER, only_worst, scores, worst_by
from grafana.source.values import SCORE, SCORE_BANDS, Values, limit, override

MOST_ROWS: Final = 100
_CHOSEN: Final = (*OF_LAYER, chosen("gate"))
_SUMMED: Final = """reduce(
      identity: {windows: 0, score: 0.0, size: 0.0},
      fn: (r, accumulator) => ({
          windows: accumulator.windows + 1,
          score: if r._value_high > accumulator.score then r._value_high else accumulator.score,
          size: accumulator.size + r.size,
      }),
  )"""
_EXPLAINED: Final = """
      layer: r.layer,
      gate: r.gate,
      cause: dict.get(dict: phrases, key: r._field + " " + r.sign, default: r.feature + (if r.sign == "+" then " rose" \
else " fell")),
      "worst score": r.score,
      "times its usual": r.size / float(v: r.windows),
      "times seen": r.windows,
    """


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    worst = only_worst(scores(*_CHOSEN), "max", ("layer", "gate"))
    by_detector = worst_by(points(GATE_SCORES, ["anomaly_score"], *_CHOSEN), "detector")
    return board(
        "Anomalies",
        "Which gate behaves as it has not before, since when, and why.",
        [*variables.of_run(), variables.layers(GATE_SCORES), variables.scored()],
        [
            time_series("Anomaly score", worst, SCORE, size=(24, 10)).description(
                f"Consensus of the detectors, a line for each gate, parameter and the loss; of many, the {MOST_LINES} "
                "with the largest. Healthy: up to 1, the red line. During the warm-up (the first 32 captures) there is "
                "no score."
            ),
            state_timeline("State of each gate", worst, SCORE_BANDS).description(
                "Green up to 0.8, yellow nearly, red above 1. Healthy: green. A fault stays red."
            ),
            _explanations(),
            time_series(
                "What each detector says",
                Series(by_detector, ["detector"]),
                Values(low=0, bands=limit(1)),
                size=(12, 10),
            ).description(
                "The largest score of each detector. Healthy: up to 1. Rules and robust alone are enough for the "
                "consensus; an isolation forest counts only where they nearly agree: training drifts away from its own "
                "warm-up by nature."
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
            .span(12),
        ],
    )


def _explanations() -> Panel:
    """Return the table of what contributed to scores above 1, joined window by window."""
    both = {**PHRASES, **{name: (phrase, phrase) for name, phrase in BROKEN.items()}}
    phrases = {
        f"why_{name} {sign}": text for name, texts in both.items() for sign, text in zip("+-", texts, strict=True)
    }
    high = scores(*_CHOSEN) + pipe(
        aggregate_window("max"), keep_where("r._value > 1.0"), keep("_time", "_value", "layer", "gate"), "group()"
    )
    why = points(GATE_SCORES, (), "r._field =~ /^why_/", CONSENSUS, *_CHOSEN) + pipe(
        aggregate_window("mean"), keep("_time", "_value", "_field", "layer", "gate"), "group()"
    )
    query = flux(
        'import "dict"',
        'import "math"',
        'import "strings"',
        f"phrases = {dictionary(phrases)}",
        f"high = {high}",
        f"why = {why}",
        'join(tables: {high: high, why: why}, on: ["_time", "layer", "gate"])'
        + pipe(
            extend('sign: if r._value_why < 0.0 then "-" else "+"'),
            extend("size: math.abs(x: r._value_why)"),
            group("layer", "gate", "_field", "sign"),
            _SUMMED,
            "group()",
            newest(MOST_ROWS, "size"),
            extend('feature: strings.trimPrefix(v: r._field, prefix: "why_")'),
            map_to(_EXPLAINED),
        ),
    )
    this_run = {name: f"${{{name}:percentencode}}" for name in ("run", "phase")}
    gates = link("Look at the gates of this layer", "gates", **this_run, layer="${__value.raw:percentencode}")
    columns = ("cause", "layer", "gate", "worst score", "times its usual", "times seen")
    return (
        table("Why", query, columns=columns, no_value="No score is above 1 in this time range")
        .description(
            "What contributed to scores above 1 in the time range, the largest first. Healthy: empty, while the jobs "
            "run; without them there are no scores. Health says whether they do."
        )
        .override_by_name("cause", override(custom__width=560))
        .override_by_name("worst score", override(decimals=2))
        .override_by_name("times its usual", override(decimals=1))
        .override_by_name("layer", override(links=[gates]))
    )

"""Anomalies: which gate behaves as it has not before, since when, and why."""

from __future__ import annotations

from typing import Any, Final

from grafana_foundation_sdk.builders.dashboard import Panel

from gatewatch.collector.schema import GATE_SCORES
from grafana.source import variables
from grafana.source.alert_table import alert_table
from grafana.source.anomaly_queries import (
    BY_GATE,
    CHOSEN,
    MOST_WINDOWS,
    anomalous_of_scored,
    every_cause,
    states,
    what_is_wrong,
)
from grafana.source.board import board, closed_row
from grafana.source.flux import Series, chosen, points
from grafana.source.links import CHOSEN_RUN, link
from grafana.source.panels import state_timeline, table, text_stat, time_series
from grafana.source.queries import MOST_LINES, only_worst, scores, worst_by
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

_STATES: Final = {"normal": GREEN, "nearly": YELLOW, "anomalous": RED, "ended": CLEAR}
_NONE_HIGH: Final = "No score above 1 in this time range, of those that “Anomalous” counts"
_GATES: Final = link(
    "Look at the gates of this layer", "gates", **CHOSEN_RUN, layer="${__data.fields.layer:percentencode}"
)
_FEED: Final = link("Look at what was fed", "feed", **CHOSEN_RUN)


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    worst = only_worst(scores(*CHOSEN), "max", BY_GATE)
    by_detector = worst_by(points(GATE_SCORES, ["anomaly_score"], *CHOSEN), "detector")
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
            state_timeline("State of each gate", Series(states(), BY_GATE), _STATES).description(
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
    return [
        run_state().span(6),
        text_stat(
            "Anomalous",
            anomalous_of_scored(),
            {"^(none of .*)$": GREEN, "^(.*)$": RED},
            patterns=True,
            no_value="not scored here",
        )
        .span(6)
        .description(
            "Of how many gates, parameters and losses a score was above 1, and how many have scores. Healthy: none. "
            "Not scored: the jobs have not come to it, or it has fewer than 32 captures."
        ),
        *(panel.span(6) for panel in score_stats(*CHOSEN)),
    ]


def _wrong() -> Panel:
    """Return the table of what is anomalous: a row for each gate, parameter and loss."""
    coloured = override(
        thresholds=thresholds(SCORE_BANDS), custom__displayMode="color-text", decimals=2, custom__width=80
    )
    return (
        table(
            "What is wrong, and why",
            what_is_wrong(),
            columns=("where", "source", "why", "since", "at step", "worst", "now", "layer"),
            height=7,
            no_value=_NONE_HIGH,
        )
        .description(
            "Each gate, parameter or loss whose score was above 1: where the cause lies (network, data, optimizer, "
            "state, policy; –: scored before that was recorded; a click leads to the feed), the main cause, the first "
            "such capture, its largest score and its newest. What lies outside of the network comes first, in order "
            "of time, since the network may only follow; then the worst first. Healthy: no row, and scores in the "
            "panel above."
        )
        .max_data_points(MOST_WINDOWS)
        .override_by_name("where", override(links=[_GATES], custom__width=170))
        .override_by_name("source", override(links=[_FEED], custom__width=90))
        .override_by_name("why", override(custom__minWidth=320, custom__cellOptions={"type": "auto", "wrapText": True}))
        .override_by_name("since", override(custom__width=170, unit="dateTimeAsIso"))
        .override_by_name("at step", override(custom__width=90))
        .override_by_name("worst", coloured)
        .override_by_name("now", coloured)
        .override_by_name("layer", HIDDEN)
    )


def _causes() -> Panel:
    """Return the table of what contributed to scores above 1."""
    columns = ("layer", "gate", "cause", "size", "times seen")
    return (
        table("Causes", every_cause(), columns=columns, no_value=_NONE_HIGH)
        .description(
            "What contributed to scores above 1 in the time range, the largest first. The size of a signal is the mean "
            "multiple of its usual distance from the forecast; that of a rule (which come first) its score. Healthy: "
            "none, and scores in the panels above."
        )
        .max_data_points(MOST_WINDOWS)
        .override_by_name("layer", override(links=[_GATES], custom__width=160))
        .override_by_name("gate", override(custom__width=110))
        .override_by_name("size", override(decimals=1, custom__width=80))
        .override_by_name("times seen", override(custom__width=110))
    )

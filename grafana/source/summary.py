"""The panels at the top of dashboards of one run: its state, its worst score, and when it was anomalous first."""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.builders.dashboard import Panel

from grafana.source.flux import keep_where, pipe
from grafana.source.flux_steps import map_to
from grafana.source.panels import stat, text_stat
from grafana.source.queries import STATES, scores, state, worst_score
from grafana.source.values import RED, WORST_SCORE, Values


def run_state() -> Panel:
    """Return the panel with the state of the chosen run."""
    return text_stat("Run", state(), STATES).description(
        "Live while it is heard of every 30 s; died: silent for 2 min without an end. Healthy: live or completed."
    )


def score_stats(*where: str, links: Sequence[object] = ()) -> list[Panel]:
    """Return the panels with the largest score in the time range, and the time of the first that was above 1.

    Args:
        where: conditions on the tags of the scores.
        links: where a click on either leads, see `link`.
    """
    first = scores(*where) + pipe(keep_where("r._value > 1.0"), "first()", "group()", 'min(column: "_time")')
    since = first + pipe(map_to("_value: int(v: r._time) / 1000000"))
    more = " A click leads to the causes." if links else ""
    return [
        stat("Worst score, limit 1", worst_score(*where), WORST_SCORE, links).description(
            f"Largest anomaly score in the time range. Healthy: up to 1.{more}"
        ),
        stat("First anomalous", since, Values("dateTimeAsIso", bands=((None, RED),)), links)
        .description(f"The first capture in the time range with a score above 1. Healthy: none.{more}")
        .no_value("none"),
    ]

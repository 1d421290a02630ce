"""Annotations: events of runs and alerts, marked in every panel with a time axis."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.dashboard import AnnotationQuery

from gatewatch.collector.schema import ALERT_EVENTS, RUNS
from grafana.source.flux import DATASOURCE, Flux, chosen, flux, newest, pipe, points

MOST: Final = 100
"""Annotations of a kind: the newest."""


def annotation_queries(of_run: bool) -> list[AnnotationQuery]:
    """Return the annotations of a dashboard.

    Args:
        of_run: whether they are only those of the chosen run. Those of all runs are many: they are off at first.
    """
    where = [chosen("run")] if of_run else []
    events = flux(
        points(RUNS, ["event"], *where),
        pipe(
            'filter(fn: (r) => r._value != "heartbeat")',
            "group()",
            newest(MOST),
            'map(fn: (r) => ({time: r._time, title: r._value, text: r.run + " (" + r.phase + ")", tags: "run"}))',
        ),
    )
    alerts = flux(points(ALERT_EVENTS, ["state"], *where), pipe("group()", newest(MOST), _ALERT))
    return [_annotation("Run events", events, "blue", of_run), _annotation("Alerts", alerts, "red", True)]


_ALERT: Final = """map(fn: (r) => ({
      time: r._time,
      title: r.rule + " " + r._value,
      text: (if exists r.run then r.run else "jobs") + (if exists r.layer then " " + r.layer else "")
        + (if exists r.gate then " " + r.gate else ""),
      tags: "alert",
    }))"""


def _annotation(name: str, query: str, colour: str, shown: bool) -> AnnotationQuery:
    # The SDK knows only the targets of Grafana's own annotations; those of a datasource are its queries.
    target = Flux(query, "Anno")
    return (
        AnnotationQuery().name(name).datasource(DATASOURCE).enable(shown).icon_color(colour).target(target)  # type: ignore[arg-type]
    )

"""What happened to runs, and what the alerts said, marked in every panel with a time axis."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.dashboard import AnnotationQuery

from gatewatch.collector.schema import ALERT_EVENTS, RUNS
from grafana.source.flux import DATASOURCE, Flux, chosen, flux, points

MOST: Final = 100
"""Marks of a kind: the newest so many."""


def marks(of_run: bool) -> list[AnnotationQuery]:
    """The marks of a dashboard.

    Args:
        of_run: whether only those of the run that is chosen. Those of all runs are many: they wait to be switched on.
    """
    where = [chosen("run")] if of_run else []
    events = flux(
        points(RUNS, ["event"], *where),
        '  |> filter(fn: (r) => r._value != "heartbeat")',
        "  |> group()",
        _newest(),
        '  |> map(fn: (r) => ({time: r._time, title: r._value, text: r.run + " (" + r.phase + ")", tags: "run"}))',
    )
    alerts = flux(
        points(ALERT_EVENTS, ["state"], *where),
        "  |> group()",
        _newest(),
        "  |> map(fn: (r) => ({",
        "      time: r._time,",
        '      title: r.rule + " " + r._value,',
        '      text: (if exists r.run then r.run else "jobs") + (if exists r.layer then " " + r.layer else "")',
        '        + (if exists r.gate then " " + r.gate else ""),',
        '      tags: "alert",',
        "    }))",
    )
    return [_marks("Run events", events, "blue", of_run), _marks("Alerts", alerts, "red", True)]


def _newest() -> str:
    return f'  |> sort(columns: ["_time"], desc: true)\n  |> limit(n: {MOST})'


def _marks(name: str, query: str, colour: str, shown: bool) -> AnnotationQuery:
    # The SDK knows only the targets of Grafana's own annotations; those of a datasource are its queries.
    target = Flux(query, "Anno")
    return (
        AnnotationQuery().name(name).datasource(DATASOURCE).enable(shown).icon_color(colour).target(target)  # type: ignore[arg-type]
    )

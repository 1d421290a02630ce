"""Combine panels, variables, links and annotations into a dashboard, in the form that Grafana reads."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DashboardLink, DashboardLinkType, VariableHide

from gatewatch.collector.schema import ALERT_EVENTS, RUNS
from grafana.emulator.check import panels as panels_of
from grafana.source.flux import DATASOURCE, Flux, chosen, keep_where, pipe, points
from grafana.source.flux_steps import map_to, newest
from grafana.source.links import uid
from grafana.source.panels import NO_DATA
from grafana.source.variables import BEGIN, END

TAG: Final = "gatewatch"
"""The tag that all our dashboards have; the links between dashboards find them by it."""
WHOLE_RUN: Final = "Whole run"
"""The link that sets a dashboard to the time of the chosen run."""
_COLUMNS: Final = 24
"""The width of a dashboard."""
MOST_ANNOTATIONS: Final = 100
"""Maximum number of annotations of each kind: the newest ones."""


def board(
    title: str,
    description: str,
    variables: Sequence[builders.QueryVariable],
    panels: Sequence[builders.Panel | builders.Row | str],
    *,
    since: str = "now-6h",
    refresh: str = "30s",
) -> dict[str, Any]:
    """Return a dashboard.

    Args:
        title: its title. The title in lower case is the dashboard's name, which links use.
        description: the question that it answers.
        variables: its variables, in an order in which each depends only on those before it.
        panels: its panels from top to bottom; a text is the heading of the panels below it, and a row (`closed_row`)
            holds its own panels.
        since: the beginning of its time range, which ends now.
        refresh: how often Grafana refreshes it; empty: never.
    """
    name, names = title.lower(), {variable.build().name for variable in variables}
    dashboard = (
        builders.Dashboard(title)
        .uid(uid(name))
        .description(description)
        .tags([TAG])
        .timezone("browser")
        .time(since, "now")
        .refresh(refresh)
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .links(_links(name, names))
        .annotations([*_annotations("run" in names)])
        .variables([*variables])
    )
    for panel in panels:
        row = builders.Row(panel) if isinstance(panel, str) else panel
        dashboard = dashboard.with_row(row) if isinstance(row, builders.Row) else dashboard.with_panel(row)
    content: dict[str, Any] = json.loads(json.dumps(dashboard.build(), cls=JSONEncoder))
    content["schemaVersion"] = 37  # every supported Grafana brings it up to its own
    for variable in content["templating"]["list"] if variables else ():
        # The SDK gives all of them one id, by which Grafana would take them for one.
        for key in ("id", "auto", "auto_count", "auto_min"):
            variable.pop(key, None)
        variable |= {"current": variable.get("current", {}), "options": [], "definition": variable["query"]}
        # In the URL a hidden one would keep the value that it had for another run.
        variable["skipUrlSync"] = variable.get("hide") == VariableHide.HIDE_VARIABLE
    for annotation in content["annotations"]["list"]:
        annotation["placement"] = "inControlsMenu"  # of Grafana 12.3 and newer; an older one shows it beside variables
    _place(content["panels"])
    rows = [panel for panel in content["panels"] if panel["type"] == "row"]
    # Sections of the runbook first: mails link to them by their numbers, whatever else is shown there.
    numbered = sorted(panels_of(content), key=lambda panel: panel["type"] != "text")
    for number, panel in enumerate([*numbered, *rows], 1):
        panel["id"] = number
        if "repeat" in panel:
            panel["maxPerRow"] = _COLUMNS // panel["gridPos"]["w"]
        defaults = panel.get("fieldConfig", {}).get("defaults", {})
        if BEGIN in names and defaults.get("noValue") == NO_DATA:
            defaults["noValue"] = f"Nothing in this time range: press “{WHOLE_RUN}” above"
    return content


def closed_row(title: str, *panels: builders.Panel) -> builders.Row:
    """Return a heading that is closed at first; its panels are shown, and ask their queries, once it is opened."""
    row = builders.Row(title)
    for panel in panels:
        row = row.with_panel(panel)
    return row


def _place(panels: Sequence[dict[str, Any]], y: int = 0) -> None:
    """Place panels from left to right and from top to bottom; one that is repeated has a line of its own.

    Args:
        panels: of a dashboard or of a row; the SDK would let a panel begin where it has no room.
        y: where the first line begins.
    """
    x = height = 0
    for panel in panels:
        place, repeated = panel["gridPos"], "repeat" in panel
        is_row = panel["type"] == "row"
        if is_row or repeated or x + place["w"] > _COLUMNS:
            x, y, height = 0, y + height, 0
        place |= {"x": x, "y": y}
        if is_row:
            y += 1
            _place(panel.get("panels", ()), y)
        else:
            x, height = (_COLUMNS if repeated else x + place["w"]), max(height, place["h"])


def panel_id(dashboard: dict[str, Any], title: str) -> int:
    """Return the number of a panel. Grafana opens it by that number even where its row is closed.

    Raises:
        KeyError: no panel of the dashboard has this title, or several have.
    """
    ids = [panel["id"] for panel in panels_of(dashboard) if panel.get("title") == title]
    if len(ids) != 1:
        raise KeyError(f"{dashboard['uid']} has {len(ids)} panels called {title!r}")
    return int(ids[0])


def _links(dashboard: str, variables: Collection[str]) -> list[Builder[DashboardLink]]:
    """Return the links at the top of a dashboard: what a reader presses next, and the other dashboards.

    Args:
        dashboard: its name.
        variables: their names.
    """
    plain = DashboardLinkType.LINK
    whole = builders.DashboardLink(WHOLE_RUN).type(plain).icon("bolt").include_vars(True)
    whole = whole.url(f"/d/{uid(dashboard)}?from=${{{BEGIN}}}&to=${{{END}}}").tooltip("Set the time to that of the run")
    title, name = ("Its gates", "gates") if dashboard == "anomalies" else ("Since when, and why", "anomalies")
    causes = builders.DashboardLink(title).type(plain).icon("question").include_vars(True).keep_time(True)
    causes = causes.url(f"/d/{uid(name)}").tooltip(f"{name.capitalize()} of this run, at this time")
    remedy = builders.DashboardLink("What to do").type(plain).icon("doc").url(f"/d/{uid('runbook')}")
    remedy = remedy.tooltip("The runbook: a section for each alert")
    others = builders.DashboardLink("Other dashboards").type(DashboardLinkType.DASHBOARDS).tags([TAG]).as_dropdown(True)
    shown = [(whole, BEGIN in variables), (causes, "run" in variables), (remedy, dashboard != "runbook")]
    return [*(link for link, is_shown in shown if is_shown), others.include_vars(True).keep_time(True)]


def _annotations(of_run: bool) -> list[builders.AnnotationQuery]:
    """Return the events of runs and the alerts, marked in every panel with a time axis.

    Args:
        of_run: whether only those of the chosen run are marked. The events of all runs are many, so they are off at
            first.
    """
    where = [chosen("run")] if of_run else []
    event = 'time: r._time, title: r._value, text: r.run + " (" + r.phase + ")", tags: "run"'
    events = points(RUNS, ["event"], *where) + pipe(
        keep_where('r._value != "heartbeat"'), "group()", newest(MOST_ANNOTATIONS), map_to(event)
    )
    alerts = points(ALERT_EVENTS, ["state"], *where) + pipe("group()", newest(MOST_ANNOTATIONS), map_to(_ALERT))
    return [
        # The SDK knows only the targets of Grafana's own annotations; those of a datasource are its queries.
        builders.AnnotationQuery()
        .name(name)
        .datasource(DATASOURCE)
        .enable(shown)
        .icon_color(colour)
        .target(Flux(query, "Anno"))  # type: ignore[arg-type]
        for name, query, colour, shown in (("Run events", events, "blue", of_run), ("Alerts", alerts, "red", True))
    ]


_ALERT: Final = """
      time: r._time,
      title: r.rule + " " + r._value,
      text: (if exists r.run then r.run else "jobs") + (if exists r.layer then " " + r.layer else "")
        + (if exists r.gate then " " + r.gate else ""),
      tags: "alert",
    """

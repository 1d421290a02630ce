"""Put panels and variables together to a dashboard, as Grafana reads it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from grafana_foundation_sdk.builders.dashboard import Dashboard, QueryVariable, Row
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, Panel

from grafana.source.annotations import annotation_queries
from grafana.source.links import TAG, link_to_others

SCHEMA_VERSION: Final = 37
"""Every supported Grafana brings it up to its own."""
_WIDTH: Final = 24


@dataclass(frozen=True)
class Section:
    """Panels under a heading."""

    title: str
    panels: Sequence[Builder[Panel]]


def board(
    uid: str,
    title: str,
    description: str,
    variables: Sequence[QueryVariable],
    sections: Sequence[Section],
    *,
    since: str = "now-6h",
    refresh: str = "30s",
    timezone: str = "browser",
) -> dict[str, Any]:
    """Return a dashboard.

    Args:
        uid: a part of its address.
        title, description: what it is, and what question it answers.
        variables: in the order in which each depends on those before it.
        sections: from top to bottom; one without a title has no heading.
        since: the beginning of its time range, until now.
        refresh: how often Grafana refreshes it; empty for never.
        timezone: of what it shows.
    """
    of_run = any(variable.build().name == "run" for variable in variables)
    dashboard = (
        Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .timezone(timezone)
        .time(since, "now")
        .refresh(refresh)
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(link_to_others())
        .annotations([*annotation_queries(of_run)])
        .variables([*variables])
    )
    for section in sections:
        if section.title:
            dashboard = dashboard.with_row(Row(section.title))
        for panel in section.panels:
            dashboard = dashboard.with_panel(panel)
    content: dict[str, Any] = json.loads(json.dumps(dashboard.build(), cls=JSONEncoder))
    content["schemaVersion"] = SCHEMA_VERSION
    for variable in content["templating"]["list"] if variables else ():
        # The SDK gives all of them one id, by which Grafana would take them for one.
        for name in ("id", "auto", "auto_count", "auto_min"):
            variable.pop(name, None)
        variable |= {"current": variable.get("current", {}), "options": [], "definition": variable["query"]}
    for number, panel in enumerate(content["panels"], 1):
        panel["id"] = number
        if "repeat" in panel:
            panel["maxPerRow"] = _WIDTH // panel["gridPos"]["w"]
    return content


def panel_id(dashboard: dict[str, Any], title: str) -> int:
    """Return the number of a panel.

    Raises:
        KeyError: no panel of the dashboard has this title, or several have.
    """
    ids = [panel["id"] for panel in dashboard["panels"] if panel.get("title") == title]
    if len(ids) != 1:
        raise KeyError(f"{dashboard['uid']} has {len(ids)} panels called {title!r}")
    return int(ids[0])

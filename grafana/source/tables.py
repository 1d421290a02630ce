"""Tables: the order of their columns, and where their values lead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.models.dashboard import DataTransformerConfig, DynamicConfigValue

from gatewatch.collector.schema import ALERT_EVENTS
from grafana.source.flux import flux, newest, pipe, points, prefix_user_tags, texts
from grafana.source.panels import column, rows
from grafana.source.runbook import SECTION, SECTION_URL, with_section

HIDDEN: Final = column(custom__hidden=True)


def ordered(panel: table.Panel, *columns: str, names: Mapping[str, str] | None = None) -> table.Panel:
    """Return the table with these columns first, in this order; InfluxDB orders them by name.

    Args:
        panel: the table.
        columns: as the query names them.
        names: of columns that are shown under another name.
    """
    options: dict[str, object] = {"indexByName": {name: number for number, name in enumerate(columns)}}
    options |= {"renameByName": names} if names else {}
    return panel.with_transformation(DataTransformerConfig(id_val="organize", options=options))


def link(title: str, url: str) -> dict[str, object]:
    """Return a link of a value to an address."""
    return {"title": title, "url": url, "targetBlank": False}


def linked(*links: dict[str, object]) -> list[DynamicConfigValue]:
    """Return the override of a column whose values lead somewhere."""
    return column(links=[*links])


def alerts(
    title: str, description: str, no_value: str, fields: list[str], dropped: list[str], *where: str
) -> table.Panel:
    """Return a table of alert events, the newest first; each rule leads to its section of the runbook.

    Args:
        title, description, no_value: of the panel.
        fields: of `alert_events` that are shown.
        dropped: tags that are not shown.
        where: conditions on tags.
    """
    query = flux(
        'import "dict"',
        points(ALERT_EVENTS, fields, *where),
        prefix_user_tags(*fields, SECTION),
        pipe(
            'pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")',
            "group()",
            f"drop(columns: {texts(['_start', '_stop', '_measurement', *dropped])})",
            newest(100),
            with_section(),
        ),
    )
    return (
        rows(title, description, query, no_value=no_value)
        .override_by_name("_time", column(displayName="time", custom__width=170))
        .override_by_name("rule", linked(link("What to do", SECTION_URL)))
        .override_by_name(SECTION, HIDDEN)
    )

"""The table of alert events, which several dashboards show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from grafana_foundation_sdk.builders.dashboard import Panel

from gatewatch.collector.schema import ALERT_EVENTS
from gatewatch.jobs.queries.flux_values import literal
from grafana.source.flux import dictionary, flux, pipe, points
from grafana.source.flux_steps import extend, newest, prefix_user_tags
from grafana.source.links import link
from grafana.source.panels import table
from grafana.source.runbook_sections import FIRST, numbers
from grafana.source.values import HIDDEN, override

_SECTION: Final = "section"
"""The column that holds the number of the rule's panel in the runbook."""


def alert_table(
    title: str, *where: str, fields: Sequence[str], columns: Sequence[str], no_value: str, dropped: Sequence[str] = ()
) -> Panel:
    """Return a table of alert events, the newest first; each rule leads to its section of the runbook.

    Args:
        title: title of the panel.
        where: conditions on tags.
        fields: the fields of `alert_events` that are shown.
        columns, no_value: see `table`.
        dropped: tags that are not shown.
    """
    sections = dictionary({rule: str(number) for rule, number in numbers().items()})
    steps = (
        prefix_user_tags(*fields, _SECTION),
        'pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")',
        "group()",
        f"drop(columns: {literal(['_start', '_stop', '_measurement', *dropped])})",
        newest(100),
        extend(f'{_SECTION}: dict.get(dict: {sections}, key: r.rule, default: "{FIRST}")'),
    )
    query = flux('import "dict"', points(ALERT_EVENTS, fields, *where) + pipe(*steps))
    what_to_do = link("What to do", "runbook", time=f"viewPanel=${{__data.fields.{_SECTION}}}")
    return (
        table(title, query, columns=columns, no_value=no_value)
        .override_by_name("_time", override(displayName="time", custom__width=170))
        .override_by_name("rule", override(links=[what_to_do]))
        .override_by_name(_SECTION, HIDDEN)
    )

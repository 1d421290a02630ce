"""The runbook in Grafana: what fired last, and a row for each section of `docs/runbook.md`.

The rows are closed at first, so that they read as a list.

The mail of an alert, and each table of alerts, links to the panel of the rule's section.
"""

from __future__ import annotations

import re
from typing import Any, Final

from grafana_foundation_sdk.builders.dashboard import Panel

from gatewatch.jobs.alerts.rules import BUILT_IN
from gatewatch.jobs.runbook import sections
from grafana.source.alert_table import alert_table
from grafana.source.board import board, closed_row
from grafana.source.links import uid
from grafana.source.panels import markdown
from grafana.source.runbook_sections import numbers

_LINK: Final = re.compile(r"\[([^\]]*)\]\((?!https?://)([^)]*)\)")
"""A link to another section, or to a file beside the runbook."""
_LINE: Final = 55
"""Characters of a line on a phone; a wider screen has longer lines."""
_LINES_PER_UNIT: Final = 1.6
"""Lines of text in a unit of a panel's height."""


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    about = {rule.name: f"{rule.name}: {rule.summary}" for rule in BUILT_IN}
    rows = [closed_row(about.get(title, title), _section(title, text)) for title, text in sections().items()]
    return board(
        "Runbook",
        "What each alert means, what causes it in networks that trade, where to look and what to do.",
        [],
        [_fired_last(), *rows],
        since="now-24h",
        refresh="1m",
    )


def _fired_last() -> Panel:
    return (
        alert_table(
            "What fired last: press a rule to read what to do",
            fields=["state"],
            columns=["_time", "rule", "state", "run", "phase", "layer", "gate", "job"],
            no_value="No rule fired in this time range, if the jobs run. A mail names its rule: open that below",
        )
        .description("The alerts that the jobs found, the newest first. Healthy: none, or recovered.")
        .height(6)
    )


def _section(title: str, text: str) -> Panel:
    """Return the panel of a section, high enough that nothing has to be scrolled in it."""
    panels = numbers()

    def in_grafana(link: re.Match[str]) -> str:
        number = panels.get(link[2].removeprefix("#"))
        # Relative, as Grafana may lie below a path of its server; without ./ it would take the address out.
        return f"[{link[1]}](./d/{uid('runbook')}?viewPanel={number})" if number else link[1]

    lines = sum(1 + -(-len(paragraph) // _LINE) for paragraph in text.split("\n\n"))
    return markdown(title, _LINK.sub(in_grafana, text)).span(12).height(3 + round(lines / _LINES_PER_UNIT))

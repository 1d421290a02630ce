"""The runbook in Grafana: a panel for each section of `docs/runbook.md`, to which the mail of an alert links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from grafana.source.board import Section, board
from grafana.source.flux import text
from grafana.source.links import RUNBOOK, dashboard_url
from grafana.source.panels import words

_FILE: Final = Path(__file__).parents[2] / "docs" / "runbook.md"
_HEADING: Final = re.compile(r"^#{1,2} +(.*)$", re.MULTILINE)
_LINK: Final = re.compile(r"\[([^\]]*)\]\((?!https?://)[^)]*\)")
"""A link to a file beside the runbook, which Grafana cannot follow."""
SECTION: Final = "section"
"""The column of a table that holds the number of the rule's panel in the runbook."""
SECTION_URL: Final = dashboard_url(RUNBOOK, time=f"viewPanel=${{__data.fields.{SECTION}}}")


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    panels = [words(title, content) for title, content in _sections()]
    return board(
        RUNBOOK,
        "Runbook",
        "What each alert means, what causes it in networks that trade, where to look and what to do.",
        [],
        [Section("", panels)],
        refresh="",
    )


def numbers() -> dict[str, int]:
    """Return rule → number of its panel, as `board` numbers them."""
    return {title: number for number, (title, _) in enumerate(_sections(), 1)}


def with_section() -> str:
    """Return the step that gives each row of a table the number of its rule's panel."""
    listed = ", ".join(f"{text(rule)}: {text(str(number))}" for rule, number in numbers().items())
    return f'map(fn: (r) => ({{r with {SECTION}: dict.get(dict: [{listed}], key: r.rule, default: "1")}}))'


def _sections() -> Iterator[tuple[str, str]]:
    """Yield each heading of the file and the text below it."""
    whole = _FILE.read_text(encoding="utf-8")
    _, *parts = _HEADING.split(whole)
    for title, content in zip(parts[::2], parts[1::2], strict=True):
        yield title.strip(), _LINK.sub(r"\1", content).strip()

"""The runbook inside Grafana: a panel for each section of `docs/runbook.md`, which an alert's mail leads to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from grafana.source.board import Section, board
from grafana.source.flux import text
from grafana.source.links import RUNBOOK, to
from grafana.source.panels import words

_FILE: Final = Path(__file__).parents[2] / "docs" / "runbook.md"
_HEADING: Final = re.compile(r"^#{1,2} +(.*)$", re.MULTILINE)
_LINK: Final = re.compile(r"\[([^\]]*)\]\((?!https?://)[^)]*\)")
"""One that leads to a file beside the runbook, and from Grafana nowhere."""
COLUMN: Final = "section"
"""Of a table: the number of the rule's panel here."""
WAY: Final = to(RUNBOOK, time=f"viewPanel=${{__data.fields.{COLUMN}}}")


def dashboard() -> dict[str, Any]:
    """The dashboard."""
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
    """Rule → the number of its panel, in the order in which `board` gives them."""
    return {title: number for number, (title, _) in enumerate(_sections(), 1)}


def with_section() -> str:
    """Gives each row of a table the number of its rule's panel."""
    known = ", ".join(f"{text(rule)}: {text(str(number))}" for rule, number in numbers().items())
    return f'map(fn: (r) => ({{r with {COLUMN}: dict.get(dict: [{known}], key: r.rule, default: "1")}}))'


def _sections() -> Iterator[tuple[str, str]]:
    """Each heading, and what follows it."""
    whole = _FILE.read_text(encoding="utf-8")
    _, *parts = _HEADING.split(whole)
    for title, content in zip(parts[::2], parts[1::2], strict=True):
        yield title.strip(), _LINK.sub(r"\1", content).strip()

"""The runbook in Grafana: one panel per section of `docs/runbook.md`. The mail of an alert links to its section."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from grafana.source.board import board
from grafana.source.panels import markdown

_FILE: Final = Path(__file__).parents[2] / "docs" / "runbook.md"
_HEADING: Final = re.compile(r"^#{1,2} +(.*)$", re.MULTILINE)
_LINK: Final = re.compile(r"\[([^\]]*)\]\((?!https?://)[^)]*\)")
"""A link to a file beside the runbook, which Grafana cannot follow."""


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    return board(
        "Runbook",
        "What each alert means, what causes it in networks that trade, where to look and what to do.",
        [],
        [markdown(title, content) for title, content in _sections().items()],
        refresh="",
    )


def numbers() -> dict[str, int]:
    """Return rule → number of its panel, as `board` numbers them."""
    return {title: number for number, title in enumerate(_sections(), 1)}


def _sections() -> dict[str, str]:
    """Return each heading of the file and the text below it."""
    _, *parts = _HEADING.split(_FILE.read_text(encoding="utf-8"))
    titles, texts = parts[::2], parts[1::2]
    return {title.strip(): _LINK.sub(r"\1", text).strip() for title, text in zip(titles, texts, strict=True)}

"""The sections of `docs/runbook.md`, and the numbers of their panels in Grafana."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_FILE: Final = Path(__file__).parents[2] / "docs" / "runbook.md"
_HEADING: Final = re.compile(r"^#{1,2} +(.*)$", re.MULTILINE)
FIRST: Final = 1
"""The number of the first section's panel: mails that lie in a mailbox link to it, so it stays."""


def sections() -> dict[str, str]:
    """Return each heading of the file and the text below it."""
    _, *parts = _HEADING.split(_FILE.read_text(encoding="utf-8"))
    return {title.strip(): text.strip() for title, text in zip(parts[::2], parts[1::2], strict=True)}


def numbers() -> dict[str, int]:
    """Return rule → number of its panel, as `board` numbers them."""
    return {title: number for number, title in enumerate(sections(), FIRST)}

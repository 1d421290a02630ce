"""The sections of `docs/runbook.md`: for each rule what its alert means, and what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

_HEADING: Final = re.compile(r"^#{1,2} +(.*)$", re.MULTILINE)
_PARAGRAPH: Final = re.compile(r"\*\*([^*]+)\.\*\*\s+(.*)", re.DOTALL)
_LINK: Final = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_TO_DO: Final = ("Causes", "Look at", "Do")
"""The paragraphs of a section that help whoever looks for a cause."""


@cache
def sections() -> Mapping[str, str]:
    """Return each heading of the file and the text below it, in Markdown."""
    here = Path(__file__).resolve().parent
    packaged, checkout = (folder / "docs" / "runbook.md" for folder in (here, here.parent))
    _, *parts = _HEADING.split((packaged if packaged.exists() else checkout).read_text(encoding="utf-8"))
    texts = zip(parts[::2], parts[1::2], strict=True)
    return MappingProxyType({title.strip(): text.strip() for title, text in texts})


def what_to_do(rule: str) -> list[tuple[str, str]]:
    """Return the causes of a rule's alert, what to look at and what to do: name and text of each, without Markdown.

    Args:
        rule: its name; for any other the list is empty.
    """
    found = [_PARAGRAPH.fullmatch(text.strip()) for text in sections().get(rule, "").split("\n\n")]
    named = [(match[1], match[2]) for match in found if match]
    return [(name, _plain(text)) for name, text in named if name in _TO_DO]


def _plain(text: str) -> str:
    """Return a paragraph of Markdown as plain text."""
    return " ".join(_LINK.sub(r"\1", text).replace("`", "").replace("*", "").split())

"""The numbers that the sections of `docs/runbook.md` have as panels in Grafana."""

from __future__ import annotations

from typing import Final

from gatewatch.jobs.runbook import sections

FIRST: Final = 1
"""The number of the first section's panel: mails that lie in a mailbox link to it, so it stays."""


def numbers() -> dict[str, int]:
    """Return rule → number of its panel, as `board` numbers them."""
    return {title: number for number, title in enumerate(sections(), FIRST)}

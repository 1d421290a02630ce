"""Explanations: what the causes of a score mean, in the words of people who train trading networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gatewatch.jobs.scoring.checks import CHECKS
from gatewatch.jobs.scoring.detectors import DETECTORS
from gatewatch.jobs.scoring.signals import PHRASES
from gatewatch.jobs.text import number, printable

BROKEN: Final[Mapping[str, str]] = {cause: words for each in DETECTORS for cause, words in each.phrases.items()}
"""Cause of a detector, such as a hard rule → what it means that it applies. Its size has no direction."""

EXACT: Final = frozenset(check.name for check in CHECKS if check.errors == "never")
"""The checks that no sound training violates; of others it may, if seldom."""

TIMES: Final = {check.name: check.times for check in CHECKS if check.times is not None}
"""Check → how many times something is too large or too small where its score is 1."""


def phrase(name: str, by: float, gate: str = "") -> str:
    """Return what it means that a signal rose (positive) or fell, or that a detector's cause applies; short."""
    shown = name.replace("_", " ")
    up, down = PHRASES.get(name, (f"{shown} rose", f"{shown} fell"))
    return BROKEN.get(name, up if by > 0 else down)


def in_words(why: Mapping[str, float]) -> list[str]:
    """Return the causes of a score in words, with their sizes: detectors' causes first, then the largest signals.

    Args:
        why: signal → its residual, above 0 where it rose; or a detector's cause → its size. A name without a phrase is
            shown as it is.
    """
    largest = sorted(why.items(), key=lambda item: (item[0] not in BROKEN, -abs(item[1]), item[0]))
    return [_describe(name, by) for name, by in largest]


def _describe(name: str, by: float) -> str:
    if name in BROKEN:
        size = f", {number(by * TIMES[name], 2)} times" if name in TIMES else ""
        return f"{BROKEN[name]} ({name}{size})"
    up, down = PHRASES.get(name, ("it rose", "it fell"))
    return f"{up if by > 0 else down} ({printable(name)[:80]}, {number(abs(by), 2)}× its usual)"

"""Explanations: what the causes of a score mean, in the words of people who train trading networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gatewatch.collector.cells import GATES, SIGMOID
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


_OF_STATES: Final[Mapping[str, tuple[str, str]]] = {
    "mean_activation": ("its mean rises above its trend", "its mean falls below its trend"),
    "saturation": ("more of it lies at the ends of its range, where no gradient passes", "less of it lies at the ends"),
    "saturated": ("at once a large part of it lies at the ends of its range", ""),
}
"""The same of a state or a candidate: these run from -1 to 1, and can be neither open nor shut."""


def phrase(name: str, by: float, gate: str = "") -> str:
    """Return what it means that a signal rose (positive) or fell, or that a detector's cause applies; short.

    Args:
        name: of the signal or cause.
        by: above 0 where it rose.
        gate: of which; states and candidates have words of their own. Empty: a gate that opens and shuts.
    """
    if name in _OF_STATES and gate in GATES and GATES[gate].scale != SIGMOID:
        up, down = _OF_STATES[name]
        return up if by > 0 else down
    shown = name.replace("_", " ")
    up, down = PHRASES.get(name, (f"{shown} rose", f"{shown} fell"))
    return BROKEN.get(name, up if by > 0 else down)


def in_words(why: Mapping[str, float], gate: str = "") -> list[str]:
    """Return the causes of a score in words, with their sizes: detectors' causes first, then the largest signals.

    Args:
        why: signal → its residual, above 0 where it rose; or a detector's cause → its size. A name without a phrase is
            shown as it is.
        gate: whose score it is; see `phrase`.
    """
    largest = sorted(why.items(), key=lambda item: (item[0] not in BROKEN, -abs(item[1]), item[0]))
    return [_describe(name, by, gate) for name, by in largest]


def _describe(name: str, by: float, gate: str) -> str:
    if name in BROKEN:
        size = f", {number(by * TIMES[name], 2)} times" if name in TIMES else ""
        return f"{phrase(name, by, gate)} ({name}{size})"
    words = phrase(name, by, gate) if name in PHRASES else "it rose" if by > 0 else "it fell"
    return f"{words} ({printable(name)[:80]}, {number(abs(by), 2)}× its usual)"

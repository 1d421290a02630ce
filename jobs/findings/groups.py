"""Which group of the sequences that are fed drives a change of the feed: a symbol, an environment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from gatewatch.jobs.findings.axis import moments
from gatewatch.jobs.frames import numbers
from gatewatch.jobs.scoring.checks.base import DATA
from gatewatch.jobs.scoring.detectors.data import FEWEST, HISTORY, rise_score
from gatewatch.jobs.text import number, printable, shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from gatewatch.jobs.findings.finding import Finding

_SOON: Final = 8
"""Captures after a change in which a group counts: one with a sequence a batch has 8 new ones by then."""
_TIMES: Final = 3.0
"""A group drives a change if its distance rose by so many times what any other's did: of what it and any other rose
together, three quarters are its own. By chance the largest of `_SOON` distances of a group that did not move rises
by 0.05."""
_LONGEST_NAME: Final = 64


@dataclass(frozen=True, slots=True)
class Driver:
    """The group that drives a change.

    Attributes:
        group: its label.
        distance: its largest one since the change.
        others: the least and the most of the other groups' largest ones.
    """

    group: str
    distance: float
    others: tuple[float, float]

    def __str__(self) -> str:
        own, low, high = (number(round(value, 2), 2) for value in (self.distance, *self.others))
        others = low if low == high else f"{low} to {high}"
        name = shorten(printable(self.group), _LONGEST_NAME)
        return f"mostly {name}: its distance is {own}, the others' {others}"


def driver(groups: pd.DataFrame, phase: str, since: np.datetime64) -> Driver | None:
    """Return the group that drives a change of the feed; None where none stands out.

    A group moved if its distance exceeds its own usual one as far as that of a feed which changed does: six robust
    deviations, see `rise_score`. It drives the change if it rose by three times what any other group did.

    Args:
        groups: points of `feed_groups`, in order.
        phase: in which the feed changed.
        since: the time of the capture at which it was seen first.
    """
    if groups.empty or not {"group", "phase", "distance"} <= set(groups.columns):
        return None
    scores: dict[str, float] = {}
    rises: dict[str, float] = {}
    now: dict[str, float] = {}
    for group, rows in groups[groups["phase"] == phase].groupby("group", sort=True):
        distance, at = numbers(rows, "distance"), moments(rows)
        is_known = np.isfinite(distance)
        before, after = distance[is_known & (at < since)][-HISTORY:], distance[is_known & (at >= since)][:_SOON]
        if len(before) >= FEWEST and len(after):
            name, largest = str(group), float(after.max())
            scores[name], now[name] = rise_score(largest, before), largest
            rises[name] = largest - float(np.median(before))
    group = max(rises, key=rises.__getitem__, default="")
    if len(rises) < 2 or scores[group] <= 1:
        return None
    if any(_TIMES * rise > rises[group] for other, rise in rises.items() if other != group):
        return None
    others = [distance for other, distance in now.items() if other != group]
    return Driver(group, now[group], (min(others), max(others)))


def with_drivers(findings: Sequence[Finding], groups: pd.DataFrame) -> list[Finding]:
    """Return findings; those about what is fed name the group that drives them, where one does.

    Args:
        findings: of one run.
        groups: points of `feed_groups`, in order.
    """
    return [_with_driver(finding, groups) for finding in findings]


def _with_driver(finding: Finding, groups: pd.DataFrame) -> Finding:
    if finding.source != "data" or finding.time is None or finding.key is None or finding.key.layer != DATA:
        return finding
    found = driver(groups, finding.key.phase, finding.time)
    if found is None:
        return finding
    evidence = {**finding.evidence, "group": found.group, "group_distance": found.distance}
    return replace(finding, sentence=f"{finding.sentence.removesuffix('.')}; {found}.", evidence=evidence)

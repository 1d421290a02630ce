"""One finding about a run: a sentence for people, and the same for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from gatewatch.jobs.frames import rank
from gatewatch.jobs.scoring.sources import Source

if TYPE_CHECKING:
    from gatewatch.jobs.findings.series import Key

Level = Literal["alarm", "undecided", "notice", "fact"]
LEVELS: Final[tuple[Level, ...]] = ("alarm", "undecided", "notice", "fact")
"""In the order in which findings are told: what is wrong, what cannot be judged, what to look at, what is as it should
be."""

UPSTREAM: Final[tuple[Source, ...]] = ("data", "state", "optimizer", "network", "policy")
"""Sources, what comes first in a step before what follows from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that the points of a run show.

    Attributes:
        sentence: about it, for people.
        level: `alarm`: something is wrong. `undecided`: too little was captured or scored to say. `notice`: worth a
            look, no alarm. `fact`: nothing is wrong.
        what: the same in a few words, without place and time; empty for a fact.
        source: where the cause lies; None where that is not known.
        key: the series that it is about first; None where it is about none.
        step: since which step; None where it is about no moment, or its points have no step.
        time: of the capture at which it was seen first, datetime64[ns] in UTC; None where it is about no moment.
        series: all series that it was ever seen in.
        evidence: name → number or text that it rests on.
        rule: whose section of the runbook says what to do; empty where there is none.
    """

    sentence: str
    level: Level
    what: str = ""
    source: Source | None = None
    key: Key | None = None
    step: int | None = None
    time: np.datetime64 | None = None
    series: frozenset[Key] = frozenset()
    evidence: Mapping[str, float | str] = field(default_factory=dict)
    rule: str = ""

    @property
    def is_alarm(self) -> bool:
        """Whether it says that something is wrong."""
        return self.level == "alarm"


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings by level; within a level they keep their order, which is that of cause before effect."""
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def cause_before_effect(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings by time, and within a capture by what lies upstream; those of no moment are the last."""

    def order(finding: Finding) -> tuple[bool, int, tuple[int, str]]:
        time = finding.time
        nanoseconds = 0 if time is None else int(time.astype("M8[ns]").astype(np.int64))
        return time is None, nanoseconds, rank(finding.source or "", UPSTREAM)

    return sorted(findings, key=order)

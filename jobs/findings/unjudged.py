"""Say which phases of a run cannot be judged yet, and what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from gatewatch.jobs.findings.finding import Finding
from gatewatch.jobs.findings.series import Key, first_broken
from gatewatch.jobs.frames import numbers
from gatewatch.jobs.scoring.residuals import LONGEST_WARM_UP, WARM_UP
from gatewatch.jobs.text import number

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

NEEDED: Final = WARM_UP + 1
"""The fewest captures of a phase for a score."""
WAITING: Final = WARM_UP
"""While a run goes on, so many of its newest captures may wait for their scores: the jobs score them in turns."""
_KNOW_SOME_FAULTS: Final = ("rules", "checks", "data")
"""Detectors whose scores alone do not make a phase a healthy one."""


class Counts(NamedTuple):
    """How many captures of a gate there are, and how many of them scoring has seen."""

    captured: int
    scored: int


def count_captures(stats: Mapping[Key, pd.DataFrame], derived: Mapping[Key, pd.DataFrame]) -> dict[Key, Counts]:
    """Count the captures of each gate, by points of `gate_derived`: scoring writes one for each capture."""
    seen = {key: int(np.isfinite(numbers(frame, "window_s")).sum()) for key, frame in derived.items()}
    return {key: Counts(len(frame), seen.get(key, 0)) for key, frame in stats.items()}


def unjudged(
    stats: Mapping[Key, pd.DataFrame],
    counts: Mapping[Key, Counts],
    scores: pd.DataFrame,
    *,
    is_going: bool = False,
) -> list[Finding]:
    """Say of each phase that cannot be called healthy what is missing.

    A phase is judged by a detector that compares it with its own past. Live goes on with the past of its backtest, so
    it may be judged from its first capture on. Of a phase whose values are not finite there is another finding.

    Args:
        stats: series → points of `gate_stats`.
        counts: series → how many captures it has.
        scores: points of `gate_scores`, of all detectors.
        is_going: whether the run has not ended.
    """
    captures, waiting = dict[str, int](), dict[str, int]()
    for key, (captured, scored) in counts.items():
        captures[key.phase] = max(captures.get(key.phase, 0), captured)
        waiting[key.phase] = max(waiting.get(key.phase, 0), captured - scored)
    if not captures:
        return [_finding("", 0, "The run cannot be judged: nothing is captured yet.")]
    judged, found = _judged_phases(scores), []
    for phase, count in captures.items():
        who = f"The phase {phase}" if len(captures) > 1 else "The run"
        has_values = any(key.phase == phase and first_broken(frame) is None for key, frame in stats.items())
        if phase not in judged and not has_values:
            continue
        if phase not in judged and count < NEEDED:
            reason = f"it has {number(count)} of the {NEEDED} captures that scores need. {_REMEDY}"
        elif waiting[phase] > (WAITING if is_going and phase in judged else 0):
            reason = (
                f"{number(waiting[phase])} of its {number(count)} captures are not scored yet, which "
                "gatewatch jobs --once does."
            )
        elif phase in judged:
            continue
        elif count <= LONGEST_WARM_UP:
            reason = (
                f"after {number(count)} captures its network was still learning fast, so only rules and checks have "
                f"scored it. {_REMEDY}"
            )
        else:
            reason = f"none of its {number(count)} captures has a score."
        found.append(_finding(phase, count, f"{who} cannot be judged: {reason}"))
    return found


_REMEDY: Final = "Train longer, or capture more often (every=)."


def _finding(phase: str, captures: int, sentence: str) -> Finding:
    return Finding(
        sentence=sentence,
        level="undecided",
        what="too little was captured or scored to say",
        evidence={**({"phase": phase} if phase else {}), "captures": captures, "needed": NEEDED},
    )


def _judged_phases(scores: pd.DataFrame) -> set[str]:
    """Return the phases that have scores of a detector that knows more than some faults."""
    if "anomaly_score" not in scores:
        return set()
    scored = scores[np.isfinite(numbers(scores, "anomaly_score"))]
    if "detector" in scored:
        scored = scored[~scored["detector"].isin(_KNOW_SOME_FAULTS)]
    return set(scored["phase"].fillna("")) if "phase" in scored else {""} if len(scored) else set()

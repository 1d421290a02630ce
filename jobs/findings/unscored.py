"""Say what of a run has no scores, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatewatch.jobs.findings.finding import Finding
from gatewatch.jobs.findings.series import Key, first_broken
from gatewatch.jobs.scoring.residuals import LONGEST_WARM_UP, WARM_UP
from gatewatch.jobs.text import join_words, number

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd


def no_scores(stats: Mapping[Key, pd.DataFrame]) -> str:
    """Say why there are no scores, and what to do about it."""
    captures = _captures(stats)
    counts = join_words([f"{phase} has {number(count)}" for phase, count in captures.items()])
    here = counts if len(captures) > 1 else f"there are {number(next(iter(captures.values()), 0))} here"
    return (
        f"There are no anomaly scores: they begin after {WARM_UP} captures of a phase, of which {here}, "
        "and are made by gatewatch jobs --once."
    )


def unscored(stats: Mapping[Key, pd.DataFrame], scores: Mapping[Key, pd.DataFrame]) -> list[Finding]:
    """Write a sentence for each phase without scores in a run in which another phase has scores."""
    scored = {key.phase for key in scores}
    sentences = [
        f"The phase {phase} has no scores: they begin after {WARM_UP} captures, and it has {number(count)}."
        if count <= WARM_UP
        else f"The phase {phase} is not scored yet: gatewatch jobs --once does it."
        for phase, count in _captures(stats).items()
        if scored and phase not in scored
    ]
    return [undecided(sentence) for sentence in sentences]


def still_learning(stats: Mapping[Key, pd.DataFrame], scores: pd.DataFrame) -> list[Finding]:
    """Write a sentence for each phase that ended in its warm-up because its network had not settled: it is too short.

    In such a phase the rules have scores, and the robust detector has none; see `jobs.scoring.residuals`.

    Args:
        stats: series → points of `gate_stats`.
        scores: points of `gate_scores`, of all detectors.
    """
    if not {"detector", "phase"} <= set(scores.columns):
        return []
    by = {name: set(scores.loc[scores["detector"] == name, "phase"].dropna()) for name in ("rules", "robust")}
    odd = {key.phase for key, frame in stats.items() if first_broken(frame) is not None}
    sentences = [
        f"The phase {phase} is too short to be judged: after {number(count)} captures its network was still learning "
        "fast, so only rules and checks have scored it. Train longer, or capture more often (every=)."
        for phase, count in _captures(stats).items()
        if WARM_UP < count <= LONGEST_WARM_UP and phase in by["rules"] - by["robust"] - odd
    ]
    return [undecided(sentence) for sentence in sentences]


def undecided(sentence: str) -> Finding:
    """Return what is said where too little was captured or scored."""
    return Finding(sentence=sentence, level="undecided", what="too little was captured to say")


def _captures(stats: Mapping[Key, pd.DataFrame]) -> dict[str, int]:
    """Return phase → number of captures."""
    counts: dict[str, int] = {}
    for key, frame in stats.items():
        counts[key.phase] = max(counts.get(key.phase, 0), len(frame))
    return counts

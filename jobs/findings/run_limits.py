"""Say how far healthy runs of the same network came, beside a score above 1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from gatewatch.jobs.findings.explanations import BROKEN
from gatewatch.jobs.frames import numbers
from gatewatch.jobs.text import number, percent

if TYPE_CHECKING:
    import pandas as pd

ALARMED: Final = 2
HEALTHY: Final = 158
"""Healthy runs that the built-in limits were judged on, and how many of them alarmed: `python -m bench.faults`."""


def reached_by(scores: pd.DataFrame) -> list[str]:
    """Return for each point of `gate_scores` how many baselines came this far, in words.

    Empty where its score has no baselines, and for all where none has.
    """
    if "baselines" not in scores or "reached_by" not in scores:
        return []
    counts = zip(numbers(scores, "baselines"), numbers(scores, "reached_by"), strict=True)
    return [describe(int(n), int(k)) if n > 0 and k >= 0 else "" for n, k in counts]


def describe(baselines: int, reached: int) -> str:
    """Return how many healthy runs came this far, as a sentence without a full stop."""
    runs = "healthy run" if baselines == 1 else "healthy runs"
    return f"{number(reached) if reached else 'none'} of {number(baselines)} {runs} of this network came this far"


def limit_sentences(scores: pd.DataFrame) -> list[str]:
    """Write a sentence about the limit of a run in which something is anomalous by its residuals, the largest score's.

    Args:
        scores: points of the consensus.
    """
    score = np.nan_to_num(numbers(scores, "anomaly_score"))
    statistical = (score > 1) & ~is_stated(scores)
    if not statistical.any():
        return []
    worst = scores.iloc[[int(np.argmax(np.where(statistical, score, 0.0)))]]
    reached = next(iter(reached_by(worst)), "")
    if not reached:
        return [
            f"The limit is the built-in one, above which {number(ALARMED)} of {number(HEALTHY)} healthy runs of other "
            "networks went: gatewatch baseline add RUN makes it that of healthy runs of yours."
        ]
    rate = float(numbers(worst, "limit_rate")[0])
    if not rate > 0:
        return [f"At its worst {reached}; it is longer than they were, so no rate of false alarms is known for it."]
    return [f"At its worst {reached}: at most {percent(rate)} of healthy runs go above the limit."]


def is_stated(scores: pd.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return (n,), whether a statement was broken, a rule or a check, which is not measured by the limit."""
    causes = [name for name in map(str, scores.columns) if name.removeprefix("why_") in BROKEN]
    sizes = [np.nan_to_num(numbers(scores, name)) for name in causes]
    broken: np.ndarray[tuple[int], np.dtype[np.bool_]] = np.max([np.zeros(len(scores)), *sizes], axis=0) > 1
    return broken

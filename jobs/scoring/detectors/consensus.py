"""The consensus of the other detectors: the score that alerts use."""

from __future__ import annotations

from typing import Final

import numpy as np

from gatewatch.jobs.scoring.captures import Array
from gatewatch.jobs.scoring.detectors.base import Batch, Detector, Scores

FOREST_DECIDES_FROM: Final = 0.8
"""From this robust score up to 1 the isolation forest may raise the score above 1."""


class Consensus(Detector):
    """Unites the scores of `rules`, `robust` and `isolation_forest`; see `consensus`."""

    name = "consensus"

    def score(self, batch: Batch) -> Scores:
        """Return the consensus for each series that the rules or the robust detector score."""
        others = [batch.scores.get(name, Scores()) for name in ("rules", "robust", "isolation_forest")]
        rules, robust, forest = (each.by_series for each in others)
        size = len(batch.captures.time) - batch.first
        zero, unknown = np.zeros(size), np.full(size, np.nan)
        scores = {
            series: consensus(rules.get(series, zero), robust.get(series, unknown), forest.get(series))
            for series in dict.fromkeys((*robust, *rules))
        }
        return Scores(scores, model_id=others[-1].model_id)


def consensus(rules: Array, robust: Array, forest: Array | None) -> Array:
    """Return the score of all detectors together.

    A broken rule is enough, and so is a robust score above 1. A robust score from `FOREST_DECIDES_FROM` to 1 needs the
    isolation forest to agree.

    Args:
        rules, robust: (n,), scores.
        forest: (n,), scores, or None where there is no forest.

    Returns:
        (n,), NaN where no rule is broken and the robust detector has no score.
    """
    agreed = (
        robust if forest is None else np.fmax(robust, np.minimum(robust / FOREST_DECIDES_FROM, np.nan_to_num(forest)))
    )
    return np.where(np.isfinite(agreed), np.fmax(rules, agreed), np.where(rules > 1, rules, np.nan))

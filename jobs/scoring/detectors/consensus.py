"""The consensus of the other detectors: the score that alerts use."""

from __future__ import annotations

from typing import Final

import numpy as np

from gatewatch.jobs.scoring.captures import Array, Pair
from gatewatch.jobs.scoring.detectors.base import Batch, Detector, Scores
from gatewatch.jobs.scoring.detectors.data import Data, explained_by_feed
from gatewatch.jobs.scoring.sources import NETWORK, Sources

FOREST_DECIDES_FROM: Final = 0.8
"""From this robust score up to 1 the isolation forest may raise the score above 1."""


class Consensus(Detector):
    """Unites the scores of `checks`, `rules`, `robust` and `isolation_forest`; see `consensus`.

    A violated check counts in the warm-up too, and gives its source to the score. A series that the checks alone score
    has their score. Where the feed explains what is unusual, robust and isolation_forest count as 1 at most: it is for
    the detector `data` to say so.
    """

    name = "consensus"
    scores_warm_up = True
    look_back = Data.look_back

    def score(self, batch: Batch) -> Scores:
        """Return the consensus for each series that the checks, the rules or the robust detector score."""
        others = [batch.scores.get(name, Scores()) for name in ("rules", "robust", "isolation_forest")]
        rules, robust, forest = (each.by_series for each in others)
        checks = batch.scores.get("checks", Scores())
        size = len(batch.captures.time) - batch.first
        zero, unknown = np.zeros(size), np.full(size, np.nan)
        warm_up = np.arange(size) < batch.warm_up
        most = np.where(explained_by_feed(batch), 1.0, np.inf)
        robust, forest = ({series: np.minimum(each, most) for series, each in one.items()} for one in (robust, forest))
        scores, sources = dict[Pair, Array](), dict[Pair, Sources]()
        for series in dict.fromkeys((*robust, *rules, *checks.by_series)):
            united = consensus(rules.get(series, zero), robust.get(series, unknown), forest.get(series))
            checked = checks.by_series.get(series, unknown)
            is_violated = checked > 1
            united = np.where(is_violated, np.fmax(united, checked), np.where(np.isfinite(united), united, checked))
            scores[series] = np.where(warm_up & ~is_violated, np.nan, united)
            if is_violated.any():
                sources[series] = np.where(is_violated, checks.sources.get(series, NETWORK), NETWORK)
        return Scores(scores, model_id=others[-1].model_id, sources=sources)


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

"""The consensus of the other detectors: the score that alerts use."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.jobs.scoring.captures import Array, Pair
from gatewatch.jobs.scoring.detectors.base import Batch, Detector, Scores
from gatewatch.jobs.scoring.detectors.data import Data, explained_by_feed, explained_by_look
from gatewatch.jobs.scoring.detectors.rules import scores_beside_other_data
from gatewatch.jobs.scoring.run_limit import RunLimit
from gatewatch.jobs.scoring.sources import DATA_CHANGED, NETWORK, Sources

FOREST_DECIDES_FROM: Final = 0.8
"""From this robust score up to 1 the isolation forest may raise the score above 1."""


class Consensus(Detector):
    """Unites the scores of `checks`, `rules`, `robust` and `isolation_forest`; see `consensus`.

    A violated check counts in the warm-up too, and gives its source to the score. A series that the checks alone score
    has their score. Where the feed explains what is unusual, or a reference look shows that the network is the same,
    robust and isolation_forest count as 1 at most: it is for the detector `data` to say so. So does the rule of updates
    that the learning rate does not explain, where the feed explains them. A rule that is broken while the network is
    the same has the source `data`.

    With baselines the robust score is divided by the limit of the run (`RunLimit`), and the isolation forest, which is
    trained on them, does not raise it: so the limit holds its rate. A score above 1 that comes from it has the facts
    `baselines`, `reached_by` and, while the run is no longer than the shortest of them, `limit_rate`. Rules and checks
    have rates of their own and are not divided.

    The limit is taken when the warm-up ends, and stays for the run: baselines that are added or removed later change
    nothing until the run is scored from its beginning. A live phase goes on with the limit of its backtest.

    Attributes:
        state: the arrays of the limit; empty during the warm-up.
    """

    name = "consensus"
    scores_warm_up = True
    look_back = Data.look_back

    def check_state(self, signals: int) -> None:
        """Check that the arrays are those of a limit."""
        if self.state:
            RunLimit.from_arrays(self.state)

    def learn(self, batch: Batch) -> None:
        """Take the limit when the warm-up ends."""
        if not self.state and batch.unsettled < len(batch.residuals.z):
            self.state = batch.run_limit().arrays

    def score(self, batch: Batch) -> Scores:
        """Return the consensus for each series that the checks, the rules or the robust detector score."""
        limit = RunLimit.from_arrays(self.state) if self.state else RunLimit()
        rules = scores_beside_other_data(batch.scores.get("rules", Scores()), explained_by_feed(batch))
        robust, forest = unexplained(batch, "robust", "isolation_forest")
        checks = batch.scores.get("checks", Scores())
        size = len(batch.captures.time) - batch.first
        zero, unknown = np.zeros(size), np.full(size, np.nan)
        warm_up = np.arange(size) < batch.warm_up
        is_same = explained_by_look(batch)
        scores, sources, facts = dict[Pair, Array](), dict[Pair, Sources](), dict[Pair, dict[str, Array]]()
        for series in dict.fromkeys((*robust, *rules, *checks.by_series)):
            of_rules, own = rules.get(series, zero), robust.get(series, unknown)
            united = consensus(of_rules, own / limit.limit, None if limit.baselines else forest.get(series))
            checked = checks.by_series.get(series, unknown)
            is_violated = checked > 1
            united = np.where(is_violated, np.fmax(united, checked), np.where(np.isfinite(united), united, checked))
            scores[series] = np.where(warm_up & ~is_violated, np.nan, united)
            if is_violated.any() or is_same.any():
                of_others = np.where(is_same, DATA_CHANGED, NETWORK)
                sources[series] = np.where(is_violated, checks.sources.get(series, NETWORK), of_others)
            if limit.baselines:
                decides = ~is_violated & (own / limit.limit >= of_rules)
                facts[series] = _facts(limit, own, decides, batch.before + np.arange(size))
        model_id = limit.model_id if limit.baselines else batch.scores.get("isolation_forest", Scores()).model_id
        return Scores(scores, model_id=model_id, sources=sources, facts=facts)


def unexplained(batch: Batch, *detectors: str) -> list[dict[Pair, Array]]:
    """Return of each detector series → (n,), its scores, 1 at most where the data explain what is unusual."""
    most = np.where(explained_by_feed(batch) | explained_by_look(batch), 1.0, np.inf)
    scores = (batch.scores.get(detector, Scores()).by_series for detector in detectors)
    return [{series: np.minimum(each, most) for series, each in of_detector.items()} for of_detector in scores]


def _facts(limit: RunLimit, robust: Array, decides: NDArray[np.bool_], number: NDArray[np.int64]) -> dict[str, Array]:
    """Return the facts of the scores that the robust detector decides.

    Args:
        limit: of the run, from at least one baseline.
        robust: (n,), scores.
        decides: (n,), whether they are the consensus.
        number: (n,), how many captures came before.
    """
    return {
        "baselines": np.where(decides, limit.baselines, np.nan),
        "reached_by": np.where(decides, limit.reached_by(robust), np.nan),
        "limit_rate": np.where(decides & (number < limit.captures), limit.held_rate, np.nan),
    }


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

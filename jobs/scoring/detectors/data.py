"""The data detector: the feed changed, which is no fault of the network.

The gates are those of a fixed probe, so a change of the feed cannot move them but through what the network then learns.
Gradients, updates and the loss of a batch it moves at once. What the other detectors see within `REACH` captures of a
change is therefore put down to it, unless the loss of the probe says that the network itself has got worse.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.jobs.scoring.captures import Array, Captures
from gatewatch.jobs.scoring.checks.base import DATA, FEED
from gatewatch.jobs.scoring.detectors.base import Batch, Detector, Scores
from gatewatch.jobs.scoring.signals import MAX_STEP_CAPTURES, MODEL, PROBE_LOSS

HISTORY: Final = 64
"""Earlier captures that a feed is compared with."""
FEWEST: Final = 8
"""Of these must have a distance before there is a score."""
DEVIATIONS: Final = 6.0
"""Robust standard deviations by which the distance of a feed may exceed its median in `HISTORY`."""
SMALLEST: Final = 0.05
"""The smallest rise of the distance that counts. Windows of GOOG and EURUSD, 16 to 64 in a batch, drawn at random: at
most 0.04 in 120 batches; from the calmest quarter of the weeks to the wildest or back, features scaled by volatility:
0.09 or more; raw prices instead of scaled ones: 0.75 or more."""
REACH: Final = MAX_STEP_CAPTURES
"""Captures after a change that it still explains: the longest memory of a signal."""
PROBE_RESIDUAL: Final = 20.0
"""From this residual on the loss of the probe has risen by more than the feed explains: what is learnt from another
market fits the probe's less. One signal alone is an anomaly from 12.5 on (`robust.LIMITS`)."""


class Data(Detector):
    """Scores the feed by how far it is from what was fed before: `feed_scores`. A score above 1 is no alarm."""

    name = "data"
    scores_warm_up = True
    scores_alone = True
    look_back = HISTORY + REACH
    phrases = MappingProxyType({"feed_moved": "what is fed is not what it was: other market, other preparation?"})

    def score(self, batch: Batch) -> Scores:
        """Return the score of the feed; none where it was not recorded."""
        scores = feed_scores(batch.captures)[batch.first :]
        if not np.isfinite(scores).any():
            return Scores()
        series = (DATA, FEED)
        return Scores(
            {series: scores},
            {series: {"feed_moved": np.nan_to_num(scores)}},
            sources={series: np.full(len(scores), "data")},
        )


def feed_scores(captures: Captures) -> Array:
    """Return (n,), by how much the distance of each capture's feed exceeds its usual one, 1 at the limit.

    The limit is the median of the `HISTORY` captures before and `DEVIATIONS` robust standard deviations (1.4826 times
    the median absolute deviation), at least `SMALLEST`, above it. NaN where fewer than `FEWEST` of them have a
    distance, or the capture has none.
    """
    distance = captures.feed.get("distance", np.full(len(captures.time), np.nan))
    scores = np.full(len(distance), np.nan)
    for k in np.flatnonzero(np.isfinite(distance)):
        before = distance[max(0, k - HISTORY) : k]
        before = before[np.isfinite(before)]
        if len(before) >= FEWEST:
            usual = np.median(before)
            spread = 1.4826 * np.median(np.abs(before - usual))
            scores[k] = max(0.0, (distance[k] - usual) / max(DEVIATIONS * spread, SMALLEST))
    return scores


def explained_by_feed(batch: Batch) -> NDArray[np.bool_]:
    """Return (n,), whether what is unusual at a new capture is put down to the feed.

    That is so at a change of the feed and for `REACH` captures after it, but not where the loss of the probe has a
    residual of `PROBE_RESIDUAL` or more.
    """
    moved = np.nan_to_num(feed_scores(batch.captures)) > 1
    recently = np.convolve(moved, np.ones(REACH + 1))[: len(moved)] > 0
    of_probe = [i for i, key in enumerate(batch.keys) if key[:2] == (MODEL, PROBE_LOSS)]
    worse = (np.nan_to_num(batch.residuals.z[:, of_probe]) >= PROBE_RESIDUAL).any(axis=1)
    explained: NDArray[np.bool_] = recently[batch.first :] & ~worse
    return explained

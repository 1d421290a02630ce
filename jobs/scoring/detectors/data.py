"""The data detector: the feed changed, which is no fault of the network.

The gates are those of a fixed probe, so a change of the feed cannot move them but through what the network then learns.
Gradients, updates and the loss of a batch it moves at once. What the other detectors see within `REACH` captures of a
change is therefore put down to it, unless the loss of the probe says that the network itself has got worse.

In a backtest the gates are those of windows, and move with the market. Where a look at a fixed probe is as it was
before, the network is the same, and whatever moves in the windows is put down to the data.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.jobs.scoring.captures import Array, Captures
from gatewatch.jobs.scoring.checks.base import DATA, FEED, any_of_late
from gatewatch.jobs.scoring.checks.look import is_same_network
from gatewatch.jobs.scoring.detectors.base import Batch, Detector, Scores
from gatewatch.jobs.scoring.signals import MAX_STEP_CAPTURES, MODEL, PROBE_LOSS
from gatewatch.jobs.scoring.sources import DATA_CHANGED

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
    """Scores the feed by how far it is from what was fed before: `feed_scores`. A score above 1 is no alarm.

    Where a reference look shows that the network is the same, the largest robust score of the windows counts too.
    """

    name = "data"
    scores_warm_up = True
    scores_alone = True
    look_back = HISTORY + REACH
    phrases = MappingProxyType(
        {
            "feed_moved": "what is fed is not what it was: other market, other preparation?",
            "windows_moved": "the windows' gates moved, those of a fixed probe did not: other data, or another state?",
        }
    )

    def score(self, batch: Batch) -> Scores:
        """Return the score of the feed; none where neither it nor a reference look was recorded."""
        causes = {"feed_moved": feed_scores(batch.captures)[batch.first :], "windows_moved": _window_scores(batch)}
        scores = np.fmax(*causes.values())
        if not np.isfinite(scores).any():
            return Scores()
        series = (DATA, FEED)
        return Scores(
            {series: scores},
            {series: {cause: np.nan_to_num(each) for cause, each in causes.items() if np.isfinite(each).any()}},
            sources={series: np.full(len(scores), DATA_CHANGED)},
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
            scores[k] = rise_score(distance[k], before)
    return scores


def rise_score(distance: float, before: Array) -> float:
    """Return by how much a distance exceeds the usual one of those before it, (n,): see `feed_scores`."""
    usual = np.median(before)
    spread = 1.4826 * np.median(np.abs(before - usual))
    return float(max(0.0, (distance - usual) / max(DEVIATIONS * spread, SMALLEST)))


def _window_scores(batch: Batch) -> Array:
    """Return (n,), the largest robust score of a gate at each new capture; NaN where it is not put down to the data."""
    robust = batch.scores.get("robust", Scores()).by_series
    of_gates = [scores for series, scores in robust.items() if series in batch.captures.gates]
    is_same = explained_by_look(batch)
    largest = np.fmax.reduce(of_gates) if of_gates else np.full(len(is_same), np.nan)
    return np.where(is_same, largest, np.nan)


def explained_by_look(batch: Batch) -> NDArray[np.bool_]:
    """Return (n,), whether the reference look says that the network has been the same for `REACH` captures."""
    return is_same_network(batch.captures, REACH)[batch.first :]


def explained_by_feed(batch: Batch) -> NDArray[np.bool_]:
    """Return (n,), whether what is unusual at a new capture is put down to the feed.

    That is so at a change of the feed and for `REACH` captures after it, but not where the loss of the probe has a
    residual of `PROBE_RESIDUAL` or more.
    """
    moved = np.nan_to_num(feed_scores(batch.captures)) > 1
    recently = any_of_late(moved, REACH)
    of_probe = [i for i, key in enumerate(batch.keys) if key[:2] == (MODEL, PROBE_LOSS)]
    worse = (np.nan_to_num(batch.residuals.z[:, of_probe]) >= PROBE_RESIDUAL).any(axis=1)
    explained: NDArray[np.bool_] = recently[batch.first :] & ~worse
    return explained

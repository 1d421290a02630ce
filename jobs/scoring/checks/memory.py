"""Checks of the memory: the state that sequences begin with, and what a policy remembers of its rollout."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.names import MARKET_PHASES
from gatewatch.jobs.scoring.captures import Array, Captures, Pair
from gatewatch.jobs.scoring.checks.base import MODEL, VIOLATED, WINDOW, Check, up_to, verdicts, windows
from gatewatch.jobs.scoring.checks.policy_metrics import logged

STATE: Final = "state"
"""Stands for the gate in points about the state of a layer."""
POLICY: Final = "policy"
"""Stands for the gate in points about the policy."""
LOGPROB_LIMIT: Final = 0.01
"""Nats. Recomputed log-probabilities of a sound rollout differ by rounding, about 1e-5; a policy of standard deviation
0.05 may make 3e-4 of that. A hundredth is a ratio of 1.01, a twentieth of the clip range 0.2 of PPO (Schulman 2017)."""
RESETS_AWAY: Final = 3.0
"""Multiple of the longest stretch between two resets."""
FEWEST_RESETS: Final = 16
CARRIED: Final = 16
"""Captures that carried the state before it counts as dropped."""
_MOST_RESET: Final = 0.1


def not_reset(captures: Captures) -> dict[Pair, Array]:
    """Judge whether an episode began without the initial state.

    The flags say at which sequences an episode begins, and the collector counts those of them that begin with another
    state than zeros or the model's own initial state. A single one carries what it must not.
    """
    scores = {}
    for layer in captures.state:
        count = captures.recurrent_state(layer, "starts_not_reset")
        if np.isfinite(count).any():
            scores[layer, STATE] = verdicts(count > 0, np.isfinite(count))
    return scores


def resets_stay_away(captures: Captures) -> dict[Pair, Array]:
    """Judge whether the state is no longer reset, where no flags say when an episode begins.

    Counted are the sequences since the capture that last saw a reset, and the longest such stretch before. Where
    episodes end at random, as likely at any step, the next stretch exceeds three times the longest of n with a
    probability of 6/n³ (n·B(4, n)): once in 700 stretches for the fewest that are asked for, and more seldom later.
    """
    scores = {}
    for layer in captures.state:
        resets, begun = (captures.recurrent_state(layer, name) for name in ("resets", "sequences_begun"))
        starts = captures.recurrent_state(layer, "starts")
        known = np.isfinite(resets) & np.isfinite(begun) & ~np.isfinite(starts)
        values = np.full(len(resets), np.nan)
        for k in np.flatnonzero(known):
            window = slice(max(0, k - WINDOW), k + 1)
            values[k] = _stays_away(resets[window], begun[window])
        if np.isfinite(values).any():
            scores[layer, STATE] = values
    return scores


def _stays_away(resets: Array, begun: Array) -> float:
    """Return the score of the newest of some captures; NaN where there were too few resets before."""
    seen = np.flatnonzero(resets > 0)
    if len(seen) < 2 or resets[seen].sum() < FEWEST_RESETS or np.isnan(resets).any() or np.isnan(begun).any():
        return np.nan
    reach = np.cumsum(begun)
    longest, since = np.diff(reach[seen]).max(), reach[-1] - reach[seen[-1]]
    return VIOLATED if since > RESETS_AWAY * longest and len(resets) - 1 - seen[-1] > 1 else 0.0


def state_dropped(captures: Captures) -> dict[Pair, Array]:
    """Judge whether a backtest or a live phase that carried its state from look to look no longer does.

    In three captures in a row every sequence begins anew, after `CARRIED` captures in which at most one sequence in ten
    did.
    """
    scores: dict[Pair, Array] = {}
    if captures.tags.get("phase") not in MARKET_PHASES:
        return scores
    for layer in captures.state:
        resets, begun = (captures.recurrent_state(layer, name) for name in ("resets", "sequences_begun"))
        share = np.where(begun > 0, resets / np.maximum(begun, 1), np.nan)
        carried = windows(share, CARRIED + 2)[:, :CARRIED]
        anew = up_to(share, 2)
        known: NDArray[np.bool_] = np.isfinite(np.column_stack([carried, anew])).all(axis=1)
        if known.any():
            dropped = (carried <= _MOST_RESET).all(axis=1) & (anew == 1).all(axis=1)
            scores[layer, STATE] = verdicts(known & dropped, known)
    return scores


def logprobs_differ(captures: Captures) -> dict[Pair, Array]:
    """Judge whether the log-probabilities of a rollout are others when they are computed again.

    Before the first update of a rollout the policy is the one that has acted, so the same observations, states and
    starts give the same log-probabilities, but for rounding. They differ where the state is stale or kept, where a
    mask is shifted by one, where dropout was left on, or where the normaliser has changed in between.

    The difference is what the collector has measured, or what a loop has handed over among its metrics.
    """
    differences = {layer: captures.recurrent_state(layer, "logprob_difference") for layer in captures.state}
    handed_over = logged(captures, "logprob_difference")
    differences[MODEL] = np.fmax(np.abs(handed_over), np.abs(differences.get(MODEL, handed_over)))
    return {
        (layer, POLICY): verdicts(np.abs(difference) > LOGPROB_LIMIT, np.isfinite(difference))
        for layer, difference in differences.items()
        if np.isfinite(difference).any()
    }


CHECKS: Final = (
    Check(
        name="not_reset",
        sentence="an episode began with the state of the one before: the state was not reset",
        source="state",
        errors="never",
        needs="flags of the sequences at which an episode begins",
        judge=not_reset,
        look_back=0,
    ),
    Check(
        name="resets_stay_away",
        sentence="the state has not been reset for three times the longest stretch so far",
        source="state",
        errors="at most once in 700 stretches between resets, where episodes end at random",
        needs=f"{FEWEST_RESETS} resets within the last {WINDOW} captures, and no flags",
        judge=resets_stay_away,
        look_back=WINDOW,
    ),
    Check(
        name="state_dropped",
        sentence="the state that was carried from bar to bar now begins anew each time",
        source="state",
        errors="never where episodes do not become as short as a look",
        needs=f"{CARRIED} captures of a backtest or a live phase that carried the state",
        judge=state_dropped,
        look_back=CARRIED + 2,
    ),
    Check(
        name="logprobs_differ",
        sentence="log-probabilities computed again are others: a kept state, a shifted mask, dropout?",
        source="policy",
        errors="never",
        needs="log-probabilities that were computed again",
        judge=logprobs_differ,
        look_back=0,
    ),
)

"""Checks of a policy while it learns, from what its training logs of each rollout.

Stable-Baselines3 and loops call the same number differently: a metric counts by the last part of its name, so that
`train/approx_kl` and `losses/approx_kl` are one. A capture without a value is passed over: "in a row" means the newest
values, however many captures lie between them.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.jobs.scoring.captures import Array, Captures, Pair
from gatewatch.jobs.scoring.checks.base import MODEL, WINDOW, Check, any_of_late, verdicts
from gatewatch.jobs.scoring.checks.policy_metrics import logged, trains_a_policy

IN_A_ROW: Final = 3
"""Values in a row that must be out of range: one rollout may be odd."""
KL_LIMIT: Final = 0.075
"""Nats: where a training is stopped early that has the largest target in use, 1.5 times 0.05 (Spinning Up; the factor
is that of SB3's `target_kl` too). Sound trainings came to 0.021 three times in a row (`python -m bench.policy`)."""
CLIP_LIMIT: Final = 0.5
"""Half of the samples. In sound trainings it was 0.28 at most, with a learning rate ten times the usual one."""
KEPT: Final = 0.05
"""Share of the entropy that is left: half of what clipping could leave in `FAST` rollouts. Where one action is best,
0.15 was left (`python -m bench.policy`)."""
FAST: Final = 10
"""Rollouts. PPO stops at a change of a probability by a fifth (its clip range, Schulman 2017): at 0.8 a rollout
nothing falls to a tenth in less than 10.3 rollouts."""
FAST_SHARE: Final = 0.1
"""Share of the training so far, where it is not known how many rollouts lie between two captures."""
EXPLORES: Final = 0.2
"""Nats: the entropy of a policy that takes the other of two actions once in twenty times."""
LONG: Final = 32
"""Values in a row of a critic that explains less than nothing."""
NO_SCALE: Final = 1e-8
"""What is added to the deviation of advantages when they are divided by it (SB3, CleanRL, Spinning Up)."""
FEWEST_ACTIONS: Final = 1000
"""Actions that must all be the same. A policy that takes another action once in a hundred times does so within 1,000
but for one chance in 23,000 (0.99 to the 1,000)."""
UNCOUNTED: Final = 32
"""Actions of a rollout at least, where it is not logged how many there were."""


def entropy_collapsed(captures: Captures) -> dict[Pair, Array]:
    """Judge whether the policy became sure at once: its entropy fell to a twentieth within ten rollouts.

    A policy that learns becomes sure of its actions over its whole training, and that is no collapse. Compared are the
    largest of the newest three values, and the largest of up to ten before them which lie at most ten rollouts back;
    where it is not known how many rollouts that are, a tenth of the training so far. A policy that was sure already
    cannot collapse. One that is driven there slowly, by a wrong reward or a negative entropy coefficient, looks like
    one that learns; `one_action` finds where it ends.

    The entropy of a continuous policy is a density's and may be negative, so that shares of it mean nothing. There the
    standard deviation is judged, where it is logged (SB3 does), and nothing otherwise.
    """
    deviation, entropy = logged(captures, "std"), logged(captures, "entropy")
    is_continuous = any_of_late(np.isfinite(deviation) | (entropy < 0))
    of_entropy = np.where(is_continuous, np.nan, _fell(captures, entropy, EXPLORES))
    return _known(captures, {(MODEL, "entropy"): of_entropy, (MODEL, "std"): _fell(captures, deviation, 0.0)})


def kl_high(captures: Captures) -> dict[Pair, Array]:
    """Judge whether the policy moves much further in the training of a rollout than one that learns.

    PPO was proposed with targets of 0.003 to 0.03 for the divergence (Schulman 2017).
    """
    return _above(captures, "approx_kl", KL_LIMIT)


def clip_high(captures: Captures) -> dict[Pair, Array]:
    """Judge whether most samples are clipped, so that most of a rollout teaches nothing more."""
    return _above(captures, "clip_fraction", CLIP_LIMIT)


def explains_nothing(captures: Captures) -> dict[Pair, Array]:
    """Judge whether the critic has been worse than a constant for long: its explained variance lies below zero.

    It is 1 − Var(returns − values) / Var(returns): 0 for a critic that always says the same.
    """
    explained = _newest(logged(captures, "explained_variance"), LONG)
    return _known(captures, {(MODEL, "explained_variance"): _all(explained < 0, explained)})


def advantages_flat(captures: Captures) -> dict[Pair, Array]:
    """Judge whether advantages have no scale: they are all the same, so that nothing is better than anything else.

    Before they are normalised, their standard deviation is at most the 1e-8 that is added to it.
    """
    deviation = _newest(logged(captures, "advantage_std"))
    return _known(captures, {(MODEL, "advantages"): _all(deviation <= NO_SCALE, deviation)})


def one_action(captures: Captures) -> dict[Pair, Array]:
    """Judge whether the policy takes one action only: all of 1,000 actions and more, in three rollouts and more."""
    return _one_only(captures, "action_share", "action")


def one_position(captures: Captures) -> dict[Pair, Array]:
    """Judge whether the policy holds one position only, by the same measure as `one_action`."""
    return _one_only(captures, "position_share", "position")


def _above(captures: Captures, name: str, limit: float) -> dict[Pair, Array]:
    values = _newest(logged(captures, name))
    return _known(captures, {(MODEL, name): _all(values > limit, values)})


def _one_only(captures: Captures, name: str, gate: str) -> dict[Pair, Array]:
    share, actions = logged(captures, name), logged(captures, "actions")
    at = _places(share, WINDOW)
    counts = _taken(np.where(np.isfinite(actions), actions, UNCOUNTED), at)
    is_alike = np.cumprod(_taken(share, at)[:, ::-1] >= 1, axis=1)[:, ::-1] > 0
    alike = np.where(is_alike, counts, 0.0).sum(axis=1) >= FEWEST_ACTIONS
    return _known(captures, {(MODEL, gate): _all((_newest(share) >= 1) & alike[:, None], _newest(share))})


def _fell(captures: Captures, values: Array, at_least: float) -> Array:
    """Return (n,), the scores of values that must not fall to a tenth at once, from `at_least` or more."""
    at = _places(values, FAST + IN_A_ROW)
    rows, rollout, step = (_taken(each, at) for each in (values, _rollouts(captures), captures.step))
    newest, before = rows[:, FAST:], slice(0, FAST)
    passed = rollout[:, [FAST]] - rollout[:, before]
    is_share = step[:, [FAST]] - step[:, before] <= FAST_SHARE * step[:, [-1]]
    is_near = np.where(passed > 0, passed <= FAST, is_share)
    largest = np.where(is_near & np.isfinite(rows[:, before]), rows[:, before], -np.inf).max(axis=1)
    fell = (largest >= at_least) & (newest.max(axis=1) < KEPT * largest)
    return _all(fell[:, None], rows[:, -2 * IN_A_ROW :])


def _rollouts(captures: Captures) -> Array:
    """Return (n,), the number of the rollout that was learnt from before a capture; NaN where it is not known.

    It is the epoch where the collector has seen the rollout, and so knows its `actions`.
    """
    epochs = [captures.statistic(gate, "epoch") for gate in captures.gates]
    known = np.isfinite(logged(captures, "actions"))
    return np.where(known, np.fmax.reduce(epochs), np.nan) if epochs else np.full(len(captures.time), np.nan)


def _places(values: Array, count: int) -> NDArray[np.intp]:
    """Return (n, count), where a capture's value and those before it are, oldest first; -1 where there are fewer.

    Captures without a value are passed over; they have -1 themselves.
    """
    at = np.flatnonzero(np.isfinite(values))
    places = np.full((len(values), count), -1)
    for back in range(min(count, len(at))):
        earlier, later = at[: len(at) - back], at[back:]
        places[later, -1 - back] = np.where(later - earlier <= WINDOW, earlier, -1)
    return places


def _taken(values: Array, at: NDArray[np.intp]) -> Array:
    return np.where(at >= 0, values[at], np.nan)


def _newest(values: Array, count: int = IN_A_ROW) -> Array:
    """Return (n, count), a capture's value and those before it, oldest first; NaN where there are fewer."""
    return _taken(values, _places(values, count))


def _all(violated: NDArray[np.bool_], values: Array) -> Array:
    """Return (n,), the scores of a statement that all of (n, count) values violate, or some do not."""
    return verdicts(np.logical_and.reduce(violated, axis=1), np.logical_and.reduce(np.isfinite(values), axis=1))


def _known(captures: Captures, scores: dict[Pair, Array]) -> dict[Pair, Array]:
    is_policy = trains_a_policy(captures)
    of_policy = {series: np.where(is_policy, values, np.nan) for series, values in scores.items()}
    return {series: values for series, values in of_policy.items() if np.isfinite(values).any()}


_MEASURED: Final = "not in 36 sound trainings, see docs/detection.md"
CHECKS: Final = (
    Check(
        name="entropy_collapsed",
        sentence="the policy became sure at once: its entropy fell faster than learning lets it",
        source="policy",
        errors=_MEASURED,
        needs=f"{2 * IN_A_ROW} captures with the entropy of the policy, or its standard deviation",
        judge=entropy_collapsed,
        look_back=WINDOW,
    ),
    Check(
        name="kl_high",
        sentence="the policy moves far beyond a trust region in each training: is the learning rate too high?",
        source="policy",
        errors=_MEASURED,
        needs=f"{IN_A_ROW} captures with the approximate KL divergence",
        judge=kl_high,
        look_back=WINDOW,
    ),
    Check(
        name="clip_high",
        sentence="most of each rollout is clipped away: is the learning rate too high, or are there too many epochs?",
        source="policy",
        errors=_MEASURED,
        needs=f"{IN_A_ROW} captures with the share of what is clipped",
        judge=clip_high,
        look_back=WINDOW,
    ),
    Check(
        name="explains_nothing",
        sentence="the critic has been worse than a constant for long: its explained variance is negative",
        source="policy",
        errors="a warning: where returns are mostly noise a sound critic may stay there",
        needs=f"{LONG} captures with the explained variance",
        judge=explains_nothing,
        look_back=WINDOW,
        alarms=False,
    ),
    Check(
        name="advantages_flat",
        sentence="all advantages are the same: nothing is better than anything else, and what is learnt is rounding",
        source="policy",
        errors="never where rewards differ",
        needs=f"{IN_A_ROW} captures with the deviation of the advantages",
        judge=advantages_flat,
        look_back=WINDOW,
    ),
    Check(
        name="one_action",
        sentence="the policy takes one action only",
        source="policy",
        errors="where one action is the best policy there is",
        needs=f"{IN_A_ROW} captures, {FEWEST_ACTIONS} actions",
        judge=one_action,
        look_back=WINDOW,
    ),
    Check(
        name="one_position",
        sentence="the policy holds one position only",
        source="policy",
        errors="where one position is the best policy there is",
        needs=f"{IN_A_ROW} captures, {FEWEST_ACTIONS} actions, `position` in the `info` of the environments",
        judge=one_position,
        look_back=WINDOW,
    ),
)

"""What a rollout says of the policy that collected it: the scale of its advantages, and whether its actions vary."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

MOST_ROWS: Final = 8192
"""Actions that are compared with one another: the latest of a rollout that has more."""


def rollout_metrics(model: OnPolicyAlgorithm) -> dict[str, float | int]:
    """Return the metrics of the rollout that was just collected, as it is in the buffer of `model`.

    `advantage_std` is the standard deviation of the advantages, before they are normalised. `action_share` is the share
    of the most frequent action among `actions` of them. Those of a `Box` are clipped to its bounds first, as SB3 does
    before the environment gets them: so an action that differs only beyond its bounds is the same.
    """
    buffer, space = model.rollout_buffer, model.action_space
    actions: NDArray[Any] = buffer.actions
    rows = actions.reshape(len(actions) * actions.shape[1], -1)[-MOST_ROWS:]
    if isinstance(space, spaces.Box) and not getattr(model.policy, "squash_output", False):
        rows = np.clip(rows, space.low.reshape(-1), space.high.reshape(-1))
    metrics: dict[str, float | int] = {"action_share": largest_share(rows), "actions": len(rows)}
    if (deviation := spread(buffer.advantages)) is not None:
        metrics["advantage_std"] = deviation
    return metrics


def spread(values: ArrayLike) -> float | None:
    """Return the standard deviation of some numbers, in double precision; None unless all are finite."""
    numbers = np.asarray(values, np.float64)
    return float(numbers.std()) if numbers.size and np.isfinite(numbers).all() else None


def largest_share(rows: NDArray[Any]) -> float:
    """Return the share of the most frequent row of (n, parts), 1 where all n are alike: they differ where a part does.

    A row is alike to its like to the last bit; -0 and 0 are one number, and so are all NaN.
    """
    values = np.where(np.isnan(rows), np.nan, rows) + 0.0
    as_bytes = np.ascontiguousarray(values).view(f"V{values.shape[1] * values.itemsize}")
    return float(np.unique(as_bytes, return_counts=True)[1].max()) / len(rows)

"""What a policy was fed in a rollout, as sequences."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from gatewatch.collector.feed.groups import MOST_GROUPS
from gatewatch.collector.feed.sample import MOST_SEQUENCES

_LENGTH: Final = 64
"""Positions of a sequence that a rollout is cut into."""


def rollout_feed(model: OnPolicyAlgorithm) -> dict[str, NDArray[Any]]:
    """Return name → the observations of the rollout that was just collected, as they are in its buffer.

    They are (sequences, positions, *observation): each environment's steps, cut into pieces of 64, the latest of them
    where there are many. An episode may begin within a piece. What a policy embeds or encodes (Discrete) are ids,
    (sequences, positions).
    """
    observations: Any = model.rollout_buffer.observations
    space = model.observation_space
    named = observations if isinstance(observations, dict) else {"": observations}
    kinds = space.spaces if isinstance(space, spaces.Dict) else {"": space}
    return {name: _as_ids(_pieces(array), kinds.get(name)) for name, array in named.items()}


def rollout_groups(model: OnPolicyAlgorithm, sequences: int) -> list[int] | None:
    """Return the environment of each sequence of `rollout_feed`, its index; None of one, or of more than are recorded.

    Args:
        model: whose rollout it is.
        sequences: how many there are.
    """
    envs = model.n_envs
    return [*range(envs)] * (sequences // envs) if 1 < envs <= MOST_GROUPS else None


def _pieces(array: NDArray[Any]) -> NDArray[Any]:
    """Make (steps, environments, ...) to (sequences, positions, ...)."""
    steps, envs = array.shape[:2]
    length = min(steps, _LENGTH)
    count = min(steps // length, max(1, MOST_SEQUENCES // envs))
    cut = array[steps - count * length :].reshape(count, length, *array.shape[1:])
    return cut.swapaxes(1, 2).reshape(count * envs, length, *array.shape[2:])


def _as_ids(array: NDArray[Any], space: spaces.Space[Any] | None) -> NDArray[Any]:
    if isinstance(space, spaces.Discrete):
        return np.asarray(array, np.int64).reshape(array.shape[:2])
    return array

"""What a policy is looked at with: observations, where episodes start, and the states that they begin with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import get_obs_shape

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.run_metadata import fingerprint
from gatewatch.collector.text import first_line

_LONGEST: Final = 256
_MOST_SEQUENCES: Final = 32
_MOST_STEPS: Final = 2048
"""Limits of the probe: steps, environments, and observations in all."""

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Probe:
    """T observations in each of N environments.

    Attributes:
        observations: name → (T, N, *observation); the name is empty where observations are no dicts.
        episode_starts: (T, N), 1 where an episode starts and the states are reset.
        states: of actor and critic, hidden and cell, each (L, N, units); empty where the policy has none.
    """

    observations: Mapping[str, Array]
    episode_starts: Array
    states: tuple[Array, ...] = ()

    @property
    def shape(self) -> str:
        """The shape of the observations, for a person to read."""
        return ", ".join(f"{name} {one.shape}".strip() for name, one in self.observations.items())

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint of observations, starts and states."""
        parts = [self.observations, self.episode_starts, self.states]
        return fingerprint(parts, lambda part: part if isinstance(part, np.ndarray) else None)


def act(policy: ActorCriticPolicy, probe: Probe) -> None:
    """Call actor and critic, as a rollout does, with all steps at once."""

    def tensor(array: Array) -> torch.Tensor:
        return torch.as_tensor(array, device=policy.device)

    def flat(array: Array) -> torch.Tensor:
        """Make (T, N, ...) to (N × T, ...), each environment's steps in one piece, as `evaluate_actions` takes them."""
        return tensor(array.swapaxes(0, 1).reshape(-1, *array.shape[2:]))

    named = {name: flat(array) for name, array in probe.observations.items()}
    observations: Any = named.get("", named)
    if not probe.states:
        policy(observations, deterministic=True)
        return
    # Reset here what is reset at the first step: where no other one is, the policy runs all steps in a single call.
    first, starts = probe.episode_starts[0, :, None], probe.episode_starts.copy()
    starts[0] = 0
    hidden, cell, critic_hidden, critic_cell = (tensor(state * (1 - first)) for state in probe.states)
    states = RNNStates((hidden, cell), (critic_hidden, critic_cell))
    policy(observations, states, flat(starts), deterministic=True)


def rollout_probe(model: OnPolicyAlgorithm) -> Probe:
    """Return the beginning of the rollout that was just collected."""
    buffer: Any = model.rollout_buffer
    steps = min(buffer.buffer_size, _LONGEST)
    envs = min(buffer.n_envs, _MOST_SEQUENCES, max(1, _MOST_STEPS // steps))
    states: tuple[Array, ...] = ()
    if isinstance(model.policy, RecurrentActorCriticPolicy):
        begin = (buffer.hidden_states_pi, buffer.cell_states_pi, buffer.hidden_states_vf, buffer.cell_states_vf)
        states = tuple(state[0, :, :envs].copy() for state in begin)
    observations = {name: array[:steps, :envs].copy() for name, array in _named(buffer.observations).items()}
    return Probe(observations, buffer.episode_starts[:steps, :envs].copy(), states)


def present_probe(model: OnPolicyAlgorithm) -> Probe:
    """Return the one step that the first rollout will begin with."""
    given: Any = model._last_obs
    shapes = _observation_shapes(model)
    envs = min(model.n_envs, _MOST_SEQUENCES)
    named = {name: np.asarray(array)[:envs].reshape(1, envs, *shapes[name]) for name, array in _named(given).items()}
    return Probe(named, np.ones((1, envs), np.float32), _zero_states(model, envs))


def read_probe(given: Any) -> Probe:
    """Return the probe that a user gives, as yet without states."""
    observations, starts = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    try:
        named = {str(name): np.array(array) for name, array in _named(observations).items()}
        if not named or any(array.ndim < 2 or array.dtype.kind not in "fiub" for array in named.values()):
            raise ValueError("not (time, environments, ...) of numbers")
        sizes = {array.shape[:2] for array in named.values()}
        if len(sizes) > 1 or 0 in next(iter(sizes)):
            raise ValueError("without steps, or of different lengths")
        steps, envs = sizes.pop()
        if starts is None:
            starts = np.arange(steps)[:, None].repeat(envs, axis=1) == 0
        starts = np.array(starts, np.float32)
        if starts.shape != (steps, envs):
            raise ValueError(f"episode_starts of shape {starts.shape}, not {(steps, envs)}")
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"probe: {first_line(error)}; give observations (time, environments, ...), or them and episode_starts"
        ) from error
    return Probe(named, starts)


def fitted(given: Probe, model: OnPolicyAlgorithm) -> Probe:
    """Return a user's probe as the policy takes it.

    Raises:
        ConfigError: its observations are not the environment's.
    """
    shapes = _observation_shapes(model)
    steps, envs = given.episode_starts.shape
    expected = {name: (steps, envs, *shape) for name, shape in shapes.items()}
    shapes_given = {name: array.shape for name, array in given.observations.items()}
    if shapes_given.keys() != expected.keys() or any(
        shapes_given[name] != expected[name] and shapes_given[name] + (1,) != expected[name] for name in expected
    ):
        wanted = ", ".join(f"{name} (time, environments, {', '.join(map(str, s))})" for name, s in shapes.items())
        raise ConfigError(f"the probe of shape {given.shape} does not fit the policy, which takes {wanted.strip()}")
    named = {name: array.reshape(expected[name]) for name, array in given.observations.items()}
    return Probe(named, given.episode_starts, _zero_states(model, envs))


def _zero_states(model: OnPolicyAlgorithm, envs: int) -> tuple[Array, ...]:
    if not isinstance(model.policy, RecurrentActorCriticPolicy):
        return ()
    layers, _, units = model.policy.lstm_hidden_state_shape
    return (np.zeros((layers, envs, units), np.float32),) * 4


def _observation_shapes(model: OnPolicyAlgorithm) -> dict[str, tuple[int, ...]]:
    space = model.observation_space
    if isinstance(space, spaces.Dict):
        return {name: get_obs_shape(one) for name, one in space.spaces.items()}  # type: ignore[misc]  # none is nested
    return {"": get_obs_shape(space)}  # type: ignore[dict-item]  # as above


def _named(observations: Any) -> Mapping[str, Any]:
    return observations if isinstance(observations, Mapping) else {"": observations}

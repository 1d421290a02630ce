"""A slice of a rollout, evaluated as the training that comes next will: what it finds must be what was collected.

Before the first update of a training the policy is still the one that collected the rollout. So the log-probabilities
that the training computes of the stored actions equal the stored ones, but for rounding (about 1e-5 in float32). They
do not where a state is stale, where a mask is shifted, where dropout is in play, or where observations were normalised
anew: PPO's ratio is then wrong from the first batch on.
"""

from __future__ import annotations

import contextvars
import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from gatewatch.collector.arrays import Mask
from gatewatch.collector.recurrent_state import Begin
from gatewatch.collector.runtime.error_guard import ErrorGuard
from gatewatch.collector.runtime.signals import allow_sigint, defer_sigint
from gatewatch.collector.torch.call_contexts import isolated
from gatewatch.collector.torch.layers import RecurrentLayer
from gatewatch.collector.torch.outside import outside_restored
from gatewatch.collector.torch.random_draws import draws_undone
from gatewatch.collector.torch.states import TorchStates
from gatewatch.collector.torch.twin import twin_of

_MOST_STEPS: Final = 64
_MOST_OBSERVATIONS: Final = 2048
_MOST_PADDED: Final = 4 * _MOST_OBSERVATIONS
"""Limits of the slice: steps of an environment, observations, and these with the padding of sequences of several
lengths. Where an episode starts in it, a policy runs it one step at a time."""
_CALLED: Final = ("evaluate_actions", "set_training_mode", "train")

Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class RolloutCheck:
    """What the evaluation of a slice has found.

    Attributes:
        logprob_difference: the largest absolute difference of log-probabilities, in nats; None where one is not finite.
        norms: layer → mean norm of the state that its sequences begin with, where one is finite.
        starts: so many sequences of the slice are at an episode's start; None where the buffer keeps no states.
        not_reset: layer → how many of these begin with a state that is not the initial one, or without a flag.
    """

    logprob_difference: float | None
    norms: Mapping[str, float]
    starts: int | None
    not_reset: Mapping[str, int]


def check_rollout(
    model: OnPolicyAlgorithm, layers: Mapping[str, RecurrentLayer], dones: Mask | None = None
) -> RolloutCheck:
    """Evaluate a slice of the rollout that was just collected with a copy of the policy, in training mode.

    Args:
        model: at the end of a rollout.
        layers: name → recurrent layer of its policy.
        dones: (steps, environments), True where the environment says that the element is the first of an episode; where
            None the buffer's own flags are taken for right.
    """
    buffer: Any = model.rollout_buffer
    flags = np.asarray(buffer.episode_starts, bool)
    starts = flags if dones is None or dones.shape != flags.shape else dones
    first, steps, envs = choose_slice(starts)
    seen = TorchStates(ErrorGuard().guarded, training=False)
    with (
        defer_sigint(),
        isolated(),
        draws_undone(),
        twin_of(model.policy) as twin,
        outside_restored(twin, _CALLED),
        allow_sigint(),
    ):
        policy: Any = twin.module
        np.random.seed(0)  # the buffer draws from it where it divides the data, and a slice is divided the same always
        samples = next(iter(_part(buffer, slice(first, first + steps), envs).get(None)))
        own = {name: replace(layer, module=twin.copies[id(layer.module)]) for name, layer in layers.items()}
        seen.begin(policy, own)
        is_discrete = isinstance(model.action_space, spaces.Discrete)
        logprobs = contextvars.copy_context().run(_evaluate, policy, samples, is_discrete)
        begins = seen.end(needed=True)
        difference = (logprobs.flatten() - samples.old_log_prob.flatten()).abs()
        mask = getattr(samples, "mask", None)
        largest = float((difference if mask is None else difference[mask.flatten() > 1e-8]).max())
    part = starts[first : first + steps, envs], flags[first : first + steps, envs]
    return RolloutCheck(
        largest if np.isfinite(largest) else None,
        {name: norm for name, begin in begins.items() if (norm := begin.norm()) is not None},
        int(part[0].sum()) if hasattr(samples, "lstm_states") else None,
        _not_reset(samples, begins, int((part[0] & ~part[1]).sum())),
    )


def choose_slice(starts: Mask) -> tuple[int, int, Indices]:
    """Return first step, number of steps and environments of the slice in which most episodes start.

    Args:
        starts: (steps, environments), True where an episode starts.
    """
    steps = min(len(starts), _MOST_STEPS)
    sums = np.concatenate([[0], np.cumsum(starts.sum(axis=1))])
    first = int(np.argmax(sums[steps:] - sums[:-steps]))
    window = starts[first : first + steps]
    by_starts = np.argsort(-window.sum(axis=0), kind="stable")
    count = min(len(by_starts), _MOST_OBSERVATIONS // steps)
    while count > 1 and _padded(window[:, by_starts[:count]]) > _MOST_PADDED:
        count //= 2
    return first, steps, np.sort(by_starts[:count])


def _padded(starts: Mask) -> int:
    """Return how many elements the sequences between starts have when all are as long as the longest."""
    steps, envs = starts.shape
    begins = starts.T.copy()
    begins[:, 0] = True
    lengths = np.diff(np.append(np.flatnonzero(begins), steps * envs))
    return int(len(lengths) * lengths.max())


def _part(buffer: Any, steps: slice, envs: Indices) -> Any:
    """Return a buffer of the same class that holds a part of another one."""
    shape = buffer.buffer_size, buffer.n_envs
    part = copy.copy(buffer)
    for name, value in vars(buffer).items():
        if name.startswith(("hidden_states", "cell_states")):
            setattr(part, name, value[steps][:, :, envs])
        elif isinstance(value, np.ndarray) and value.shape[:2] == shape:
            setattr(part, name, value[steps][:, envs])
        elif isinstance(value, dict) and all(isinstance(array, np.ndarray) for array in value.values()):
            setattr(part, name, {key: array[steps][:, envs] for key, array in value.items()})
    part.buffer_size, part.n_envs = len(part.episode_starts), len(envs)
    part.pos, part.full, part.generator_ready = part.buffer_size, True, False
    return part


def _evaluate(policy: Any, samples: Any, is_discrete: bool) -> torch.Tensor:
    """Return the log-probabilities that a training computes, of RecurrentPPO, MaskablePPO, PPO and A2C."""
    policy.set_training_mode(True)
    actions = samples.actions.long().flatten() if is_discrete else samples.actions
    states = (samples.lstm_states, samples.episode_starts) if hasattr(samples, "lstm_states") else ()
    masks = {"action_masks": samples.action_masks} if hasattr(samples, "action_masks") else {}
    logprobs: torch.Tensor = policy.evaluate_actions(samples.observations, actions, *states, **masks)[1]
    return logprobs


def _not_reset(samples: Any, begins: Mapping[str, Begin], missed: int) -> dict[str, int]:
    if not hasattr(samples, "lstm_states"):
        return {}
    sequences = samples.lstm_states.pi[0].shape[1]
    flags = samples.episode_starts.reshape(sequences, -1)[:, 0].cpu().numpy().astype(bool)
    return {name: begin.not_initial(flags) + missed for name, begin in begins.items() if begin.sequences == sequences}

"""What a slice of a rollout shows before it is trained on: log-probabilities, states and the starts of episodes."""

# ruff: noqa: E402
from __future__ import annotations

import sys
from types import ModuleType

# SB3 imports TensorBoard, which so does without TensorFlow: that would take long, and is of no use here.
sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from gatewatch.collector.sb3.rollout_check import choose_slice
from gatewatch.sb3 import GateMonitorCallback
from tests.kept import Kept

ENVS, STEPS, UNITS = 3, 16, 5
ROLLOUT = ENVS * STEPS
LSTMS = ("lstm_actor/l0", "lstm_critic/l0")


@pytest.fixture(autouse=True)
def single_threaded():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Walk(gymnasium.Env):
    """Prices at random, in episodes of seven steps."""

    def __init__(self, actions, is_dict=False):
        box = gymnasium.spaces.Box(-10, 10, (3,), np.float32)
        self.observation_space = gymnasium.spaces.Dict({"prices": box}) if is_dict else box
        self.action_space = actions

    def seen(self):
        prices = self.np_random.normal(size=3).astype("float32")
        return {"prices": prices} if isinstance(self.observation_space, gymnasium.spaces.Dict) else prices

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 7
        return self.seen(), {}

    def step(self, action):
        self.left -= 1
        return self.seen(), 1.0, self.left == 0, False, {}


def environment(actions=None, **options):
    actions = actions or gymnasium.spaces.Discrete(2)
    return DummyVecEnv([lambda: Walk(actions, **options)] * ENVS)


def algorithm(env=None, policy="MlpLstmPolicy", *, kind=RecurrentPPO, policy_kwargs=None, **options):
    own = {"lstm_hidden_size": UNITS} if kind is RecurrentPPO else {}
    batches = {} if kind is A2C else {"batch_size": 24, "n_epochs": 2}
    return kind(
        policy,
        env or environment(),
        **{"n_steps": STEPS, "seed": 1, "device": "cpu", **batches, **options},
        policy_kwargs={**own, "net_arch": [], "ortho_init": False, **(policy_kwargs or {})},
    )


def states(model, *others, rollouts=2, **options):
    """Step of the capture → layer → fields, of a short training."""
    store = Kept()
    model.learn(rollouts * ROLLOUT, [*others, GateMonitorCallback(None, store=store, **{"every": 1, **options})])
    return store.states()


def differences(found):
    return [fields["_model"]["logprob_difference"] for fields in found.values() if "_model" in fields]


class Remembers(BaseFeaturesExtractor):
    """A GRU over the three prices of an observation."""

    def __init__(self, space):
        super().__init__(space, 4)
        self.memory = torch.nn.GRU(1, 4, batch_first=True)

    def forward(self, observations):
        return self.memory(observations[..., None])[0][:, -1]


BOX = gymnasium.spaces.Box(-1, 1, (2,))
HEALTHY = {
    "discrete": algorithm,
    "two layers": lambda: algorithm(policy_kwargs={"n_lstm_layers": 2}),
    "shared": lambda: algorithm(policy_kwargs={"shared_lstm": True, "enable_critic_lstm": False}),
    "dict": lambda: algorithm(environment(is_dict=True), "MultiInputLstmPolicy"),
    "normalised": lambda: algorithm(VecNormalize(environment())),
    "multi-discrete": lambda: algorithm(environment(gymnasium.spaces.MultiDiscrete([2, 3]))),
    "continuous": lambda: algorithm(environment(BOX)),
    "gSDE": lambda: algorithm(environment(BOX), use_sde=True, sde_sample_freq=4),
    "squashed gSDE": lambda: algorithm(environment(BOX), use_sde=True, policy_kwargs={"squash_output": True}),
    "PPO": lambda: algorithm(None, "MlpPolicy", kind=PPO, policy_kwargs={"features_extractor_class": Remembers}),
    "A2C": lambda: algorithm(None, "MlpPolicy", kind=A2C, policy_kwargs={"features_extractor_class": Remembers}),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_rollout_has_the_probabilities_it_was_collected_with(name):
    found = states(HEALTHY[name](), rollouts=3)
    assert len(differences(found)) == 3
    assert list(found) == [0, 96, 144]
    assert max(differences(found)) < 1e-4


def test_of_a_healthy_rollout_every_start_is_reset():
    found = states(algorithm(), rollouts=3)
    assert list(found) == [0, 96, 144]  # of the first rollout as it is collected, of the others after their training
    for layer in LSTMS:
        assert [(fields[layer]["starts"], fields[layer]["starts_not_reset"]) for fields in found.values()] == [
            (9, 0),
            (6, 0),
            (6, 0),
        ]
        assert found[96][layer]["initial_norm"] > 0


class ForgetsToReset(RecurrentActorCriticPolicy):
    @staticmethod
    def _process_sequence(features, lstm_states, episode_starts, lstm):
        none = torch.zeros_like(episode_starts)
        return RecurrentActorCriticPolicy._process_sequence(features, lstm_states, none, lstm)


def test_a_policy_that_ignores_the_starts_of_episodes():
    found = states(algorithm(policy=ForgetsToReset))
    assert max(differences(found)) < 1e-4  # it is wrong in the same way when it collects and when it learns
    for layer in LSTMS:
        assert [fields[layer]["starts_not_reset"] for fields in found.values()] == [6, 6]


class Changes(BaseCallback):
    """Changes the buffer after a rollout was collected."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        self.change(self.model.rollout_buffer)


def shift_starts(buffer):
    buffer.episode_starts = np.roll(buffer.episode_starts, 1, axis=0)


def forget_starts(buffer):
    buffer.episode_starts[:] = 0


def normalise_anew(buffer):
    buffer.observations = (buffer.observations - 0.5) / 2


def stale_states(buffer):
    buffer.hidden_states_pi = np.roll(buffer.hidden_states_pi, 1, axis=0)


@pytest.mark.parametrize("change", [shift_starts, forget_starts, normalise_anew, stale_states])
def test_what_is_changed_between_collecting_and_learning_is_seen(change):
    found = states(algorithm(), Changes(change))
    assert min(differences(found)) > 1e-3


@pytest.mark.parametrize("change", [shift_starts, forget_starts])
def test_starts_without_their_flag_are_not_reset(change):
    found = states(algorithm(), Changes(change))
    assert [fields["lstm_actor/l0"]["starts_not_reset"] for fields in found.values()] == [6, 6]


class Dropping(FlattenExtractor):
    """Leaves observations out at random, in training mode."""

    def forward(self, observations):
        return torch.nn.functional.dropout(super().forward(observations), 0.5, self.training)


@pytest.mark.parametrize(
    "options", [{"features_extractor_class": Dropping}, {"n_lstm_layers": 2, "lstm_kwargs": {"dropout": 0.5}}]
)
def test_dropout_that_is_in_play_while_learning_is_seen(options):
    assert min(differences(states(algorithm(policy_kwargs=options)))) > 1e-3


def state_of(model):
    torch_state, (_, numpy_state, position, *_) = torch.get_rng_state().numpy(), np.random.get_state()
    weights = [value.numpy() for value in model.policy.state_dict().values()]
    adam = [part for one in model.policy.optimizer.state_dict()["state"].values() for part in one.values()]
    return [*weights, *map(np.asarray, adam), torch_state, numpy_state, position, model._last_obs]


@pytest.mark.parametrize(
    "make",
    [
        lambda: algorithm(policy_kwargs={"features_extractor_class": Dropping}),
        lambda: algorithm(environment(BOX), use_sde=True, sde_sample_freq=4),
        HEALTHY["A2C"],
    ],
)
def test_a_training_ends_bit_for_bit_the_same(make):
    watched = make()
    assert differences(states(watched, rollouts=3))
    left = state_of(watched)
    bare = make()
    bare.learn(3 * ROLLOUT)
    for one, other in zip(left, state_of(bare), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_buffer_of_ones_own_that_cannot_be_divided_costs_one_line(caplog):
    model = algorithm()
    model.rollout_buffer.notes = np.zeros((STEPS, ENVS))
    model.rollout_buffer.get = lambda batch_size=None: (_ for _ in ()).throw(RuntimeError("not here"))
    with pytest.raises(RuntimeError, match="not here"):  # the training's own call
        states(model)
    (line,) = [
        r.getMessage() for r in caplog.records if "a check of the rollout failed, training goes on" in r.getMessage()
    ]
    assert "not here" in line


# Which slice.


def test_the_slice_has_the_most_starts():
    starts = np.zeros((200, 40), bool)
    starts[150, 7] = starts[160, 9] = True
    first, steps, envs = choose_slice(starts)
    assert (steps, len(envs)) == (64, 32)
    assert first <= 150
    assert first + steps > 160
    assert {7, 9} <= set(envs.tolist())


@given(arrays(np.bool_, st.tuples(st.integers(1, 100), st.integers(1, 50))))
def test_a_slice_is_bounded_and_inside(starts):
    first, steps, envs = choose_slice(starts)
    assert 0 <= first <= len(starts) - steps
    assert 1 <= len(envs) == len(set(envs.tolist()))
    assert steps * len(envs) <= 2048
    window = starts[first : first + steps, envs].T
    ends = [np.flatnonzero(np.append(row[1:], True)) for row in window]
    lengths = [length for row in ends for length in np.diff(np.append(-1, row))]
    assert len(envs) == 1 or len(lengths) * max(lengths) <= 8192

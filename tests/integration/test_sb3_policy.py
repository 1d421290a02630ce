"""The health of a policy: what is recorded of a rollout, and what the checks say of sound and of broken trainings."""

# ruff: noqa: E402
from __future__ import annotations

import sys
from collections import Counter
from enum import Enum
from types import ModuleType

# SB3 imports TensorBoard, which so does without TensorFlow: that would take long, and is of no use here.
sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from gatewatch import open_store
from gatewatch.collector.sb3.rollout_metrics import largest_share, spread
from gatewatch.jobs.scoring.scoring_pass import run_pass
from gatewatch.sb3 import GateMonitorCallback
from gatewatch.torch import GateMonitor
from tests.kept import Kept

ENVS, STEPS = 4, 32
ROLLOUT = ENVS * STEPS


@pytest.fixture(autouse=True)
def single_threaded():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Held(Enum):
    """Positions, as gym-anytrading has them."""

    SHORT = 0
    LONG = 1


class Signals(gymnasium.Env):
    """A signal, up or down; the second action is right when it is up, the first when it is down."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, actions=None, position=None, reward=1.0):
        self.action_space = actions or spaces.Discrete(2)
        self.position, self.reward = position, reward

    def seen(self):
        self.up = bool(self.np_random.integers(2))
        return np.array([1.0 if self.up else -1.0], np.float32)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 8
        return self.seen(), {}

    def step(self, action):
        self.left -= 1
        reward = self.reward * float(np.all(action == int(self.up)))
        info = {} if self.position is None else {"position": self.position(self.left)}
        return self.seen(), reward, self.left == 0, False, info


def algorithm(actions=None, *, position=None, reward=1.0, **options):
    return RecurrentPPO(
        "MlpLstmPolicy",
        DummyVecEnv([lambda: Signals(actions, position, reward)] * ENVS),
        **{"n_steps": STEPS, "batch_size": 64, "n_epochs": 2, "seed": 1, "device": "cpu", **options},
        policy_kwargs={"lstm_hidden_size": 4, "net_arch": []},
    )


class Rollouts(BaseCallback):
    """Keeps what the environments were told, and the advantages of each rollout."""

    def __init__(self):
        super().__init__()
        self.told, self.advantages = [[]], []

    def _on_step(self):
        self.told[-1] += [tuple(np.ravel(action)) for action in self.locals["clipped_actions"]]
        return True

    def _on_rollout_end(self):
        self.advantages.append(self.model.rollout_buffer.advantages.copy())
        self.told.append([])


def metrics(model, *others, rollouts=2):
    store = Kept()
    model.learn(rollouts * ROLLOUT, [*others, GateMonitorCallback(None, store=store, every=1)])
    return [point.fields for point in store.points if point.measurement == "train_metrics"]


@pytest.mark.parametrize(
    "actions",
    [spaces.Discrete(3), spaces.Box(-0.5, 0.5, (1,)), spaces.MultiDiscrete([2, 3])],
    ids=["discrete", "box", "multi-discrete"],
)
def test_the_most_frequent_action_is_that_of_what_the_environments_got(actions):
    rollouts = Rollouts()
    recorded = metrics(algorithm(actions), rollouts)
    for fields, told, advantages in zip(recorded, rollouts.told, rollouts.advantages, strict=False):
        assert fields["actions"] == ROLLOUT
        assert fields["action_share"] == pytest.approx(max(Counter(told).values()) / ROLLOUT)
        assert fields["advantage_std"] == pytest.approx(advantages.std(), rel=1e-4)
        assert "position_share" not in fields
    assert len(recorded) == 2


@pytest.mark.parametrize(
    ("position", "share"),
    [
        (lambda left: Held.LONG, 1.0),
        (lambda left: Held.LONG if left else Held.SHORT, 0.875),
        (lambda left: left % 2, 0.5),
        (lambda left: np.float32(0.25), 1.0),
        (lambda left: "short" if left < 2 else "long", 0.75),
    ],
    ids=["enum", "two", "numbers", "numpy", "text"],
)
def test_the_most_frequent_position_is_that_of_the_infos(position, share):
    assert [fields["position_share"] for fields in metrics(algorithm(position=position))] == [share] * 2


def test_what_is_called_position_and_is_none_is_left_out(caplog):
    recorded = metrics(algorithm(position=lambda left: {"GOOG": [1, 2]}))
    assert all("position_share" not in fields and fields["actions"] == ROLLOUT for fields in recorded)
    assert caplog.records == []


@given(arrays(np.float32, st.tuples(st.integers(1, 30), st.integers(1, 3)), elements=st.sampled_from([-0.0, 0, 1, 2])))
def test_the_largest_share_is_that_of_a_count(rows):
    assert largest_share(rows) == max(Counter(map(tuple, rows.tolist())).values()) / len(rows)


def test_all_nan_is_one_action():
    assert largest_share(np.array([[np.nan], [-np.nan], [1]], np.float32)) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("values", "expected"), [([1, 3], 1.0), ([[2.0]], 0.0), ([], None), ([1, np.nan], None), ([1, np.inf], None)]
)
def test_the_spread_of_numbers_that_are_finite(values, expected):
    assert spread(values) == expected


# What the checks say.


def causes(place, rollouts, **options):
    """What checks say of a policy that is trained for so many rollouts, see `judged`."""
    store = open_store(f"sqlite:///{place / 'gatewatch.db'}")
    callback = GateMonitorCallback(None, store=store, every=1)
    algorithm(**options).learn(rollouts * ROLLOUT, callback)
    return judged(store, callback.run)


def judged(store, run):
    """The gates that checks of the policy judge, and cause → the captures in which it was violated."""
    assert run_pass(store)[0].failed is None
    scores = store.read("gate_scores", run=run, tags={"detector": "checks"})
    of_policy = scores[(scores["source"] == "policy") & (scores["layer"] == "_model")]
    wrong = of_policy[of_policy["anomalous"] == 1]
    return set(of_policy["gate"]), {
        name.removeprefix("why_"): int((wrong[name] > 1).sum())
        for name in wrong.columns
        if name.startswith("why_") and (wrong[name] > 1).any()
    }


def test_a_sound_training_violates_no_check(tmp_path):
    gates, violated = causes(tmp_path, 12)
    assert {"approx_kl", "clip_fraction", "entropy", "advantages", "action"} <= gates
    assert violated == {}


def test_a_learning_rate_that_is_100_times_too_large(tmp_path):
    _, violated = causes(tmp_path, 4, actions=spaces.Box(-1, 1, (24,)), learning_rate=3e-2, n_epochs=6)
    assert violated == {"kl_high": 2}


def test_an_entropy_that_is_punished_collapses(tmp_path):
    _, violated = causes(tmp_path, 9, ent_coef=-10.0, learning_rate=5e-3, n_epochs=10)
    assert violated.keys() == {"entropy_collapsed"}


def test_a_loop_hands_over_the_same_numbers_by_cleanrls_names(tmp_path):
    store = open_store(f"sqlite:///{tmp_path / 'gatewatch.db'}")
    module = torch.nn.LSTM(2, 3, batch_first=True)
    with GateMonitor(module, None, store=store, probe=torch.zeros(2, 4, 2), every=1) as monitor:
        for k in range(6):
            kl = 0.01 if k < 3 else 2.0
            monitor.step(metrics={"losses/approx_kl": kl, "losses/clipfrac": 0.1, "losses/entropy": 1.0})
        run = monitor.run
    assert judged(store, run) == ({"approx_kl", "clip_fraction", "entropy"}, {"kl_high": 1})

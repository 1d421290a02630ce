"""The runs of Stable-Baselines3: sb3-contrib's RecurrentPPO on gym-anytrading, one capture per rollout."""

from __future__ import annotations

import sys

# SB3 imports TensorBoard, and that TensorFlow where it is: torch's triton cannot follow it, each brings an LLVM.
sys.modules["tensorflow"] = None  # type: ignore[assignment]  # which makes its import fail

from typing import Any

import gymnasium
import numpy as np
import torch
from gym_anytrading.envs import StocksEnv  # type: ignore[import-untyped]
from gymnasium.wrappers import TimeLimit
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from bench.faults.cases import Case
from bench.faults.faults import FAULTS
from bench.faults.market import prices
from bench.faults.shapes import SHAPES
from bench.faults.torch_network import TorchNetwork
from gatewatch.sb3 import GateMonitorCallback

ENVIRONMENTS = 4
ROLLOUT = 16
"""Steps of one environment."""
EPISODE = 24
"""Steps of an episode; no multiple of a rollout, so that most of them start within one."""
WINDOW = 10
"""Bars that an observation shows."""
RATE = 3e-4
DROPOUT = 0.2


class PPORollout:
    """The `Rollout` of RecurrentPPO."""

    def __init__(self, model: RecurrentPPO) -> None:
        self._model = model

    def lose_normaliser(self) -> None:
        """Hand observations on as the environment gives them."""
        self._model.get_env().norm_obs = False

    def keep_state(self) -> None:
        """Reset no state while experience is collected: the policy is called as if no episode had started."""
        policy: Any = self._model.policy
        forward = policy.forward

        def called(obs: Any, states: Any, starts: Any, deterministic: bool = False) -> Any:
            return forward(obs, states, torch.zeros_like(starts), deterministic)

        policy.forward = called

    def shift_starts(self) -> None:
        """Mark the start of each episode one step late in what is trained on."""
        buffer = self._model.rollout_buffer
        buffer.episode_starts = np.roll(buffer.episode_starts, 1, axis=0)

    def leave_dropout_on(self) -> None:
        """Drop features at random, also where the policy is only asked."""
        policy: Any = self._model.policy
        policy.features_extractor.register_forward_hook(
            lambda _, __, features: nn.functional.dropout(features, DROPOUT, training=True)
        )


class Conduct(BaseCallback):
    """Strikes before each training from one of them on."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self._fault = FAULTS[case.fault](case.seed) if case.fault else None
        self.since = -round(SHAPES[case.shape].captures * case.strike)  # so many trainings are whole

    def rate(self, _: float) -> float:
        """The learning rate of the training that comes."""
        return RATE if self._fault is None or self.since <= 0 else self._fault.rate(RATE)

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        if self._fault is not None and self.since >= 0:
            policy = self.model.policy
            network = TorchNetwork(policy, policy.get_submodule("action_net"), policy.optimizer)
            self._fault.strike(network, self.since)
            self._fault.strike_rollout(PPORollout(self.model), self.since)
        self.since += 1


def run(case: Case, run: str, store: str) -> int:
    """Make the run of a case; the first timestep whose capture its fault touches, if it has one."""
    torch.set_num_threads(1)
    shape, conduct = SHAPES[case.shape], Conduct(case)
    first = 1 - conduct.since
    environment = VecNormalize(DummyVecEnv([lambda: _environment(case.symbol)] * ENVIRONMENTS))
    model = RecurrentPPO(
        "MlpLstmPolicy",
        environment,
        learning_rate=conduct.rate,
        n_steps=ROLLOUT,
        batch_size=ENVIRONMENTS * ROLLOUT,
        n_epochs=2,
        policy_kwargs={
            "lstm_hidden_size": shape.units[0],
            "net_arch": [],
            "optimizer_class": torch.optim.AdamW if shape.optimizer == "adamw" else torch.optim.Adam,
        },
        seed=case.seed,
        device="cpu",
    )
    monitor = GateMonitorCallback(log_dir=None, run=run, store=store, every=shape.every, tags={"symbol": case.symbol})
    model.learn(shape.captures * ENVIRONMENTS * ROLLOUT, callback=CallbackList([conduct, monitor]))
    return first * ENVIRONMENTS * ROLLOUT


class Anywhere(StocksEnv):  # type: ignore[misc]  # gym-anytrading has no types
    """Trades a stretch of the prices that begins anywhere: the original begins each episode at the same bar."""

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin at another bar."""
        super().reset(seed=seed, options=options)
        self._current_tick = int(self.np_random.integers(self._start_tick, self._end_tick - EPISODE))
        self._last_trade_tick = self._current_tick - 1
        return self._get_observation(), self._get_info()


def _environment(symbol: str) -> gymnasium.Env[Any, Any]:
    frame = prices(symbol)
    return Monitor(TimeLimit(Anywhere(df=frame, window_size=WINDOW, frame_bound=(WINDOW, len(frame))), EPISODE))

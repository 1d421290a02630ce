"""The runs of Stable-Baselines3: sb3-contrib's RecurrentPPO on gym-anytrading, one capture per rollout."""

from __future__ import annotations

import sys

# SB3 imports TensorBoard, and that TensorFlow where it is: torch's triton cannot follow it, each brings an LLVM.
sys.modules["tensorflow"] = None  # type: ignore[assignment]  # which makes its import fail

import gym_anytrading  # type: ignore[import-untyped]  # noqa: F401 - registers stocks-v0
import gymnasium
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from bench.faults.cases import Case
from bench.faults.faults import FAULTS
from bench.faults.shapes import CAPTURES, SHAPES
from bench.faults.torch_network import TorchNetwork
from gatewatch.sb3 import GateMonitorCallback

ENVIRONMENTS = 4
ROLLOUT = 16
"""Steps of one environment."""
RATE = 3e-4


class Conduct(BaseCallback):
    """Strikes before each training from one of them on."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self._fault = FAULTS[case.fault](case.seed) if case.fault else None
        self.since = -round(CAPTURES * case.strike)  # so many trainings are whole

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
        self.since += 1


def run(case: Case, run: str, store: str) -> int:
    """Make the run of a case; the first timestep whose capture its fault touches, if it has one."""
    torch.set_num_threads(1)
    shape, conduct = SHAPES[case.shape], Conduct(case)
    first = 1 - conduct.since
    environment = VecNormalize(DummyVecEnv([_environment] * ENVIRONMENTS))
    model = RecurrentPPO(
        "MlpLstmPolicy",
        environment,
        learning_rate=conduct.rate,
        n_steps=ROLLOUT,
        batch_size=ENVIRONMENTS * ROLLOUT,
        n_epochs=2,
        policy_kwargs={"lstm_hidden_size": shape.units[0], "net_arch": []},
        seed=case.seed,
        device="cpu",
    )
    monitor = GateMonitorCallback(log_dir=None, run=run, store=store, every=shape.every, tags={"symbol": case.symbol})
    model.learn(CAPTURES * ENVIRONMENTS * ROLLOUT, callback=CallbackList([conduct, monitor]))
    return first * ENVIRONMENTS * ROLLOUT


def _environment() -> gymnasium.Env:
    return Monitor(gymnasium.make("stocks-v0", disable_env_checker=True))

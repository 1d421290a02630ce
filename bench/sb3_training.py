"""What watching costs in Stable-Baselines3: CPU time of RecurrentPPO bare, watched, and with its own TensorBoard log.

    python -m bench.sb3_training

A policy of two LSTMs of 64 units (actor and critic) trades gym-anytrading's `stocks-v0` in four environments: rollouts
of 4 × 128 steps, four passes over each. CPU time is that of the whole process, all threads, so work that is moved to
another thread counts too. torch computes in one thread: several spin while they wait for each other, and CPU time then
tells what else the machine is doing.
"""

from __future__ import annotations

import sys

# SB3 imports TensorBoard, and that TensorFlow where it is: torch's triton cannot follow it, each brings an LLVM.
sys.modules["tensorflow"] = None  # type: ignore[assignment]  # which makes its import fail

import gym_anytrading  # noqa: F401 - registers stocks-v0
import gymnasium
import stable_baselines3
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from bench.rounds import cpu_rounds, extent, place, show
from gatewatch.collector.capture_schedule import Every
from gatewatch.sb3 import GateMonitorCallback

ENVS, ROLLOUT = 4, 128
ROLLOUTS, QUICK_ROLLOUTS = 40, 1


def train(rollouts: int, callback: GateMonitorCallback | None = None, tensorboard_log: str | None = None) -> None:
    """One training, from the same seed each time."""
    model = RecurrentPPO(
        "MlpLstmPolicy",
        DummyVecEnv([_environment] * ENVS),
        n_steps=ROLLOUT,
        batch_size=ROLLOUT,
        n_epochs=4,
        policy_kwargs={"lstm_hidden_size": 64},
        tensorboard_log=tensorboard_log,
        seed=1,
        device="cpu",
    )
    model.learn(rollouts * ENVS * ROLLOUT, callback=callback)


def _environment() -> gymnasium.Env:
    return Monitor(gymnasium.make("stocks-v0", disable_env_checker=True))


def main() -> None:
    """Measure and print."""
    asked = extent(__doc__)
    torch.set_num_threads(1)
    rollouts = QUICK_ROLLOUTS if asked.quick else ROLLOUTS
    with place() as here:

        def watched(every: Every = "auto") -> None:
            train(rollouts, GateMonitorCallback(**here.options(), every=every))

        variants = {
            "bare": lambda: train(rollouts),
            "GateMonitorCallback, defaults": watched,
            "GateMonitorCallback, every rollout": lambda: watched(every=ENVS * ROLLOUT),
            "tensorboard_log": lambda: train(rollouts, tensorboard_log=str(here.fresh())),
        }
        train(QUICK_ROLLOUTS)  # the first steps prepare what all the others use
        title = f"Stable-Baselines3 {stable_baselines3.__version__}: CPU time of {rollouts} rollouts"
        show(title, "CPU s", cpu_rounds(variants, asked.rounds))


if __name__ == "__main__":
    main()

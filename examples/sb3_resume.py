"""Train with SB3's CheckpointCallback: started again after a crash, the script goes on with its training and its run.

    python examples/sb3_resume.py    # kill it, and start it again

The probe is given: where it is not, each process takes one from its own first rollout, and captures before and after
the crash cannot be compared.
"""

from __future__ import annotations

import sys
from pathlib import Path

# SB3 imports TensorBoard, and that TensorFlow where it is: this takes seconds, and beside torch's Triton it aborts.
sys.modules.setdefault("tensorflow", None)

import gym_anytrading  # noqa: F401 - registers stocks-v0
import gymnasium
import numpy as np
from gym_anytrading.datasets import STOCKS_GOOGL
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import CheckpointCallback

from gatewatch.sb3 import GateMonitorCallback

TIMESTEPS, ROLLOUT = 1536, 128


def main() -> None:
    """Train, or go on."""
    environment = gymnasium.make(
        "stocks-v0", df=STOCKS_GOOGL, window_size=10, frame_bound=(10, 1000), disable_env_checker=True
    )
    saved = sorted(Path("sb3-models").glob("*.zip"), key=lambda path: path.stat().st_mtime)
    if saved:
        model = RecurrentPPO.load(saved[-1], environment, device="cpu")
    else:
        policy = {"lstm_hidden_size": 8, "net_arch": []}
        options = {"n_steps": ROLLOUT, "batch_size": ROLLOUT, "n_epochs": 2, "policy_kwargs": policy}
        model = RecurrentPPO("MlpLstmPolicy", environment, seed=1, device="cpu", verbose=1, **options)
    probe = np.random.default_rng(1).normal(size=(32, 1, *environment.observation_space.shape)).astype("float32")
    callbacks = [
        GateMonitorCallback(run="sb3-resume", probe=probe, every=1, resume=True),
        CheckpointCallback(2 * ROLLOUT, "sb3-models"),
    ]
    model.learn(TIMESTEPS - model.num_timesteps, reset_num_timesteps=False, callback=callbacks)


if __name__ == "__main__":
    main()

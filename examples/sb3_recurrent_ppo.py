"""Train a recurrent trading policy on real prices with sb3-contrib's RecurrentPPO, and watch its gates.

The environment is gym-anytrading's `stocks-v0` on nine years of Alphabet's daily prices. Each of four environments
trades its own part of them, again and again; observations and rewards are normalised by running statistics.

    python examples/sb3_recurrent_ppo.py --run googl-1

The three lines marked below are all that Gatewatch needs.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

# SB3 imports TensorBoard, and that TensorFlow where it is: this takes seconds, and beside torch's Triton it aborts.
sys.modules.setdefault("tensorflow", None)

import gym_anytrading  # noqa: F401 - registers stocks-v0
import gymnasium
import torch
from gym_anytrading.datasets import STOCKS_GOOGL
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from gatewatch.collector.errors import GatewatchError
from gatewatch.collector.store import open_store
from gatewatch.sb3 import GateMonitorCallback  # 1 of 3: what a script adds for Gatewatch

WINDOW = 10  # days that an observation shows; what was before them the policy has to remember


def stretch(number: int, of: int) -> Callable[[], gymnasium.Env]:
    """Return a function that makes the environment of one of several consecutive parts of the prices."""
    days = (len(STOCKS_GOOGL) - WINDOW) // of
    start = WINDOW + number * days

    def make() -> gymnasium.Env:
        environment = gymnasium.make(
            "stocks-v0",
            df=STOCKS_GOOGL,
            window_size=WINDOW,
            frame_bound=(start, start + days),
            disable_env_checker=True,  # it warns that observations are views of the prices, which nobody writes to
        )
        return Monitor(environment)

    return make


def train(arguments: argparse.Namespace) -> str:
    """Train one policy and return the name of its run."""
    torch.set_num_threads(1)  # networks as small as this one gain nothing from more
    environment = VecNormalize(DummyVecEnv([stretch(n, arguments.envs) for n in range(arguments.envs)]))
    model = RecurrentPPO(
        "MlpLstmPolicy",
        environment,
        n_steps=arguments.n_steps,
        batch_size=arguments.n_steps,
        n_epochs=4,
        policy_kwargs={"lstm_hidden_size": arguments.units, "net_arch": []},
        seed=arguments.seed,
        device="cpu",
    )
    callback = GateMonitorCallback(  # 2 of 3
        log_dir=Path(arguments.log_dir) if arguments.log_dir else None,
        run=arguments.run,
        store=arguments.store,
        every=arguments.every,
        tags={"symbol": "GOOGL"},
    )
    model.learn(total_timesteps=arguments.timesteps, callback=callback)  # 3 of 3
    return callback.run


def main() -> int:
    """Train by the arguments, and print what to do next."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="name of the run (default: a new one)")
    parser.add_argument("--timesteps", type=int, default=51_200, help="timesteps to train (default: %(default)s)")
    parser.add_argument(
        "--n-steps", type=int, default=128, help="steps of a rollout in each environment (default: %(default)s)"
    )
    parser.add_argument(
        "--envs", type=int, default=4, help="environments, each with its own part of the prices (default: 4)"
    )
    parser.add_argument("--units", type=int, default=32, help="units of each LSTM (default: %(default)s)")
    parser.add_argument(
        "--store", help="where the points go: sqlite:///file.db or http://host:8086 (default: as configured)"
    )
    parser.add_argument("--log-dir", default="gate_logs", help="folder of the gate_epoch files; empty for none")
    parser.add_argument("--every", type=int, default=1, help="timesteps between two captures (default: each rollout)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    try:
        store = open_store(arguments.store)
        run = train(arguments)
    except GatewatchError as error:
        print(f"sb3_recurrent_ppo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    option = f" --store {shlex.quote(arguments.store)}" if arguments.store else ""
    print(f"The points of run {run} are in {store.url}")
    print(f"Next   gatewatch jobs --once{option}")
    print(f"       gatewatch report {shlex.quote(run)}{option}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

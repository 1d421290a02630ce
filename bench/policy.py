"""How far what a policy logs goes in sound trainings and in broken ones: where the limits of the policy's checks are.

    python -m bench.policy [WORD]

Short trainings of PPO, A2C and RecurrentPPO on control tasks, on a market, and on a task whose best policy is one
action; with a word, only those that have it in their name. For each it prints, of what is judged, the value furthest
out that so many in a row all reach ("kl x3"), and the least share of the entropy or the standard deviation that was
left ten rollouts later.
"""

from __future__ import annotations

import sys

# SB3 imports TensorBoard, and that TensorFlow where it is: torch's triton cannot follow it, each brings an LLVM.
sys.modules["tensorflow"] = None  # type: ignore[assignment]  # which makes its import fail

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from bench.faults.sb3_runs import _environment as market
from gatewatch.collector.sb3.rollout_metrics import rollout_metrics
from gatewatch.jobs.scoring.captures import Array

ENVIRONMENTS: Final = 4
SEEDS: Final = (1, 2, 3)
RATE: Final = 3e-4
LENGTH: Final = 20


class OneAction(gymnasium.Env[Any, Any]):
    """A task whose best policy takes one action always."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode of 20 steps."""
        super().reset(seed=seed, options=options)
        self.left = LENGTH
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Reward the second action."""
        self.left -= 1
        return self._seen(), float(action == 1), self.left == 0, False, {}

    def _seen(self) -> Any:
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)


@dataclass(frozen=True)
class Training:
    """One training.

    Attributes:
        task: what is trained on.
        kind: the algorithm.
        rollouts: how many.
        steps: of one environment, in a rollout.
        options: of the algorithm.
        strike: what happens after half of the rollouts; None for a sound training.
    """

    task: str
    kind: type[OnPolicyAlgorithm]
    rollouts: int
    steps: int
    options: dict[str, Any]
    strike: Callable[[OnPolicyAlgorithm], None] | None = None


class Log(BaseCallback):
    """Keeps what is logged of each rollout and its training."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []
        self._training = training

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self._take()
        if self._training.strike is not None and len(self.rows) == self._training.rollouts // 2:
            self._training.strike(self.model)

    def _on_training_end(self) -> None:
        self._take()

    def _on_rollout_end(self) -> None:
        self.rows.append(dict(rollout_metrics(self.model)))

    def _take(self) -> None:
        if self.rows:
            logged = {name: value for name, value in self.logger.name_to_value.items() if name.startswith("train/")}
            self.rows[-1].update(logged)

    def column(self, name: str) -> Array:
        """Return (rollouts,), a metric; NaN where it was not logged."""
        return np.array([row.get(name, np.nan) for row in self.rows])


def sound() -> Iterator[tuple[str, Training]]:
    """Yield name and training of those in which nothing is wrong."""
    usual = {"batch_size": 64, "n_epochs": 10}
    for task in ("CartPole-v1", "Acrobot-v1", "Pendulum-v1"):
        yield f"PPO {task}", Training(task, PPO, 40, 128, {"learning_rate": RATE, **usual})
    for rate, task in ((1e-3, "CartPole-v1"), (3e-3, "CartPole-v1"), (1e-3, "Pendulum-v1")):
        yield f"PPO {task}, rate {rate:g}", Training(task, PPO, 40, 128, {"learning_rate": rate, **usual})
    yield "A2C CartPole-v1", Training("CartPole-v1", A2C, 800, 5, {})
    for rate in (RATE, 1e-3, 3e-3):
        yield (
            f"PPO one action, rate {rate:g}",
            Training("one action", PPO, 80, 64, {"learning_rate": rate, **usual}),
        )
    lstm = {"policy_kwargs": {"lstm_hidden_size": 16, "net_arch": []}}
    yield (
        "RecurrentPPO market",
        Training("market", RecurrentPPO, 80, 64, {"learning_rate": RATE, "batch_size": 64, "n_epochs": 4, **lstm}),
    )
    yield (
        "RecurrentPPO market, short rollouts",
        Training("market", RecurrentPPO, 120, 16, {"learning_rate": RATE, "batch_size": 64, "n_epochs": 2, **lstm}),
    )


def _rate(model: OnPolicyAlgorithm) -> None:
    model.lr_schedule = lambda _: 100 * RATE


def _entropy(model: OnPolicyAlgorithm) -> None:
    model.ent_coef = -1.0


def broken() -> Iterator[tuple[str, Training]]:
    """Yield name and training of those that break after half of the rollouts, or are broken from the beginning."""
    usual = {"batch_size": 64, "n_epochs": 10}
    lstm = {"batch_size": 64, "n_epochs": 4, "policy_kwargs": {"lstm_hidden_size": 16, "net_arch": []}}
    at_once = {"learning_rate": 100 * RATE}
    for name, strike in (("rate x 100", _rate), ("entropy coefficient -1", _entropy)):
        for task in ("CartPole-v1", "Pendulum-v1"):
            yield f"{name}: PPO {task}", Training(task, PPO, 40, 128, {"learning_rate": RATE, **usual}, strike)
        yield f"{name}: RecurrentPPO market", Training("market", RecurrentPPO, 40, 64, lstm, strike)
    yield "rate x 100 at once: PPO CartPole-v1", Training("CartPole-v1", PPO, 20, 128, {**usual, **at_once})
    yield "rate x 100 at once: RecurrentPPO market", Training("market", RecurrentPPO, 20, 64, {**lstm, **at_once})
    yield "entropy coefficient -1 at once: PPO", Training("CartPole-v1", PPO, 20, 128, {**usual, "ent_coef": -1.0})


def train(training: Training, seed: int) -> Log:
    """Train; return what was logged."""
    torch.set_num_threads(1)

    def make() -> gymnasium.Env[Any, Any]:
        if training.task == "market":
            return market("GOOG")
        return Monitor(OneAction() if training.task == "one action" else gymnasium.make(training.task))

    envs = DummyVecEnv([make] * ENVIRONMENTS)
    policy = "MlpLstmPolicy" if training.kind is RecurrentPPO else "MlpPolicy"
    vec = VecNormalize(envs) if training.task in ("market", "Pendulum-v1") else envs
    model = training.kind(policy, vec, n_steps=training.steps, seed=seed, device="cpu", **training.options)
    log = Log(training)
    model.learn(training.rollouts * ENVIRONMENTS * training.steps, callback=log)
    return log


def in_a_row(values: Array, count: int) -> float:
    """Return the largest value that `count` values in a row all reach."""
    known = values[np.isfinite(values)]
    if len(known) < count:
        return np.nan
    return float(np.lib.stride_tricks.sliding_window_view(known, count).min(axis=1).max())


def least_kept(values: Array, within: int = 10, newest: int = 3, floor: float = 0.2) -> float:
    """Return the smallest share of the largest of `within` values that the `newest` ones after them have left."""
    least = np.inf
    for k in range(newest, len(values)):
        before = values[max(0, k - within - newest + 1) : k - newest + 1]
        if before.max() >= floor:
            least = min(least, values[k - newest + 1 : k + 1].max() / before.max())
    return float(least)


def main() -> None:
    """Train and print."""
    head = ("kl x3", "kl x5", "clip x3", "clip x5", "-EV x8", "-EV x16", "-EV x32", "H kept", "std kept", "share x3")
    print(f"{'':48}" + "".join(f"{name:>10}" for name in (*head, "adv min", "adv max")), flush=True)
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    for name, training in ((name, training) for name, training in (*sound(), *broken()) if only in name):
        for seed in SEEDS:
            try:
                log = train(training, seed)
            except ValueError as error:
                print(f"{name:40} seed {seed}: {str(error)[:80]!r}", flush=True)
                continue
            kl, clip, explained = (
                log.column(f"train/{of}") for of in ("approx_kl", "clip_fraction", "explained_variance")
            )
            entropy, deviation = -log.column("train/entropy_loss"), log.column("train/std")
            cells = (
                *(in_a_row(kl, n) for n in (3, 5)),
                *(in_a_row(clip, n) for n in (3, 5)),
                *(in_a_row(-explained, n) for n in (8, 16, 32)),
                least_kept(entropy),
                least_kept(deviation, floor=0.0),
                in_a_row(log.column("action_share"), 3),
                float(np.nanmin(log.column("advantage_std"))),
                float(np.nanmax(log.column("advantage_std"))),
            )
            print(f"{name:40} seed {seed}  " + "".join(f"{cell:10.3g}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()

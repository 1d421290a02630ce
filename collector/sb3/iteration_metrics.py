"""The metrics of one iteration, a rollout and its training: what SB3 logs, and what the rollout shows besides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final

import numpy as np
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from gatewatch.collector.sb3.rollout_metrics import rollout_metrics

_POSITION: Final = "position"
"""What trading environments call the position in the `info` of a step (gym-anytrading, gym-trading-env)."""


class IterationMetrics:
    """Gathers the metrics of one iteration after the other."""

    def __init__(self) -> None:
        self._log = _Log()
        self._episodes: list[tuple[float, float]] = []
        self._positions: Counter[object] = Counter()
        self._rollout: dict[str, float | int] = {}

    def begin(self, logger: Logger) -> None:
        """Forget what was gathered, and listen to what `logger` writes out."""
        self._episodes.clear()
        self._positions.clear()
        self._rollout = {}
        if self._log not in logger.output_formats:
            logger.output_formats.append(self._log)

    def end(self, logger: Logger) -> None:
        """Listen no longer."""
        if self._log in logger.output_formats:
            logger.output_formats.remove(self._log)

    def step(self, infos: Sequence[Mapping[str, Any]]) -> None:
        """Take what the environments say of a step: the episodes that end, and the positions."""
        for info in infos:
            if "episode" in info:
                self._episodes.append((float(info["episode"]["r"]), float(info["episode"]["l"])))
            position = info.get(_POSITION)
            if isinstance(position, int | float | str | Enum | np.number):
                self._positions[position] += 1

    def rollout(self, model: OnPolicyAlgorithm) -> None:
        """Take what the rollout shows that was just collected."""
        self._rollout = rollout_metrics(model)
        if held := self._positions.total():
            self._rollout["position_share"] = max(self._positions.values()) / held
        self._positions.clear()

    def take(self, logger: Logger) -> dict[str, Any]:
        """Return the metrics of the iteration; what was gathered is forgotten."""
        metrics = {**self._log.values, **logger.name_to_value, **self._rollout}
        self._log.values.clear()
        self._rollout = {}
        if self._episodes:
            reward, length = np.mean(self._episodes, axis=0)
            metrics |= {"reward": reward, "episode_length": length, "episodes": len(self._episodes)}
            self._episodes.clear()
        return metrics


class _Log(KVWriter):
    """The latest of what SB3's logger has written out."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Keep the latest of each."""
        self.values.update(key_values)

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

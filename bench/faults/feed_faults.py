"""Faults of what a network is fed: its windows, its prices, its targets, the weight of its loss, its state."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bench.faults.fault import Batch, Fault, Indices
from bench.faults.market import Array


class ExplodingGradient(Fault):
    """A loss summed in place of averaged, or rewards in cents: the loss is a thousandfold, and nothing clips."""

    shows = "gradient"

    def batch(self, batch: Batch) -> Batch:
        """Weigh every sample a thousandfold."""
        return replace(batch, weight=batch.weight * np.float32(1e3))


class VanishingGradient(Fault):
    """A loss divided by the batch twice over, or a scaler that is never undone: the loss is a millionth."""

    shows = "gradient"

    def batch(self, batch: Batch) -> Batch:
        """Weigh every sample a millionth."""
        return replace(batch, weight=batch.weight * np.float32(1e-6))


class StuckFeed(Fault):
    """The data feed hangs: it repeats its last bar, and the price no longer moves."""

    shows = "gradient"
    strikes = ("training", "backtest")

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._last: Array | None = None

    def batch(self, batch: Batch) -> Batch:
        """The first bar that it hung at, for ever, and no return."""
        if self._last is None:
            self._last = batch.x[:1, :1].copy()
        return replace(batch, x=np.broadcast_to(self._last, batch.x.shape).copy(), y=np.zeros_like(batch.y))


class RawFeed(Fault):
    """The step that scales the features is lost: raw prices arrive."""

    shows = "gradient"
    strikes = ("training", "backtest")

    def batch(self, batch: Batch) -> Batch:
        """Raw prices."""
        return replace(batch, x=batch.raw)


class ShuffledTime(Fault):
    """A shuffle along the wrong axis: the bars of each window arrive in random order.

    Returns hardly depend on their order: on the develop split no statistic of a gate or a gradient moved further than
    those of healthy runs do. It costs what could have been learnt, so it shows in the loss, if anywhere.
    """

    shows = "loss"

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._random = np.random.default_rng(seed)

    def batch(self, batch: Batch) -> Batch:
        """Another order for each batch."""
        return replace(batch, x=batch.x[:, self._random.permutation(batch.x.shape[1])])


class LabelLeak(Fault):
    """A feature is shifted by one bar too many: it holds the return that is to be predicted."""

    shows = "gradient"

    def batch(self, batch: Batch) -> Batch:
        """The answer, in place of the first feature of each window's last bar."""
        x = batch.x.copy()
        x[:, -1, 0] = batch.y[:, 0]
        return replace(batch, x=x)


class Overfit(Fault):
    """A cache or a filter left 24 windows to train on: the loss falls, that of unseen data rises."""

    shows = "loss"

    def draw(self, indices: Indices) -> Indices:
        """The same 24 windows again and again."""
        return indices % 24


class StateKept(Fault):
    """The state is no longer reset where an episode starts: what was remembered of the last one leaks into it."""

    strikes = ("backtest",)
    resets_state = False

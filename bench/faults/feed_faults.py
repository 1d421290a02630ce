"""Faults of what a network is fed: its windows, their features, the targets beside them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bench.faults.fault import Batch, Fault, Indices, Rollout
from bench.faults.market import Array


class StuckFeed(Fault):
    """The data feed hangs: it repeats its last bar, and the price no longer moves."""

    shows = "feed"
    exact = True
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

    shows = "feed"
    strikes = ("training", "backtest")

    def batch(self, batch: Batch) -> Batch:
        """Raw prices."""
        return replace(batch, x=batch.raw)

    def strike_rollout(self, rollout: Rollout, since: int) -> None:
        """Once."""
        if since == 0:
            rollout.lose_normaliser()


class RawLive(RawFeed):
    """The step that scales the features was lost between training and what follows: raw prices from the first bar."""

    strikes = ("backtest",)
    from_the_start = True


class FeaturesPermuted(Fault):
    """Columns come in another order than the one that was trained on."""

    shows = "feed"
    strikes = ("training", "backtest")

    def batch(self, batch: Batch) -> Batch:
        """Each column in the place of the next one."""
        return replace(batch, x=np.roll(batch.x, 1, axis=2))


class PermutedLive(FeaturesPermuted):
    """Columns come in another order than in training, from the first bar on."""

    strikes = ("backtest",)
    from_the_start = True


class FeatureNan(Fault):
    """A division by zero in a feature: one value in each batch is no number."""

    shows = "feed"
    exact = True
    strikes = ("training", "backtest")

    def batch(self, batch: Batch) -> Batch:
        """The last bar of the first window."""
        x = batch.x.copy()
        x[0, -1, self.seed % x.shape[2]] = np.nan
        return replace(batch, x=x)


class FeatureConstant(Fault):
    """A source of one feature is gone, and its column is filled with zeros."""

    shows = "feed"
    exact = True
    strikes = ("training", "backtest")

    def batch(self, batch: Batch) -> Batch:
        """Zeros."""
        x = batch.x.copy()
        x[:, :, self.seed % x.shape[2]] = 0.0
        return replace(batch, x=x)


class ShuffledTime(Fault):
    """A shuffle along the wrong axis: the bars of each window arrive in random order.

    Returns hardly depend on their order: on the develop split no statistic of a gate or a gradient moved further than
    those of healthy runs do. Their running means do depend on it: the autocorrelation of these features is lost.
    """

    shows = "feed"

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._random = np.random.default_rng(seed)

    def batch(self, batch: Batch) -> Batch:
        """Another order for each batch."""
        return replace(batch, x=batch.x[:, self._random.permutation(batch.x.shape[1])])


class LabelLeak(Fault):
    """A feature is shifted by one bar too many: it holds the return that is to be predicted."""

    shows = "feed"

    def batch(self, batch: Batch) -> Batch:
        """The answer, in place of the first feature of each window's last bar."""
        x = batch.x.copy()
        x[:, -1, 0] = batch.y[:, 0]
        return replace(batch, x=x)


class LabelsLate(Fault):
    """Targets are shifted by one bar: each is the return that the window's last bar already holds."""

    shows = "feed"

    def label(self, indices: Indices) -> Indices:
        """The windows that end a bar earlier."""
        return indices - 1


class LabelsEarly(Fault):
    """Targets are shifted the other way: each is the return of the bar after the one that is traded.

    Hardly anything is known of either, so that it shows in the loss, if in anything.
    """

    shows = "loss"

    def label(self, indices: Indices) -> Indices:
        """The windows that end a bar later."""
        return indices + 1


class Overfit(Fault):
    """A cache or a filter left 24 windows to train on: the loss falls, that of unseen data rises."""

    shows = "feed"

    def draw(self, indices: Indices) -> Indices:
        """The same 24 windows again and again."""
        return indices % 24


class BatchRepeated(Fault):
    """A loader that is made anew at each step, with the same seed: it gives its first batch for ever."""

    shows = "feed"

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._first: Indices | None = None

    def draw(self, indices: Indices) -> Indices:
        """The first one."""
        if self._first is None or len(self._first) != len(indices):
            self._first = indices
        return self._first

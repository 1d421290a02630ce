"""Faults of what trains a network: the optimizer's averages, the learning rate, the scale of the loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bench.faults.fault import Batch, Fault, Network


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


class RateHundredfold(Fault):
    """A misplaced point in the learning rate's schedule."""

    shows = "gradient"

    def rate(self, rate: float) -> float:
        """A hundredfold."""
        return 100 * rate


class RateZero(Fault):
    """A schedule that counts epochs as steps is over too early."""

    shows = "gradient"

    def rate(self, rate: float) -> float:
        """Nothing."""
        return 0.0


class FrozenLayer(Fault):
    """A layer frozen for fine-tuning, or by a callback meant for another, and never released."""

    shows = "gradient"

    def strike(self, network: Network, since: int) -> None:
        """Once."""
        if since == 0:
            network.freeze(self.layer(network))


class OptimizerReset(Fault):
    """A checkpoint restored without the optimizer's averages, but with its step count: its first steps are too long."""

    shows = "optimizer"
    exact = True

    def strike(self, network: Network, since: int) -> None:
        """Once."""
        if since == 0:
            network.forget_moments()


class MomentsDropped(Fault):
    """A checkpoint restored with a new optimizer: neither its averages nor its step count are there."""

    shows = "optimizer"
    exact = True

    def strike(self, network: Network, since: int) -> None:
        """Once."""
        if since == 0:
            network.forget_moments(count=True)

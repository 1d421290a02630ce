"""Faults of a network: of its weights, of what trains them, of the learning rate."""

from __future__ import annotations

from bench.faults.fault import Fault, Network


class ForgetShut(Fault):
    """A runaway or wrongly loaded bias shuts the gate that keeps the state: nothing is remembered."""

    strikes = ("training", "backtest")

    def strike(self, network: Network, since: int) -> None:
        """Hold the bias far below zero."""
        network.set_memory_bias(self.layer(network), -8.0)


class ForgetOpen(Fault):
    """The same the other way round: nothing is forgotten, the cell state grows with the sequence."""

    strikes = ("training", "backtest")

    def strike(self, network: Network, since: int) -> None:
        """Hold the bias far above zero."""
        network.set_memory_bias(self.layer(network), 8.0)


class GateScale(Fault):
    """Weights converted with the wrong scale, or merged twice: the recurrent ones are eight times too large."""

    def strike(self, network: Network, since: int) -> None:
        """Once."""
        if since == 0:
            network.scale_recurrent(self.layer(network), 8.0)


class DeadUnits(Fault):
    """A pruning mask left on: half of the units of a layer get nothing and give nothing."""

    def strike(self, network: Network, since: int) -> None:
        """Hold their weights at zero."""
        layer = self.layer(network)
        network.silence_units(layer, slice(0, network.units(layer) // 2))


class HeadSaturated(Fault):
    """An output layer initialised or rescaled wrongly: its tanh is flat, and hardly a gradient passes."""

    shows = "gradient"

    def strike(self, network: Network, since: int) -> None:
        """Once."""
        if since == 0:
            network.scale_head(300.0)


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


class NanWeight(Fault):
    """A division by zero somewhere, and one weight is no number: a step later none is."""

    def strike(self, network: Network, since: int) -> None:
        """Once."""
        if since == 0:
            network.break_weight(self.layer(network))


class OptimizerReset(Fault):
    """A checkpoint restored without the optimizer's averages, but with its step count: its first steps are too long."""

    shows = "gradient"

    def strike(self, network: Network, since: int) -> None:
        """Once."""
        if since == 0:
            network.forget_moments()

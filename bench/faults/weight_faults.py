"""Faults of a network's weights: what a checkpoint, a conversion, a mask or a copy did to them."""

from __future__ import annotations

import numpy as np

from bench.faults.fault import Fault, Network, Weights
from bench.faults.market import Array


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


class DeadUnits(Fault):
    """A pruning mask left on: half of the units of a layer get nothing and give nothing."""

    def strike(self, network: Network, since: int) -> None:
        """Hold their weights at zero."""
        layer = self.layer(network)
        network.silence_units(layer, slice(0, network.units(layer) // 2))


class Once(Fault):
    """What happens once to the weights, between two steps."""

    def strike(self, network: Network, since: int) -> None:
        """Once."""
        if since == 0:
            self.happen(network)

    def happen(self, network: Network) -> None:
        """What happens."""
        raise NotImplementedError


class GateScale(Once):
    """Weights converted with the wrong scale, or merged twice: the recurrent ones are eight times too large."""

    def happen(self, network: Network) -> None:
        """Scale them."""
        network.scale_recurrent(self.layer(network), 8.0)


class HeadSaturated(Once):
    """An output layer initialised or rescaled wrongly: its tanh is flat, and hardly a gradient passes."""

    shows = "gradient"

    def happen(self, network: Network) -> None:
        """Scale it."""
        network.scale_head(300.0)


class NanWeight(Once):
    """A division by zero somewhere, and one weight is no number: a step later none is."""

    def happen(self, network: Network) -> None:
        """Break one."""
        network.break_weight(self.layer(network))


class LayerReset(Once):
    """A layer whose name does not match the checkpoint's is initialised anew, and nothing says so."""

    shows = "weights"
    exact = True

    def happen(self, network: Network) -> None:
        """Initialise one."""
        network.reset_layer(self.layer(network), self.seed)


class OtherCheckpoint(Once):
    """The checkpoint of another run is loaded: the same network, trained as long from another seed."""

    shows = "weights"
    exact = True

    def happen(self, network: Network) -> None:
        """Load it."""
        network.set_weights(network.weights_of_another_run())


class SignFlipped(Once):
    """A conversion with the opposite convention: the recurrent weights have the other sign."""

    shows = "weights"
    exact = True

    def happen(self, network: Network) -> None:
        """Flip it."""
        network.scale_recurrent(self.layer(network), -1.0)


class UnitsCopied(Once):
    """A network grown or converted by copying: half of the units of a layer do what the other half does."""

    shows = "weights"
    exact = True

    def happen(self, network: Network) -> None:
        """Copy them."""
        network.copy_units(self.layer(network))


class TargetNetwork(Once):
    """The target network, a slow average of the weights, is swapped in for the network itself."""

    shows = "weights"

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._average: Weights | None = None

    def watch(self, network: Network) -> None:
        """Follow the weights by a hundredth a step: about a hundred steps behind them."""
        now = network.weights()
        if self._average is None:
            self._average = now
        self._average = {name: held + np.float32(0.01) * (now[name] - held) for name, held in self._average.items()}

    def happen(self, network: Network) -> None:
        """Swap it in."""
        if self._average is not None:
            network.set_weights(self._average)


class HalfOnce(Once):
    """A checkpoint saved in half precision: every weight is rounded once to 11 bits.

    That is less than a step of the optimizer moves it by: nothing but the weights themselves could show it.
    """

    shows = "loss"

    def happen(self, network: Network) -> None:
        """Round them."""
        network.set_weights({name: w.astype("float16").astype("float32") for name, w in network.weights().items()})


class HalfAlways(Fault):
    """Trained in bfloat16 without a full copy of the weights: at 8 bits most updates are rounded away."""

    shows = "weights"

    def strike(self, network: Network, since: int) -> None:
        """Round them before each step."""
        network.set_weights({name: to_bfloat16(w) for name, w in network.weights().items()})


def to_bfloat16(values: Array) -> Array:
    """Round float32 to the nearest number of bfloat16, ties to even."""
    bits = np.ascontiguousarray(values, "float32").view("uint32")
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return rounded.view("float32")

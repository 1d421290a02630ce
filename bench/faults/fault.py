"""What a fault is: how it reaches a training or a backtest from the step on at which it strikes.

A fault sees a training through four hooks, whatever the framework: the indices of a batch's windows, the batch, the
learning rate and the network. What it does not touch goes through unchanged. Each says in which signal it shows first:
in a gate, in a gradient or an update, or in the loss alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.faults.market import Array

Shows = Literal["gate", "gradient", "loss"]
Kind = Literal["training", "backtest"]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """What a step is given.

    Attributes:
        x, raw: (batch, length, features), and the prices behind them.
        y: (batch, 1), the return that follows.
        weight: of each sample's loss, (batch,).
    """

    x: Array
    raw: Array
    y: Array
    weight: Array


class Network(Protocol):
    """What a fault can do to a network; layers are its recurrent ones, counted from the input."""

    def __len__(self) -> int:
        """How many recurrent layers it has."""

    def set_memory_bias(self, layer: int, bias: float) -> None:
        """The bias of the gate that keeps the state: the forget gate of an LSTM, the update gate of a GRU."""

    def scale_recurrent(self, layer: int, factor: float) -> None:
        """Multiply the recurrent weights."""

    def silence_units(self, layer: int, units: slice) -> None:
        """Zero all weights into and out of these units, biases too."""

    def break_weight(self, layer: int) -> None:
        """Make one recurrent weight NaN."""

    def freeze(self, layer: int) -> None:
        """Exclude the layer from training."""

    def scale_head(self, factor: float) -> None:
        """Multiply the weights of the output layer."""

    def forget_moments(self) -> None:
        """Zero the optimizer's averages, and leave its step count."""

    def units(self, layer: int) -> int:
        """How many units the layer has."""


class Fault:
    """Nothing yet: what every fault does not touch.

    Args:
        seed: of the case; chooses the layer where there are several.
    """

    shows: ClassVar[Shows] = "gate"
    strikes: ClassVar[tuple[Kind, ...]] = ("training",)
    resets_state: ClassVar[bool] = True

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def draw(self, indices: Indices) -> Indices:
        """Which windows make the batch."""
        return indices

    def batch(self, batch: Batch) -> Batch:
        """The batch."""
        return batch

    def rate(self, rate: float) -> float:
        """The learning rate."""
        return rate

    def strike(self, network: Network, since: int) -> None:
        """Before the step that is so many after the first one struck."""

    def layer(self, network: Network) -> int:
        """Which layer it strikes."""
        return self.seed % len(network)

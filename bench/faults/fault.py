"""What a fault is: how it reaches a training or a backtest from the step on at which it strikes.

A fault sees a run through its hooks, whatever the framework: the indices of a batch's windows and of its targets, the
batch, the learning rate, the network and the rollout. What it does not touch goes through unchanged. Each says in what
it shows first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.faults.market import Array

Shows = Literal["gate", "gradient", "weights", "optimizer", "feed", "state", "loss"]
Kind = Literal["training", "backtest"]
Indices = NDArray[np.int64]
Weights = Mapping[str, Array]


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

    def units(self, layer: int) -> int:
        """How many units the layer has."""

    def set_memory_bias(self, layer: int, bias: float) -> None:
        """The bias of the gate that keeps the state: the forget gate of an LSTM, the update gate of a GRU."""

    def scale_recurrent(self, layer: int, factor: float) -> None:
        """Multiply the recurrent weights."""

    def silence_units(self, layer: int, units: slice) -> None:
        """Zero all weights into and out of these units, biases too."""

    def copy_units(self, layer: int) -> None:
        """Give the second half of the units the incoming weights, recurrent ones too, and biases of the first."""

    def reset_layer(self, layer: int, seed: int) -> None:
        """Initialise the layer anew."""

    def break_weight(self, layer: int) -> None:
        """Make one recurrent weight NaN."""

    def freeze(self, layer: int) -> None:
        """Exclude the layer from training."""

    def scale_head(self, factor: float) -> None:
        """Multiply the weights of the output layer."""

    def forget_moments(self, count: bool = False) -> None:
        """Zero the optimizer's averages, and its step count where that is asked for."""

    def weights(self) -> Weights:
        """Copies of all that is trained."""

    def set_weights(self, weights: Weights) -> None:
        """Assign what `weights` returned, or another network of the same shape."""

    def weights_of_another_run(self) -> Weights:
        """Those of the same network, trained as long from another seed."""


class Rollout(Protocol):
    """What a fault can do to the rollouts of a policy-gradient training."""

    def lose_normaliser(self) -> None:
        """Hand observations on as the environment gives them."""

    def keep_state(self) -> None:
        """Reset no state while experience is collected; the update resets it as before."""

    def shift_starts(self) -> None:
        """Mark the start of each episode one step late in what is trained on."""

    def leave_dropout_on(self) -> None:
        """Drop features at random, also where the policy is only asked."""


Resets = Literal["at each start", "never", "a call late"]


class Fault:
    """Nothing yet: what every fault does not touch.

    Args:
        seed: of the case; chooses the layer where there are several.
    """

    shows: ClassVar[Shows] = "gate"
    """In what first: a gate's activations, a gradient or update, the weights between two captures, the optimizer's
    averages, what is fed, the state that a sequence begins with; or in the loss alone, if in anything."""
    exact: ClassVar[bool] = False
    """Whether it breaks a statement that is exactly true of a sound run, and that recorded points can show."""
    strikes: ClassVar[tuple[Kind, ...]] = ("training",)
    frameworks: ClassVar[tuple[str, ...]] = ("keras", "torch")
    """In which it is tried, beside the cases of sb3."""
    from_the_start: ClassVar[bool] = False
    """Whether it is there from the first step on, so that the run has no healthy past."""
    resets: ClassVar[Resets] = "at each start"
    """When a backtest resets the state."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def draw(self, indices: Indices) -> Indices:
        """Which windows make the batch."""
        return indices

    def label(self, indices: Indices) -> Indices:
        """After which windows the returns of the targets come."""
        return indices

    def batch(self, batch: Batch) -> Batch:
        """The batch."""
        return batch

    def rate(self, rate: float) -> float:
        """The learning rate."""
        return rate

    def watch(self, network: Network) -> None:
        """Before each step that comes before it strikes."""

    def strike(self, network: Network, since: int) -> None:
        """Before the step that is so many after the first one struck."""

    def strike_rollout(self, rollout: Rollout, since: int) -> None:
        """Before the training that is so many after the first one struck."""

    def layer(self, network: Network) -> int:
        """Which layer it strikes."""
        return self.seed % len(network)

"""What a training does step by step, whatever the framework: its batches, its learning rate, its fault."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from bench.faults.cases import Case
from bench.faults.fault import Batch, Fault, Indices, Network
from bench.faults.faults import FAULTS
from bench.faults.market import Windows, market, windows
from bench.faults.shapes import CAPTURES, SHAPES

EPOCH_CAPTURES: Final = 6
_TRAINED: Final = 0.8
"""The share of the windows that is trained on."""
PROBE: Final = 24
UNSEEN: Final = 256


@dataclass(frozen=True)
class Setup:
    """How a healthy training may differ from the usual one.

    Attributes:
        optimizer: adam, adamw, rmsprop or sgd (with momentum).
        rate: the learning rate, the highest of its schedule.
        batch: samples of one.
        schedule: share of the training that is over → share of the rate.
        dropout: of the inputs of the recurrent layers.
        norm: of the features before the first layer: layer or batch.
        clip: the largest norm of all gradients.
        order: how windows are drawn: at random, or by volatility.
        stops: the share of the steps after which it is stopped, and the best weights restored.
    """

    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"] = "adam"
    rate: float = 2e-3
    batch: int = 32
    schedule: Callable[[float], float] | None = None
    dropout: float = 0.0
    norm: Literal["layer", "batch"] | None = None
    clip: float | None = None
    order: Literal["random", "calm-to-wild", "wild-to-calm", "curriculum"] = "random"
    stops: float = 1.0


def step_decay(over: float) -> float:
    """A third from 40 % on, a tenth from 70 % on."""
    return 1.0 if over < 0.4 else 0.3 if over < 0.7 else 0.1


def cosine_decay(over: float) -> float:
    """To a thousandth (Loshchilov and Hutter 2017, without restarts)."""
    return 1e-3 + (1 - 1e-3) * (1 + math.cos(math.pi * over)) / 2


def warm_up(over: float) -> float:
    """Linear for the first 15 %."""
    return min(1.0, (over + 1e-3) / 0.15)


def warm_restarts(over: float) -> float:
    """Three cosines (Loshchilov and Hutter 2017, "SGDR")."""
    return cosine_decay(over * 3 % 1)


def one_cycle(over: float) -> float:
    """Up for 30 %, then down to a thousandth (Smith and Topin 2018, "Super-convergence")."""
    return 0.04 + 0.96 * over / 0.3 if over < 0.3 else cosine_decay((over - 0.3) / 0.7)


SETUPS: Final[Mapping[str, Setup]] = {
    "seed": Setup(),
    "batch-16": Setup(batch=16),
    "batch-64": Setup(batch=64),
    "rmsprop": Setup("rmsprop", 1e-3),
    "sgd-momentum": Setup("sgd", 2e-2),
    "adamw": Setup("adamw"),
    "step-decay": Setup(schedule=step_decay, rate=3e-3),
    "cosine-decay": Setup(schedule=cosine_decay, rate=3e-3),
    "warm-up": Setup(schedule=warm_up, rate=3e-3),
    "warm-restarts": Setup(schedule=warm_restarts, rate=3e-3),
    "one-cycle": Setup(schedule=one_cycle, rate=5e-3),
    "dropout": Setup(dropout=0.2),
    "clipping": Setup(clip=0.1),
    "early-stopping": Setup(stops=0.7),
    "regime-calm-to-wild": Setup(order="calm-to-wild"),
    "regime-wild-to-calm": Setup(order="wild-to-calm"),
    "layer-norm": Setup(norm="layer"),
    "batch-norm": Setup(norm="batch"),
    "curriculum": Setup(order="curriculum"),
}
"""Healthy control → how it differs."""


class Program:
    """The steps of one training, counted from 1.

    Attributes:
        setup: how it is trained.
        steps: how many it would make.
        epoch_steps: of an epoch.
        strikes_at: the first step that the fault touches.
        train, unseen: the windows.
        probe: the last windows that are trained on.
    """

    def __init__(self, case: Case) -> None:
        shape = SHAPES[case.shape]
        self.case, self.shape = case, shape
        self.setup = SETUPS[case.control or "seed"]
        self.steps, self.epoch_steps = CAPTURES * shape.every, EPOCH_CAPTURES * shape.every
        self.strikes_at = round(self.steps * case.strike) + 1
        self.fault: Fault | None = FAULTS[case.fault](case.seed) if case.fault else None
        self._windows = windows(market(case.symbol), shape.length)
        self._trained = int(len(self._windows) * _TRAINED)
        self._random = np.random.default_rng(case.seed)
        self._by_volatility = np.argsort(self._windows.volatility[: self._trained], kind="stable")

    @property
    def last(self) -> int:
        """The last step that is made."""
        return round(self.steps * self.setup.stops)

    @property
    def probe(self) -> Windows:
        """What the monitor looks at: windows from all over what is trained on."""
        return self._part(np.linspace(0, self._trained - 1, PROBE).astype(np.int64))

    @property
    def unseen(self) -> Windows:
        """What comes after the windows that are trained on, and shares no bar with them."""
        first = min(self._trained + self.shape.length, len(self._windows) - 1)
        return self._part(np.arange(first, len(self._windows))[:UNSEEN])

    def struck(self, step: int) -> Fault | None:
        """The fault, where it has struck by this step."""
        return self.fault if step >= self.strikes_at else None

    def batch(self, step: int) -> Batch:
        """The batch of a step; to be asked for in the steps' order."""
        fault, indices = self.struck(step), self._draw(step / self.steps)
        if fault is not None:
            indices = fault.draw(indices)
        part = self._part(indices)
        batch = Batch(part.x, part.raw, part.y, np.ones(len(indices), "float32"))
        return batch if fault is None else fault.batch(batch)

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        schedule, fault = self.setup.schedule, self.struck(step)
        rate = self.setup.rate * (1.0 if schedule is None else schedule((step - 1) / self.steps))
        return rate if fault is None else fault.rate(rate)

    def strike(self, step: int, network: Network) -> None:
        """What the fault does to the network before a step."""
        if (fault := self.struck(step)) is not None:
            fault.strike(network, step - self.strikes_at)

    def _draw(self, over: float) -> Indices:
        count, size, order = self._trained, self.setup.batch, self.setup.order
        if order == "random":
            return self._random.integers(0, count, size)
        if order == "curriculum":  # from the calmest three tenths on, ever more of them
            return self._by_volatility[self._random.integers(0, max(size, int(count * min(1, 0.3 + over))), size)]
        wild = (over > self.case.strike) == (order == "calm-to-wild")
        third = self._random.integers(0, max(1, count // 3), size)
        return self._by_volatility[count - 1 - third if wild else third]

    def _part(self, indices: Indices) -> Windows:
        w = self._windows
        return Windows(w.x[indices], w.raw[indices], w.y[indices], w.volatility[indices])

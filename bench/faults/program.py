"""What a training does step by step, whatever the framework: its batches, its learning rate, its fault."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from bench.faults.cases import Case
from bench.faults.controls import CONTROLS
from bench.faults.fault import Batch, Fault, Indices, Network
from bench.faults.faults import FAULTS
from bench.faults.market import TREND, Array, Windows, market, windows
from bench.faults.setups import Optimizer, Setup
from bench.faults.shapes import SHAPES

EPOCH_CAPTURES: Final = 6
_TRAINED: Final = 0.8
"""The share of the windows that is trained on."""
PROBE: Final = 24
UNSEEN: Final = 256
_OTHERS: Final = {"GOOG": "EURUSD", "EURUSD": "GOOG", "FOREX": "STOCKS", "STOCKS": "FOREX", "BTCUSD": "STOCKS"}
"""Whose prices come instead, where the symbol changes."""


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
        self.setup = CONTROLS[case.control].setup if case.control else Setup()
        self.steps, self.epoch_steps = shape.captures * shape.every, EPOCH_CAPTURES * shape.every
        self.strikes_at = round(self.steps * case.strike) + 1
        self.fault: Fault | None = FAULTS[case.fault](case.seed) if case.fault else None
        self._windows = windows(market(case.symbol), shape.length)
        self._trained = int(len(self._windows) * _TRAINED)
        self._random = np.random.default_rng(case.seed)
        if self.setup.order == "other-symbol":
            self._others = windows(market(_OTHERS[case.symbol]), shape.length)

    @property
    def optimizer(self) -> Optimizer:
        """Which one trains it."""
        return self.setup.optimizer or self.shape.optimizer

    @property
    def another_run(self) -> Program:
        """The program of a healthy run of the same network from another seed, with the same `strikes_at`."""
        return Program(replace(self.case, seed=self.case.seed + 1_000, fault=None, control="seed"))

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
        fault, indices = self.struck(step), self._draw(step)
        if fault is not None:
            indices = fault.draw(indices)
        part = self._part(indices, step)
        y = part.y if fault is None else self._windows.y[fault.label(indices).clip(0, self._trained - 1)]
        batch = Batch(part.x, part.raw, y, np.ones(len(indices), "float32"))
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
        elif self.fault is not None:
            self.fault.watch(network)

    def _draw(self, step: int) -> Indices:
        """Draw the windows of a batch, from what the regime of the step allows."""
        over, count, order = step / self.steps, self._trained, self.setup.order
        later = step >= self.strikes_at
        size = self.setup.batch * (2 if self.setup.doubles and later else 1)
        if order == "random":
            return self._random.integers(0, count, size)
        if order == "other-symbol":
            return self._random.integers(0, int(len(self._others) * _TRAINED) if later else count, size)
        ranked = np.argsort(self._rank(order)[:count], kind="stable")
        if order == "curriculum":  # from the calmest three tenths on, ever more of them
            return ranked[self._random.integers(0, max(size, int(count * min(1, 0.3 + over))), size)]
        third = self._random.integers(0, max(1, count // 3), size)
        return ranked[count - 1 - third if later == (order in ("calm-to-wild", "falling-to-rising")) else third]

    def _rank(self, order: str) -> Array:
        return self._windows.x[:, -1, TREND] if "rising" in order else self._windows.volatility

    def _part(self, indices: Indices, step: int = 0) -> Windows:
        """Take windows; those of another symbol where the control has come to it by this step."""
        w = self._others if self.setup.order == "other-symbol" and step >= self.strikes_at else self._windows
        return w.part(indices)

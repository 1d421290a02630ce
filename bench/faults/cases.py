"""The cases: which network trains on which prices from which seed, and what is wrong with it, if anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from bench.faults.faults import FAULTS
from bench.faults.shapes import SHAPES, Framework

Split = Literal["develop", "judge"]


@dataclass(frozen=True)
class Case:
    """One run.

    Attributes:
        split: develop, on which thresholds are chosen, or judge, of which the table is.
        shape: a name of `SHAPES`.
        symbol: whose prices.
        seed: of everything that is drawn.
        kind: a training, or a backtest of a policy that was trained before.
        fault: a name of `FAULTS`; None where the run is healthy.
        control: what else is different in a healthy run: a name of `CONTROLS`.
        strike: the share of the run at which the fault strikes.
    """

    split: Split
    shape: str
    symbol: str
    seed: int
    kind: Literal["training", "backtest"]
    fault: str | None
    control: str | None
    strike: float

    @property
    def name(self) -> str:
        """Of the run and of its files."""
        what = self.fault or f"healthy-{self.control}"
        return f"{what}.{self.kind}.{self.shape}.{self.symbol}.{self.seed}"

    @property
    def framework(self) -> Framework:
        """Which trains it."""
        return SHAPES[self.shape].framework


@dataclass(frozen=True)
class _Extent:
    shapes: Sequence[str]
    walkers: Sequence[str]
    symbols: Sequence[str]
    walked: Sequence[str]
    seeds: Sequence[int]
    trainings_of_fault: int
    backtests_of_fault: int
    trainings_of_control: int
    backtests_of_control: int


TRAINING_CONTROLS: Final = (
    "seed",
    "batch-16",
    "batch-64",
    "rmsprop",
    "sgd-momentum",
    "adamw",
    "step-decay",
    "cosine-decay",
    "warm-up",
    "warm-restarts",
    "one-cycle",
    "dropout",
    "clipping",
    "early-stopping",
    "regime-calm-to-wild",
    "regime-wild-to-calm",
    "layer-norm",
    "batch-norm",
    "curriculum",
)
BACKTEST_CONTROLS: Final = ("episodes", "calm-to-wild", "wild-to-calm")
SB3_FAULTS: Final = ("forget-shut", "forget-open", "gate-scale", "dead-units", "rate-x100", "rate-zero")

_DEVELOP: Final = _Extent(
    shapes=("keras-lstm-24-12", "torch-lstm-32", "keras-lstm-20", "torch-lstm-16-16"),
    walkers=("keras-lstm-20", "torch-lstm-32"),
    symbols=("GOOG", "EURUSD"),
    walked=("GOOG", "EURUSD"),
    seeds=range(10),
    trainings_of_fault=3,
    backtests_of_fault=2,
    trainings_of_control=2,
    backtests_of_control=2,
)
_JUDGE: Final = _Extent(
    shapes=("keras-gru-28", "torch-gru-20", "keras-lstm-18-10", "torch-gru-14-14", "keras-bilstm-14", "torch-lstm-28"),
    walkers=("torch-gru-20", "keras-gru-28", "torch-lstm-28"),
    symbols=("FOREX", "STOCKS", "BTCUSD"),
    walked=("STOCKS", "FOREX"),
    seeds=range(100, 140),
    trainings_of_fault=3,
    backtests_of_fault=3,
    trainings_of_control=2,
    backtests_of_control=3,
)


def cases(split: Split, quick: bool = False) -> list[Case]:
    """The cases of a split; the quick ones are the first of each fault and of a few controls."""
    found = list(_cases(split, _DEVELOP if split == "develop" else _JUDGE))
    if quick:
        first = {(case.fault or case.control, case.kind): case for case in reversed(found) if case.framework == "torch"}
        found = list(first.values())[::4]
    return found


def _cases(split: Split, extent: _Extent) -> Iterator[Case]:
    number = 0

    def case(kind: Literal["training", "backtest"], fault: str | None, control: str | None) -> Case:
        nonlocal number
        shapes = extent.shapes if kind == "training" else extent.walkers
        symbols = extent.symbols if kind == "training" else extent.walked
        # Networks and symbols turn at different rates, so that every pair of them comes up.
        shape, symbol = shapes[number % len(shapes)], symbols[(number // len(shapes) + number) % len(symbols)]
        seed = extent.seeds[number * 7 % len(extent.seeds)]
        number += 1
        return Case(split, shape, symbol, seed, kind, fault, control, _strike(number))

    for name, fault in FAULTS.items():
        for kind, count in (("training", extent.trainings_of_fault), ("backtest", extent.backtests_of_fault)):
            if kind in fault.strikes:
                more = 2 if fault.strikes == ("backtest",) else 1
                for _ in range(count * more):
                    yield case(kind, name, None)
    for name in TRAINING_CONTROLS:
        for _ in range(extent.trainings_of_control * (2 if name == "seed" else 1)):
            yield case("training", None, name)
    for name in BACKTEST_CONTROLS:
        for _ in range(extent.backtests_of_control):
            yield case("backtest", None, name)
    if split == "judge":
        for i, name in enumerate(SB3_FAULTS):
            yield Case(split, "sb3-lstm-24", "STOCKS", 200 + i, "training", name, None, _strike(i))
        for i in range(4):
            yield Case(split, "sb3-lstm-24", "STOCKS", 220 + i, "training", None, "seed", _strike(i))


def _strike(number: int) -> float:
    """From 0.5 to 0.75, spread evenly whatever the numbers: multiples of the golden ratio."""
    return round(0.5 + 0.25 * (number * 0.618034 % 1), 3)

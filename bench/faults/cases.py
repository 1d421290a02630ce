"""The cases: which network trains on which prices from which seed, and what is wrong with it, if anything.

The two splits share no network, no symbol, no seed and no optimizer. GRUs, networks of both directions and some faults
and controls are in the judge split alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from bench.faults.controls import CONTROLS, Data, Split
from bench.faults.fault import Kind
from bench.faults.faults import FAULTS
from bench.faults.shapes import SHAPES, Framework


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
        strike: the share of the run after which the fault strikes, or the control changes what it changes.
    """

    split: Split
    shape: str
    symbol: str
    seed: int
    kind: Kind
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

    @property
    def data(self) -> Data:
        """What the data do in a healthy run; steady in one with a fault."""
        return CONTROLS[self.control].data if self.control else "steady"


@dataclass(frozen=True)
class _Counts:
    """How many runs there are of a kind: of each fault, of each weak one, and of each control by what its data do."""

    fault: int
    weak: int
    steady: int
    changing: int


@dataclass(frozen=True)
class _Extent:
    shapes: Sequence[str]
    walkers: Sequence[str]
    symbols: Sequence[str]
    walked: Sequence[str]
    burst: tuple[str, str]
    """The network and the made-up series of `first-burst`."""
    large: tuple[str, Sequence[str], Sequence[str]]
    """The large network, the faults and the controls that it is tried with, once for each."""
    rollouts: tuple[str, str, int]
    """The network and the symbol of the cases of sb3, and how many there are of each."""
    seeds: Sequence[int]
    trainings: _Counts
    backtests: _Counts
    judge_only: bool
    """Whether it has what is in the judge split alone."""


WEAK: Final = (
    *("shuffled-time", "label-leak", "overfit", "optimizer-reset", "state-kept"),
    *("moments-dropped", "layer-reset", "other-checkpoint", "target-network", "features-permuted", "mask-shifted"),
)
"""Faults of which there are at least twenty runs in the judge split: those that a table has found below 0.9."""
JUDGE_ONLY: Final = ("units-copied", "half-once", "feature-constant", "labels-early", "permuted-live")
"""Faults that no limit was chosen on."""
SB3_FAULTS: Final = (
    *("forget-shut", "forget-open", "gate-scale", "dead-units", "rate-x100", "rate-zero"),
    *("layer-reset", "moments-dropped", "raw-feed", "state-kept", "mask-shifted", "dropout-on"),
)
_LARGE_FAULTS: Final = ("forget-shut", "rate-x100", "layer-reset", "optimizer-reset", "raw-feed", "overfit")

_DEVELOP: Final = _Extent(
    shapes=("keras-lstm-24-12", "torch-lstm-32", "keras-lstm-20", "torch-lstm-16-16"),
    walkers=("keras-lstm-20", "torch-lstm-32"),
    symbols=("GOOG", "EURUSD"),
    walked=("GOOG", "EURUSD"),
    burst=("torch-lstm-24-24", "WAVES"),
    large=("torch-lstm-96", _LARGE_FAULTS[::2], ("seed", "cosine-decay", "batch-doubled")),
    rollouts=("sb3-lstm-16", "GOOG", 1),
    seeds=range(50),
    trainings=_Counts(fault=3, weak=6, steady=3, changing=6),
    backtests=_Counts(fault=2, weak=4, steady=6, changing=4),
    judge_only=False,
)
_JUDGE: Final = _Extent(
    shapes=("keras-gru-28", "torch-gru-20", "keras-lstm-18-10", "torch-gru-14-14", "keras-bilstm-14", "torch-lstm-28"),
    walkers=("torch-gru-20", "keras-gru-28", "torch-lstm-28"),
    symbols=("FOREX", "STOCKS", "FOREX", "STOCKS", "BTCUSD"),
    walked=("STOCKS", "FOREX"),
    burst=("torch-lstm-22-22", "SWELL"),
    large=("torch-gru-128", _LARGE_FAULTS, ("seed", "cosine-decay", "batch-doubled", "regime-calm-to-wild")),
    rollouts=("sb3-lstm-24", "STOCKS", 2),
    seeds=range(100, 200),
    trainings=_Counts(fault=6, weak=20, steady=4, changing=8),
    backtests=_Counts(fault=4, weak=10, steady=8, changing=8),
    judge_only=True,
)
_SB3_HEALTHY: Final = 3
"""Healthy runs of sb3 for one with each of its faults."""
_SB3_SEEDS: Final = {"develop": 50, "judge": 220}


def cases(split: Split, quick: bool = False) -> list[Case]:
    """The cases of a split; the quick ones are the first of a few faults and controls."""
    found = list(_cases(split, _DEVELOP if split == "develop" else _JUDGE))
    if quick:
        first = {(case.fault or case.control, case.kind): case for case in reversed(found) if case.framework == "torch"}
        found = list(first.values())[::8]
    return found


def _cases(split: Split, extent: _Extent) -> Iterator[Case]:
    for name, fault in FAULTS.items():
        if extent.judge_only or name not in JUDGE_ONLY:
            for kind in fault.strikes if fault.frameworks else ():
                counts = extent.trainings if kind == "training" else extent.backtests
                count = counts.weak if name in WEAK else counts.fault
                twice = 2 if fault.strikes == ("backtest",) else 1
                for number in range(count * twice):
                    yield _case(split, extent, kind, name, None, number)
    for name, control in CONTROLS.items():
        if split in control.splits:
            counts = extent.trainings if control.kind == "training" else extent.backtests
            for number in range(counts.changing if control.data == "changing" else counts.steady):
                yield _case(split, extent, control.kind, None, name, number)
    yield from _large(split, extent)
    yield from _rollouts(split, extent)


def _case(split: Split, extent: _Extent, kind: Kind, fault: str | None, control: str | None, number: int) -> Case:
    """A case by its number among those of its fault or control: how many there are of others changes nothing."""
    shapes = extent.shapes if kind == "training" else extent.walkers
    symbols = extent.symbols if kind == "training" else extent.walked
    shift = crc32(f"{fault or control} {kind}".encode())
    # Networks and symbols turn at different rates, so that every pair of them comes up.
    turn = number + shift
    shape, symbol = shapes[turn % len(shapes)], symbols[(turn // len(shapes) + turn) % len(symbols)]
    if control == "first-burst":
        shape, symbol = extent.burst
    seed = extent.seeds[turn % len(extent.seeds)]
    strike = 0.0 if fault and FAULTS[fault].from_the_start else _strike(turn)
    return Case(split, shape, symbol, seed, kind, fault, control, strike)


def _large(split: Split, extent: _Extent) -> Iterator[Case]:
    shape, faults, controls = extent.large
    for number, name in enumerate((*faults, *controls)):
        symbol, seed = extent.walked[number % len(extent.walked)], extent.seeds[number]
        fault, control = (name, None) if name in faults else (None, name)
        yield Case(split, shape, symbol, seed, "training", fault, control, _strike(number))


def _rollouts(split: Split, extent: _Extent) -> Iterator[Case]:
    shape, symbol, count = extent.rollouts
    seed = _SB3_SEEDS[split]
    for number in range(count * len(SB3_FAULTS)):
        name = SB3_FAULTS[number % len(SB3_FAULTS)]
        yield Case(split, shape, symbol, seed + number, "training", name, None, _strike(number))
    for number in range(count * _SB3_HEALTHY):
        yield Case(split, shape, symbol, seed + 30 + number, "training", None, "seed", _strike(number))


def _strike(number: int) -> float:
    """From 0.5 to 0.75, spread evenly whatever the numbers: multiples of the golden ratio."""
    return round(0.5 + 0.25 * (number * 0.618034 % 1), 3)

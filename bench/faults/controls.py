"""The healthy controls: how a run without a fault may differ from the usual one, and what its data do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from bench.faults import setups
from bench.faults.fault import Kind
from bench.faults.setups import Setup

Split = Literal["develop", "judge"]
Data = Literal["steady", "drifting", "changing"]
BOTH: Final[tuple[Split, ...]] = ("develop", "judge")


@dataclass(frozen=True)
class Control:
    """A kind of healthy run, in which no network alarm is right.

    Attributes:
        data: steady; drifting, as in a curriculum, where a notice that the data changed is neither right nor wrong; or
            changing at one step from one regime to another, where such a notice is right.
        kind: a training, or a backtest.
        setup: of the training, or the regimes of the backtest.
        splits: where it occurs.
    """

    data: Data = "steady"
    kind: Kind = "training"
    setup: Setup = field(default_factory=Setup)
    splits: tuple[Split, ...] = BOTH


def _steady(splits: tuple[Split, ...] = BOTH, **differs: object) -> Control:
    return Control(setup=Setup(**differs), splits=splits)  # type: ignore[arg-type]  # as Setup takes them


def _changing(order: setups.Order, kind: Kind, splits: tuple[Split, ...] = BOTH) -> Control:
    return Control("changing", kind, Setup(order=order), splits)


CONTROLS: Final[Mapping[str, Control]] = {
    "seed": _steady(),
    "batch-16": _steady(batch=16),
    "batch-64": _steady(batch=64),
    "batch-doubled": _steady(doubles=True),
    "sgd-momentum": _steady(("develop",), optimizer="sgd", rate=2e-2),
    "rmsprop": _steady(("develop",), optimizer="rmsprop", rate=1e-3),
    "nadam": _steady(("judge",), optimizer="nadam"),
    "amsgrad": _steady(("judge",), optimizer="amsgrad"),
    "adagrad": _steady(("judge",), optimizer="adagrad", rate=2e-2),
    "step-decay": _steady(schedule=setups.step_decay, rate=3e-3),
    "cosine-decay": _steady(schedule=setups.cosine_decay, rate=3e-3),
    "warm-up": _steady(schedule=setups.warm_up, rate=3e-3),
    "warm-restarts": _steady(schedule=setups.warm_restarts, rate=3e-3),
    "one-cycle": _steady(("judge",), schedule=setups.one_cycle, rate=5e-3),
    "dropout": _steady(dropout=0.2),
    "clipping": _steady(clip=0.1),
    "early-stopping": _steady(stops=0.7),
    "layer-norm": _steady(norm="layer"),
    "batch-norm": _steady(("judge",), norm="batch"),
    "first-burst": _steady(rate=1e-3),
    "curriculum": Control("drifting", setup=Setup(order="curriculum")),
    "regime-calm-to-wild": _changing("calm-to-wild", "training"),
    "regime-wild-to-calm": _changing("wild-to-calm", "training"),
    "regime-rising-to-falling": _changing("rising-to-falling", "training"),
    "regime-falling-to-rising": _changing("falling-to-rising", "training", ("judge",)),
    "regime-other-symbol": _changing("other-symbol", "training", ("judge",)),
    "episodes": Control(kind="backtest"),
    "calm-to-wild": _changing("calm-to-wild", "backtest"),
    "wild-to-calm": _changing("wild-to-calm", "backtest"),
    "rising-to-falling": _changing("rising-to-falling", "backtest", ("judge",)),
}
"""By the name that the table gives it. The network of `first-burst` learns little at first, and then much at once."""

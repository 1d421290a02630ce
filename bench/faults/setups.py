"""How a healthy training may be set up: its optimizer, its schedule, the order of its data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Optimizer = Literal["adam", "adamw", "rmsprop", "sgd", "nadam", "amsgrad", "adagrad"]
Order = Literal[
    "random",
    "curriculum",
    "calm-to-wild",
    "wild-to-calm",
    "rising-to-falling",
    "falling-to-rising",
    "other-symbol",
]


@dataclass(frozen=True)
class Setup:
    """How a healthy training may differ from the usual one.

    Attributes:
        optimizer: adam, adamw, rmsprop, sgd (with momentum), nadam, amsgrad (Adam with it) or adagrad; None for the
            usual one of the split.
        rate: the learning rate, the highest of its schedule.
        batch: samples of one.
        doubles: whether batches are twice as large from the case's `strike` on.
        schedule: share of the training that is over → share of the rate.
        dropout: of the inputs of the recurrent layers.
        norm: of the features before the first layer: layer or batch.
        clip: the largest norm of all gradients.
        order: how windows are drawn. At random; from the calmest on, ever more of them; or from one regime before the
            case's `strike` and from another one after it.
        stops: the share of the steps after which it is stopped, and the best weights restored.
    """

    optimizer: Optimizer | None = None
    rate: float = 2e-3
    batch: int = 32
    doubles: bool = False
    schedule: Callable[[float], float] | None = None
    dropout: float = 0.0
    norm: Literal["layer", "batch"] | None = None
    clip: float | None = None
    order: Order = "random"
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

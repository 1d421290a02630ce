"""The networks that are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Framework = Literal["keras", "torch", "sb3"]

CAPTURES: Final = 120
"""Of most runs, about."""
RISK_AVERSION: Final = 0.5
"""Of the quadratic utility (Markowitz 1959): who counts profit alone ends at a full position, whatever the prices."""


@dataclass(frozen=True)
class Shape:
    """A network and how it is trained.

    Attributes:
        framework: keras, torch or sb3.
        cell: LSTM or GRU.
        units: of each recurrent layer; torch's and sb3's are alike.
        length: bars of a window.
        loss: the negative utility of the profit, which is the profit less RISK_AVERSION times its square; or the mean
            squared error, the position taken for a prediction of the return.
        every: steps between two captures.
        bidirectional: both ways.
        captures: of a training, about.
        optimizer: adam or adamw, where the control does not choose another.
    """

    framework: Framework
    cell: Literal["LSTM", "GRU"] = "LSTM"
    units: tuple[int, ...] = (24,)
    length: int = 24
    loss: Literal["utility", "mse"] = "utility"
    every: int = 4
    bidirectional: bool = False
    captures: int = CAPTURES
    optimizer: Literal["adam", "adamw"] = "adam"


def _judged(framework: Framework, cell: Literal["LSTM", "GRU"], units: tuple[int, ...], **more: object) -> Shape:
    return Shape(framework, cell, units, optimizer="adamw", **more)  # type: ignore[arg-type]  # as Shape takes them


SHAPES: Final[dict[str, Shape]] = {
    # develop
    "keras-lstm-24-12": Shape("keras", "LSTM", (24, 12)),
    "keras-lstm-20": Shape("keras", "LSTM", (20,), every=5, loss="mse"),
    "torch-lstm-32": Shape("torch", "LSTM", (32,)),
    "torch-lstm-16-16": Shape("torch", "LSTM", (16, 16), every=3, loss="mse"),
    "torch-lstm-24-24": Shape("torch", "LSTM", (24, 24), loss="mse", captures=150),
    "torch-lstm-96": Shape("torch", "LSTM", (96,), every=3, captures=300),
    "sb3-lstm-16": Shape("sb3", "LSTM", (16,), every=1),
    # judge
    "keras-gru-28": _judged("keras", "GRU", (28,), length=20, every=5),
    "keras-lstm-18-10": _judged("keras", "LSTM", (18, 10), length=28, loss="mse"),
    "keras-bilstm-14": _judged("keras", "LSTM", (14,), length=20, bidirectional=True),
    "torch-gru-20": _judged("torch", "GRU", (20,), length=32, every=5),
    "torch-gru-14-14": _judged("torch", "GRU", (14, 14), length=20, loss="mse"),
    "torch-lstm-28": _judged("torch", "LSTM", (28,), length=16, every=3),
    "torch-lstm-22-22": _judged("torch", "LSTM", (22, 22), length=28, loss="mse", captures=150),
    "torch-gru-128": _judged("torch", "GRU", (128,), length=20, every=3, captures=400),
    "sb3-lstm-24": _judged("sb3", "LSTM", (24,), every=1),
}

"""The networks that are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Framework = Literal["keras", "torch", "sb3"]

CAPTURES: Final = 120
"""Of a run, about."""
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
    """

    framework: Framework
    cell: Literal["LSTM", "GRU"] = "LSTM"
    units: tuple[int, ...] = (24,)
    length: int = 24
    loss: Literal["utility", "mse"] = "utility"
    every: int = 4
    bidirectional: bool = False


SHAPES: Final[dict[str, Shape]] = {
    # develop
    "keras-lstm-24-12": Shape("keras", "LSTM", (24, 12)),
    "keras-lstm-20": Shape("keras", "LSTM", (20,), every=5, loss="mse"),
    "torch-lstm-32": Shape("torch", "LSTM", (32,)),
    "torch-lstm-16-16": Shape("torch", "LSTM", (16, 16), every=3, loss="mse"),
    # judge
    "keras-gru-28": Shape("keras", "GRU", (28,), length=20, every=5),
    "keras-lstm-18-10": Shape("keras", "LSTM", (18, 10), length=28, loss="mse"),
    "keras-bilstm-14": Shape("keras", "LSTM", (14,), length=20, bidirectional=True),
    "torch-gru-20": Shape("torch", "GRU", (20,), length=32, every=5),
    "torch-gru-14-14": Shape("torch", "GRU", (14, 14), length=20, loss="mse"),
    "torch-lstm-28": Shape("torch", "LSTM", (28,), length=16, every=3),
    "sb3-lstm-24": Shape("sb3", "LSTM", (24,), every=1),
}

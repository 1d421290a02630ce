"""The activation functions that a cell can be replayed with, by the names that Keras gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from gatewatch.collector.arrays import Array

Activation = Callable[[Array], Array]

# Klambauer et al. 2017, "Self-Normalizing Neural Networks".
_SELU_ALPHA: Final = 1.6732632423543772
_SELU_SCALE: Final = 1.0507009873554805


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + e^-x), through tanh: it cannot overflow."""
    y: Array = np.tanh(x * 0.5)
    y *= 0.5
    y += 0.5
    return y


def softplus(x: Array) -> Array:
    """Return log(1 + e^x)."""
    y: Array = np.logaddexp(x, x.dtype.type(0))
    return y


def hard_sigmoid(x: Array) -> Array:
    """Return relu6(x + 3) / 6, as Keras 3 and torch have it."""
    return np.clip(x / 6 + 0.5, 0, 1)


def elu(x: Array, alpha: float = 1.0) -> Array:
    """Return x above zero, alpha · (e^x − 1) below."""
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


ACTIVATIONS: Final[Mapping[str, Activation]] = {
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "hard_sigmoid": hard_sigmoid,
    "relu": lambda x: np.maximum(x, 0),  # NaN kept
    "linear": np.array,
    "elu": elu,
    "selu": lambda x: _SELU_SCALE * elu(x, _SELU_ALPHA),
    "softplus": softplus,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "silu": lambda x: x * sigmoid(x),
    "hard_silu": lambda x: x * hard_sigmoid(x),
    "exponential": np.exp,
    "relu6": lambda x: np.clip(x, 0, 6),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.2 * x),
    "mish": lambda x: x * np.tanh(softplus(x)),
    "log_sigmoid": lambda x: -softplus(-x),
    "hard_tanh": lambda x: np.clip(x, -1, 1),
}
"""Name → a function of an array of any shape, which it leaves as it is; the result has its shape and dtype."""

"""Real prices as a network is given them: windows of features, the return that follows, and the raw prices behind."""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float32]

FEATURES: Final = 4
LARGEST: Final = 5.0
"""Features and returns are cut off at so many of their recent standard deviations, as a careful pipeline does."""
_SPANS: Final = (1, 5, 20)
_SOURCES: Final = {
    "GOOG": ("backtesting.test", "GOOG"),
    "EURUSD": ("backtesting.test", "EURUSD"),
    "BTCUSD": ("backtesting.test", "BTCUSD"),
    "FOREX": ("gym_anytrading.datasets", "FOREX_EURUSD_1H_ASK"),
    "STOCKS": ("gym_anytrading.datasets", "STOCKS_GOOGL"),
}
"""Name → the package that ships the prices, and its name for them."""


@dataclass(frozen=True)
class Market:
    """Bars, oldest first.

    Attributes:
        known: (bars, FEATURES), what is known at each close, in units of its recent volatility.
        raw: (bars, FEATURES), the prices that `known` is made of.
        following: (bars,), the return after each, in units of its recent volatility.
        volatility: (bars,), of the returns, lately.
    """

    known: Array
    raw: Array
    following: Array
    volatility: Array

    def __len__(self) -> int:
        return len(self.known)


@dataclass(frozen=True)
class Windows:
    """Stretches of a market.

    Attributes:
        x, raw: (windows, length, FEATURES).
        y: (windows, 1), the return after each.
        volatility: (windows,), at its end.
    """

    x: Array
    raw: Array
    y: Array
    volatility: Array

    def __len__(self) -> int:
        return len(self.x)


@functools.cache
def market(symbol: str) -> Market:
    """The bars of a symbol."""
    module, name = _SOURCES[symbol]
    frame: Any = getattr(importlib.import_module(module), name)
    close, span = frame["Close"], np.log(frame["High"] / frame["Low"]).clip(1e-6)
    change = np.log(close).diff()
    deviation = change.ewm(halflife=20).std()
    scaled = change / deviation
    known = [scaled.ewm(span=lately).mean() for lately in _SPANS]
    known.append(np.log(span / span.ewm(halflife=20).mean()))
    raw = [*(close.ewm(span=lately).mean() for lately in _SPANS), frame["High"] - frame["Low"]]
    columns = [*known, *raw, scaled.shift(-1), change.rolling(20).std()]
    table = pd.concat(columns, axis=1)[20:-1].to_numpy("float64")
    finite = table[np.isfinite(table).all(axis=1)]
    return Market(
        known=finite[:, :FEATURES].clip(-LARGEST, LARGEST).astype("float32"),
        raw=finite[:, FEATURES : 2 * FEATURES].astype("float32"),
        following=finite[:, -2].clip(-LARGEST, LARGEST).astype("float32"),
        volatility=finite[:, -1].astype("float32"),
    )


def windows(bars: Market, length: int) -> Windows:
    """Every window of so many bars."""
    at = np.arange(len(bars) - length + 1)[:, None] + np.arange(length)
    ends = at[:, -1]
    return Windows(bars.known[at], bars.raw[at], bars.following[ends][:, None], bars.volatility[ends])

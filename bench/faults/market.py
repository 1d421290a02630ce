"""Prices as a network is given them: windows of features, the return that follows, and the raw prices behind."""

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
TREND: Final = 2
"""The feature that says whether prices have been rising: the mean return of the longest span."""
_SOURCES: Final = {
    "GOOG": ("backtesting.test", "GOOG", slice(None, "2010-12-31")),
    "EURUSD": ("backtesting.test", "EURUSD", slice("2017-09-01", None)),
    "BTCUSD": ("backtesting.test", "BTCUSD", slice(None)),
    "FOREX": ("gym_anytrading.datasets", "FOREX_EURUSD_1H_ASK", slice(None, "2017-08-31")),
    "STOCKS": ("gym_anytrading.datasets", "STOCKS_GOOGL", slice("2011-01-01", None)),
}
"""Name → the package that ships the prices, its name for them, and the days that are taken: those of the two packages
would overlap, and what is judged must be new."""
_SERIES: Final = {"WAVES": (0.5, -0.3, 1), "SWELL": (0.7, -0.45, 2)}
"""Name → two coefficients and a seed. Made up: a network learns hardly anything at first, and then most of it."""
_MADE_BARS: Final = 2_000


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

    def part(self, indices: NDArray[np.int64]) -> Windows:
        """Some of them."""
        return Windows(self.x[indices], self.raw[indices], self.y[indices], self.volatility[indices])


def prices(symbol: str) -> pd.DataFrame:
    """Return the bars of a symbol: Open, High, Low, Close and Volume, by time; of a made-up one its prices alone."""
    if symbol in _SERIES:
        return _made_up(*_SERIES[symbol])
    module, name, days = _SOURCES[symbol]
    frame: pd.DataFrame = getattr(importlib.import_module(module), name)
    return frame.set_axis(pd.to_datetime(frame.index, dayfirst=True)).loc[days]


@functools.cache
def market(symbol: str) -> Market:
    """The bars of a symbol."""
    frame: Any = prices(symbol)
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


def _made_up(first: float, second: float, seed: int) -> pd.DataFrame:
    """Make prices whose returns are an autoregressive process of second order."""
    random = np.random.default_rng(seed)
    change, noise = np.zeros(_MADE_BARS), random.normal(size=_MADE_BARS)
    for t in range(2, _MADE_BARS):
        change[t] = first * change[t - 1] + second * change[t - 2] + noise[t]
    close, spread = 100 * np.exp(np.cumsum(1e-3 * change)), 1e-3 * (1 + random.random(_MADE_BARS))
    return pd.DataFrame({"High": close * (1 + spread), "Low": close * (1 - spread), "Close": close})

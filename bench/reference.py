"""Compare backtests of real prices with a training: how often checks of the feed alarm, with the scaling and without.

`python -m bench.reference` prints a table. A training is batches of windows from one half of the bars of a symbol,
a backtest is windows or single bars from the other half; or the training is of the wildest tenth of the bars, and the
backtest of the calmest tenth. Each is judged with all 13 features and with 60 random choices of them, as they are and
with each column in the place of the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd

from bench.faults.market import Array, prices
from gatewatch.collector.feed.measures import FeedMeasures, FeedSample, measure_feed
from gatewatch.jobs.scoring.captures import Captures
from gatewatch.jobs.scoring.checks import reference, reference_looks
from gatewatch.jobs.scoring.checks.base import DATA, FEED
from gatewatch.jobs.scoring.references import feature_looks, feature_sizes

_SYMBOLS: Final = ("GOOG", "EURUSD", "BTCUSD")
_WINDOW, _BATCH, _BATCHES, _LOOKS, _BARS = 24, 32, 40, 60, 300
_FEATURES: Final = 13
_CHOICES: Final = 60
_STATISTICS: Final = ("mean", "std", "p01", "p99", "lag1")
_SMALLER: Final = 2.0
"""A lost scaling counts where it makes the median feature smaller by this factor."""


class _Backtest(NamedTuple):
    """A backtest, and the training that it is compared with.

    Attributes:
        what: "healthy", "calm" or "scaling lost".
        symbol: of the prices.
        looks: "windows" or "bars".
        training, phase: what was recorded of them.
    """

    what: str
    symbol: str
    looks: str
    training: Sequence[FeedMeasures]
    phase: Sequence[FeedMeasures]


def main() -> None:
    """Print how many backtests alarm."""
    counts: dict[tuple[str, str, str], list[int]] = {}
    random = np.random.default_rng(0)
    for backtest in _backtests(random):
        for columns in _choices(random, backtest):
            orders = {"": columns, "columns rolled": np.roll(columns, 1)}
            for what, order in orders.items() if backtest.what != "scaling lost" else [("", columns)]:
                count = counts.setdefault((what or backtest.what, backtest.looks, backtest.symbol), [0, 0])
                count[0] += _alarms(backtest, columns, order)
                count[1] += 1
    table = pd.DataFrame([(*key, f"{alarm} of {every}") for key, (alarm, every) in sorted(counts.items())])
    print(table.to_string(index=False, header=["backtest", "looks", "symbol", "alarm"]))


def _features(bars: pd.DataFrame) -> pd.DataFrame:
    """Return 13 features of bars that are usual in trading, none of them scaled."""
    close, high, low, opened = (bars[name] for name in ("Close", "High", "Low", "Open"))
    change = np.log(close).diff()
    span: Any = np.log(high / low)
    up, down = change.clip(0).ewm(span=14).mean(), (-change).clip(0).ewm(span=14).mean()
    table = {
        "return": change,
        "return of 5": change.ewm(span=5).mean(),
        "return of 20": change.ewm(span=20).mean(),
        "range": span,
        "volatility": change.rolling(20).std(),
        "momentum": np.log(close / close.shift(10)),
        "above mean": np.log(close / close.ewm(span=20).mean()),
        "strength": up / (up + down) - 0.5,
        "range's change": np.log(span.clip(1e-6)).diff(),
        "gap": np.log(opened / close.shift(1)),
        "drawdown": np.log(close / close.rolling(60).max()),
        "deviations": (close - close.rolling(20).mean()) / close.rolling(20).std(),
        "body": np.log(close / opened),
    }
    return pd.DataFrame(table).iloc[61:].replace([np.inf, -np.inf], np.nan).fillna(0.0)


def _scaled(raw: pd.DataFrame, trained: Any) -> dict[str, pd.DataFrame]:
    """Return the features as they are, and as three scalings make them."""
    part = raw.iloc[trained]
    spread = (part - part.median()).abs().median() + 1e-9
    return {
        "none": raw,
        "deviations": ((raw - part.mean()) / part.std()).clip(-10, 10),
        "robust": ((raw - part.median()) / spread).clip(-20, 20),
        "rolling": (raw / raw.ewm(halflife=50).std().bfill().clip(lower=1e-12)).clip(-5, 5),
    }


def _backtests(random: np.random.Generator) -> Iterator[_Backtest]:
    for symbol in _SYMBOLS:
        raw = _features(prices(symbol))
        ends = np.arange(_WINDOW, len(raw))
        order = np.argsort(raw["volatility"].to_numpy()[ends], kind="stable")
        few, half = len(ends) // 10, len(ends) // 2
        halves = [(ends[:half], ends[half + _WINDOW :]), (ends[half + _WINDOW :], ends[:half])]
        splits = [("healthy", *each) for each in halves] + [("calm", ends[order[-few:]], ends[order[:few]])]
        for what, trained, tested in splits:
            for scaling, features in _scaled(raw, trained).items():
                training = [_looked_at(features, random.choice(trained, _BATCH)) for _ in range(_BATCHES)]
                phases = (
                    {what: features} if scaling == "none" or what == "calm" else {what: features, "scaling lost": raw}
                )
                for name, fed in phases.items():
                    windows = [
                        _looked_at(fed, tested[[at]]) for at in np.linspace(0, len(tested) - 1, _LOOKS).astype(int)
                    ]
                    yield _Backtest(name, symbol, "windows", training, windows)
                    bars = [_looked_at(fed, np.array([end]), 1) for end in tested[:_BARS]]
                    yield _Backtest(name, symbol, "bars", training, bars)


def _looked_at(features: pd.DataFrame, ends: Any, length: int = _WINDOW) -> FeedMeasures:
    values: Array = features.to_numpy("float32")
    return measure_feed(FeedSample(np.stack([values[end - length + 1 : end + 1] for end in ends])))


def _choices(random: np.random.Generator, backtest: _Backtest) -> Iterator[Any]:
    """Yield the features that are looked at; of a lost scaling only those that it makes smaller."""
    count = len(backtest.training[0].features["mean"])
    every = [np.arange(count)] + [
        random.choice(count, random.integers(2, count + 1), replace=False) for _ in range(_CHOICES)
    ]
    sizes = [
        np.median(np.stack([np.hypot(one.features["mean"], one.features["std"]) for one in part]), axis=0)
        for part in (backtest.training, backtest.phase)
    ]
    for columns in every:
        with np.errstate(divide="ignore"):
            factor = np.median(sizes[0][columns] / sizes[1][columns])
        if backtest.what != "scaling lost" or factor > _SMALLER:
            yield columns


def _alarms(backtest: _Backtest, columns: Any, order: Any) -> bool:
    """Return whether any capture of a backtest alarms whose features come in some order."""
    training, phase = (
        {
            name: np.stack([one.features.get(name, np.full(_FEATURES, np.nan)) for one in part])[:, chosen]
            for name in _STATISTICS
        }
        for part, chosen in ((backtest.training, columns), (backtest.phase, order))
    )
    count, positions = len(backtest.phase), backtest.phase[0].stats["positions"]
    lag1, shape = training.pop("lag1"), [np.full(len(backtest.training), float(each)) for each in (_BATCH, _WINDOW)]
    captures = Captures(
        {"phase": "backtest"},
        np.arange(count),
        np.arange(count, dtype=float),
        *({}, {}, {}, {}),
        feed={"sequences": np.ones(count), "positions": np.full(count, float(positions))},
        features=phase,
        reference={**feature_sizes(**training), **feature_looks(training["mean"], training["std"], lag1, *shape)},
    )
    scores = [judge(captures).get((DATA, FEED), np.zeros(count)) for judge in _CHECKS]
    return bool((np.fmax.reduce(scores) > 1).any())


_CHECKS: Final = (
    *(check.judge for check in reference.CHECKS),
    *(check.judge for check in reference_looks.CHECKS),
)

if __name__ == "__main__":
    main()

"""Walk an LSTM trading policy bar by bar over prices that it has never seen: a backtest, then live.

The policy is trained on windows. A copy of it takes one bar at a time with a stateful LSTM, which keeps its state from
bar to bar, as in trading. Three lines are for Gatewatch, marked 1 to 3. The points have the time of the market, so
gates, price, position and equity can be drawn over the same axis.

    python examples/backtest.py --symbol EURUSD
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
warnings.filterwarnings("ignore", module="backtesting")

import keras
import pandas as pd
from backtesting import test as prices
from numpy.lib.stride_tricks import sliding_window_view

from gatewatch import GateMonitor
from gatewatch.collector.errors import GatewatchError

WINDOW = 24
COST = 0.01  # percent of what is bought or sold
FEATURES = ["change_1", "change_5", "change_20"]


def market(symbol: str) -> pd.DataFrame:
    """Return bars: the price at the close, its change in percent, and the features of the policy."""
    price = getattr(prices, symbol)["Close"]
    change = 100 * price.pct_change()
    scaled = change / change.ewm(halflife=20).std()
    features = {name: scaled.ewm(span=int(name.split("_")[1])).mean() for name in FEATURES}
    return pd.DataFrame({"price": price, "change": change, **features}).dropna()


def negative_profit(following, position):
    """Return the loss of each bar: minus the position (−1 to 1) times the next change, plus the cost of trading."""
    traded = position - keras.ops.pad(position[:, :-1], [[0, 0], [1, 0], [0, 0]])
    return -keras.ops.mean(position * following - COST * keras.ops.abs(traded))


def policy(units: int, bars: int, batch_size: int | None = None) -> keras.Model:
    """Build an LSTM with a position for each bar; with a batch size it keeps its state from call to call."""
    return keras.Sequential(
        [
            keras.Input((bars, len(FEATURES)), batch_size=batch_size),
            keras.layers.LSTM(units, return_sequences=True, stateful=batch_size is not None, name="memory"),
            keras.layers.Dense(1, activation="tanh", name="position"),
        ],
        name="policy",
    )


def trained(bars: pd.DataFrame, units: int, epochs: int) -> keras.Model:
    """Return the policy that takes one bar at a time, trained on these bars."""
    features = sliding_window_view(bars[FEATURES].to_numpy("float32")[:-1], WINDOW, axis=0).swapaxes(1, 2)
    change = bars["change"] - bars["change"].mean()  # without the drift, which being always long would earn
    following = sliding_window_view(change.to_numpy("float32")[1:], WINDOW)[..., None]
    of_windows, of_bars = policy(units, WINDOW), policy(units, 1, batch_size=1)
    of_windows.compile(keras.optimizers.Adam(3e-3), loss=negative_profit)
    of_windows.fit(features, following, batch_size=32, epochs=epochs, verbose=0)
    of_bars.set_weights(of_windows.get_weights())
    return of_bars


def walk(model: keras.Model, bars: pd.DataFrame, position: float, equity: float, **watch) -> tuple[float, float, str]:
    """Trade these bars from a position and an equity; return the last of both, and the name of the run."""
    memory = model.get_layer("memory")
    with GateMonitor(model, log_dir=None, **watch) as monitor:  # <-- 1
        for moment, bar in bars.iterrows():
            features = bar[FEATURES].to_numpy("float32")[None, None]
            state = [keras.ops.copy(part) for part in memory.states]  # <-- 2: the next line moves it on
            target = float(model(features)[0, 0, 0])
            equity *= 1 + (position * bar["change"] - COST * abs(target - position)) / 100
            position = target
            metrics = {"price": bar["price"], "position": position, "equity": equity}
            monitor.step(features, state=state, time=moment, metrics=metrics)  # <-- 3
    return position, equity, monitor.run


def main() -> int:
    """Train and walk by the arguments, and print what to type next."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="name of the run (default: a new one)")
    parser.add_argument("--symbol", choices=["GOOG", "EURUSD", "BTCUSD"], default="GOOG", help="prices to trade")
    parser.add_argument("--store", help="where the points go: sqlite:///file.db or http://host:8086")
    parser.add_argument("--units", type=int, default=16, help="units of the LSTM (default: 16)")
    parser.add_argument("--epochs", type=int, default=3, help="epochs to train (default: 3)")
    parser.add_argument(
        "--bars", type=int, default=250, help="bars to walk, the newest; at most two thirds (default: 250)"
    )
    parser.add_argument("--live", type=int, default=50, help="how many of these, at the end, are live (default: 50)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(arguments.seed)
    bars = market(arguments.symbol)
    begin = len(bars) - min(arguments.bars, len(bars) * 2 // 3)
    live = max(begin, len(bars) - arguments.live)
    watch = {"store": arguments.store, "every": 1, "tags": {"symbol": arguments.symbol}}
    try:
        model = trained(bars[:begin], arguments.units, arguments.epochs)
        *held, run = walk(model, bars[begin:live], 0.0, 100.0, run=arguments.run, phase="backtest", **watch)
        walk(model, bars[live:], *held, run=run, phase="live", **watch)
    except GatewatchError as error:
        print(f"backtest: {error}", file=sys.stderr)
        return 2
    store = f" --store {shlex.quote(arguments.store)}" if arguments.store else ""
    commands = ("runs", "jobs --once", f"report {shlex.quote(run)}")
    print("Next  ", "\n       ".join(f"gatewatch {command}{store}" for command in commands))
    return 0


if __name__ == "__main__":
    sys.exit(main())

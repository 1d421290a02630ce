"""Train an LSTM trading policy in a custom loop, and watch its gates on training prices and on held-out prices.

The loop never calls `fit`: it takes the gradient of the profit with `tf.GradientTape`. Three lines of it are
for Gatewatch, marked 1 to 3. A second monitor of the same run captures the same network on prices that it is not
trained on, as the phase `validation`: where the two diverge, the network overfits.

    python examples/custom_loop.py --symbol EURUSD
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
import numpy as np
import pandas as pd
import tensorflow as tf
from backtesting import test as prices
from numpy.lib.stride_tricks import sliding_window_view

from gatewatch import GateMonitor
from gatewatch.collector.errors import GatewatchError

WINDOW = 24
COST = 0.01  # percent of what is bought or sold
SPANS = (1, 5, 20)


def market(symbol: str) -> tuple[np.ndarray, np.ndarray]:
    """Return windows (samples, WINDOW, 3) of features at each close, and the next change of the price in percent."""
    change = 100 * getattr(prices, symbol)["Close"].pct_change()
    scaled = change / change.ewm(halflife=20).std()
    known = pd.concat([scaled.ewm(span=span).mean() for span in SPANS], axis=1)
    known, following = known[2:-1].to_numpy("float32"), change[3:].to_numpy("float32")
    return sliding_window_view(known, WINDOW, axis=0).swapaxes(1, 2), sliding_window_view(following, WINDOW)[..., None]


def negative_profit(position, following):
    """Return the loss of each bar: minus the position (−1 to 1) times the next change, plus the cost of trading."""
    traded = position - tf.pad(position[:, :-1], [[0, 0], [1, 0], [0, 0]])
    return -tf.reduce_mean(position * following - COST * tf.abs(traded))


def train(arguments: argparse.Namespace) -> str:
    """Train the policy and return the name of its run."""
    keras.utils.set_random_seed(arguments.seed)
    policy = keras.Sequential(
        [
            keras.Input((WINDOW, len(SPANS))),
            keras.layers.LSTM(arguments.units, return_sequences=True, name="memory"),
            keras.layers.Dense(1, activation="tanh", name="position"),
        ],
        name="policy",
    )
    policy.compile(keras.optimizers.Adam(3e-3))  # so that the monitor finds the optimizer, and with it the gradients

    @tf.function
    def update(known, following):
        with tf.GradientTape() as tape:
            loss = negative_profit(policy(known, training=True), following)
        gradients = tape.gradient(loss, policy.trainable_variables)
        policy.optimizer.apply_gradients(zip(gradients, policy.trainable_variables, strict=True))
        return loss

    x, y = market(arguments.symbol)
    split = int(len(x) * 0.75)
    held_out = slice(split + WINDOW, None)  # no bar of these is in a window before `split`
    watch = {"store": arguments.store, "every": arguments.every, "tags": {"symbol": arguments.symbol}}
    monitor = GateMonitor(policy, probe=x[split - 16 : split], run=arguments.run, **watch)  # <-- 1
    validation = GateMonitor(policy, log_dir=None, probe=x[held_out][:16], run=monitor.run, phase="validation", **watch)
    random = np.random.default_rng(arguments.seed)
    with monitor, validation:
        for _ in range(arguments.epochs):
            for _ in range(arguments.batches):
                batch = random.integers(split, size=32)
                loss = update(x[batch], y[batch])
                monitor.step(metrics={"loss": loss})  # <-- 2
                validation.step()
            val_loss = negative_profit(policy(x[held_out]), y[held_out])
            monitor.end_epoch({"val_loss": val_loss})  # <-- 3
            validation.end_epoch()
    return monitor.run


def main() -> int:
    """Train by the arguments, and print what to type next."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="name of the run (default: a new one)")
    parser.add_argument("--symbol", choices=["GOOG", "EURUSD", "BTCUSD"], default="GOOG", help="prices to trade")
    parser.add_argument("--store", help="where the points go: sqlite:///file.db or http://host:8086")
    parser.add_argument("--units", type=int, default=16, help="units of the LSTM (default: 16)")
    parser.add_argument("--epochs", type=int, default=8, help="epochs to train (default: 8)")
    parser.add_argument("--batches", type=int, default=25, help="batches in an epoch (default: 25)")
    parser.add_argument("--every", type=int, default=2, help="batches between two captures (default: 2)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    try:
        run = train(arguments)
    except GatewatchError as error:
        print(f"custom_loop: {error}", file=sys.stderr)
        return 2
    store = f" --store {shlex.quote(arguments.store)}" if arguments.store else ""
    commands = ("runs", "jobs --once", f"report {shlex.quote(run)}")
    print("Next  ", "\n       ".join(f"gatewatch {command}{store}" for command in commands))
    return 0


if __name__ == "__main__":
    sys.exit(main())

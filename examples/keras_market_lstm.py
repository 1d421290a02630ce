"""Train an LSTM trading policy on real prices with Keras, and watch its gates.

The policy holds a position between −1 (short) and 1 (long) in one asset. It is trained by direct reinforcement (Moody
and Saffell 2001): the loss is the negative profit after costs, so no labels are needed. `--fault forget-shut` drives
the forget gates of its first layer shut for the last third of the training, as a bad initialisation or a runaway
bias would; the monitor does not know about it.

    python examples/keras_market_lstm.py --run goog-1
    gatewatch view --open    # in a second terminal
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
warnings.filterwarnings("ignore", module="backtesting")

import keras
import numpy as np
from backtesting import test as prices

from gatewatch import GateMonitor
from gatewatch.collector.errors import GatewatchError

WINDOW = 32
COST = 1e-4
BATCHES = 650  # of a training, about
CAPTURES = 160  # of a training, about: enough to learn what is normal and to see what is not


def market(symbol: str) -> tuple[np.ndarray, np.ndarray]:
    """Return windows of features (samples, WINDOW, 4) and the next return of each, in units of its volatility."""
    frame = getattr(prices, symbol)
    close = frame["Close"].to_numpy()
    returns = np.diff(np.log(close))
    span = np.log(frame["High"] / frame["Low"]).to_numpy()[1:]
    series = np.stack(
        [
            returns,
            np.abs(returns),
            span,
            np.log(close[1:]) - np.log(frame["Close"].rolling(20, 1).mean().to_numpy()[1:]),
        ],
        axis=1,
    )
    series = (series - series.mean(axis=0)) / series.std(axis=0)
    starts = np.arange(len(series) - WINDOW)
    windows = series[starts[:, None] + np.arange(WINDOW)]
    return windows.astype("float32"), (returns[starts + WINDOW] / returns.std()).astype("float32")[:, None]


def negative_profit(following_return, position):
    """Return the loss of the position on the next return, costs included."""
    return -keras.ops.mean(position * following_return - COST * keras.ops.abs(position))


def policy(seed: int) -> keras.Model:
    """Build two LSTM layers with a position between −1 and 1."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((WINDOW, 4)),
            keras.layers.LSTM(32, return_sequences=True, name="memory"),
            keras.layers.LSTM(16, name="decision"),
            keras.layers.Dense(1, activation="tanh", name="position"),
        ],
        name="policy",
    )
    model.compile(keras.optimizers.Adam(1e-3), loss=negative_profit)
    return model


class ForgetGatesShut(keras.callbacks.Callback):
    """Put in the fault: from an epoch on, drive the forget gates of a layer shut and hold them there."""

    def __init__(self, layer: str, from_epoch: int) -> None:
        super().__init__()
        self.layer, self.from_epoch, self.on = layer, from_epoch, False

    def on_epoch_begin(self, epoch, logs=None):
        """Switch the fault on."""
        self.on = epoch >= self.from_epoch

    def on_train_batch_begin(self, batch, logs=None):
        """Hold the forget gates' bias far below zero."""
        if self.on:
            cell = self.model.get_layer(self.layer).cell
            bias = keras.ops.convert_to_numpy(cell.bias).copy()
            bias[cell.units : 2 * cell.units] = -8.0
            cell.bias.assign(bias)


class Progress(keras.callbacks.Callback):
    """Print one line of progress on a terminal, and nothing in a pipe."""

    def __init__(self, run: str, epochs: int) -> None:
        super().__init__()
        self.run, self.epochs = run, epochs

    def on_epoch_end(self, epoch, logs=None):
        """Redraw the bar."""
        if sys.stderr.isatty():
            done = (epoch + 1) * 30 // self.epochs
            end = "\n" if epoch + 1 == self.epochs else ""
            bar = "█" * done + "·" * (30 - done)
            print(
                f"\r  training {self.run:<14} {bar} epoch {epoch + 1}/{self.epochs}",
                end=end,
                file=sys.stderr,
                flush=True,
            )


def train(arguments: argparse.Namespace, run: str | None, fault: str) -> str:
    """Train one policy and return the name of its run."""
    windows, following = market(arguments.symbol)
    split = int(len(windows) * 0.8)
    batch_size = min(64, max(8, split // 25))
    batches = -(-split // batch_size)
    epochs = arguments.epochs or max(3, round(BATCHES / batches))
    model = policy(arguments.seed)
    monitor = GateMonitor(
        log_dir=Path(arguments.log_dir, run or "") if arguments.log_dir else None,
        run=run,
        store=arguments.store,
        probe=windows[max(0, split - 32) : split],
        every=arguments.every or max(1, batches * epochs // CAPTURES),
        tags={"symbol": arguments.symbol},
    )
    callbacks = [monitor, Progress(monitor.run, epochs)]
    if fault == "forget-shut":
        callbacks.insert(0, ForgetGatesShut("memory", epochs * 2 // 3))
    model.fit(
        windows[:split],
        following[:split],
        validation_data=(windows[split:], following[split:]),
        batch_size=batch_size,
        epochs=epochs,
        callbacks=callbacks,
        verbose=0,
    )
    return monitor.run


def main() -> int:
    """Train once or twice, by the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="name of the run (default: a new one)")
    parser.add_argument("--symbol", choices=["GOOG", "EURUSD", "BTCUSD"], default="GOOG", help="prices to trade")
    parser.add_argument(
        "--store", help="where the points go: sqlite:///file.db or http://host:8086 (default: as configured)"
    )
    parser.add_argument("--log-dir", default="gate_logs", help="folder of the gate_epoch files; empty for none")
    parser.add_argument("--epochs", type=int, help=f"epochs to train (default: about {BATCHES} batches in all)")
    parser.add_argument(
        "--every", type=int, help=f"batches between two captures (default: about {CAPTURES} captures in all)"
    )
    parser.add_argument("--fault", choices=["none", "forget-shut", "both"], default="none", help="both: a run of each")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    try:
        if arguments.fault == "both":
            name = arguments.run or "demo"
            train(arguments, f"{name}-healthy", "none")
            train(arguments, f"{name}-fault", "forget-shut")
        else:
            print(train(arguments, arguments.run, arguments.fault))
    except GatewatchError as error:
        print(f"keras_market_lstm: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

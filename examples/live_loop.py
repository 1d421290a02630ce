"""Train an LSTM on real prices and watch it in the same script: sample, analyse, detect, alert, draw, wait.

The training runs in its own thread. Meanwhile `watch_run` scores each new capture, sends a mail when a metric crosses
its threshold, and rewrites the report, which a browser reloads. For many runs at once, or on machines that restart, use
the service, `gatewatch jobs`.

    python examples/live_loop.py --symbol GOOG --mail you@example.org
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
warnings.filterwarnings("ignore", module="backtesting")

import keras
import numpy as np
from backtesting import test as prices
from numpy.lib.stride_tricks import sliding_window_view

from gatewatch import GateMonitor, open_store
from gatewatch.collector.errors import GatewatchError
from gatewatch.jobs.alerts import AlertManager
from gatewatch.jobs.loop import watch_run

WINDOW = 24
THRESHOLDS = {"anomaly_score": 1.5, "saturation": 0.9, "gradient_norm": 10.0, "nan_count": 0}


def market(symbol: str) -> tuple[np.ndarray, np.ndarray]:
    """Return windows (samples, WINDOW, 2) of scaled changes and their size, and the next change of each."""
    change = getattr(prices, symbol)["Close"].pct_change()
    scaled = (change / change.ewm(halflife=20).std())[2:].to_numpy("float32")
    windows = sliding_window_view(scaled[:-1], WINDOW)
    return np.stack([windows, np.abs(windows)], axis=-1), scaled[WINDOW:, None]


def policy(seed: int) -> keras.Model:
    """Build an LSTM with a position between −1 and 1, to be trained for profit."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((WINDOW, 2)),
            keras.layers.LSTM(16, name="memory"),
            keras.layers.Dense(1, activation="tanh", name="position"),
        ],
        name="policy",
    )
    model.compile("adam", loss=lambda following, position: -keras.ops.mean(position * following))
    return model


def train_and_watch(arguments: argparse.Namespace) -> None:
    """Train in a thread, and watch until the last capture is scored."""
    x, y = market(arguments.symbol)
    model, store = policy(arguments.seed), open_store(arguments.store)
    alerts = AlertManager(arguments.mail, THRESHOLDS) if arguments.mail else None
    monitor = GateMonitor(
        run=arguments.run,
        store=arguments.store,
        probe=x[-32:],
        every=arguments.capture_every,
        tags={"symbol": arguments.symbol},
    )
    options = {"batch_size": 32, "epochs": arguments.epochs, "callbacks": [monitor], "verbose": 0}
    training = threading.Thread(target=model.fit, args=(x, y), kwargs=options)
    report = Path(arguments.report)
    print(f"watching {monitor.run}: open {report.resolve().as_uri()}", flush=True)
    training.start()
    try:
        watched = watch_run(
            store,
            monitor.run,
            every=arguments.every,
            alerts=alerts,
            report=report,
            until=lambda: not training.is_alive(),
        )
    finally:
        model.stop_training = True  # where it was Ctrl-C that ended the watching, it ends the training too
        training.join()
    print(f"{watched.scored:,} scores in {watched.turns} turns, {watched.anomalous:,} of them above 1")


def main() -> int:
    """Train and watch by the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="name of the run (default: a new one)")
    parser.add_argument("--symbol", choices=["GOOG", "EURUSD", "BTCUSD"], default="GOOG", help="prices to trade")
    parser.add_argument("--store", help="where the points go: sqlite:///file.db or http://host:8086")
    parser.add_argument("--epochs", type=int, default=20, help="epochs to train (default: 20)")
    parser.add_argument("--capture-every", type=int, default=4, help="batches between captures (default: 4)")
    parser.add_argument("--every", type=float, default=3, help="seconds between two passes of scoring (default: 3)")
    parser.add_argument("--report", default="live.html", help="file of the report (default: live.html)")
    parser.add_argument("--mail", help="address to mail alerts to, over the server in [mail] of gatewatch.toml")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    try:
        train_and_watch(arguments)
    except GatewatchError as error:
        print(f"live_loop: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

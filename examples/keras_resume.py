"""Train with Keras's BackupAndRestore: started again after a crash, the script goes on with its training and its run.

    python examples/keras_resume.py    # kill it, and start it again

`resume=True` is all that Gatewatch needs for that.
"""

from __future__ import annotations

import warnings

warnings.filterwarnings("ignore", module="backtesting")

import keras
import numpy as np
from backtesting.test import GOOG

from gatewatch import GateMonitor

WINDOW = 24


def main() -> None:
    """Train, or go on."""
    changes = 100 * GOOG["Close"].pct_change().to_numpy("float32")[1:]
    windows = np.lib.stride_tricks.sliding_window_view(changes, WINDOW + 1)
    x, y = windows[:, :WINDOW, None], windows[:, WINDOW:]
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((WINDOW, 1)), keras.layers.LSTM(8, name="memory"), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    callbacks = [
        GateMonitor(run="keras-resume", probe=x[:32], every=5, resume=True),
        keras.callbacks.BackupAndRestore("keras-backup"),  # weights, optimizer and epoch, after each epoch
    ]
    model.fit(x, y, batch_size=128, epochs=6, verbose=2, callbacks=callbacks)


if __name__ == "__main__":
    main()

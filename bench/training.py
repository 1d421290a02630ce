"""What watching costs: CPU time of the same Keras training bare, watched, and with what people use otherwise.

    python bench/training.py

Two LSTM layers (128 and 64 units), batches of 64 sequences of 64 steps, 100 steps an epoch; the probe holds 32
sequences. The variants take turns, so that a machine that slows down slows all of them; what is printed is the median
over the rounds of the ratio to the bare training of the same round. CPU time is that of the whole process, all
threads, so work that is moved to another thread counts too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import keras
import numpy as np

from collector import GateMonitor

STEPS, BATCH, LENGTH, FEATURES, PROBE = 100, 64, 64, 8, 32


class EagerForward(keras.callbacks.Callback):
    """What a monitor would cost that calls the model itself: one eager forward pass of the probe every 10 batches."""

    def __init__(self, probe):
        super().__init__()
        self.probe = keras.ops.convert_to_tensor(probe)

    def on_train_batch_end(self, batch, logs=None):
        """Call the model."""
        if batch % 10 == 0:
            self.model(self.probe, training=False)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="epochs of one training")
    arguments = parser.parse_args()

    random = np.random.default_rng(0)
    x = random.normal(size=(STEPS * BATCH, LENGTH, FEATURES)).astype("float32")
    y = random.normal(size=(len(x), 1)).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((LENGTH, FEATURES)),
            keras.layers.LSTM(128, return_sequences=True),
            keras.layers.LSTM(64),
            keras.layers.Dense(1),
        ]
    )
    model.compile("adam", "mse")
    model.fit(x[: BATCH * 5], y[: BATCH * 5], batch_size=BATCH, verbose=0)

    with tempfile.TemporaryDirectory() as folder:
        fresh = (Path(folder) / str(number) for number in range(10**6))

        def monitor(**options) -> keras.callbacks.Callback:
            place = next(fresh)
            return GateMonitor(log_dir=place, store=f"sqlite:///{place}.db", probe=x[:PROBE], **options)

        def tensorboard() -> keras.callbacks.Callback:
            return keras.callbacks.TensorBoard(str(next(fresh)), histogram_freq=1, update_freq="batch")

        variants: dict[str, Callable[[], list[keras.callbacks.Callback]]] = {
            "bare": lambda: [],
            "GateMonitor, defaults": lambda: [monitor()],
            "GateMonitor, every 10th batch": lambda: [monitor(every=10)],
            "TensorBoard, histograms and batch scalars": lambda: [tensorboard()],
            "eager forward pass, every 10th batch": lambda: [EagerForward(x[:PROBE])],
        }
        ratios: dict[str, list[float]] = {name: [] for name in variants}
        seconds: dict[str, list[float]] = {name: [] for name in variants}
        for number in range(arguments.rounds):
            for name, callbacks in variants.items():
                if sys.stderr.isatty():
                    print(f"\r  round {number + 1} of {arguments.rounds}: {name:<45}", end="", file=sys.stderr)
                added = callbacks()
                begin = time.process_time()
                model.fit(x, y, batch_size=BATCH, epochs=arguments.epochs, callbacks=added, verbose=0)
                seconds[name].append(time.process_time() - begin)
                ratios[name].append(seconds[name][-1] / seconds["bare"][-1])
        if sys.stderr.isatty():
            print(file=sys.stderr)

    print(f"CPU of {arguments.epochs} epochs of {STEPS} steps, {arguments.rounds} rounds")
    print(f"{'':<45}{'CPU s':>8}{'ratio':>8}{'lowest':>8}{'highest':>8}")
    for name in variants:
        low, high = min(ratios[name]), max(ratios[name])
        print(
            f"{name:<45}{statistics.median(seconds[name]):>8.1f}{statistics.median(ratios[name]):>8.3f}"
            f"{low:>8.3f}{high:>8.3f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What watching costs in Keras: CPU time of the same training bare, watched, and with what people use otherwise.

    python -m bench.keras_training

Two LSTM layers (128 and 64 units), batches of 64 sequences of 64 steps, 100 steps an epoch; the probe holds 32
sequences. CPU time is that of the whole process, all threads, so work that is moved to another thread counts too.
TensorFlow computes in one thread: several spin while they wait for each other, and CPU time then tells what else the
machine is doing.
"""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import keras
import numpy as np
import tensorflow as tf

from bench.rounds import cpu_rounds, extent, place, show
from gatewatch import GateMonitor
from gatewatch.collector.capture_schedule import Every

BATCH, LENGTH, FEATURES, PROBE = 64, 64, 8, 32
STEPS, EPOCHS = 100, 3
QUICK_STEPS = 10


class EagerForward(keras.callbacks.Callback):
    """What a monitor would cost that calls the model itself: one eager forward pass of the probe every 10 batches."""

    def __init__(self, probe: np.ndarray) -> None:
        super().__init__()
        self.probe = keras.ops.convert_to_tensor(probe)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Call the model."""
        if batch % 10 == 0:
            self.model(self.probe, training=False)


class Training:
    """The model and its data.

    Args:
        steps: of an epoch.
    """

    def __init__(self, steps: int) -> None:
        random = np.random.default_rng(0)
        self.x = random.normal(size=(steps * BATCH, LENGTH, FEATURES)).astype("float32")
        self.y = random.normal(size=(len(self.x), 1)).astype("float32")
        self.model = keras.Sequential(
            [
                keras.Input((LENGTH, FEATURES)),
                keras.layers.LSTM(128, return_sequences=True),
                keras.layers.LSTM(64),
                keras.layers.Dense(1),
            ]
        )
        self.model.compile("adam", "mse")
        self.fit(1)  # compiles the step

    def fit(self, epochs: int, *callbacks: keras.callbacks.Callback) -> None:
        """Train."""
        self.model.fit(self.x, self.y, batch_size=BATCH, epochs=epochs, callbacks=list(callbacks), verbose=0)


def main() -> None:
    """Measure and print."""
    asked = extent(__doc__)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    steps, epochs = (QUICK_STEPS, 1) if asked.quick else (STEPS, EPOCHS)
    training = Training(steps)
    probe = training.x[:PROBE]
    with place() as here:

        def watched(every: Every = "auto") -> None:
            training.fit(epochs, GateMonitor(probe=probe, **here.options(), every=every))

        def tensorboard() -> None:
            folder = str(here.fresh())
            training.fit(epochs, keras.callbacks.TensorBoard(folder, histogram_freq=1, update_freq="batch"))

        variants = {
            "bare": lambda: training.fit(epochs),
            "GateMonitor, defaults": watched,
            "GateMonitor, every 10th batch": lambda: watched(every=10),
            "TensorBoard, histograms each epoch, scalars each batch": tensorboard,
            "eager forward pass, every 10th batch": lambda: training.fit(epochs, EagerForward(probe)),
        }
        title = f"Keras {keras.__version__} on {keras.backend.backend()}: CPU time of {epochs * steps} steps"
        show(title, "CPU s", cpu_rounds(variants, asked.rounds))


if __name__ == "__main__":
    main()

"""What a look at the probe and `probe_loss` add to a capture: CPU time of captured steps, with and without, in turns.

    python -m bench.probe_loss torch
    python -m bench.probe_loss keras

A window is what a backtest looks at; there the probe takes a second look, whose call gives its loss too.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

import numpy as np

from gatewatch.collector.store import open_store

SEQUENCES, TIME, FEATURES, UNITS = 32, 64, 8, (128, 64)
CAPTURES, ROUNDS = 16, 3
_RANDOM: Final = np.random.default_rng(0)
X: Final = _RANDOM.normal(size=(SEQUENCES, TIME, FEATURES)).astype("float32")
Y: Final = _RANDOM.normal(size=(SEQUENCES, 1)).astype("float32")


def torch_monitor(**options: Any) -> tuple[Any, Any]:
    """Return a monitor of a torch module of two layers, and a window for it."""
    torch, monitor = import_module("torch"), import_module("gatewatch.torch").GateMonitor
    nn = torch.nn
    torch.set_num_threads(1)

    class Net(nn.Module):  # type: ignore[misc,name-defined]  # imported where it runs
        def __init__(self) -> None:
            super().__init__()
            self.lower = nn.LSTM(FEATURES, UNITS[0], batch_first=True)
            self.upper = nn.LSTM(UNITS[0], UNITS[1], batch_first=True)
            self.head = nn.Linear(UNITS[1], 1)

        def forward(self, x: Any) -> Any:
            return self.head(self.upper(self.lower(x)[0])[0][:, -1])

    if "probe_targets" in options:
        options |= {"loss": nn.functional.mse_loss, "probe_targets": torch.tensor(Y)}
    x = torch.tensor(X)
    return monitor(Net(), None, **{"probe": x, "every": 1, **options}), x


def keras_monitor(**options: Any) -> tuple[Any, Any]:
    """Return a monitor of a Keras model of two layers, and a window for it."""
    keras, monitor = import_module("keras"), import_module("gatewatch").GateMonitor
    lower, upper = (keras.layers.LSTM(units, return_sequences=units == UNITS[0]) for units in UNITS)
    model = keras.Sequential([keras.Input(X.shape[1:]), lower, upper, keras.layers.Dense(1)])
    model.compile("adam", "mse")
    return monitor(model, None, **{"probe": X, "every": 1, **options}), X


def capture_ms(make: Any, options: Mapping[str, Any], *, window: bool) -> float:
    """Return the median CPU time of a captured step in milliseconds, of this thread, without the first five."""
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"sqlite:///{folder}/g.db")
        monitor, x = make(store=store, phase="backtest", **options)
        with monitor:
            for _ in range(CAPTURES):
                before = time.thread_time()
                monitor.step(x if window else None)
                seconds.append(time.thread_time() - before)
        store.close()
    return 1000 * statistics.median(seconds[5:])


def main() -> None:
    """Print the medians over the rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("framework", choices=("torch", "keras"))
    make = {"torch": torch_monitor, "keras": keras_monitor}[parser.parse_args().framework]
    targets = {"probe_targets": Y}
    variants: dict[str, tuple[dict[str, Any], bool]] = {"probe": ({}, False), "probe with targets": (targets, False)}
    variants |= {"window": ({"probe": None}, True), "window and probe": ({}, True)}
    variants |= {"window, and a probe with targets": (targets, True)}
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(ROUNDS):
        for name, (options, window) in variants.items():
            times[name].append(capture_ms(make, options, window=window))
    for name, each in times.items():
        print(f"{name:34} {statistics.median(each):7.2f} ms  (lowest {min(each):.2f}, highest {max(each):.2f})")


if __name__ == "__main__":
    main()

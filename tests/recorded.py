"""Runs that nobody trained: what a monitor would have written of them, capture by capture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.capture import gate_points
from gatewatch.collector.schema import LAYER_UPDATES, RUNS, TRAIN_METRICS, Point
from gatewatch.collector.store import Store

Array = NDArray[np.floating[Any]]
Change = Callable[[int, str, Array], Array]
"""What becomes of a gate's values at a capture: number, gate, (batch, time, units) → the same shape."""

SECOND = 10**9
BEGIN = 1_700_000_000 * SECOND
GATES = ("forget", "input")
PARAMS = ("kernel", "recurrent", "bias")


class Captured:
    """A layer as an adapter gives it."""

    mask = None

    def __init__(self, gates: Mapping[str, Array]) -> None:
        self.gates = gates


def moment(number: int) -> int:
    """When a capture was taken, nanoseconds since the Unix epoch."""
    return BEGIN + number * SECOND


def recorded(
    count: int,
    first: int = 0,
    *,
    run: str = "r",
    phase: str = "train",
    tags: Mapping[str, str] | None = None,
    layers: Sequence[str] = ("memory",),
    gates: Sequence[str] = GATES,
    params: Sequence[str] = PARAMS,
    loss: bool = True,
    seed: int = 0,
    change: Change | None = None,
    at: Callable[[int], int] = moment,
) -> Iterator[list[Point]]:
    """The points of this many captures of a network that learns, one list per capture, in the order of writing.

    Those of one capture are the same whoever asks, and in whatever pieces.

    Args:
        count: how many captures.
        first: the number of the first.
        run, phase, tags: as a monitor has them.
        layers, gates, params: of the network; without params nothing is said of updates.
        loss: whether a loss and a learning rate are logged.
        seed: another one is another training of the same network.
        change: makes a fault of some captures.
        at: the time of a capture.
    """
    named = {"run": run, "phase": phase, **(tags or {})}
    for k in range(first, first + count):
        random = np.random.default_rng([seed, k])
        learned, time = 1 - np.exp(-k / 60), at(k)
        points = [Point(RUNS, named, {"event": "heartbeat" if k else "started", "step": k}, time)]
        for layer in layers:
            for param in params:
                norms = {"gradient_norm": 0.1, "gradient_norm_clipped": 0.1, "weight_norm": 3.0, "update_ratio": 1e-3}
                fields = {name: value * float(random.lognormal(0, 0.1)) for name, value in norms.items()}
                counts = {"nan_count": 0, "inf_count": 0, "step": k}
                points.append(Point(LAYER_UPDATES, {**named, "layer": layer, "param": param}, fields | counts, time))
        values: dict[str, Captured] = {}
        for layer in layers:
            found = {}
            for number, gate in enumerate(gates):
                means = 0.4 + 0.05 * number + 0.2 * learned + np.linspace(-0.1, 0.1, 4)
                found[gate] = (means + random.normal(0, 0.02, 4) + random.normal(0, 0.1, (2, 5, 4))).clip(0, 1)
                if change is not None:
                    found[gate] = change(k, gate, found[gate])
            values[layer] = Captured(found)
        points += gate_points(values, named, time, k, 0)
        if loss:
            logged = {"loss": float(1 - 0.5 * learned + random.normal(0, 0.02)), "learning_rate": 1e-3}
            points.append(Point(TRAIN_METRICS, named, {**logged, "step": k, "epoch": 0}, time + 1000))
        yield points


def fill(store: Store, captures: Iterable[list[Point]]) -> None:
    """Write the points of captures."""
    store.write(point for capture in captures for point in capture)


def end(store: Store, run: str = "r", phase: str = "train", tags: Mapping[str, str] | None = None) -> None:
    """Say that a run has ended."""
    named = {"run": run, "phase": phase, **(tags or {})}
    store.write([Point(RUNS, named, {"event": "completed", "step": 0}, 2**62)])


def shut(since: int, gate: str = "forget", until: int = 2**31) -> Change:
    """A gate that is driven shut."""

    def change(k: int, name: str, values: Array) -> Array:
        return values * 0.01 if name == gate and since <= k < until else values

    return change

"""Points a second, encoded as line protocol by Gatewatch and by influxdb-client, side by side in one run.

Run: python bench/encoder.py
"""

from __future__ import annotations

import random
import statistics
import time
from typing import TYPE_CHECKING

import influxdb_client

from collector.line_protocol import encode
from collector.schema import GATE_STATS_FIELDS, Point

if TYPE_CHECKING:
    from collections.abc import Callable

REPETITIONS = 15
COUNTS = ("dead_units", "nan_count", "inf_count", "step", "epoch")
STATISTICS = tuple(name for name in GATE_STATS_FIELDS if name not in COUNTS)


def points(count: int, floats: tuple[str, ...], integers: tuple[str, ...] = ()) -> list[Point]:
    """Captures of 4 layers with 6 gates, as a training run gives them."""
    draw = random.Random(1).gauss
    tags = [
        {"run": "goog-lstm-1", "phase": "train", "layer": f"lstm_{layer}", "gate": gate}
        for layer in range(4)
        for gate in ("input", "forget", "candidate", "cell", "output", "hidden")
    ]
    return [
        Point(
            "gate_stats",
            dict(tags[i % len(tags)]),
            {name: draw(0.5, 0.2) for name in floats} | dict.fromkeys(integers, i),
            1_700_000_000_000_000_000 + i * 1_000_003,
        )
        for i in range(count)
    ]


def encode_with_influxdb_client(points: list[Point]) -> bytes:
    """What a user of influxdb-client does: build its points, then serialise them."""
    lines = []
    for point in points:
        theirs = influxdb_client.Point(point.measurement)
        for key, text in point.tags.items():
            theirs.tag(key, text)
        for name, value in point.fields.items():
            theirs.field(name, value)
        lines.append(theirs.time(point.time).to_line_protocol())
    return "".join([f"{line}\n" for line in lines]).encode()


def rate(encoder: Callable[[list[Point]], bytes], points: list[Point]) -> float:
    """Points a second in one call."""
    start = time.perf_counter()
    encoder(points)
    return len(points) / (time.perf_counter() - start)


def main() -> None:
    """Print a line for each shape of point: medians over interleaved repetitions."""
    shapes = {
        "8 floats": points(5_000, tuple(f"field_{i}" for i in range(8))),
        "gate_stats, 34 fields": points(2_000, STATISTICS, COUNTS),
    }
    print(f"{'points':24}{'influxdb-client/s':>20}{'gatewatch/s':>16}{'ratio':>8}")
    for name, batch in shapes.items():
        assert encode(batch) == encode_with_influxdb_client(batch), "the bytes differ"
        rates = [(rate(encode_with_influxdb_client, batch), rate(encode, batch)) for _ in range(REPETITIONS)]
        theirs, ours = (statistics.median(column) for column in zip(*rates, strict=True))
        print(f"{name:24}{theirs:20,.0f}{ours:16,.0f}{ours / theirs:8.1f}")


if __name__ == "__main__":
    main()

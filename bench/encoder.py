"""Points a second, encoded as line protocol by influxdb-client and by Gatewatch.

    python -m bench.encoder

What influxdb-client is given is what its user has, numbers by name: it builds its points of them, then serialises them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.rounds import extent, measure, show
from bench.samples import as_theirs, points, shapes
from gatewatch.collector.line_protocol import encode
from gatewatch.collector.schema import Point

COUNT = 2_000
TURNS = 4
"""How many turns a round of the other measurements is worth: one here takes a tenth of a second."""


def encode_with_influxdb_client(points: list[Point]) -> bytes:
    """What a user of influxdb-client does."""
    return "".join([f"{point.to_line_protocol()}\n" for point in as_theirs(points)]).encode()


def rate(encoder: Callable[[list[Point]], bytes], points: list[Point]) -> float:
    """Points a second in one call."""
    begin = time.perf_counter()
    encoder(points)
    return len(points) / (time.perf_counter() - begin)


def main() -> None:
    """Measure and print."""
    asked = extent(__doc__)
    for shape, fields in shapes(COUNT).items():
        batch = points("gate_stats", COUNT, fields)
        if encode(batch) != encode_with_influxdb_client(batch):
            raise AssertionError("the bytes differ")
        variants = {
            "influxdb-client": lambda batch=batch: rate(encode_with_influxdb_client, batch),
            "gatewatch": lambda batch=batch: rate(encode, batch),
        }
        show(f"Line protocol: {shape}", "points/s", measure(variants, asked.rounds * TURNS))


if __name__ == "__main__":
    main()

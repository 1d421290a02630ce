"""From the gates of one capture to its points: pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from gatewatch.collector.arrays import as_number
from gatewatch.collector.cells import CELLS, Cells, gate_scale
from gatewatch.collector.names import clean_name
from gatewatch.collector.schema import GATE_STATS, GATE_TIME, GATE_UNITS, TRAIN_METRICS, FieldValue, Point
from gatewatch.collector.statistics import STATISTICS, Statistic, gate_statistics, time_profile, unit_profile
from gatewatch.collector.trace import Layers


def gate_points(
    layers: Layers,
    tags: Mapping[str, str],
    time: int,
    step: int,
    epoch: int,
    *,
    cells: Cells = CELLS,
    statistics: Sequence[Statistic] = STATISTICS,
) -> list[Point]:
    """The `gate_stats`, `gate_units` and `gate_time` points of one capture.

    A gate without any finite value still has its `gate_stats` point, which counts what was not finite.

    Args:
        layers: layer → its gates.
        tags: run, phase and the user's own.
        time: nanoseconds since the epoch.
        step: of the training.
        epoch: of the training, from 0.
        cells: whose gates have scales of their own.
        statistics: what is taken of each gate.
    """
    points = []
    for layer, captured in layers.items():
        for gate, values in captured.gates.items():
            series = {**tags, "layer": clean_name(layer), "gate": clean_name(gate)}
            profiles = {GATE_UNITS: unit_profile(values, captured.mask), GATE_TIME: time_profile(values, captured.mask)}
            points += [Point(name, series, {**each, "step": step}, time) for name, each in profiles.items() if each]
            # Last: the jobs take a capture that has its statistics for complete.
            scale = gate_scale(gate, cells)
            stats: dict[str, FieldValue] = dict(gate_statistics(values, scale, captured.mask, statistics))
            points.append(Point(GATE_STATS, series, {**stats, "step": step, "epoch": epoch}, time))
    return points


def metrics_point(
    metrics: Mapping[str, Any],
    tags: Mapping[str, str],
    time: int,
    step: int,
    epoch: int,
    *,
    computed: Mapping[str, float | None] = MappingProxyType({}),
) -> Point | None:
    """The `train_metrics` point of what a framework logs; None where it logs no number.

    Every number is a float. One that is not finite has no field, and is counted in `nan_count` or `inf_count`. What
    is not one number (a text, an array) is left out. A name that the point has itself gets a final underscore.

    Args:
        metrics: name → number.
        tags: run, phase and the user's own.
        time: nanoseconds since the epoch.
        step: of the training.
        epoch: of the training, from 0.
        computed: the collector's own metrics: name → number; None: not of this step, and the name is taken still.
    """
    logged = [(clean_name(name), as_number(value)) for name, value in metrics.items()]
    numbers = [(name, number) for name, number in logged if number is not None]
    computed_now = {name: number for name, number in computed.items() if number is not None}
    if not numbers and not computed_now:
        return None
    every = [*(number for _, number in numbers), *computed_now.values()]
    nan_count, inf_count = (sum(map(is_it, every)) for is_it in (math.isnan, math.isinf))
    own: dict[str, FieldValue] = {"nan_count": nan_count, "inf_count": inf_count, "step": step, "epoch": epoch}
    own |= {name: number for name, number in computed_now.items() if math.isfinite(number)}
    taken = {*own, *tags, *computed}
    finite = {f"{name}_" if name in taken else name: number for name, number in numbers if math.isfinite(number)}
    return Point(TRAIN_METRICS, tags, {**finite, **own}, time)


def no_numbers(metrics: Mapping[str, Any]) -> list[str]:
    """The names of what a framework logs and no point can hold: neither a number nor nothing."""
    return [str(name) for name, value in metrics.items() if value is not None and as_number(value) is None]


def broken_gates(points: Sequence[Point]) -> str:
    """Say which gates have values that are not finite, from the points of one capture; empty where all are finite."""
    stats = [point for point in points if point.measurement == GATE_STATS]
    broken = [point for point in stats if point.fields.get("nan_count") or point.fields.get("inf_count")]
    if not broken:
        return ""
    which = "all" if len(broken) == len(stats) else f"{len(broken)} of"
    return f"{which} {len(stats)} gates, of the layer {broken[0].tags['layer']} first"


def broken_losses(metrics: Mapping[str, Any]) -> str:
    """Name the losses that are not finite, of what a framework logs; empty where all are finite."""
    numbers = {str(name): as_number(value) for name, value in metrics.items() if str(name).lower().endswith("loss")}
    return ", ".join(name for name, value in numbers.items() if value is not None and not math.isfinite(value))

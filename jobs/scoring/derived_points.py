"""The `gate_derived` points of captures, from a list of metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gatewatch.collector.schema import GATE_DERIVED, FieldValue, Point
from gatewatch.jobs.frames import numbers, times
from gatewatch.jobs.scoring.captures import Captures
from gatewatch.jobs.scoring.metrics import METRICS
from gatewatch.jobs.scoring.metrics.base import Metric, Series
from gatewatch.jobs.scoring.metrics.learning import generalisation_gap
from gatewatch.jobs.scoring.signals import LOSS, MODEL

if TYPE_CHECKING:
    import pandas as pd

    from gatewatch.jobs.baselines import Normal


def derived_points(
    captures: Captures, new: int, normal: Normal | None = None, metrics: Sequence[Metric] = METRICS
) -> Iterator[Point]:
    """Yield the points of the newest captures: of each layer and gate, and of each layer and parameter.

    Args:
        captures: the new captures, after as many earlier ones as the metrics look back, or all if there are fewer.
        new: number of new captures.
        normal: the baselines.
        metrics: what to compute.
    """
    first = len(captures.time) - new
    newest = captures.part(first)
    parts = {back: captures.part(max(0, first - back)) for back in {metric.look_back for metric in metrics}}
    everywhere = np.ones(new, dtype=bool)
    for of, table in (("gate", captures.gates), ("parameter", captures.updates)):
        rows = [metric for metric in metrics if metric.of == of]
        for pair in table:
            fields: dict[str, list[FieldValue | None]] = {}
            for row in rows:
                values = row.compute(Series(pair, parts[row.look_back], new, normal))
                if values is not None:
                    kind = int if row.whole else float
                    fields[row.field] = [kind(value) if math.isfinite(value) else None for value in values.tolist()]
            tags = {**newest.tags, "layer": pair[0], "gate": pair[1]}
            for k in np.flatnonzero(newest.captured(pair) if of == "gate" else everywhere):
                present = {name: value for name, column in fields.items() if (value := column[k]) is not None}
                if present:
                    yield Point(GATE_DERIVED, tags, present, int(newest.time[k]))


def gap_points(metrics: pd.DataFrame, tags: Mapping[str, str]) -> Iterator[Point]:
    """Yield the generalisation gap of the whole model, wherever a loss and a validation loss were logged.

    Args:
        metrics: points of `train_metrics` of one run, phase and combination of the user's tags, oldest first,
            read with `prefix_tags`.
        tags: the tags of these points.
    """
    gaps = generalisation_gap(numbers(metrics, "loss"), numbers(metrics, "val_loss"))
    for time, gap in zip(times(metrics).tolist(), gaps.tolist(), strict=True):
        if math.isfinite(gap):
            yield Point(GATE_DERIVED, {**tags, "layer": MODEL, "gate": LOSS}, {"generalisation_gap": gap}, time)

"""Hard rules: what is wrong in any network, learning or not, and needs no comparison with a run's own past noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.cells import MEMORY_GATES
from gatewatch.collector.schema import GATE_STATS_FIELDS, LAYER_UPDATES_FIELDS
from gatewatch.jobs.scoring.captures import Captures, Pair
from gatewatch.jobs.scoring.metrics.windows import median
from gatewatch.jobs.scoring.residuals import Deviations
from gatewatch.jobs.scoring.signals import NONE, Channel
from gatewatch.jobs.thresholds import GRADIENT_EXPLODED_ALARM, GRADIENT_VANISHED

Array = NDArray[np.floating[Any]]
Found = tuple[Pair, str, Array]
"""A layer and its gate or parameter, the rule, and its score: (n,), above 1 where it is broken."""

VANISHED: Final = math.log10(GRADIENT_VANISHED)
FALL: Final = math.log10(GRADIENT_EXPLODED_ALARM)
"""Decades below its recent size that a gradient must have fallen to have vanished, or risen to have exploded."""
LEAP: Final = 1.0
"""Decades by which an update may exceed the largest that was seen before in the run."""
HASTE: Final = 0.25
"""Decades by which the updates of half of the parameters together may exceed the largest that the learning rate has
explained so far: half as much again as the most of any healthy run of `bench.faults`' develop split."""
SHUT: Final = 0.02
OPEN: Final = 0.98
"""A gate that keeps the state and is, on average over a batch, its time and its units, beyond these has collapsed."""
COLLAPSE: Final = 0.2
"""So far it must have come to have collapsed: a gate that was always open is one of long memory."""
SATURATION: Final = 0.5
"""A share of activations that does not saturate at once in training."""
CERTAIN: Final = 2.0
"""The score of what is wrong by itself."""


def rules(captures: Captures, deviations: Deviations, names: Sequence[Channel]) -> Iterator[Found]:
    """The score of each rule for each series that it is of.

    A rule that compares is broken only where it was so at the capture before too, so the first capture breaks none.

    Args:
        captures: n captures.
        deviations: of the same.
        names: the channels of the deviations.
    """
    column = {name: i for i, name in enumerate(names)}
    yield from _broken_numbers(captures)
    for series in captures.gates:
        layer, gate = series
        if gate in MEMORY_GATES and (i := column.get(Channel(layer, gate, "mean_activation"))) is not None:
            yield series, "collapsed", _collapsed(*_of(deviations, i))
        if (i := column.get(Channel(layer, gate, "saturation"))) is not None:
            value, before, _ = _of(deviations, i)
            yield series, "saturated", _twice(_finite((value - before) / SATURATION))
    updates = {name: i for name, i in column.items() if name.feature == "update_ratio"}
    moved = [np.isfinite(deviations.value[:, i]) & (deviations.value[:, i] > np.log10(NONE)) for i in updates.values()]
    for name, i in updates.items():
        value, before, high = _of(deviations, i)
        yield (name.layer, name.part), "leap", _twice(_finite((value - high) / LEAP))
        yield (name.layer, name.part), "frozen", _frozen(value, before, high, np.any(moved, axis=0))
    yield from _hasty(deviations, {name: i for name, i in column.items() if name.feature == "update_per_rate"})
    for name, i in column.items():
        if name.feature == "gradient_norm":
            value, before, high = _of(deviations, i)
            exploded = np.minimum((value - before) / FALL, value - high)
            vanished = np.where(value < VANISHED, (before - value) / FALL, 0.0)
            yield (name.layer, name.part), "exploded", _twice(_finite(exploded))
            yield (name.layer, name.part), "vanished", _twice(_finite(vanished))


def _hasty(deviations: Deviations, column: Mapping[Channel, int]) -> Iterator[Found]:
    """Of each parameter, how far its update is beyond what the learning rate explains, where that of most is."""
    if not column:
        return
    chosen = list(column.values())
    value, high = deviations.value[:, chosen], deviations.high[:, chosen]
    beyond = _finite((value - high) / HASTE)
    together = np.nan_to_num(median(np.where(np.isfinite(value), beyond, np.nan), 1))
    for at, name in enumerate(column):
        yield (name.layer, name.part), "hasty", _twice(np.minimum(beyond[:, at], together))


def _broken_numbers(captures: Captures) -> Iterator[Found]:
    of: tuple[tuple[Mapping[Pair, Array], tuple[str, ...]], ...] = (
        (captures.gates, GATE_STATS_FIELDS),
        (captures.updates, LAYER_UPDATES_FIELDS),
    )
    for tables, fields in of:
        for series, table in tables.items():
            count = np.nan_to_num(table[:, fields.index("nan_count")]) + np.nan_to_num(
                table[:, fields.index("inf_count")]
            )
            yield series, "not_finite", np.where(count > 0, CERTAIN, 0.0)


def _of(deviations: Deviations, channel: int) -> tuple[Array, Array, Array]:
    return deviations.value[:, channel], deviations.before[:, channel], deviations.high[:, channel]


def _collapsed(value: Array, before: Array, _: Array) -> Array:
    beyond = (value < SHUT) | (value > OPEN)
    return _twice(np.where(beyond, _finite(np.abs(value - before) / COLLAPSE), 0.0))


def _frozen(value: Array, before: Array, high: Array, others: NDArray[np.bool_]) -> Array:
    """Not a single weight moves, or the parameter is no longer trained while others are; a schedule that has come to
    its end is no reason to say so, nor an optimizer that nobody told of."""
    was_moving = before > high - FALL
    nothing = value <= np.log10(NONE)
    gone = np.isnan(value) & others
    return _twice(np.where((nothing | gone) & was_moving, CERTAIN, 0.0))


def _finite(score: Array) -> Array:
    return np.where(np.isfinite(score), np.maximum(score, 0.0), 0.0)


def _twice(score: Array) -> Array:
    """The lesser of a capture's score and of that of the capture before."""
    result = np.zeros(len(score))
    result[1:] = np.minimum(score[1:], score[:-1])
    return result

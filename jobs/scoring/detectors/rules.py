"""Hard rules: statements that hold in any healthy network, whatever the noise of its own past."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.cells import MEMORY_GATES
from gatewatch.collector.schema import GATE_STATS_FIELDS, LAYER_UPDATES_FIELDS
from gatewatch.jobs.scoring.captures import Captures, Pair
from gatewatch.jobs.scoring.detectors.base import Batch, Detector, Scores
from gatewatch.jobs.scoring.metrics.windows import median
from gatewatch.jobs.scoring.residuals import Residuals
from gatewatch.jobs.scoring.signals import LOG_FLOOR, SignalKey
from gatewatch.jobs.thresholds import GRADIENT_EXPLODED_ALARM, GRADIENT_VANISHED

Array = NDArray[np.floating[Any]]
RuleScore = tuple[Pair, str, Array]
"""A layer and its gate or parameter, the rule, and its score: (n,), above 1 where it is broken."""

VANISHED_LOG10: Final = math.log10(GRADIENT_VANISHED)
EXPLODED_DECADES: Final = math.log10(GRADIENT_EXPLODED_ALARM)
"""Decades that a gradient must have risen above its recent size to have exploded, or fallen below to have vanished."""
UPDATE_SPIKE: Final = 1.0
"""Decades by which an update may exceed the largest before it in the run."""
UPDATE_RATE_EXCESS: Final = 0.25
"""Limit, in decades, on how far the updates of half of the parameters may exceed the largest that the learning rate has
explained so far. It is 1.5 times the largest excess in a healthy run of `bench.faults`' develop split."""
SHUT: Final = 0.02
OPEN: Final = 0.98
"""A gate that keeps the state has collapsed where its mean over batch, time and units is beyond these."""
COLLAPSE: Final = 0.2
"""How far its mean must have moved to get there: a gate that was always open is one of long memory."""
SATURATION: Final = 0.5
"""Rise of the share of saturated activations that does not happen within a few captures of a healthy training."""
CERTAIN: Final = 2.0
"""The score of a rule that has no degrees."""
PHRASES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "not_finite": "values are NaN or infinite",
        "collapsed": "the gate went fully open or shut",
        "saturated": "at once a large part of the gate is stuck fully open or shut",
        "leap": "the weights leapt further than ever before in this run",
        "hasty": "all weights move further than the learning rate explains: another optimizer state, other data?",
        "frozen": "the weights stand still while the run goes on",
        "exploded": "the gradient is far larger than it has been",
        "vanished": "the gradient is too small to move the weights",
    }
)
"""Rule → what it means that it is broken."""


class Rules(Detector):
    """Scores each series by the rule that is broken most; 0 where none is. Broken rules are the causes."""

    name = "rules"
    look_back = 1
    phrases = PHRASES

    def __init__(self) -> None:
        self._previous: Residuals | None = None

    def score(self, batch: Batch) -> Scores:
        """Return the largest score of the rules of each series, and each rule's own as the causes."""
        residuals, before = batch.residuals, 0
        if self._previous is not None and batch.first > 0:
            before, wide = 1, residuals.z.shape[1]
            residuals = Residuals(
                *(
                    np.concatenate([np.pad(old, ((0, 0), (0, wide - old.shape[1])), constant_values=np.nan), new])
                    for old, new in zip(self._previous, residuals, strict=True)
                )
            )
        by_rule: dict[Pair, dict[str, Array]] = {}
        for series, rule, score in rule_scores(batch.captures.part(batch.first - before), residuals, batch.keys):
            by_rule.setdefault(series, {})[rule] = score[before:]
        if len(residuals.z):
            self._previous = Residuals(*(values[-1:] for values in residuals))
        zero = np.zeros(len(batch.residuals.z))
        scores = dict.fromkeys(batch.columns, zero)
        return Scores(scores | {series: np.max([*each.values()], axis=0) for series, each in by_rule.items()}, by_rule)

    @property
    def state(self) -> dict[str, Array]:
        """The residuals of the newest capture."""
        return self._previous._asdict() if self._previous is not None else {}

    @state.setter
    def state(self, arrays: Mapping[str, Array]) -> None:
        self._previous = Residuals(**arrays) if arrays else None


def rule_scores(captures: Captures, residuals: Residuals, keys: Sequence[SignalKey]) -> Iterator[RuleScore]:
    """Yield the score of each rule for each series that it applies to.

    A rule that compares with earlier captures is broken only where it was broken at the capture before too, so the
    first capture breaks none.

    Args:
        captures: n captures.
        residuals: of the same captures, (n, C) each.
        keys: the C signals.
    """
    column = {key: i for i, key in enumerate(keys)}
    yield from _not_finite(captures)
    for series in captures.gates:
        layer, gate = series
        if gate in MEMORY_GATES and (i := column.get(SignalKey(layer, gate, "mean_activation"))) is not None:
            yield series, "collapsed", _collapsed(*_of(residuals, i))
        if (i := column.get(SignalKey(layer, gate, "saturation"))) is not None:
            value, before, _ = _of(residuals, i)
            yield series, "saturated", persists_two_captures(_finite((value - before) / SATURATION))
    updates = {key: i for key, i in column.items() if key.signal == "update_ratio"}
    moving = [
        np.isfinite(residuals.value[:, i]) & (residuals.value[:, i] > np.log10(LOG_FLOOR)) for i in updates.values()
    ]
    for key, i in updates.items():
        value, before, high = _of(residuals, i)
        yield key[:2], "leap", update_spike(value, high)
        yield key[:2], "frozen", _frozen(value, before, high, np.any(moving, axis=0))
    yield from update_rate_excess(residuals, {key: i for key, i in column.items() if key.signal == "update_per_rate"})
    for key, i in column.items():
        if key.signal == "gradient_norm":
            value, before, high = _of(residuals, i)
            exploded = np.minimum((value - before) / EXPLODED_DECADES, value - high)
            vanished = np.where(value < VANISHED_LOG10, (before - value) / EXPLODED_DECADES, 0.0)
            yield key[:2], "exploded", persists_two_captures(_finite(exploded))
            yield key[:2], "vanished", persists_two_captures(_finite(vanished))


def update_rate_excess(residuals: Residuals, column: Mapping[SignalKey, int]) -> Iterator[RuleScore]:
    """Yield rule `hasty`: how far each parameter's update exceeds what the learning rate explains.

    It is above 1 only where the updates of at least half of the parameters exceed it.
    """
    if not column:
        return
    chosen = list(column.values())
    value, high = residuals.value[:, chosen], residuals.high[:, chosen]
    beyond = _finite((value - high) / UPDATE_RATE_EXCESS)
    together = np.nan_to_num(median(np.where(np.isfinite(value), beyond, np.nan), 1))
    for at, key in enumerate(column):
        yield key[:2], "hasty", persists_two_captures(np.minimum(beyond[:, at], together))


def update_spike(value: Array, high: Array) -> Array:
    """Return how far an update exceeds the largest before it in the run, in multiples of `UPDATE_SPIKE` decades.

    Args:
        value, high: (n,), logarithms of the update ratio and of the largest before.
    """
    return persists_two_captures(_finite((value - high) / UPDATE_SPIKE))


def _not_finite(captures: Captures) -> Iterator[RuleScore]:
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


def _of(residuals: Residuals, column: int) -> tuple[Array, Array, Array]:
    return residuals.value[:, column], residuals.before[:, column], residuals.high[:, column]


def _collapsed(value: Array, before: Array, _: Array) -> Array:
    beyond = (value < SHUT) | (value > OPEN)
    return persists_two_captures(np.where(beyond, _finite(np.abs(value - before) / COLLAPSE), 0.0))


def _frozen(value: Array, before: Array, high: Array, others: NDArray[np.bool_]) -> Array:
    """Return `CERTAIN` where no weight moves any more, or the parameter is no longer trained while others are.

    A schedule that has come to its end is no such case, nor a run whose updates are no longer recorded.
    """
    was_moving = before > high - EXPLODED_DECADES
    nothing = value <= np.log10(LOG_FLOOR)
    gone = np.isnan(value) & others
    return persists_two_captures(np.where((nothing | gone) & was_moving, CERTAIN, 0.0))


def _finite(score: Array) -> Array:
    return np.where(np.isfinite(score), np.maximum(score, 0.0), 0.0)


def persists_two_captures(score: Array) -> Array:
    """Return the lesser of each capture's score and that of the capture before; 0 for the first."""
    result = np.zeros(len(score))
    result[1:] = np.minimum(score[1:], score[:-1])
    return result

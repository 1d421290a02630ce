"""Hard rules: statements that hold in any healthy network, whatever the noise of its own past."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.cells import MEMORY_GATES
from gatewatch.collector.schema import GATE_STATS_FIELDS, LAYER_UPDATES_FIELDS
from gatewatch.jobs.scoring.captures import Array, Captures, Pair
from gatewatch.jobs.scoring.detectors.base import Batch, Detector, Scores
from gatewatch.jobs.scoring.metrics.windows import median
from gatewatch.jobs.scoring.residuals import Residuals
from gatewatch.jobs.scoring.signals import LOG_FLOOR, VANISHED_LOG10, SignalKey
from gatewatch.jobs.thresholds import GRADIENT_EXPLODED_ALARM

RuleScore = tuple[Pair, str, Array]
"""A layer and its gate or parameter, the rule, and its score: (n,), above 1 where it is broken."""

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
"""The score of a broken rule that is either broken or not."""
PHRASES: Final[Mapping[str, str]] = {
    "not_finite": "values are NaN or infinite",
    "collapsed": "the gate went fully open or shut",
    "saturated": "at once a large part of the gate is stuck fully open or shut",
    "leap": "the weights leapt further than ever before in this run",
    "hasty": "all weights move further than the learning rate explains: another optimizer state, other data?",
    "frozen": "the weights stand still while the run goes on",
    "exploded": "the gradient is far larger than it has been",
    "vanished": "the gradient is too small to move the weights",
}
"""Rule → what a broken rule means."""
OF_THE_DATA_TOO: Final = frozenset({"hasty"})
"""Rules that other data break as well: gradients that have grown move the weights further per rate until the
optimizer's second moments have followed."""


class Rules(Detector):
    """Scores each series by the rule that is broken most; 0 where none is. Broken rules are the causes.

    Attributes:
        state: the fields of `Residuals` for the newest capture, (1, C) each.
    """

    name = "rules"
    look_back = 1
    phrases = PHRASES

    def check_state(self, signals: int) -> None:
        """Check that each field of the residuals is there, for as many signals."""
        fields = {name: (values.dtype, values.shape) for name, values in self.state.items()}
        if fields and fields != dict.fromkeys(Residuals._fields, (np.dtype(np.float64), (1, signals))):
            raise ValueError("the residuals of the newest capture are of another shape")

    def score(self, batch: Batch) -> Scores:
        """Return the largest score of the rules of each series, and each rule's own as the causes."""
        residuals, earlier = batch.residuals, 0
        if self.state and batch.first > 0:
            joined = ((0, 0), (0, residuals.z.shape[1] - self.state["z"].shape[1]))
            old = (np.pad(self.state[name], joined, constant_values=np.nan) for name in Residuals._fields)
            residuals, earlier = Residuals(*map(np.concatenate, zip(old, residuals, strict=True))), 1
        by_rule: dict[Pair, dict[str, Array]] = {}
        for series, rule, score in rule_scores(batch.captures.part(batch.first - earlier), residuals, batch.keys):
            by_rule.setdefault(series, {})[rule] = score[earlier:]
        self.state = {name: values[-1:] for name, values in residuals._asdict().items()}
        scores = dict.fromkeys(batch.columns, np.zeros(len(batch.residuals.z)))
        return Scores(scores | {series: np.max([*each.values()], axis=0) for series, each in by_rule.items()}, by_rule)


def rule_scores(captures: Captures, residuals: Residuals, keys: Sequence[SignalKey]) -> Iterator[RuleScore]:
    """Yield the score of each rule for each series that it applies to.

    A rule that compares with earlier captures is broken only where it was broken at the capture before too, so the
    first capture breaks none.

    Args:
        captures: n captures.
        residuals: of the same captures, (n, C) each.
        keys: the C signals.
    """
    for tables, fields in ((captures.gates, GATE_STATS_FIELDS), (captures.updates, LAYER_UPDATES_FIELDS)):
        counts = [fields.index("nan_count"), fields.index("inf_count")]
        for series, table in tables.items():
            not_finite = np.nan_to_num(table[:, counts]).sum(axis=1) > 0
            yield series, "not_finite", np.where(not_finite, CERTAIN, 0.0)
    for series, rule, score in _compare_with_before(captures, residuals, keys):
        by_two_captures = np.zeros(len(score))
        by_two_captures[1:] = np.minimum(_finite(score[1:]), _finite(score[:-1]))
        yield series, rule, by_two_captures


def _compare_with_before(captures: Captures, residuals: Residuals, keys: Sequence[SignalKey]) -> Iterator[RuleScore]:
    """Yield the score of each rule that compares with earlier captures, capture by capture; NaN for none."""
    still = np.log10(LOG_FLOOR)
    ratios = residuals.value[:, [i for i, key in enumerate(keys) if key.signal == "update_ratio"]]
    any_moves = (np.isfinite(ratios) & (ratios > still)).any(axis=1)
    common_excess = _common_update_excess(residuals, keys)
    for i, key in enumerate(keys):
        value, before, high = residuals.value[:, i], residuals.before[:, i], residuals.high[:, i]
        # From what moves nothing a number may rise to as much as moves nothing; it is -inf where nothing is known yet.
        most = np.where(np.isfinite(high), np.maximum(high, VANISHED_LOG10), high)
        series = key[:2]
        match key.signal:
            case "mean_activation" if key.part in MEMORY_GATES and series in captures.gates:
                beyond = (value < SHUT) | (value > OPEN)
                yield series, "collapsed", np.where(beyond, np.abs(value - before) / COLLAPSE, 0.0)
            case "saturation" if series in captures.gates:
                yield series, "saturated", (value - before) / SATURATION
            case "update_ratio":
                yield series, "leap", (value - most) / UPDATE_SPIKE
                # A schedule that has come to its end is no such case, nor a run whose updates are no longer recorded.
                # Nor is a layer that was not used in that step: the optimizer passed it over.
                passed_over = series in captures.updates and captures.update(series, "optimizer_steps") == 0
                stopped = (value <= still) | (np.isnan(value) & any_moves & np.logical_not(passed_over))
                yield series, "frozen", np.where(stopped & (before > high - EXPLODED_DECADES), CERTAIN, 0.0)
            case "update_per_rate":
                yield series, "hasty", np.minimum(_finite((value - high) / UPDATE_RATE_EXCESS), common_excess)
            case "gradient_norm":
                usual = np.maximum(before, VANISHED_LOG10)
                yield series, "exploded", np.minimum((value - usual) / EXPLODED_DECADES, value - most)
                vanished = np.where(value < VANISHED_LOG10, (before - value) / EXPLODED_DECADES, 0.0)
                yield series, "vanished", vanished


def _common_update_excess(residuals: Residuals, keys: Sequence[SignalKey]) -> Array:
    """Return (n,), by how much the updates of half of the parameters exceed what the learning rate explains.

    It is in multiples of `UPDATE_RATE_EXCESS`.
    """
    chosen = [i for i, key in enumerate(keys) if key.signal == "update_per_rate"]
    if not chosen:
        return np.zeros(len(residuals.value))
    value, high = residuals.value[:, chosen], residuals.high[:, chosen]
    beyond = _finite((value - high) / UPDATE_RATE_EXCESS)
    return np.nan_to_num(median(np.where(np.isfinite(value), beyond, np.nan), 1))


def _finite(score: Array) -> Array:
    return np.where(np.isfinite(score), np.maximum(score, 0.0), 0.0)


def scores_beside_other_data(scores: Scores, explained: NDArray[np.bool_]) -> dict[Pair, Array]:
    """Return series → (n,), the scores of the rules, where those `OF_THE_DATA_TOO` count as 1 at most if explained.

    Args:
        scores: of `Rules`.
        explained: (n,), whether the feed explains what is unusual.
    """
    found = dict(scores.by_series)
    for series, by_rule in scores.causes.items():
        if OF_THE_DATA_TOO.isdisjoint(by_rule):
            continue
        most = {rule: np.where(explained & (rule in OF_THE_DATA_TOO), 1.0, np.inf) for rule in by_rule}
        found[series] = np.max([np.minimum(each, most[rule]) for rule, each in by_rule.items()], axis=0)
    return found

"""The scoring state of one run and phase: rolling statistics and detectors, updated capture by capture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from gatewatch.collector.schema import GATE_SCORES, FieldValue, Point
from gatewatch.jobs.scoring.captures import Array, Captures, Pair
from gatewatch.jobs.scoring.checks.base import WARNING
from gatewatch.jobs.scoring.detectors import DETECTORS, Detector
from gatewatch.jobs.scoring.detectors.base import WHOLE_FACTS, Batch, Scores
from gatewatch.jobs.scoring.detectors.isolation_forest import RESIDUAL_FLOOR
from gatewatch.jobs.scoring.residuals import WARM_UP, z_scores
from gatewatch.jobs.scoring.rolling_state import RollingState
from gatewatch.jobs.scoring.run_limit import RunLimit
from gatewatch.jobs.scoring.signals import SignalKey, extract_signals
from gatewatch.jobs.scoring.sources import NETWORK

MOST_CAUSES: Final = 3
"""Maximum number of `why_` fields of a score that come from residuals: the largest ones."""


class ScoringState:
    """Scores one run, phase and combination of the user's tags, and keeps the state that later captures need.

    Args:
        detectors: their classes, in the order in which they score.

    Attributes:
        rolling: statistics of the signals so far.
        detectors: one object of each class.
        unscored: reason → number of scores that are missing, in the last call of `advance`.
    """

    def __init__(self, detectors: Sequence[type[Detector]] = DETECTORS) -> None:
        self.rolling = RollingState()
        self.detectors = tuple(detector() for detector in detectors)
        self.unscored: Counter[str] = Counter()

    def advance(
        self,
        captures: Captures,
        new: int,
        normal_rows: Array | None = None,
        run_limit: Callable[[], RunLimit] = RunLimit,
    ) -> list[Point]:
        """Return the `gate_scores` points of the newest captures, and learn from these.

        Args:
            captures: the new captures, after as many earlier ones as signals and detectors look back.
            new: number of new captures.
            normal_rows: (rows, F), residuals of baselines of this phase; None where there are none and the forest
                learns from the warm-up.
            run_limit: see `Batch`.
        """
        return list(self._points(self.judge(captures, new, normal_rows, run_limit)))

    def judge(
        self,
        captures: Captures,
        new: int,
        normal_rows: Array | None = None,
        run_limit: Callable[[], RunLimit] = RunLimit,
    ) -> Batch:
        """Return the newest captures with all scores of the detectors, and learn from them; arguments as `advance`."""
        signals = extract_signals(captures)
        first = len(captures.time) - new
        before, observed = self.rolling.count, self.rolling.observed
        residuals = z_scores({key: values[first:] for key, values in signals.items()}, self.rolling)
        keys, scores = self.rolling.keys, dict[str, Scores]()
        batch = Batch(
            captures=captures,
            first=first,
            before=before,
            keys=keys,
            columns=columns_by_series(keys),
            residuals=residuals,
            observed=observed,
            warm_up=max(0, WARM_UP - before),
            unsettled=new + 1 if self.rolling.settled is None else max(0, self.rolling.settled - before),
            normal_rows=normal_rows,
            scores=scores,
            run_limit=run_limit,
        )
        for detector in self.detectors:
            detector.learn(batch)
            scores[detector.name] = _settled(detector, batch)
        self.unscored.clear()
        return batch

    def _points(self, batch: Batch) -> Iterator[Point]:
        captures, residuals = batch.captures, batch.residuals
        tags = dict(captures.tags)
        begin = {each.name: 0 if each.scores_warm_up else batch.warm_up for each in self.detectors}
        warning = {each.name for each in self.detectors if each.scores_alone}
        alone = [each for each in self.detectors if each.scores_alone]
        for series in dict.fromkeys(series for each in batch.scores.values() for series in each.by_series):
            own = batch.columns.get(series, [])
            scores = {name: each.by_series[series] for name, each in batch.scores.items() if series in each.by_series}
            causes = {
                cause: sizes for each in batch.scores.values() for cause, sizes in each.causes.get(series, {}).items()
            }
            if series in captures.gates:
                present = captures.captured(series)[batch.first :]
            else:  # a parameter or a logged loss may be scored though it has no signal, or no longer has a value
                anomalous = [values > 1 for values in scores.values()]
                present = np.logical_or.reduce(
                    [
                        np.isfinite(residuals.value[:, own]).any(axis=1),
                        *anomalous,
                        *(np.isfinite(scores[each.name]) for each in alone if each.name in scores),
                    ]
                )
            for k in np.flatnonzero(present).tolist():
                why: dict[str, FieldValue] | None = None
                time, step = int(captures.time[batch.first + k]), int(captures.step[batch.first + k])
                for name, values in scores.items():
                    if k < begin[name] or not np.isfinite(values[k]):
                        self.unscored[_why_unscored(batch, k)] += 1
                        continue
                    value = float(values[k])
                    sources = batch.scores[name].sources.get(series)
                    fields: dict[str, FieldValue] = {"anomaly_score": value, "anomalous": int(value > 1), "step": step}
                    fields["source"] = NETWORK if sources is None else str(sources[k])
                    model_id = batch.scores[name].model_id
                    if model_id is not None and k >= batch.unsettled:  # no model has scored the warm-up
                        fields["model_id"] = model_id
                    if value > 1 or (value == WARNING and name in warning):
                        sizes = {cause: float(each[k]) for cause, each in causes.items()}
                        z = {batch.keys[i].signal: float(residuals.z[k, i]) for i in own}
                        why = why or largest_causes(sizes, z)
                        fields |= why
                    if value > 1:
                        fields |= facts_of(batch.scores[name].facts.get(series, {}), k)
                    yield Point(
                        GATE_SCORES, {**tags, "layer": series[0], "gate": series[1], "detector": name}, fields, time
                    )


def _settled(detector: Detector, batch: Batch) -> Scores:
    """Return a detector's scores, without those that it gives while the network has not settled, if it must wait."""
    scores = detector.score(batch)
    if not detector.waits_for_learning or not batch.unsettled:
        return scores
    waits = np.arange(len(batch.residuals.z)) < batch.unsettled
    return replace(scores, by_series={key: np.where(waits, np.nan, each) for key, each in scores.by_series.items()})


def _why_unscored(batch: Batch, k: int) -> str:
    """Return why a capture has no score: a key of `unscored`."""
    if k < batch.warm_up:
        return "warm-up"
    return "still learning" if k < batch.unsettled else "no finite value"


def facts_of(facts: Mapping[str, Array], k: int) -> dict[str, FieldValue]:
    """Return the facts of one capture as fields; see `Scores.facts`."""
    return {
        name: int(values[k]) if name in WHOLE_FACTS else float(values[k])
        for name, values in facts.items()
        if np.isfinite(values[k])
    }


def largest_causes(causes: Mapping[str, float], residuals: Mapping[str, float]) -> dict[str, FieldValue]:
    """Return the fields `why_<cause>` of a score: the detectors' causes from 1 on, then the largest residuals, signed.

    Args:
        causes: the detectors' causes → their size.
        residuals: the signals of the series that is scored → their residual.
    """
    fields: dict[str, FieldValue] = {f"why_{cause}": size for cause, size in causes.items() if size >= WARNING}
    for signal, z in sorted(residuals.items(), key=lambda item: -abs(np.nan_to_num(item[1]))):
        if len(fields) < MOST_CAUSES and abs(z) >= RESIDUAL_FLOOR:
            fields.setdefault(f"why_{signal}", z)
    return fields


def columns_by_series(keys: Sequence[SignalKey]) -> dict[Pair, list[int]]:
    """Return (layer, gate or parameter) → the columns of its signals, in one go: there may be ten thousand series."""
    columns: dict[Pair, list[int]] = {}
    for i, key in enumerate(keys):
        columns.setdefault(key[:2], []).append(i)
    return columns

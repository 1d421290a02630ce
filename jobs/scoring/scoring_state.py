"""What watches one run and phase: it remembers, learns from the warm-up or from baselines, and scores what follows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.schema import GATE_SCORES, FieldValue, Point
from gatewatch.jobs.scoring.captures import Captures, Pair
from gatewatch.jobs.scoring.detectors.consensus import consensus
from gatewatch.jobs.scoring.detectors.isolation_forest import USUAL, Forest
from gatewatch.jobs.scoring.detectors.robust import OWN, evidence
from gatewatch.jobs.scoring.detectors.rules import rules
from gatewatch.jobs.scoring.residuals import WARM_UP, Deviations, Memory, deviations
from gatewatch.jobs.scoring.signals import GATE_FEATURES, UPDATE_FEATURES, Channel, followed

Array = NDArray[np.floating[Any]]

FEATURES: Final = GATE_FEATURES + UPDATE_FEATURES
"""What the isolation forest looks at together: deviations of a gate, and the largest of its layer's parameters."""
CAUSES: Final = 3
"""The most `why_` fields of a score: its largest deviations."""


@dataclass(slots=True)
class Watch:
    """What is known of one run, phase and combination of the user's tags, after so many captures.

    Attributes:
        memory: of its channels.
        learned: rows that the forest will learn from, while there is none.
        forest: None during the warm-up, and where it gave too little to learn from.
        newest: the deviations of the newest capture.
    """

    memory: Memory = field(default_factory=Memory)
    learned: list[Array] = field(default_factory=list)
    forest: Forest | None = None
    newest: Deviations | None = None

    def advance(self, captures: Captures, new: int, normal: Callable[[], Array | None] = lambda: None) -> list[Point]:
        """The `gate_scores` points of the newest captures. There are none of the warm-up.

        Args:
            captures: some that it has seen, if only the newest and as many as `channels` looks back, then those that
                it has not.
            new: how many it has not seen.
            normal: gives (rows, F), what `FEATURES` deviate by in baselines of this phase; None where there are none,
                and the warm-up is learned from.
        """
        channels = followed(captures)
        first = len(captures.time) - new
        seen = self.memory.count
        told = self.memory.told
        found = deviations({name: values[first:] for name, values in channels.items()}, self.memory)
        names = self.memory.names
        rows = forest_rows(found.usual, names, captures.gates)
        warm = max(0, WARM_UP - seen)
        if warm:
            # Capture by capture: the forest's random numbers depend on the order, which must not depend on the pieces.
            by_capture = np.stack([values[:warm] for values in rows.values()], axis=1)
            self.learned.append(by_capture.reshape(-1, len(FEATURES)))
        if self.forest is None and seen < WARM_UP <= seen + new:
            self.forest = _trained(self.learned, normal(), captures.part(0, first + warm))
            self.learned = []
        points = list(self._points(captures, found, rows, told, warm)) if new > warm else []
        self.newest = Deviations(*(values[-1:] for values in found)) if new else self.newest
        return points

    def _points(
        self, captures: Captures, found: Deviations, rows: Mapping[Pair, Array], told: set[Channel], warm: int
    ) -> Iterator[Point]:
        names, first = self.memory.names, len(captures.time) - len(found.usual)
        broken = self._broken(captures, found, first)
        forests = self._forest_scores(rows)
        captured = {series: captures.captured(series)[first:] for series in captures.gates}
        robust = robust_scores(found, names, captured, told)
        unknown = np.full(len(found.usual), np.nan)
        columns = _columns(names)
        for series in dict.fromkeys((*robust, *broken)):
            score = robust.get(series, unknown)
            own = columns.get(series, [])
            by_rule = broken.get(series, {})
            ruled = np.max([*by_rule.values()], axis=0) if by_rule else np.zeros(len(score))
            there = captured.get(series)
            if there is None:  # of a parameter, or what is logged: what is not followed, or is gone, may break a rule
                there = np.isfinite(found.value[:, own]).any(axis=1) | (ruled > 1)
            forest = forests.get(series)
            scores = {
                "isolation_forest": forest,
                "robust": score,
                "rules": ruled,
                "consensus": consensus(ruled, score, forest),
            }
            for k in np.flatnonzero(there[warm:]) + warm:
                causes = None
                time, step = int(captures.time[first + k]), int(captures.step[first + k])
                for detector, values in scores.items():
                    if values is None or not np.isfinite(values[k]):
                        continue
                    value = float(values[k])
                    fields: dict[str, FieldValue] = {"anomaly_score": value, "anomalous": int(value > 1), "step": step}
                    if self.forest is not None and detector in ("isolation_forest", "consensus"):
                        fields["model_id"] = self.forest.model_id
                    if value > 1:
                        causes = causes or causes_of(found.usual[k], names, own, {n: v[k] for n, v in by_rule.items()})
                        fields |= causes
                    yield Point(
                        GATE_SCORES,
                        {**captures.tags, "layer": series[0], "gate": series[1], "detector": detector},
                        fields,
                        time,
                    )

    def _forest_scores(self, rows: Mapping[Pair, Array]) -> dict[Pair, Array]:
        """Of all series at once, since a question to a forest costs as much for one row as for a thousand."""
        if self.forest is None:
            return {}
        scores = self.forest.score(np.concatenate([*rows.values()]))
        return dict(zip(rows, np.split(scores, len(rows)), strict=True))

    def _broken(self, captures: Captures, found: Deviations, first: int) -> dict[Pair, dict[str, Array]]:
        """Series → rule → score of the new captures."""
        before = 0
        if self.newest is not None and first > 0:
            before, wide = 1, found.usual.shape[1]
            found = Deviations(
                *(
                    np.concatenate([np.pad(old, ((0, 0), (0, wide - old.shape[1])), constant_values=np.nan), new])
                    for old, new in zip(self.newest, found, strict=True)
                )
            )
        scores: dict[Pair, dict[str, Array]] = {}
        for series, rule, score in rules(captures.part(first - before), found, self.memory.names):
            scores.setdefault(series, {})[rule] = score[before:]
        return scores


def forest_rows(usual: Array, names: Sequence[Channel], gates: Iterable[Pair]) -> dict[Pair, Array]:
    """(layer, gate) → (n, F) with the F of `FEATURES`: what a gate deviates by. Where a layer's updates are not known
    they deviate by nothing; NaN where the gate's own statistics are not.
    """
    rows: dict[Pair, Array] = {series: np.zeros((len(usual), len(FEATURES))) for series in gates}
    of_layer: dict[str, list[Array]] = {}
    for (layer, _), table in rows.items():
        of_layer.setdefault(layer, []).append(table)
    for i, (layer, part, feature) in enumerate(names):
        if feature in UPDATE_FEATURES:
            at, values = FEATURES.index(feature), np.nan_to_num(usual[:, i])
            for table in of_layer.get(layer, ()):
                table[:, at] = np.where(np.abs(values) > np.abs(table[:, at]), values, table[:, at])
        elif feature in GATE_FEATURES and (layer, part) in rows:
            rows[layer, part][:, FEATURES.index(feature)] = usual[:, i]
    return rows


def robust_scores(
    found: Deviations, names: Sequence[Channel], captured: Mapping[Pair, NDArray[np.bool_]], told: set[Channel]
) -> dict[Pair, Array]:
    """The robust detector's score of each series: its layer's evidence, where the series itself has a part in it.

    Series are the gates, the parameters of all layers, and (`_model`, `loss`). What is of no layer whose gates were
    captured counts as evidence in each.

    Args:
        found: of n captures.
        names: of the channels.
        captured: (layer, gate) → (n,), whether a capture has it.
        told: the channels of which something was known before.
    """
    column, usual = {name: i for i, name in enumerate(names)}, found.usual.copy()
    for name, i in column.items():
        # Once a learning rate was told, the update is no evidence beside what that explains: rates have schedules.
        by = name._replace(feature="update_per_rate")
        if name.feature == "update_ratio" and by in column:
            explained = np.logical_or.accumulate(np.isfinite(found.value[:, column[by]])) | (by in told)
            usual[explained, i] = 0.0
    layers: dict[str, NDArray[np.bool_]] = {}
    for (layer, _), there in captured.items():
        layers[layer] = layers[layer] | there if layer in layers else there
    none = np.zeros(len(usual), dtype=bool)
    of_layer = np.stack([layers.get(name.layer, none) for name in names], axis=1)
    count = np.maximum(np.sum([*layers.values()], axis=0), 1)
    anywhere, by_layer = np.zeros(len(usual)), {}
    for layer, there in layers.items():
        others = of_layer & np.array([name.layer != layer for name in names])
        looked_at = ~others.all(axis=0)
        by_layer[layer] = evidence(np.where(others, 0.0, usual)[:, looked_at], count)
        anywhere = np.where(there, np.maximum(anywhere, by_layer[layer]), anywhere)
    scores: dict[Pair, Array] = {}
    for series, columns in _columns(names).items():
        own = np.abs(usual[:, columns])
        known = np.isfinite(own).any(axis=1)
        largest = np.where(known, np.max(np.nan_to_num(own), axis=1), np.nan)
        of_own = np.where(layers.get(series[0], none), by_layer.get(series[0], anywhere), anywhere)
        scores[series] = np.minimum(of_own, largest / OWN)
    return scores


def causes_of(
    usual: Array, names: Sequence[Channel], own: Sequence[int], broken: Mapping[str, float]
) -> dict[str, FieldValue]:
    """`why_<feature>`: the rules that are broken, by their score, then the largest deviations, signed."""
    found: dict[str, FieldValue] = {f"why_{rule}": float(score) for rule, score in broken.items() if score > 1}
    for i in sorted(own, key=lambda i: -abs(np.nan_to_num(usual[i]))):
        if len(found) < CAUSES and abs(usual[i]) >= USUAL:
            found.setdefault(f"why_{names[i].feature}", float(usual[i]))
    return found


def _columns(names: Sequence[Channel]) -> dict[Pair, list[int]]:
    """Which channels are of each series, in one go: there may be ten thousand series."""
    found: dict[Pair, list[int]] = {}
    for i, name in enumerate(names):
        found.setdefault((name.layer, name.part), []).append(i)
    return found


def _trained(warm_up: Sequence[Array], baselines: Array | None, captures: Captures) -> Forest | None:
    about = {
        "source": "warm-up" if baselines is None else "baselines",
        "features": list(FEATURES),
        "captures": WARM_UP,
        "until": str(np.datetime64(int(captures.time[-1]), "ns")),
        "tags": dict(captures.tags),
    }
    try:
        return Forest(np.concatenate(warm_up) if baselines is None else baselines, about=about)
    except ValueError:
        return None

"""Say which gate stands out by its scores, since when and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from gatewatch.jobs.findings.axis import Axis, moments
from gatewatch.jobs.findings.explanations import BROKEN, phrase
from gatewatch.jobs.findings.finding import UPSTREAM, Finding
from gatewatch.jobs.findings.onset import MIN_SIDE, begin_above_one, onset
from gatewatch.jobs.findings.series import PARAMS, Key, alarm_begins, name_of, step_at
from gatewatch.jobs.frames import numbers
from gatewatch.jobs.scoring.checks.base import DATA, MODEL, OPTIMIZER
from gatewatch.jobs.scoring.detectors.rules import CERTAIN
from gatewatch.jobs.text import join_words, number, percent

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

FEW: Final = 0.02
"""Up to this share of captures above 1 a table marks nothing: one or two in a hundred may be chance."""


class _Scored(NamedTuple):
    """The finite scores of a series; `excess` is the sum of their logarithms where they are above 1, so that neither a
    long stay just above 1 nor one large score outweighs a jump that lasts."""

    key: Key
    frame: pd.DataFrame
    scores: NDArray[np.float64]

    @property
    def share(self) -> float:
        return float((self.scores > 1).mean())

    @property
    def worst(self) -> float:
        return float(self.scores.max())

    @property
    def stands_out(self) -> bool:
        """Whether as many scores in a row are above 1 as raise an alert."""
        return alarm_begins(self.scores) is not None

    @property
    def excess(self) -> float:
        return float(np.log(np.maximum(self.scores, 1.0)).sum())


def outliers(
    scores: Mapping[Key, pd.DataFrame],
    axes: Mapping[str, Axis] = MappingProxyType({}),
    stated: Sequence[Finding] = (),
) -> list[Finding]:
    """Say which series stands out by its scores, or that none does; empty where there are no scores.

    Args:
        scores: series → points of `gate_scores` of one detector, the layers in the network's order.
        axes: phase → its axis; a phase without one counts steps.
        stated: what else is wrong. A series counts only until then: what follows is said already.
    """
    every = [one for key, frame in scores.items() if (one := _scored(key, frame)) is not None]
    scored = [one for one in (_before(one, stated) for one in every) if one is not None]
    if not scored:
        return []
    phases = {key.phase for key in scores}
    worst = max(scored, key=lambda one: (one.stands_out, one.excess))
    if worst.stands_out:
        return [_outlier(worst, scored, phases, axes.get(worst.key.phase) or Axis((worst.key.phase,)))]
    most = max(scored, key=lambda one: one.worst)
    name, is_alarmed = name_of(most.key, phases), any(each.is_alarm for each in stated)
    evidence: dict[str, float | str] = {"series": len(scored), "largest_score": most.worst}
    if most.worst > 1:
        beside, share = "Beside that nothing" if is_alarmed else "Nothing", max(one.share for one in scored)
        sentence = (
            f"{beside} stands out: at most {percent(share)} of the captures are above 1 "
            f"({name}, up to {number(most.worst)})."
        )
    elif is_alarmed:
        return []
    else:
        sentence = (
            f"All {count_series([one.key for one in scored])} stayed in their normal range: no score is above 1 "
            f"(the largest is {number(most.worst)}, of {name})."
        )
    return [Finding(sentence=sentence, level="fact", evidence=evidence)]


def count_series(keys: Sequence[Key]) -> str:
    """Count gates, parameters and what else is scored, in words, such as `12 gates, 6 parameters and 2 more series`."""
    places = {(key.layer, key.gate) for key in keys}
    others = sum(layer in (MODEL, DATA, OPTIMIZER) for layer, _ in places)
    params = sum(gate in PARAMS and layer not in (MODEL, DATA, OPTIMIZER) for layer, gate in places)
    counts = {"gate": len(places) - params - others, "parameter": params}
    parts = [f"{number(count)} {what}{'s'[: count != 1]}" for what, count in counts.items() if count]
    return join_words(parts + ([f"{number(others)} more series"] if parts and others else [])) or f"{others} series"


def causes(frame: pd.DataFrame, most: int = 3, gate: str = "") -> list[str]:
    """Describe what contributed most to the scores above 1, at most `most` causes: broken rules first."""
    bad = frame[numbers(frame, "anomaly_score") > 1]
    why = {str(name)[4:]: np.nan_to_num(numbers(bad, name)) for name in frame.columns if str(name).startswith("why_")}
    weight = {name: float(np.abs(values).sum()) for name, values in why.items()}
    kept = sorted(
        (name for name in weight if weight[name] > 0), key=lambda name: (name not in BROKEN, -weight[name], name)
    )
    return [phrase(name, float(why[name].sum()), gate) for name in kept[:most]]


def _scored(key: Key, frame: pd.DataFrame) -> _Scored | None:
    values = numbers(frame, "anomaly_score")
    finite = np.isfinite(values)
    return _Scored(key, frame[finite].reset_index(drop=True), values[finite]) if finite.any() else None


def _before(one: _Scored, stated: Sequence[Finding]) -> _Scored | None:
    """Return the scores of a series before the first alarm that was stated of it; None where there are none."""
    since = [each.time for each in stated if each.is_alarm and one.key in each.series and each.time is not None]
    if not since:
        return one
    is_before = moments(one.frame) < min(since)
    return _scored(one.key, one.frame[is_before]) if is_before.any() else None


def _outlier(worst: _Scored, scored: Sequence[_Scored], phases: Collection[str], axis: Axis) -> Finding:
    """Say what stands out: where, how far, since when, and what contributed most."""
    frame, scores, gate = worst.frame, worst.scores, worst.key.gate
    calm = sum(one.worst <= 1 for one in scored)
    alike = sum(one.worst == worst.worst for one in scored) - 1
    same = (
        f", as are {alike} more: what is either so or not scores {number(CERTAIN)}"
        if alike and worst.worst == CERTAIN
        else ""
    )
    evidence = f"{percent(worst.share)} of its scored captures are above 1, up to {number(worst.worst)}{same}"
    why = causes(frame, gate=gate)
    because = f"; what contributed most: {join_words(why)}" if why else ""
    since = onset(scores)
    if since is not None:
        begin = begin_above_one(scores, since)
        low, high = float(np.median(scores[:since])), float(np.median(scores[since:]))
        earlier = ""
        if begin < since - MIN_SIDE:
            low = float(np.median(scores[begin:since]))
            earlier = f"; they had been above 1 since {axis.describe(frame, begin)}"
        change = f"Its scores rose at {axis.describe(frame, since)}, from a median of {number(low)} to {number(high)}"
        change += earlier
    else:
        since = int(np.argmax(scores > 1))
        change = f"It was first above 1 at {axis.describe(frame, since)}, without a lasting change of level"
    everywhere = ""
    if 2 * sum(one.share > 0.5 for one in scored) > len(scored):
        everywhere = " Most are above 1 most of the time: look for the jump rather than for the level."
    sources = {*frame.loc[scores > 1, "source"]} if "source" in frame else set()
    return Finding(
        sentence=f"What stands out is {name_of(worst.key, phases)}: {evidence}; {calm} of {len(scored)} series never "
        f"went above 1. {change}{because}.{everywhere}",
        level="alarm",
        what=next(iter(why), "its scores are above 1"),
        source=next((source for source in UPSTREAM if source in sources), None),
        key=worst.key,
        step=step_at(frame, since),
        time=moments(frame)[since],
        series=frozenset(one.key for one in scored if one.stands_out),
        rule="anomaly",
        evidence={
            "phase": worst.key.phase,
            "share_above_1": worst.share,
            "largest_score": worst.worst,
            "series": sum(one.stands_out for one in scored),
        },
    )

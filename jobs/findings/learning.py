"""Say where the learning of a layer is plainly wrong, from the points of `layer_updates`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from gatewatch.jobs.findings.axis import Axis, moments
from gatewatch.jobs.findings.finding import Finding
from gatewatch.jobs.findings.series import Key, first_broken, of_layer, step_at
from gatewatch.jobs.frames import numbers
from gatewatch.jobs.text import join_words, number, percent
from gatewatch.jobs.thresholds import GRADIENT_EXPLODED_RUN, GRADIENT_VANISHED

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

RECENT: Final = 5
"""A state holds now where it holds in this many newest captures."""


class Problem(NamedTuple):
    """One thing that is plainly wrong with parameters of a layer.

    Attributes:
        what: a sentence without its end: that it holds of the parameters.
        evidence: what shows it, the end of the sentence.
        at: parameter → the index of the point from which on it holds.
        rule: whose section of the runbook says what to do.
        is_alarm: whether learning cannot explain it. A layer may be frozen on purpose, and a schedule or a training may
            have come to its end; the detector `rules` alarms where that happens at once.
    """

    what: str
    evidence: str
    at: Mapping[str, int]
    rule: str
    is_alarm: bool = True

    @property
    def sentence(self) -> str:
        """The whole sentence."""
        return f"{self.what}{self.evidence}."


def learning_problems(params: Mapping[str, pd.DataFrame], axis: Axis) -> list[Problem]:
    """Find each thing that is plainly wrong with a layer, the worst first.

    Args:
        params: parameter → points of `layer_updates` of one phase and layer.
        axis: names the place of a capture.
    """
    problems = []
    if broken := {name: i for name, frame in params.items() if (i := first_broken(frame)) is not None}:
        first = min(broken, key=lambda name: broken[name])
        place = axis.describe(params[first], broken[first])
        what = f"Values that are not finite in the {join_words([*broken])}"
        problems.append(Problem(what, f", first at {place}", broken, "update_not_finite"))
    recent = f" in the last {RECENT} captures"
    if still := _lasting(params, "update_frequency", lambda values: values == 0):
        what = f"The {join_words([*still])} did not move at all"
        problems.append(Problem(what, recent, still, "layer_frozen", is_alarm=False))
    if gone := _lasting(params, "gradient_norm", lambda values: values < GRADIENT_VANISHED):
        what = f"The gradient of the {join_words([*gone])} has vanished"
        evidence = f": below {GRADIENT_VANISHED:g}{recent}"
        problems.append(Problem(what, evidence, gone, "gradient_vanishing", is_alarm=False))
    if grown := {name: size for name, frame in params.items() if (size := _growth(frame)) > GRADIENT_EXPLODED_RUN}:
        at = {name: len(params[name]) - RECENT for name in grown}
        times = number(max(grown.values()), 2)
        what = f"The gradient of the {join_words([*grown])} has exploded"
        problems.append(Problem(what, f", to {times} times its median", at, "gradient_exploding"))
    return problems


def learning_findings(
    updates: Mapping[Key, pd.DataFrame], axes: Mapping[str, Axis] = MappingProxyType({})
) -> list[Finding]:
    """Say of the first layer whose learning is plainly wrong what is wrong, without values that are not finite.

    Args:
        updates: series → points of `layer_updates`, the layers in the network's order; `gate` is the parameter.
        axes: phase → its axis; a phase without one counts steps.
    """
    for phase, layer in dict.fromkeys((key.phase, key.layer) for key in updates):
        params = of_layer(updates, phase, layer)
        for problem in learning_problems(params, axes.get(phase) or Axis((phase,))):
            name = next(iter(problem.at))
            if first_broken(params[name]) is not None:
                continue
            return [
                Finding(
                    sentence=f"Learning went wrong in {layer}: {problem.sentence}",
                    level="alarm" if problem.is_alarm else "notice",
                    what=f"{problem.what[0].lower()}{problem.what[1:]}{problem.evidence}",
                    source="network",
                    key=Key(phase, layer, name),
                    step=step_at(params[name], problem.at[name]),
                    time=moments(params[name])[problem.at[name]],
                    series=frozenset(Key(phase, layer, each) for each in problem.at),
                    evidence={"phase": phase, "series": len(problem.at)},
                    rule=problem.rule,
                )
            ]
    return []


def clipping(params: Mapping[str, pd.DataFrame]) -> list[str]:
    """Write a sentence where every gradient was clipped: no fault, but then the limit is the size of the step."""
    kept = {name: part for name, frame in params.items() if (part := _share_kept(frame)) is not None}
    if not kept:
        return []
    share = percent(float(np.median(list(kept.values()))))
    return [f"Every gradient of the {join_words([*kept])} was clipped, at the median to {share} of its norm."]


def positive(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keep what a logarithmic axis can show; the rest becomes NaN."""
    return np.where(values > 0, values, np.nan)


def _lasting(
    params: Mapping[str, pd.DataFrame], field: str, holds: Callable[[NDArray[np.float64]], NDArray[np.bool_]]
) -> dict[str, int]:
    """Return parameter → index since when something holds, of those of which it holds in the `RECENT` newest values."""
    since = {}
    for name, frame in params.items():
        values = numbers(frame, field)
        places = np.flatnonzero(np.isfinite(values))
        others = np.flatnonzero(~holds(values[places]))
        first = int(others[-1]) + 1 if len(others) else 0
        if len(places) - first >= RECENT:
            since[name] = int(places[first])
    return since


def _growth(frame: pd.DataFrame) -> float:
    """Return the newest gradients over the median of all; 0 where there are too few.

    A gradient that moves nothing counts as the largest of these: a multiple of less has no meaning.
    """
    norms = positive(numbers(frame, "gradient_norm"))
    norms = np.maximum(norms[np.isfinite(norms)], GRADIENT_VANISHED)
    return float(np.median(norms[-RECENT:]) / np.median(norms)) if len(norms) > 3 * RECENT else 0.0


def _share_kept(frame: pd.DataFrame) -> float | None:
    """Return the median share of the norm that clipping keeps; None where not every gradient was clipped."""
    before, after = positive(numbers(frame, "gradient_norm")), numbers(frame, "gradient_norm_clipped")
    both = np.isfinite(before) & np.isfinite(after)
    kept = after[both] / before[both]
    return float(np.median(kept)) if len(kept) >= RECENT and (kept < 0.99).all() else None

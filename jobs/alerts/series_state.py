"""The state of a rule for one series: whether it fires, since when, and how bad it is. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.schema import HEARTBEAT_SECONDS
from gatewatch.jobs.alerts.rule import Measure, Rule

Array = NDArray[np.floating[Any]]

MEDIAN_CAPTURES: Final = 64
"""Number of captures whose median is the usual value of a series, for a rule that compares with that median."""
FEWEST_CAPTURES: Final = 8
"""Fewest captures for a median."""
RISE_POINTS: Final = 3
"""A counter is compared with the largest of this many points before. So a counter that restarts at 0 is no rise, and
neither are two processes that write the same series in turn."""
_PLAIN: Final = ("value", "not_finite", "share_of_units", "frozen")
_LARGEST: Final = 1e300
NEVER: Final = -(2**63)
"""Before any time: nanoseconds, as 64 bits hold them."""


@dataclass(frozen=True, slots=True)
class RuleValues:
    """The values of n captures of one series that a rule compares, oldest first.

    Attributes:
        tags: tags of the series.
        time: (n,), nanoseconds, ascending.
        step: (n,), NaN where a capture has none.
        value: (n,), NaN where there is no value.
        why: feature → (n,), by how many usual deviations it went up or down; NaN where it is no reason.
        source: where the cause of each value lies (network, data, optimizer, state, policy), n of them; empty where
            nothing says it.
        reached: how many baselines came as far at each value, in words; see `findings.run_limits`. Empty as `source`.
    """

    tags: Mapping[str, str]
    time: NDArray[np.int64]
    step: Array
    value: Array
    why: Mapping[str, Array] = field(default_factory=dict)
    source: Sequence[str] = ()
    reached: Sequence[str] = ()


class Silence(NamedTuple):
    """The length of a silence, for the rules about silence.

    Attributes:
        measure: the measure of the rules that compare it.
        value: its length, in the unit of that measure.
        since: when it began; nanoseconds.
        step: the training's step at that time.
    """

    measure: Measure
    value: float
    since: int
    step: float | None


@dataclass(slots=True)
class Firing:
    """A period in which a rule fires for a series.

    Attributes:
        since, since_step: time and step of its first capture.
        value: the newest value.
        worst: the value furthest beyond the threshold.
        why: feature → by how many usual deviations it went up or down in the capture with the worst value.
        until, until_step: time and step of the capture that resolved it; None while it lasts.
        source: where the cause of the worst value lies; empty where nothing says it.
        reached: how many baselines came as far as the worst value, in words; empty where there are none.
        worst_at, worst_step: time and step of the capture with the worst value; None where that is not known.
    """

    since: int
    since_step: float | None
    value: float
    worst: float
    why: dict[str, float] = field(default_factory=dict)
    until: int | None = None
    until_step: float | None = None
    source: str = ""
    reached: str = ""
    worst_at: int | None = None
    worst_step: float | None = None


@dataclass(slots=True)
class SeriesState:
    """The state of a rule for a series, kept from one evaluation to the next.

    Attributes:
        last: time of the newest capture.
        recent: time, step and value of the newest captures that were evaluated.
        history: earlier values that the measure compares with.
        inside: whether the series has been within the thresholds.
        firing: the newest firing.
    """

    last: int = NEVER
    recent: list[tuple[int, float | None, float]] = field(default_factory=list)
    history: list[float] = field(default_factory=list)
    inside: bool = False
    firing: Firing | None = None


def update_series(rule: Rule, state: SeriesState, values: RuleValues) -> Firing | None:
    """Evaluate the captures that are newer than the state, and bring it up to date.

    Returns:
        The firing that continues, or that one of these captures resolved; None where there is none.
    """
    if state.firing is not None and state.firing.until is not None:
        state.firing = None
    was_firing = state.firing is not None
    chosen = np.flatnonzero(np.isfinite(values.value) & (values.time > state.last))
    if chosen.size and not _uneventful(rule, state, values, chosen):
        for i in chosen:
            _evaluate(rule, state, values, int(i))
    if len(values.time):
        state.last = max(state.last, int(values.time[-1]))
    if rule.condition.lasting and not was_firing and state.firing is not None and state.firing.until is not None:
        return None
    return state.firing


def update_silence(rule: Rule, state: SeriesState, silence: Silence, now: int) -> Firing | None:
    """Evaluate a silence as `update_series` does captures; `now` is in nanoseconds."""
    if state.firing is not None and state.firing.until is not None:
        state.firing = None
    if rule.condition.beyond(silence.value):
        if state.firing is None:
            state.firing = Firing(silence.since, silence.step, silence.value, silence.value)
        _worsen(state.firing, silence.value, {}, rule)
    elif state.firing is not None:
        state.firing.until, state.firing.value = now, silence.value
    return state.firing


def _uneventful(rule: Rule, state: SeriesState, values: RuleValues, chosen: NDArray[np.intp]) -> bool:
    """Return whether none of the captures can begin or end a firing; if so, add them to the state all at once."""
    new, condition = values.value[chosen], rule.condition
    extremes = (*(value for _, _, value in state.recent), float(new.min()), float(new.max()))
    if rule.quantity.measure not in _PLAIN or state.firing is not None or any(map(condition.beyond, extremes)):
        return False
    state.inside = condition.after_inside
    state.recent += [_seen(values, int(i), float(values.value[i])) for i in chosen[-condition.within :]]
    del state.recent[: -condition.within]
    return True


def _evaluate(rule: Rule, state: SeriesState, values: RuleValues, i: int) -> None:
    value = _measured(rule, state, int(values.time[i]), float(values.value[i]))
    if not math.isfinite(value):
        return
    condition, firing = rule.condition, state.firing
    state.inside = state.inside or (condition.after_inside and not condition.beyond(value))
    if condition.after_inside and not state.inside:
        return
    state.recent.append(_seen(values, i, value))
    del state.recent[: -condition.within]
    beyond = [capture for capture in state.recent if condition.beyond(capture[2])]
    why = {name: float(part[i]) for name, part in values.why.items() if np.isfinite(part[i])}
    source = values.source[i] if values.source else ""
    reached = values.reached[i] if values.reached else ""
    if firing is None or firing.until is not None:
        if not condition.beyond(value) or len(beyond) < condition.for_captures:
            return
        if firing is None:
            worst = condition.worst([capture[2] for capture in beyond])
            firing = state.firing = Firing(*beyond[0][:2], value, worst, why, source=source, reached=reached)
            firing.worst_at, firing.worst_step = next(capture[:2] for capture in beyond if capture[2] == worst)
        firing.until = firing.until_step = None  # it fires again within the same captures
        if _worsen(firing, value, why, rule, source, reached):
            firing.worst_at, firing.worst_step, _ = state.recent[-1]
    elif any(condition.beyond(capture[2], recovering=True) for capture in state.recent):
        if _worsen(firing, value, why, rule, source, reached):
            firing.worst_at, firing.worst_step, _ = state.recent[-1]
    else:
        firing.value = value
        firing.until, firing.until_step, _ = state.recent[-1]


def _worsen(
    firing: Firing, value: float, why: dict[str, float], rule: Rule, source: str = "", reached: str = ""
) -> bool:
    """Take in the newest value, and return whether it is the worst so far."""
    firing.value = value
    if rule.condition.worst([firing.worst, value]) != value:
        return False
    is_worse = value != firing.worst
    firing.worst = value
    firing.why = why or firing.why
    firing.source = source or firing.source
    firing.reached = reached
    return is_worse


def _seen(values: RuleValues, i: int, value: float) -> tuple[int, float | None, float]:
    step = float(values.step[i])
    return int(values.time[i]), step if math.isfinite(step) else None, value


def _measured(rule: Rule, state: SeriesState, time: int, value: float) -> float:
    """Return the rule's measure of a value, and update the history; NaN where the measure is undefined."""
    if rule.quantity.measure == "rise":
        before = max(state.history, default=0.0)
        state.history = [*state.history, value][-RISE_POINTS:]
        return max(0.0, value - before)
    if rule.quantity.measure == "growth":
        if state.recent and time - state.recent[-1][0] < HEARTBEAT_SECONDS * 0.9e9:
            return math.nan
        before = state.history[-1] if state.history else value
        state.history = [value]
        return value - before
    if rule.quantity.measure == "times_median":
        usual = float(np.median(state.history)) if len(state.history) >= FEWEST_CAPTURES else 0.0
        multiple = min(value / usual, _LARGEST) if usual > 0 else math.nan
        # What explodes is not learned from, nor what has vanished.
        if not rule.condition.beyond(multiple) and value >= rule.quantity.floor:
            state.history = [*state.history, value][-MEDIAN_CAPTURES:]
        return multiple
    return value

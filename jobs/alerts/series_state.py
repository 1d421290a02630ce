"""A rule and one series: whether it fires, since when, and how bad it is. Pure: captures in, episodes out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.schema import HEARTBEAT_SECONDS
from gatewatch.jobs.alerts.rule import Rule

if TYPE_CHECKING:
    from gatewatch.jobs.alerts.silence import Silence

Array = NDArray[np.floating[Any]]

MEDIAN_CAPTURES: Final = 64
"""The captures that say what is usual of a series, for a rule that compares with its own median."""
FEWEST_CAPTURES: Final = 8
"""Before so many of them a median says nothing."""
RISE_POINTS: Final = 3
"""A counter is compared with the largest of so many points before: one that begins anew is no rise, nor are two
processes that write the same series in turn."""
_PLAIN: Final = ("value", "not_finite", "share_of_units", "frozen")
_LARGEST: Final = 1e300


@dataclass(frozen=True, slots=True)
class Values:
    """What is compared of one series, oldest capture first. n captures.

    Attributes:
        tags: of the series.
        time: (n,), nanoseconds, ascending.
        step: (n,), NaN where a capture has none.
        value: (n,), NaN where nothing is known.
        why: feature → (n,), by how many usual deviations it went up or down; NaN where it is no cause.
    """

    tags: Mapping[str, str]
    time: NDArray[np.int64]
    step: Array
    value: Array
    why: Mapping[str, Array] = field(default_factory=dict)


@dataclass(slots=True)
class Episode:
    """A time for which a rule fires for a series.

    Attributes:
        since, since_step: its first capture.
        value: the newest.
        worst: the one furthest beyond the threshold.
        why: feature → by how many usual deviations it went up or down in that one.
        until, until_step: the capture at which it was over; None while it lasts.
    """

    since: int
    since_step: float | None
    value: float
    worst: float
    why: dict[str, float] = field(default_factory=dict)
    until: int | None = None
    until_step: float | None = None


@dataclass(slots=True)
class Track:
    """What must be remembered of a series from one evaluation to the next.

    Attributes:
        last: time of the newest capture.
        recent: of the newest captures that were judged: time, step, value.
        history: values that a measure compares with.
        inside: whether it has been within the thresholds.
        episode: the newest.
    """

    last: int | None = None
    recent: list[tuple[int, float | None, float]] = field(default_factory=list)
    history: list[float] = field(default_factory=list)
    inside: bool = False
    episode: Episode | None = None


def follow(rule: Rule, track: Track, values: Values) -> Episode | None:
    """Judge the captures that are newer than the track, and remember them in it.

    Returns:
        The episode that goes on, or that ended with one of these captures; None where there is none.
    """
    if track.episode is not None and track.episode.until is not None:
        track.episode = None
    known = track.episode is not None
    new = np.isfinite(values.value)
    new &= values.time > (track.last if track.last is not None else np.iinfo(np.int64).min)
    chosen = np.flatnonzero(new)
    if chosen.size and not _uneventful(rule, track, values, chosen):
        for i in chosen:
            _judge(rule, track, values, int(i))
    if len(values.time):
        newest = int(values.time[-1])
        track.last = newest if track.last is None else max(track.last, newest)
    if rule.lasting and not known and track.episode is not None and track.episode.until is not None:
        return None
    return track.episode


def hold(rule: Rule, track: Track, silence: Silence, now: int) -> Episode | None:
    """Judge a silence, which has no captures, as `follow` does captures."""
    if track.episode is not None and track.episode.until is not None:
        track.episode = None
    if rule.beyond(silence.value):
        if track.episode is None:
            track.episode = Episode(silence.since, silence.step, silence.value, silence.value)
        _worsen(track.episode, silence.value, {}, rule)
    elif track.episode is not None:
        track.episode.until, track.episode.value = now, silence.value
    return track.episode


def _uneventful(rule: Rule, track: Track, values: Values, chosen: NDArray[np.intp]) -> bool:
    """Whether none of the captures can begin or end anything; then they are remembered, without a look at each."""
    if rule.measure not in _PLAIN or track.episode is not None or any(rule.beyond(one[2]) for one in track.recent):
        return False
    found = values.value[chosen]
    if (rule.above is not None and (found > rule.above).any()) or (
        rule.below is not None and (found < rule.below).any()
    ):
        return False
    track.inside = rule.after_inside
    track.recent += [_seen(values, int(i), float(values.value[i])) for i in chosen[-rule.within :]]
    del track.recent[: -rule.within]
    return True


def _judge(rule: Rule, track: Track, values: Values, i: int) -> None:
    value = _measured(rule, track, int(values.time[i]), float(values.value[i]))
    if not math.isfinite(value):
        return
    if rule.after_inside and not track.inside:
        track.inside = not rule.beyond(value)
        if not track.inside:
            return
    track.recent.append(_seen(values, i, value))
    del track.recent[: -rule.within]
    beyond = [one for one in track.recent if rule.beyond(one[2])]
    episode = track.episode
    why = {name: float(part[i]) for name, part in values.why.items() if np.isfinite(part[i])}
    if episode is None or episode.until is not None:
        if not rule.beyond(value) or len(beyond) < rule.for_captures:
            return
        if episode is None:
            worst = _worst(rule, [one[2] for one in beyond])
            episode = track.episode = Episode(*beyond[0][:2], value, worst, why)
        episode.until = episode.until_step = None  # one that was over among the same captures is not over
        _worsen(episode, value, why, rule)
    elif any(rule.beyond(one[2], recovering=True) for one in track.recent):
        _worsen(episode, value, why, rule)
    else:
        episode.value = value
        episode.until, episode.until_step, _ = track.recent[-1]


def _worsen(episode: Episode, value: float, why: dict[str, float], rule: Rule) -> None:
    episode.value = value
    if _worst(rule, [episode.worst, value]) == value:
        episode.worst = value
        episode.why = why or episode.why


def _worst(rule: Rule, values: Sequence[float]) -> float:
    """The value furthest beyond the threshold; of a rule with two, beyond the one that the first lies beyond."""
    return min(values) if rule.above is None or (rule.below is not None and values[0] < rule.below) else max(values)


def _seen(values: Values, i: int, value: float) -> tuple[int, float | None, float]:
    step = float(values.step[i])
    return int(values.time[i]), step if math.isfinite(step) else None, value


def _measured(rule: Rule, track: Track, time: int, value: float) -> float:
    """What of a value is compared; NaN where it cannot be."""
    if rule.measure == "rise":
        before = max(track.history, default=0.0)
        track.history = [*track.history, value][-RISE_POINTS:]
        return max(0.0, value - before)
    if rule.measure == "growth":
        if track.recent and time - track.recent[-1][0] < HEARTBEAT_SECONDS * 0.9e9:
            return math.nan
        before = track.history[-1] if track.history else value
        track.history = [value]
        return value - before
    if rule.measure == "times_median":
        usual = float(np.median(track.history)) if len(track.history) >= FEWEST_CAPTURES else 0.0
        multiple = min(value / usual, _LARGEST) if usual > 0 else math.nan
        if not rule.beyond(multiple):  # what explodes is not learned from
            track.history = [*track.history, value][-MEDIAN_CAPTURES:]
        return multiple
    return value

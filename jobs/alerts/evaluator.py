"""Apply the rules to the points that were read of one run, or of the jobs."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.store.columns import field_columns, tag_columns
from gatewatch.jobs.alerts.lifecycle import Alert, alert_key
from gatewatch.jobs.alerts.rule import Rule
from gatewatch.jobs.alerts.series_state import Firing, RuleValues, SeriesState, Silence, update_series, update_silence
from gatewatch.jobs.alerts.state import RunProgress
from gatewatch.jobs.findings.run_limits import reached_by
from gatewatch.jobs.frames import not_finite, numbers, times

if TYPE_CHECKING:
    import pandas as pd

_WHY: Final = "why_"
_SOURCE: Final = "source"
_PARAM: Final = "param"

SeriesPoints = tuple[dict[str, str], "pd.DataFrame"]
"""The tags of a series, and its points."""
_Tags = frozenset[tuple[str, str]]


class Evaluator:
    """Applies the rules to the points of one run, or of the jobs.

    Args:
        rules: the active rules.
        progress: the state of the run's series; it is updated.
        now: the time, in nanoseconds.

    Attributes:
        alerts: key → alert, of those that have begun, changed or ended.
    """

    def __init__(self, rules: Sequence[Rule], progress: RunProgress, now: int) -> None:
        self._rules, self._progress, self._now = rules, progress, now
        self.alerts: dict[str, Alert] = {}

    def points(self, measurement: str, frame: pd.DataFrame) -> None:
        """Evaluate points of a measurement, ordered by time; those that were evaluated before change nothing."""
        rules = [rule for rule in self._rules if rule.quantity.measurement == measurement and not rule.about_silence]
        series = series_of(frame) if rules else []
        for rule in rules:
            for values in series_values(rule, series, self._progress.units):
                self._update(rule, values.tags, partial(update_series, rule, values=values))

    def silence(self, silence: Silence, tags: Mapping[str, str]) -> None:
        """Evaluate the rules about this silence."""
        for rule in self._rules:
            if rule.quantity.measure == silence.measure:
                self._update(rule, tags, partial(update_silence, rule, silence=silence, now=self._now))

    def _update(self, rule: Rule, tags: Mapping[str, str], update: Callable[[SeriesState], Firing | None]) -> None:
        key = alert_key(rule.name, tags)
        if (firing := update(self._progress.series.setdefault(key, SeriesState()))) is not None:
            self.alerts[key] = Alert(rule, tags, firing)


def series_of(frame: pd.DataFrame) -> list[SeriesPoints]:
    """Split a measurement's points into series; the points of each keep their order.

    Args:
        frame: the points, read with `prefix_tags`.
    """
    tags = tag_columns(frame.columns)
    if not tags or frame.empty:
        return [({}, frame)]
    return [
        ({name: text for name, text in zip(tags.values(), key, strict=True) if isinstance(text, str)}, part)
        for key, part in frame.groupby([*tags], dropna=False, sort=True)
    ]


def series_values(rule: Rule, series: Sequence[SeriesPoints], units: Mapping[str, int]) -> Iterator[RuleValues]:
    """Yield the values that a rule compares, for each series that it applies to.

    Args:
        rule: says which series, which field and which measure.
        series: the series of the rule's measurement, each ordered by time.
        units: layer → number of its units, where it is known.
    """
    concerned = [(tags, part) for tags, part in series if rule.concerns(tags)]
    if rule.quantity.measure == "frozen":
        yield from _frozen(rule, concerned)
        return
    left_out = _beyond_in_others(rule, series) if rule.quantity.unless else {}
    for tags, part in concerned:
        if rule.quantity.measure == "not_finite":
            value = not_finite(part)
        elif rule.quantity.measure == "share_of_units":
            value = numbers(part, rule.quantity.field) / (units_of(tags.get("layer", ""), units) or np.nan)
        else:
            value = numbers(part, rule.quantity.field)
        if (others := left_out.get(_without(tags, rule.quantity.unless))) is not None:
            value = np.where(np.isin(times(part), others), np.nan, value)
        causes = [name for name in field_columns(part.columns) if name.startswith(_WHY)]
        named = {name.removeprefix(_WHY): numbers(part, name) for name in causes}
        why = {name: deviations for name, deviations in named.items() if np.isfinite(deviations).any()}
        yield RuleValues(tags, times(part), numbers(part, "step"), value, why, _sources(part), reached_by(part))


def _beyond_in_others(rule: Rule, series: Sequence[SeriesPoints]) -> dict[_Tags, NDArray[np.int64]]:
    """Return the times at which the series named by `unless` lie beyond the threshold, by the tags they share."""
    quantity, beyond = rule.quantity, rule.condition.beyond
    return {
        _without(tags, quantity.unless): times(part)[[beyond(value) for value in numbers(part, quantity.field)]]
        for tags, part in series
        if all(tags.get(name) == value for name, value in quantity.unless.items())
    }


def _without(tags: Mapping[str, str], left_out: Container[str]) -> _Tags:
    return frozenset((name, value) for name, value in tags.items() if name not in left_out)


def _sources(part: pd.DataFrame) -> list[str]:
    """Return where the cause of each capture's score lies; empty where its scores say nothing of it."""
    if _SOURCE not in part:
        return []
    return [source if isinstance(source, str) else "" for source in part[_SOURCE]]


def units_of(layer: str, units: Mapping[str, int]) -> int | None:
    """Return how many units a layer has: its own entry, else that of the longest path that it lies below."""
    paths = [path for path in units if layer == path or layer.startswith(f"{path}/")]
    return units[max(paths, key=len)] if paths else None


def units_by_layer(config: Mapping[str, Any]) -> dict[str, int]:
    """Return layer → units, from the configuration that a run records."""
    layers = config.get("layers")
    units = {}
    for path, about in layers.items() if isinstance(layers, Mapping) else ():
        entry = about if isinstance(about, Mapping) else {}
        size = entry.get("units") or entry.get("proj_size") or entry.get("hidden_size")
        if isinstance(size, int) and size > 0:
            units[str(path)] = size
    return units


def _frozen(rule: Rule, series: Sequence[SeriesPoints]) -> Iterator[RuleValues]:
    """Yield the largest update of each layer's parameters at each capture; NaN at a capture at which no layer moves."""
    norms: dict[tuple[tuple[str, str], ...], dict[int, float]] = {}
    steps: dict[int, float] = {}
    for tags, part in series:
        layer = norms.setdefault(tuple((name, text) for name, text in tags.items() if name != _PARAM), {})
        columns = times(part), numbers(part, "step"), numbers(part, "update_norm")
        for time, step, norm in zip(*(column.tolist() for column in columns), strict=True):
            if not np.isnan(norm):
                steps[time], layer[time] = step, max(layer.get(time, 0.0), norm)
    moving = {time for layer in norms.values() for time, norm in layer.items() if not rule.condition.beyond(norm)}
    for key, layer in norms.items():
        moments = sorted(layer)
        value = [layer[time] if time in moving else np.nan for time in moments]
        step = [steps[time] for time in moments]
        yield RuleValues(dict(key), np.array(moments, dtype=np.int64), np.array(step), np.array(value))

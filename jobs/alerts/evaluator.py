"""The rules, applied to what was read of one run, or of the jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gatewatch.jobs.alerts.lifecycle import Alert, alert_key
from gatewatch.jobs.alerts.rule import Rule
from gatewatch.jobs.alerts.series_state import Firing, SeriesState, update_series, update_silence
from gatewatch.jobs.alerts.state import RunProgress
from gatewatch.jobs.alerts.values import series_of, series_values

if TYPE_CHECKING:
    import pandas as pd

    from gatewatch.jobs.alerts.series_state import Silence


class Evaluator:
    """Applies the rules to the points of one run, or of the jobs.

    Args:
        rules: the active ones.
        progress: of the run; brought up to date.
        now: nanoseconds.

    Attributes:
        alerts: that have begun, changed or ended, by their keys.
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
                self._note(rule, values.tags, update_series(rule, self._series_state(rule, values.tags), values))

    def silence(self, silence: Silence, tags: Mapping[str, str]) -> None:
        """Evaluate how long nothing came."""
        for rule in self._rules:
            if rule.quantity.measure == silence.measure:
                self._note(rule, tags, update_silence(rule, self._series_state(rule, tags), silence, self._now))

    def _series_state(self, rule: Rule, tags: Mapping[str, str]) -> SeriesState:
        return self._progress.series.setdefault(alert_key(rule.name, tags), SeriesState())

    def _note(self, rule: Rule, tags: Mapping[str, str], firing: Firing | None) -> None:
        if firing is not None:
            self.alerts[alert_key(rule.name, tags)] = Alert(rule, tags, firing)

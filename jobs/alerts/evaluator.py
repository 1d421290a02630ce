"""The rules, applied to what was read of one run, or of the jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gatewatch.jobs.alerts.lifecycle import Alert, alert_key
from gatewatch.jobs.alerts.rule import Rule
from gatewatch.jobs.alerts.series_state import Episode, Track, follow, hold
from gatewatch.jobs.alerts.state import RunMemory
from gatewatch.jobs.alerts.values import series_of, series_values

if TYPE_CHECKING:
    import pandas as pd

    from gatewatch.jobs.alerts.silence import Silence


class Judge:
    """Finds what fires.

    Args:
        rules: that are judged.
        memory: of the run; brought up to date.
        now: nanoseconds.

    Attributes:
        alerts: that have begun, changed or ended, by their keys.
    """

    def __init__(self, rules: Sequence[Rule], memory: RunMemory, now: int) -> None:
        self._rules, self._memory, self._now = rules, memory, now
        self.alerts: dict[str, Alert] = {}

    def points(self, measurement: str, frame: pd.DataFrame) -> None:
        """Judge points of a measurement, ordered by time; those that were judged before change nothing."""
        rules = [rule for rule in self._rules if rule.measurement == measurement and not rule.about_silence]
        series = series_of(frame) if rules else []
        for rule in rules:
            for values in series_values(rule, series, self._memory.units):
                self._note(rule, values.tags, follow(rule, self._track(rule, values.tags), values))

    def silence(self, silence: Silence, tags: Mapping[str, str]) -> None:
        """Judge how long nothing was heard."""
        for rule in self._rules:
            if rule.measure == silence.measure:
                self._note(rule, tags, hold(rule, self._track(rule, tags), silence, self._now))

    def _track(self, rule: Rule, tags: Mapping[str, str]) -> Track:
        return self._memory.tracks.setdefault(alert_key(rule.name, tags), Track())

    def _note(self, rule: Rule, tags: Mapping[str, str], episode: Episode | None) -> None:
        if episode is not None:
            self.alerts[alert_key(rule.name, tags)] = Alert(rule, tags, episode)

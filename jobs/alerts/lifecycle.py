"""The lifecycle of an alert: firing, repeated, resolved, or ended with its run. Pure: the time is an argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import orjson

from gatewatch.collector.schema import ALERT_EVENTS, Point
from gatewatch.jobs.alerts.series_state import Firing

if TYPE_CHECKING:
    from gatewatch.collector.config import AlertSettings
    from gatewatch.jobs.alerts.rule import Rule

MailKind = Literal["firing", "repeated", "ended", "recovered", "passed"]


class Alert(NamedTuple):
    """A rule that fires for a series, or was resolved.

    Attributes:
        rule: which.
        tags: of the series.
        firing: since when, how bad, why; until when, where it is resolved.
    """

    rule: Rule
    tags: Mapping[str, str]
    firing: Firing

    @property
    def key(self) -> str:
        """The key of the alert, the same whenever it fires."""
        return alert_key(self.rule.name, self.tags)


def alert_key(rule: str, tags: Mapping[str, str]) -> str:
    """Return the key of the alert of a rule and a series."""
    return orjson.dumps([rule, sorted(tags.items())]).decode()


@dataclass(frozen=True, slots=True)
class Event:
    """A point of `alert_events`.

    Attributes:
        tags: of the series, and `rule`.
        time: nanoseconds.
        state: firing, repeated, recovered; or ended: the run ended while the alert fired.
        value: at that moment.
        threshold: that it lay beyond.
        delivered: whether a mail server has accepted the mail about it.
    """

    tags: dict[str, str]
    time: int
    state: str
    value: float
    threshold: float
    delivered: bool = False

    def point(self) -> Point:
        """Return the point that a store takes."""
        fields = {name: getattr(self, name) for name in ("value", "threshold", "state", "delivered")}
        return Point(ALERT_EVENTS, self.tags, fields, self.time)


@dataclass(slots=True)
class AlertState:
    """The state of an alert, and what was mailed about it.

    Attributes:
        rule, tags, firing: as of the newest `Alert`.
        threshold: the threshold that the firing's worst value lies beyond.
        ended: how the run ended while the alert fires (completed, failed, interrupted, died); empty: it has not.
        pending: since when a mail is due that says that the alert fires or is resolved; None: no mail is due.
        notified: when a mail last said that the alert fires; None: no mail did.
        notifications: number of mails about the alert.
        unsent: events that no mail has mentioned.
    """

    rule: str
    tags: dict[str, str]
    firing: Firing
    threshold: float
    ended: str = ""
    pending: int | None = None
    notified: int | None = None
    notifications: int = 0
    unsent: list[Event] = field(default_factory=list)

    @property
    def run(self) -> str:
        """The run that it is about; empty for the jobs or the store."""
        return self.tags.get("run", "")

    @property
    def ended_while_firing(self) -> bool:
        """Whether its run has ended, and the alert was not resolved before."""
        return bool(self.ended) and self.firing.until is None

    def event(self, state: MailKind, now: int) -> Event:
        """Record an event, later than those before, and return it."""
        time = max(now, self.unsent[-1].time + 1) if self.unsent else now
        tags = {**self.tags, "rule": self.rule}
        value = self.firing.worst if state == "firing" else self.firing.value
        self.unsent.append(Event(tags, time, state, value, self.threshold))
        return self.unsent[-1]


@dataclass(frozen=True, slots=True)
class Item:
    """An alert as a mail reports it.

    Attributes:
        kind: firing, repeated, recovered; `ended`: its run ended while it fired; `passed`: it was resolved before it
            was first mailed.
        key: the key of the alert.
        entry: its state.
        events: the events that the mail mentions.
    """

    kind: MailKind
    key: str
    entry: AlertState
    events: Sequence[Event]


def advance(entries: dict[str, AlertState], alerts: Sequence[Alert], now: int) -> list[Event]:
    """Update `entries` with the alerts of an evaluation, and return the events of those that began or were resolved."""
    events = []
    for alert in alerts:
        entry, firing = entries.get(alert.key), replace(alert.firing)
        threshold = alert.rule.condition.threshold(firing.worst)
        was_over = entry is not None and entry.firing.until is not None
        began = entry is None or (was_over and firing.since != entry.firing.since)
        if entry is None:
            entry = entries[alert.key] = AlertState(alert.rule.name, dict(alert.tags), firing, threshold, pending=now)
        entry.firing, entry.threshold = firing, threshold
        if began:
            events.append(entry.event("firing", now))
            entry.ended = ""
            if entry.notified is not None:  # the mail that says that it fires is still true
                entry.pending = None
        if firing.until is not None and (began or not was_over):
            events.append(entry.event("recovered", now))
            entry.pending = now if entry.pending is None else entry.pending
    return events


def end_with_runs(entries: dict[str, AlertState], states: Mapping[str, Mapping[str, str]], now: int) -> None:
    """Update `entries` with the states of the runs: a mail is due about an alert that fires when its run ends.

    Args:
        entries: of all alerts.
        states: run → phase → its state, as `current_state` has it. Runs that are missing are as they were.
        now: nanoseconds.
    """
    for entry in entries.values():
        if entry.run not in states or entry.firing.until is not None or entry.rule == "run_died":
            continue  # a death is repeated while it lasts
        before, entry.ended = entry.ended, _how_it_ended(states[entry.run], entry.tags.get("phase", ""))
        if entry.ended and not before:
            entry.pending = now if entry.pending is None else entry.pending
        elif before and not entry.ended and entry.notified is not None:
            entry.pending = None  # it goes on: the mail that says that the alert fires is still true


def _how_it_ended(phases: Mapping[str, str], phase: str) -> str:
    """Return how a phase ended, or where the alert names none, the whole run; empty while it goes on."""
    states = [phases[phase]] if phase in phases else list(phases.values())
    return "" if "live" in states or not states else states[0]


def due(
    entries: dict[str, AlertState], mailed: dict[str, int], settings: AlertSettings, now: int
) -> dict[str, tuple[list[Item], list[Event]]]:
    """Take the mails that are due now: mark their alerts as mailed, and remove the resolved ones from `entries`.

    Returns:
        Run → the items of its mail, and the events that are of the mail itself: of what it repeats, and of what ended.
    """
    groups: dict[str, dict[str, AlertState]] = {}
    for key, entry in entries.items():
        groups.setdefault(entry.run, {})[key] = entry
    mails: dict[str, tuple[list[Item], list[Event]]] = {}
    for run, group in groups.items():
        pending = [entry.pending for entry in group.values() if entry.pending is not None]
        gathered = bool(pending) and not is_within(now, min(pending), settings.group_wait_seconds)
        rests = run in mailed and is_within(now, mailed[run], settings.group_interval_seconds)
        repeated = [key for key, entry in group.items() if _is_repeated(entry, settings, now)]
        if not rests and (gathered or repeated):
            events = [group[key].event("repeated", now) for key in repeated]
            keys = [key for key, entry in group.items() if key in repeated or entry.pending is not None]
            # No earlier: the last captures of a run may have their scores after its end, and those may be well.
            events += [group[key].event("ended", now) for key in keys if group[key].ended_while_firing]
            mails[run] = [_mail_item(entries, key, now) for key in keys], events
            mailed[run] = now
    return mails


def is_within(now: int, begin: int, seconds: float) -> bool:
    """Return whether fewer than so many seconds have passed since a moment; False where it lies in the future, as after
    the clock was set back: then nobody knows, and nothing waits until the clock has caught up."""
    return 0 <= now - begin < seconds * 1e9


def _is_repeated(entry: AlertState, settings: AlertSettings, now: int) -> bool:
    lasts = entry.firing.until is None and entry.pending is None and not entry.ended
    return lasts and entry.notified is not None and not is_within(now, entry.notified, settings.repeat_hours * 3600)


def _mail_item(entries: dict[str, AlertState], key: str, now: int) -> Item:
    entry = entries[key]
    events, entry.unsent = entry.unsent, []
    kind: MailKind = "firing" if entry.notified is None else "repeated"
    if entry.ended_while_firing:
        kind = "ended"
    if entry.firing.until is not None:
        kind = "passed" if entry.notified is None else "recovered"
        del entries[key]
    entry.notifications += 1
    entry.notified, entry.pending = now, None
    return Item(kind, key, entry, events)

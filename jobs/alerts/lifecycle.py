"""The lifecycle of an alert: firing, repeated, resolved. Pure: the time is an argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

import orjson

from gatewatch.collector.schema import ALERT_EVENTS, FieldValue, Point
from gatewatch.jobs.alerts.series_state import Firing

if TYPE_CHECKING:
    from gatewatch.collector.config import AlertSettings
    from gatewatch.jobs.alerts.rule import Rule

FIRING: Final = "firing"
REPEATED: Final = "repeated"
RECOVERED: Final = "recovered"
MailKind = Literal["firing", "repeated", "recovered", "passed"]


@dataclass(frozen=True, slots=True)
class Alert:
    """A rule that fires for a series, or was resolved.

    Attributes:
        rule: which.
        tags: of the series.
        firing: since when, how bad, why; until when, where it is resolved.
        live: whether the run goes on.
    """

    rule: Rule
    tags: Mapping[str, str]
    firing: Firing
    live: bool = True

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
        state: firing, repeated or recovered.
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
        fields: dict[str, FieldValue] = {
            "value": self.value,
            "threshold": self.threshold,
            "state": self.state,
            "delivered": self.delivered,
        }
        return Point(ALERT_EVENTS, self.tags, fields, self.time)


@dataclass(slots=True)
class AlertState:
    """The state of an alert, and what was mailed about it.

    Attributes:
        rule, tags, firing, live: as of an `Alert`, newest.
        threshold: that the firing's worst value lies beyond.
        pending: since when a mail is due: that it fires, or that it is resolved; None for none.
        notified: when a mail last said that it fires; None where none did.
        notifications: how many mails did.
        unsent: events that no mail has mentioned.
    """

    rule: str
    tags: dict[str, str]
    firing: Firing
    threshold: float
    live: bool = True
    pending: int | None = None
    notified: int | None = None
    notifications: int = 0
    unsent: list[Event] = field(default_factory=list)

    @property
    def run(self) -> str:
        """The run that it is about; empty for the jobs or the store."""
        return self.tags.get("run", "")

    def event(self, state: str, now: int) -> Event:
        """Record an event, later than those before, and return it."""
        time = max(now, self.unsent[-1].time + 1) if self.unsent else now
        tags = {**self.tags, "rule": self.rule}
        value = self.firing.worst if state == FIRING else self.firing.value
        self.unsent.append(Event(tags, time, state, value, self.threshold))
        return self.unsent[-1]


@dataclass(frozen=True, slots=True)
class Item:
    """What a mail says of an alert.

    Attributes:
        kind: firing, repeated, recovered; or resolved before it was first mailed, which is `passed`.
        key: of the alert.
        entry: its state.
        events: that the mail mentions.
    """

    kind: MailKind
    key: str
    entry: AlertState
    events: Sequence[Event]


def advance(entries: dict[str, AlertState], alerts: Sequence[Alert], now: int) -> list[Event]:
    """Take in the alerts of an evaluation, and return the events of those that began or were resolved."""
    events = []
    for alert in alerts:
        entry, firing = entries.get(alert.key), replace(alert.firing)
        threshold, over = alert.rule.condition.threshold(firing.worst), firing.until is not None
        if entry is None:
            entry = entries[alert.key] = AlertState(alert.rule.name, dict(alert.tags), firing, threshold, pending=now)
            began, was_over = True, False
        else:
            was_over = entry.firing.until is not None
            began = was_over and firing.since != entry.firing.since
        entry.firing, entry.threshold, entry.live = firing, threshold, alert.live
        if began:
            events.append(entry.event(FIRING, now))
            if entry.notified is not None:  # the mail that says that it fires is still true
                entry.pending = None
        if over and (began or not was_over):
            events.append(entry.event(RECOVERED, now))
            entry.pending = now if entry.pending is None else entry.pending
    return events


def due(
    entries: dict[str, AlertState], mailed: dict[str, int], settings: AlertSettings, now: int
) -> dict[str, tuple[list[Item], list[Event]]]:
    """Return what is to be mailed now: run → the items of its one mail, and the events of alerts that are repeated.

    The alerts are marked as mailed; those that are resolved are forgotten.
    """
    groups: dict[str, list[str]] = {}
    for key, entry in entries.items():
        groups.setdefault(entry.run, []).append(key)
    due_mails: dict[str, tuple[list[Item], list[Event]]] = {}
    for run, keys in groups.items():
        waited = min((pending for key in keys if (pending := entries[key].pending) is not None), default=None)
        rests = now - mailed[run] < settings.group_interval_seconds * 1e9 if run in mailed else False
        gathered = waited is not None and now - waited >= settings.group_wait_seconds * 1e9
        repeated = [key for key in keys if _again(entries[key], settings, now)]
        if rests or not (gathered or repeated):
            continue
        events = [entries[key].event(REPEATED, now) for key in repeated]
        mailed_keys = [key for key in keys if key in repeated or entries[key].pending is not None]
        due_mails[run] = [_mail_item(entries, key, now) for key in mailed_keys], events
        mailed[run] = now
    return due_mails


def _again(entry: AlertState, settings: AlertSettings, now: int) -> bool:
    lasts = entry.firing.until is None and entry.pending is None and entry.live
    return lasts and entry.notified is not None and now - entry.notified >= settings.repeat_hours * 3600e9


def _mail_item(entries: dict[str, AlertState], key: str, now: int) -> Item:
    entry = entries[key]
    events, entry.unsent = entry.unsent, []
    over, new = entry.firing.until is not None, entry.notified is None
    kind: MailKind = ("passed" if new else "recovered") if over else ("firing" if new else "repeated")
    entry.notifications += 1
    entry.notified, entry.pending = now, None
    if over:
        del entries[key]
    return Item(kind, key, entry, events)

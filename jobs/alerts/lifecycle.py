"""The life of an alert: it fires, is told, told again while it lasts, and told to be over. Pure: the clock comes in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

import orjson

from gatewatch.collector.schema import ALERT_EVENTS, FieldValue, Point
from gatewatch.jobs.alerts.series_state import Episode

if TYPE_CHECKING:
    from gatewatch.collector.config import AlertSettings
    from gatewatch.jobs.alerts.rule import Rule

FIRING: Final = "firing"
REPEATED: Final = "repeated"
RECOVERED: Final = "recovered"
Kind = Literal["firing", "repeated", "recovered", "passed"]


@dataclass(frozen=True, slots=True)
class Alert:
    """A rule that fires for a series, or has ceased to.

    Attributes:
        rule: which.
        tags: of the series.
        episode: since when, how bad, why; until when, where it is over.
        live: whether the run goes on.
    """

    rule: Rule
    tags: Mapping[str, str]
    episode: Episode
    live: bool = True

    @property
    def key(self) -> str:
        """What names the alert, whenever it fires."""
        return alert_key(self.rule.name, self.tags)


def alert_key(rule: str, tags: Mapping[str, str]) -> str:
    """What names the alert of a rule and a series, whenever it fires."""
    return orjson.dumps([rule, sorted(tags.items())]).decode()


@dataclass(slots=True)
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
        """As a store takes it."""
        fields: dict[str, FieldValue] = {
            "value": self.value,
            "threshold": self.threshold,
            "state": self.state,
            "delivered": self.delivered,
        }
        return Point(ALERT_EVENTS, self.tags, fields, self.time)


@dataclass(slots=True)
class Entry:
    """What is known and told of an alert.

    Attributes:
        rule, tags, episode, live: as of an `Alert`, newest.
        threshold: that the episode's worst value lies beyond.
        pending: since when there is something to tell: that it fires, or that it is over; None for nothing.
        told: when it was last told to fire; None where it was not.
        tellings: how often it was.
        untold: events that no mail has told.
    """

    rule: str
    tags: dict[str, str]
    episode: Episode
    threshold: float
    live: bool = True
    pending: int | None = None
    told: int | None = None
    tellings: int = 0
    untold: list[Event] = field(default_factory=list)

    @property
    def run(self) -> str:
        """Whose alert it is; empty for one of the jobs or the store."""
        return self.tags.get("run", "")

    def event(self, state: str, now: int) -> Event:
        """A point of it, later than those before."""
        time = max(now, self.untold[-1].time + 1) if self.untold else now
        tags = {**self.tags, "rule": self.rule}
        value = self.episode.worst if state == FIRING else self.episode.value
        self.untold.append(Event(tags, time, state, value, self.threshold))
        return replace(self.untold[-1])


@dataclass(frozen=True, slots=True)
class Item:
    """What a mail says of an alert.

    Attributes:
        kind: that it fires, still fires, is over; or was over before it was first told, which is `passed`.
        key: of the alert.
        entry: what is known of it.
        events: that the mail tells of.
    """

    kind: Kind
    key: str
    entry: Entry
    events: Sequence[Event]


def advance(entries: dict[str, Entry], alerts: Sequence[Alert], now: int) -> list[Event]:
    """Take in what an evaluation found; the points of what has begun or is over."""
    events = []
    for alert in alerts:
        entry, episode = entries.get(alert.key), replace(alert.episode)
        threshold, over = alert.rule.threshold(episode.worst), episode.until is not None
        if entry is None:
            entry = entries[alert.key] = Entry(alert.rule.name, dict(alert.tags), episode, threshold, pending=now)
            began, was_over = True, False
        else:
            was_over = entry.episode.until is not None
            began = was_over and episode.since != entry.episode.since
        entry.episode, entry.threshold, entry.live = episode, threshold, alert.live
        if began:
            events.append(entry.event(FIRING, now))
            if entry.told is not None:  # to those who were told nothing has changed
                entry.pending = None
        if over and (began or not was_over):
            events.append(entry.event(RECOVERED, now))
            entry.pending = now if entry.pending is None else entry.pending
    return events


def due(
    entries: dict[str, Entry], mailed: dict[str, int], settings: AlertSettings, now: int
) -> dict[str, tuple[list[Item], list[Event]]]:
    """What is to be mailed now: run → what its one mail says, and the points of what is told again.

    What is told is taken note of: asked again, it is not due. What is over and told is forgotten.
    """
    groups: dict[str, list[str]] = {}
    for key, entry in entries.items():
        groups.setdefault(entry.run, []).append(key)
    found: dict[str, tuple[list[Item], list[Event]]] = {}
    for run, keys in groups.items():
        waited = min((pending for key in keys if (pending := entries[key].pending) is not None), default=None)
        rests = now - mailed[run] < settings.group_interval_seconds * 1e9 if run in mailed else False
        gathered = waited is not None and now - waited >= settings.group_wait_seconds * 1e9
        told_again = [key for key in keys if _again(entries[key], settings, now)]
        if rests or not (gathered or told_again):
            continue
        events = [entries[key].event(REPEATED, now) for key in told_again]
        telling = [key for key in keys if key in told_again or entries[key].pending is not None]
        found[run] = [_tell(entries, key, now) for key in telling], events
        mailed[run] = now
    return found


def _again(entry: Entry, settings: AlertSettings, now: int) -> bool:
    lasts = entry.episode.until is None and entry.pending is None and entry.live
    return lasts and entry.told is not None and now - entry.told >= settings.repeat_hours * 3600e9


def _tell(entries: dict[str, Entry], key: str, now: int) -> Item:
    entry = entries[key]
    events, entry.untold = entry.untold, []
    over, new = entry.episode.until is not None, entry.told is None
    kind: Kind = ("passed" if new else "recovered") if over else ("firing" if new else "repeated")
    entry.tellings += 1
    entry.told, entry.pending = now, None
    if over:
        del entries[key]
    return Item(kind, key, entry, events)

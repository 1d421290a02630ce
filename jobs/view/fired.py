"""What fired lately in all runs of a store, and what of it is over. Pure: frames and rows in, entries out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from gatewatch.jobs.alerts.rules import BUILT_IN
from gatewatch.jobs.frames import times
from gatewatch.jobs.runbook import what_to_do
from gatewatch.jobs.text import number
from gatewatch.jobs.view.run_list import MILLISECOND

if TYPE_CHECKING:
    import pandas as pd

    from gatewatch.jobs.alerts.rule import Rule

State = Literal["fires", "ended", "over"]
STATES: Final[Mapping[State, str]] = {
    "fires": "fires",
    "ended": "its run ended while it fired",
    "over": "over",
}
"""State of what fired → the same in words, in the order of the page."""
_OF_EVENT: Final[Mapping[str, State]] = {"firing": "fires", "repeated": "fires", "ended": "ended"}
"""State of the newest event of an alert → its state; any other means that it is over."""
_RULES: Final[Mapping[str, Rule]] = {rule.name: rule for rule in BUILT_IN}
_PLACE: Final = ("layer", "gate", "param", "job")
_FIELDS: Final = ("state", "value", "threshold")


@dataclass(frozen=True, slots=True)
class Fired:
    """The alerts of one rule in one run and phase that are in one state.

    Attributes:
        rule: its name.
        run, phase: empty where it is about the jobs or the store.
        state: whether it fires.
        places: of the alerts, the one that fired first comes first; each as `layer gate` or a job.
        since: when the first fired, nanoseconds.
        until: when the last was resolved or ended, nanoseconds; None while it fires.
        evidence: how far it went, in words; empty where that is not known.
    """

    rule: str
    run: str
    phase: str
    state: State
    places: tuple[str, ...]
    since: int
    until: int | None = None
    evidence: str = ""

    @property
    def what(self) -> str:
        """What is wrong, in a few words."""
        return _RULES[self.rule].summary if self.rule in _RULES else self.rule

    @property
    def to_do(self) -> list[tuple[str, str]]:
        """What the runbook says about it; see `what_to_do`."""
        return what_to_do(self.rule)

    @property
    def is_critical(self) -> bool:
        """Whether the rule is a critical one, which fires."""
        return self.state == "fires" and self.rule in _RULES and _RULES[self.rule].condition.severity == "critical"


def fired(events: pd.DataFrame, rows: Iterable[Mapping[str, Any]]) -> list[Fired]:
    """Return what fired: first what fires still, then what ended with its run, then what is over; the newest first.

    Args:
        events: points of `alert_events`, read with `prefix_tags`.
        rows: of the list of runs. Scores above 1, and the death of a run, count where no event was recorded of them,
            as nobody evaluates alerts where only the page scores.
    """
    recorded = _recorded(events)
    known = {(one.run, one.rule) for one in recorded}
    seen = [one for row in rows for one in (*_died(row), *_scored(row)) if (one.run, one.rule) not in known]
    order = list(STATES)
    return sorted([*recorded, *seen], key=lambda one: (order.index(one.state), -(one.until or one.since), one.run))


def _recorded(events: pd.DataFrame) -> list[Fired]:
    """Return what the events say, those of one rule, run, phase and state together."""
    if events.empty or not {"rule", *_FIELDS} <= {*events.columns}:
        return []
    tags = [name for name in ("rule", "run", "phase", *_PLACE) if name in events]
    frame = events[tags].fillna("").assign(time=times(events), **{name: events[name] for name in _FIELDS})
    alerts: dict[tuple[str, str, str, State], list[Fired]] = {}
    for values, points in frame.groupby(tags, sort=False):
        of = dict(zip(tags, map(str, values), strict=True))
        rule, run, phase = of["rule"], of.get("run", ""), of.get("phase", "")
        state = _OF_EVENT.get(str(points["state"].iloc[-1]), "over")
        begun = points[points["state"] == "firing"]
        first, last = (begun if len(begun) else points).iloc[-1], points.iloc[-1]
        place = " ".join(filter(None, (of.get(name, "") for name in _PLACE)))
        until = None if state == "fires" else int(last["time"])
        alert = Fired(rule, run, phase, state, (place,), int(first["time"]), until, _evidence(rule, first.to_dict()))
        alerts.setdefault((rule, run, phase, state), []).append(alert)
    return [_together(each) for each in alerts.values()]


def _evidence(rule: str, event: Mapping[Any, Any]) -> str:
    text = _RULES[rule].quantity.text if rule in _RULES else "value"
    return f"{text} {number(event['value'])}, limit {number(event['threshold'])}"


def _together(alerts: Sequence[Fired]) -> Fired:
    """Return the alerts of one rule in one run as one entry, named after the one that fired first."""
    ordered = sorted(alerts, key=lambda one: one.since)
    untils = [one.until for one in alerts if one.until is not None]
    return replace(
        ordered[0],
        places=tuple(dict.fromkeys(place for one in ordered for place in one.places if place)),
        until=max(untils, default=None),
    )


def _died(row: Mapping[str, Any]) -> list[Fired]:
    return (
        [Fired("run_died", str(row["run"]), "", "fires", (), _nanoseconds(row["seen"]))]
        if row["state"] == "died"
        else []
    )


def _scored(row: Mapping[str, Any]) -> list[Fired]:
    """Return that a run's scores are or were above 1."""
    worst, now = ((row.get("trend") or {}).get(name) for name in ("worst", "now"))
    if worst is None or worst["score"] <= 1:
        return []
    is_high = now is not None and now > 1
    state: State = "over" if not is_high else "fires" if row["state"] == "live" else "ended"
    since = worst["since"]
    step = f", since step {number(since)}" if since is not None else ""
    return [
        Fired(
            "anomaly",
            str(row["run"]),
            worst["phase"],
            state,
            (f"{worst['layer']} {worst['gate']}".strip(),),
            _nanoseconds(worst["since_time"] or row["seen"]),
            _nanoseconds(row["seen"]) if state == "ended" else None,
            f"score up to {number(worst['score'])}{step}",
        )
    ]


def _nanoseconds(milliseconds: int | None) -> int:
    return (milliseconds or 0) * MILLISECOND

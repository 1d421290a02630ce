"""A rule as Grafana evaluates it: query, reduce, threshold, and the states of each series. After pkg/services/ngalert.

What is not of Grafana's is asserted: an answer that it would refuse, or of which it would make something silently.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gatewatch.collector.errors import GatewatchError
from grafana.emulator.frames import FluxSource, Frame
from grafana.emulator.interpolate import Moment, interpolate

SECOND = 10**9
Labels = tuple[tuple[str, str], ...]
UNITS = {"s": 1, "m": 60, "h": 3600}


def seconds(duration: str) -> int:
    """Of a duration such as 5m."""
    return int(duration[:-1]) * UNITS[duration[-1]]


def series(frames: Sequence[Frame]) -> dict[Labels, list[float]]:
    """The series of an answer to a rule's query."""
    found: dict[Labels, list[float]] = {}
    for frame in frames:
        assert [(one.name, one.kind) for one in frame.fields] == [("Time", "time"), ("Value", "number")]
        time, value = (one.values for one in frame.fields)
        assert time == sorted(time)
        assert None not in time
        assert None not in value, "a null at the end makes NoData"
        assert all(math.isfinite(number) for number in value)
        labels = tuple(sorted(frame.labels.items()))
        assert labels not in found, "duplicate results with the same labels"
        found[labels] = [float(number) for number in value]
    return found


@dataclass
class State:
    """Of one series.

    Attributes:
        state: Normal, Pending, Alerting, NoData, Error.
        since: seconds.
        evaluated: seconds.
        value: the newest; None where there was none.
    """

    state: str = "Normal"
    since: float = 0.0
    evaluated: float = 0.0
    value: float | None = None


@dataclass
class Evaluator:
    """One rule over time.

    Args:
        content: of the rule, as the provisioning file has it.
        source: the bucket.
        interval: of its group, seconds.

    Attributes:
        states: of each series.
        mailed: seconds, the series, and what was mailed about it: firing, resolved, or `no data`: resolved since its
            data ended (`grafana_state_reason` is MissingSeries, or NoData where no series is left).
    """

    content: Mapping[str, Any]
    source: FluxSource
    interval: int = 60
    states: dict[Labels, State] = field(default_factory=dict)
    mailed: list[tuple[float, str, Labels]] = field(default_factory=list)
    milliseconds: float = 0.0

    def evaluate(self, now: float) -> dict[Labels, str]:
        """The states after an evaluation at so many seconds since the epoch."""
        try:
            found = series(self._ask(now))
        except GatewatchError:
            self._known((), now, "Error", None)
        else:
            for labels, values in found.items():
                self._known(labels, now, self._condition(values[-1]), values[-1])
            if not found:
                for labels in list(self.states) or [()]:
                    self._known(labels, now, "NoData", None)
        self._forget(now)
        return {labels: state.state for labels, state in self.states.items()}

    def until(self, start: float, stop: float) -> set[Labels]:
        """Evaluate again and again, from one time to another; the series that are alerting in the end."""
        now = start
        while now <= stop:
            self.evaluate(now)
            now += self.interval
        return self.alerting

    @property
    def alerting(self) -> set[Labels]:
        return {labels for labels, state in self.states.items() if state.state == "Alerting"}

    def _ask(self, now: float) -> Sequence[Frame]:
        query = self.content["data"][0]
        span = query["relativeTimeRange"]
        stop = int(now) * SECOND
        moment = Moment(stop - span["from"] * SECOND, stop - span["to"] * SECOND, self.source.bucket)
        answer = self.source.ask(interpolate(query["model"]["query"], {}, moment))
        self.milliseconds = max(self.milliseconds, answer.milliseconds)
        return answer.frames

    def _condition(self, value: float) -> str:
        (condition,) = self.content["data"][2]["model"]["conditions"]
        kind, (threshold,) = condition["evaluator"]["type"], condition["evaluator"]["params"]
        return "Alerting" if (value > threshold if kind == "gt" else value < threshold) else "Normal"

    def _known(self, labels: Labels, now: float, result: str, value: float | None) -> None:
        state = self.states.setdefault(labels, State(since=now))
        before, wait = state.state, seconds(self.content["for"])
        state.evaluated, state.value = now, value
        kept = {"NoData": self.content["noDataState"], "Error": self.content["execErrState"]}.get(result, result)
        aimed = {"OK": "Normal"}.get(kept, kept)
        if aimed == "Alerting" and result != "NoData":  # which is told at once
            if before == "Pending":
                aimed = "Alerting" if now - state.since >= wait else "Pending"
            elif before not in ("Alerting", "Error"):
                aimed = "Pending" if wait else "Alerting"
        if aimed != before:
            state.state, state.since = aimed, now
            if aimed == "Alerting":
                self.mailed.append((now, "firing", labels))
            elif before == "Alerting":
                self.mailed.append((now, "no data" if result == "NoData" else "resolved", labels))

    def _forget(self, now: float) -> None:
        for labels, state in list(self.states.items()):
            if now - state.evaluated >= 2 * self.interval:
                if state.state == "Alerting":
                    self.mailed.append((now, "no data", labels))
                del self.states[labels]

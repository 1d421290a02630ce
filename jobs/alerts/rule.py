"""The declaration of an alert rule, from which the evaluator, Grafana's rule and the mail are made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Final, Literal

Severity = Literal["critical", "warning"]
Measure = Literal[
    "value",
    "not_finite",
    "share_of_units",
    "frozen",
    "rise",
    "growth",
    "times_median",
    "run_silence",
    "capture_silence",
    "score_delay",
    "store_silence",
    "turn_silence",
    "jobs_silence",
    "write_silence",
    "last_event",
]
Unit = Literal["", "s", "share", "B"]

RUN: Final = ("run", "phase")
LAYER: Final = (*RUN, "layer")
GATE: Final = (*LAYER, "gate")
PARAM: Final = (*LAYER, "param")
JOB: Final = ("job",)


@dataclasses.dataclass(frozen=True, slots=True)
class Quantity:
    """What a rule reads and compares.

    Attributes:
        measurement, field: what is read.
        text: what is compared, in words.
        series: the tags that distinguish the series in Grafana; Grafana's rules keep no other tags.
        measure: what is compared.
            `value`: the field, in its own unit.
            `not_finite`: number of values of a gate or parameter that are NaN or infinite.
            `share_of_units`: `dead_units` divided by the number of units, 0 to 1.
            `frozen`: the largest `update_norm` of a layer's parameters, while some layer of the run moves.
            `rise`: increase of a counter, in the field's unit.
            `growth`: increase of the field from one heartbeat to the next, in the field's unit.
            `times_median`: the field divided by its own median, without a unit.
            `last_event`: 1 while an alert fires, otherwise 0.
            `run_silence`: seconds since the last event of a run.
            `capture_silence`: time since the last capture, in multiples of the usual time between captures.
            `score_delay`: seconds that a capture has waited for its score.
            `turn_silence`: time since a job last ended a turn, in multiples of the usual time between those ends.
            `jobs_silence`: seconds since the last report of any job.
            `write_silence`: seconds since a run or a job last wrote anything.
            `store_silence`: seconds without an answer of the store.
        unit: of what is compared.
        where: tag → its values that the rule applies to; a tag that is not named may have any value.
        unless: tag → its value in another series, which else has the same tags: where its capture lies beyond the
            threshold too, the capture is left out, since another rule alerts about it. Empty: none is left out.
        floor: values below it are left out of a median, as a multiple of next to nothing has no meaning.
    """

    measurement: str
    field: str
    text: str = ""
    series: Sequence[str] = RUN
    measure: Measure = "value"
    unit: Unit = ""
    where: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    unless: Mapping[str, str] = dataclasses.field(default_factory=dict)
    floor: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """When a rule fires for a series, and how bad that is.

    Attributes:
        above, below: the thresholds.
        recovery: how far a value must come back; None: the threshold.
        for_captures, within: how many captures of how many; `within` 0: of as many.
        after_inside: fire only for a series that was within the thresholds before.
        lasting: do not alert about a firing that was already over when it was first read.
        severity: critical, or warning.
    """

    above: float | None = None
    below: float | None = None
    recovery: float | None = None
    for_captures: int = 1
    within: int = 0
    after_inside: bool = False
    lasting: bool = False
    severity: Severity = "warning"

    def __post_init__(self) -> None:
        object.__setattr__(self, "within", self.within or self.for_captures)

    def beyond(self, value: float, *, recovering: bool = False) -> bool:
        """Return whether a value lies past a threshold; `recovering`: past `recovery` instead, where there is one."""
        above, below = self.above, self.below
        if recovering and self.recovery is not None:
            above, below = above if above is None else self.recovery, below if below is None else self.recovery
        return (above is not None and value > above) or (below is not None and value < below)

    @property
    def is_upper(self) -> bool:
        """Whether it has a threshold that values must not exceed."""
        return self.above is not None

    def threshold(self, value: float = math.nan) -> float:
        """Return the threshold that a value is compared with: the one that it lies beyond, or the only one."""
        return (self.below if self._is_low(value) else self.above) or 0.0

    def worst(self, values: Sequence[float]) -> float:
        """Return the value furthest beyond the threshold; with two, beyond the one that the first lies beyond."""
        return min(values) if self._is_low(values[0]) else max(values)

    def _is_low(self, value: float) -> bool:
        return self.above is None or (self.below is not None and value < self.below)


@dataclasses.dataclass(frozen=True, slots=True)
class InGrafana:
    """How Grafana evaluates and shows a rule.

    Attributes:
        dashboard, panel: the panel that shows it, by its title.
        lookback_seconds: how far back Grafana reads: a series, from its newest capture on.
        wait_seconds: for how long the condition must hold in Grafana before it fires.
        alone: whether only Grafana can evaluate it, not the evaluator of the jobs.
    """

    dashboard: str
    panel: str
    lookback_seconds: int = 900
    wait_seconds: int = 0
    alone: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """When to alert, about what, and what to do then.

    A rule fires for a series (the points of a measurement that share their tags) once `for_captures` of its last
    `within` captures lie beyond `above` or `below`. It is resolved once none of the last `within` lies beyond
    `recovery`. A rule about silence compares the silence at the time of the evaluation instead.

    Attributes:
        name: of the rule, and of its section in docs/runbook.md.
        summary: what is wrong, in a few words.
        remedy: what to do first, in a sentence that is right after the run's end too.
        quantity: what is compared.
        condition: when it fires, and how bad that is.
        grafana: how Grafana evaluates it; None: only the jobs do.
        runbook: the address of its section, where that is not Gatewatch's own runbook.
        while_live: what to do before that while the run goes on; empty: nothing.
        critical_for: causes of a score; an alert is a warning where the score has none of them. Empty: it has the
            severity of its condition whatever the causes are.
    """

    name: str
    summary: str
    remedy: str
    quantity: Quantity
    condition: Condition
    grafana: InGrafana | None = None
    runbook: str | None = None
    while_live: str = ""
    critical_for: Collection[str] = ()

    def severity(self, causes: Collection[str]) -> Severity:
        """Return the severity of an alert about a score with these causes; none where they are not known."""
        is_mild = bool(causes) and bool(self.critical_for) and not {*causes} & {*self.critical_for}
        return "warning" if is_mild else self.condition.severity

    @property
    def about_silence(self) -> bool:
        """Whether the rule compares the length of a silence, instead of captures."""
        return self.quantity.measure.endswith(("_silence", "_delay"))

    def concerns(self, tags: Mapping[str, str]) -> bool:
        """Return whether the rule applies to a series with these tags."""
        return all(tags.get(name) in values for name, values in self.quantity.where.items())

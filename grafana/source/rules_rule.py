"""A rule as Grafana evaluates it: from the rule of the mails and a query to what its provisioning reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from grafana_foundation_sdk.builders import alerting, expr
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.alerting import RelativeTimeRange

from gatewatch.jobs.alerts.rule import Rule
from gatewatch.jobs.text import number
from grafana.source.flux import DATASOURCE_TYPE, DATASOURCE_UID
from grafana.source.links import RUNBOOK

EXPRESSIONS: Final = "__expr__"
"""The uid of Grafana's own datasource, which reduces and compares."""
SERVICE: Final = "gatewatch"
"""Of the label `service`, by which these alerts are told from a user's others."""
COUNTED: Final = ("not_finite", "rise")
"""Measures that count: over is whatever is below the next whole number."""
POINTS: Final = 43_200
"""More rows than any series of a rule has."""

PLAIN: Final = '{{ printf "%.4g" .Value }}'
SHARE: Final = "{{ humanizePercentage .Value }}"
DURATION: Final = "{{ humanizeDuration .Value }}"
MULTIPLE: Final = '{{ printf "%.4g" .Value }} times'
BYTES: Final = "{{ humanize1024 .Value }}B"
Comparison = tuple[Literal["gt", "lt"], float]
Panel = tuple[str, str]
"""The uid of a dashboard, and the title of one of its panels."""


@dataclass(frozen=True, slots=True)
class AlertRule:
    """One rule.

    Attributes:
        rule: what it is about, its thresholds and what is said of it.
        flux: the query.
        seconds: how far back it reads.
        labels: what a series is known by.
        panel: where to look.
        when: for how long, in words.
        quantity: what is compared, in words; that of the rule where empty.
        shown: how the value is written, in terms of Go's templates.
        remedy: what to do first; that of the rule where empty.
        of: what the threshold is a number of; empty where `quantity` says it.
        unit: what 1 in the query is.
        wait: how long it must be beyond its threshold before it fires.
        error: the state where the query fails.
        no_data: the state where it gives nothing.
    """

    rule: Rule
    flux: str
    seconds: int
    labels: Sequence[str]
    panel: Panel
    when: str
    quantity: str = ""
    shown: str = PLAIN
    of: str = ""
    remedy: str = ""
    unit: float = 1.0
    wait: str = "1m"
    error: Literal["OK", "Error", "Alerting"] = "Error"
    no_data: Literal["OK", "NoData", "Alerting"] = "OK"

    @property
    def uid(self) -> str:
        """By which Grafana knows it."""
        return f"gatewatch-{self.rule.name.replace('_', '-')}"

    @property
    def fires(self) -> Comparison:
        """The comparison and what is compared with."""
        rule = self.rule
        return ("gt", rule.above / self.unit) if rule.above is not None else ("lt", (rule.below or 0.0) / self.unit)

    @property
    def recovers(self) -> Comparison:
        """The same for the way back."""
        kind, threshold = self.fires
        if self.rule.recovery is not None:
            threshold = self.rule.recovery / self.unit
        elif self.rule.measure in COUNTED:
            threshold += 1
        return ("lt" if kind == "gt" else "gt"), threshold

    def content(self, panel_id: Callable[[str, str], int]) -> dict[str, Any]:
        """As a provisioning file has it.

        Args:
            panel_id: gives the number of a panel of a dashboard, by its title.
        """
        dashboard, title = self.panel
        built = (
            alerting.Rule(self.rule.name)
            .uid(self.uid)
            .condition("C")
            .with_query(self._query())
            .with_query(_expression("B", expr.TypeReduce().expression("A").reducer("last")))
            .with_query(_expression("C", expr.TypeThreshold().expression("B").conditions([self._condition()])))
            .for_val(self.wait)
            .no_data_state(self.no_data)
            .exec_err_state(self.error)
            .labels({"service": SERVICE, "severity": self.rule.severity})
            .annotations(
                {
                    "summary": self._summary(),
                    "description": self._description(),
                    # No slash before it: pages of Grafana know where they lie, and mails put the rest in front.
                    "runbook_url": f"d/{RUNBOOK}?viewPanel={panel_id(RUNBOOK, self.rule.name)}",
                    "__dashboardUid__": dashboard,
                    "__panelId__": str(panel_id(dashboard, title)),
                }
            )
        )
        found: dict[str, Any] = json.loads(json.dumps(built.build(), cls=JSONEncoder))
        found["data"][0]["model"] = self._model()
        return {name: found[name] for name in _KEYS}

    def _query(self) -> alerting.Query:
        query = alerting.Query("A").datasource_uid(DATASOURCE_UID)
        return query.relative_time_range(RelativeTimeRange(from_val=self.seconds, to=0))

    def _model(self) -> Mapping[str, Any]:
        source = {"type": DATASOURCE_TYPE, "uid": DATASOURCE_UID}
        return {"refId": "A", "datasource": source, "query": self.flux, "intervalMs": 1000, "maxDataPoints": POINTS}

    def _condition(self) -> expr.ExprTypeThresholdConditions:
        (fires, threshold), (recovers, back) = self.fires, self.recovers
        fire = expr.ExprTypeThresholdConditionsEvaluator().type(fires).params([threshold])
        over = expr.ExprTypeThresholdConditionsUnloadEvaluator().type(recovers).params([back])
        return expr.ExprTypeThresholdConditions().evaluator(fire).unload_evaluator(over)

    @property
    def _value(self) -> str:
        scale = "" if self.unit == 1.0 else f" × {number(self.unit)}"
        quantity = self.quantity or self.rule.quantity
        return f"{{{{ with $values.B }}}}; {quantity} {self.shown}{scale}{{{{ end }}}}"

    def _summary(self) -> str:
        return f"{_who(self.labels)}{self.rule.summary}{self._value}"

    def _description(self) -> str:
        rule = self.rule
        side, threshold = ("above", rule.above) if rule.above is not None else ("below", rule.below)
        limit = " ".join(filter(None, [number(threshold), self.of, self.when]))
        return f"Alerts {side} {limit}. {self.remedy or rule.remedy}"


def over_spans(rule: Rule, span: str) -> str:
    """How many of how many spans of time that have points, in words."""
    if rule.within == 1:
        return ""
    if rule.for_captures == rule.within:
        return f"in {rule.within} {span} in a row"
    many = "one" if rule.for_captures == 1 else str(rule.for_captures)
    return f"in {many} of the last {rule.within} {span}"


_KEYS: Final = ("uid", "title", "condition", "data", "noDataState", "execErrState", "for", "annotations", "labels")


def _who(labels: Sequence[str]) -> str:
    """Whom an alert is about, in terms of Go's templates. What stands in a label is never read as a template."""
    if "run" in labels:
        place = "".join(f"{{{{ with $labels.{name} }}}} {{{{ . }}}}{{{{ end }}}}" for name in labels[2:])
        return f"{{{{ $labels.run }}}} ({{{{ $labels.phase }}}}){place}: "
    return "".join(f"{name} {{{{ $labels.{name} }}}}: " for name in labels)


def _expression(ref: str, model: expr.TypeReduce | expr.TypeThreshold) -> alerting.Query:
    return alerting.Query(ref).datasource_uid(EXPRESSIONS).model(model.ref_id(ref))

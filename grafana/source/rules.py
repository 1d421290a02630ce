"""Grafana's alert rules, made from the rules that `gatewatch.jobs.alerts` declares."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from grafana_foundation_sdk.builders import alerting, expr
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.alerting import RelativeTimeRange

from gatewatch.jobs.alerts.rule import Measure, Rule
from gatewatch.jobs.alerts.rules import BUILT_IN
from gatewatch.jobs.alerts.service_rules import SERVICE_RULES
from gatewatch.jobs.text import number
from grafana.source import rules_measures as measures
from grafana.source import rules_silence as silence
from grafana.source.flux import DATASOURCE_TYPE, DATASOURCE_UID
from grafana.source.links import RUNBOOK

FOLDER: Final = "Gatewatch alerts"
INTERVAL: Final = "1m"
"""How often rules are evaluated: a multiple of 10 s, or Grafana does not start."""
EXPRESSIONS: Final = "__expr__"
"""The uid of Grafana's own datasource, which reduces and compares."""
SERVICE: Final = "gatewatch"
"""The value of the label `service`, which only these alerts have."""
MOST_POINTS: Final = 43_200
"""More rows than any series of a rule has."""

MEASURES: Final[Mapping[Measure, Callable[[Rule], str]]] = {
    "value": measures.value,
    "not_finite": measures.not_finite,
    "share_of_units": measures.share_of_units,
    "frozen": measures.frozen,
    "rise": measures.rise,
    "growth": measures.growth,
    "times_median": measures.times_median,
    "last_event": measures.last_event,
    "run_silence": silence.run_silence,
    "capture_silence": silence.capture_silence,
    "score_delay": silence.score_delay,
    "store_silence": silence.store_silence,
    "turn_silence": silence.turn_silence,
    "jobs_silence": silence.jobs_silence,
    "write_silence": silence.write_silence,
}
"""Measure → the query of a rule that compares it."""
_SHOWN: Final = {
    "": '{{ printf "%.4g" .Value }}',
    "s": "{{ humanizeDuration .Value }}",
    "share": "{{ humanizePercentage .Value }}",
    "B": "{{ humanize1024 .Value }}B",
}
_KEYS: Final = ("uid", "title", "condition", "data", "noDataState", "execErrState", "for", "annotations", "labels")
PanelId = Callable[[str, str], int]
"""Gives the number of a panel, from the uid of its dashboard and its title."""


def rules_file(panel_id: PanelId, rules: Sequence[Rule] = BUILT_IN) -> dict[str, Any]:
    """Return the provisioning file of the rules that Grafana can evaluate.

    Args:
        panel_id: gives the number of a panel of a dashboard, by its title.
        rules: the declared ones.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for rule in rules:
        if rule.grafana is not None:
            groups.setdefault(_group(rule), []).append(grafana_rule(rule, panel_id))
    return {
        "apiVersion": 1,
        "groups": [
            {"orgId": 1, "name": f"Gatewatch {name}", "folder": FOLDER, "interval": INTERVAL, "rules": content}
            for name, content in groups.items()
        ],
    }


def grafana_rule(rule: Rule, panel_id: PanelId) -> dict[str, Any]:
    """Return one rule as a provisioning file has it.

    Args:
        rule: its declaration; must say how Grafana shows it.
        panel_id: gives the number of a panel of a dashboard, by its title.

    Raises:
        ValueError: the rule is for the jobs alone.
    """
    if rule.grafana is None:
        raise ValueError(f"the rule {rule.name} is for the jobs alone; say with grafana= how Grafana shows it")
    dashboard = f"gatewatch-{rule.grafana.dashboard}"
    query = alerting.Query("A").datasource_uid(DATASOURCE_UID)
    built = (
        alerting.Rule(rule.name)
        .uid(f"gatewatch-{rule.name.replace('_', '-')}")
        .condition("C")
        .with_query(query.relative_time_range(RelativeTimeRange(from_val=rule.grafana.lookback_seconds, to=0)))
        .with_query(_expression("B", expr.TypeReduce().expression("A").reducer("last")))
        .with_query(_expression("C", expr.TypeThreshold().expression("B").conditions([_condition(rule)])))
        .for_val(_duration(rule.grafana.wait_seconds))
        .no_data_state("Alerting" if rule.quantity.measure == "write_silence" else "OK")
        .exec_err_state("Alerting" if rule.quantity.measure == "store_silence" else "Error")
        .labels({"service": SERVICE, "severity": rule.severity})
        .annotations(
            {
                "summary": f"{_subject(rule.quantity.series)}{rule.summary}"
                f"{{{{ with $values.B }}}}; {rule.quantity.text} {_SHOWN[rule.quantity.unit]}{{{{ end }}}}",
                "description": f"Alerts {_when(rule)}. {rule.remedy}",
                # No slash before it: pages of Grafana know where they lie, and mails put the rest in front.
                "runbook_url": f"d/{RUNBOOK}?viewPanel={panel_id(RUNBOOK, rule.name)}",
                "__dashboardUid__": dashboard,
                "__panelId__": str(panel_id(dashboard, rule.grafana.panel)),
            }
        )
    )
    content: dict[str, Any] = json.loads(json.dumps(built.build(), cls=JSONEncoder))
    content["data"][0]["model"] = {
        "refId": "A",
        "datasource": {"type": DATASOURCE_TYPE, "uid": DATASOURCE_UID},
        "query": MEASURES[rule.quantity.measure](rule),
        "intervalMs": 1000,
        "maxDataPoints": MOST_POINTS,
    }
    return {name: content[name] for name in _KEYS}


def _group(rule: Rule) -> str:
    if rule not in SERVICE_RULES:
        return "network"
    return "runs" if "run" in rule.quantity.series else "jobs"


def _condition(rule: Rule) -> expr.ExprTypeThresholdConditions:
    """The threshold alone: how far a value must come back, and for how many captures, is counted in Flux."""
    kind = "gt" if rule.condition.is_upper else "lt"
    evaluator = expr.ExprTypeThresholdConditionsEvaluator().type(kind).params([rule.condition.threshold()])  # type: ignore[arg-type]
    return expr.ExprTypeThresholdConditions().evaluator(evaluator)


def _when(rule: Rule) -> str:
    condition, side = rule.condition, "above" if rule.condition.is_upper else "below"
    unit = f" {rule.quantity.unit}" if rule.quantity.unit in ("s", "B") else ""
    points = "reports" if rule in SERVICE_RULES else "captures"
    if condition.within == 1:
        count = ""
    elif condition.for_captures == condition.within:
        count = f" in {condition.within} {points} in a row"
    else:
        count = f" in {condition.for_captures} of the last {condition.within} {points}"
    return f"{side} {number(condition.threshold())}{unit}{count}"


def _subject(labels: Sequence[str]) -> str:
    """What an alert is about, in terms of Go's templates. What stands in a label is never read as a template."""
    if "run" in labels:
        place = "".join(f"{{{{ with $labels.{name} }}}} {{{{ . }}}}{{{{ end }}}}" for name in labels[2:])
        return f"{{{{ $labels.run }}}} ({{{{ $labels.phase }}}}){place}: "
    return "".join(f"{name} {{{{ $labels.{name} }}}}: " for name in labels)


def _expression(ref: str, model: expr.TypeReduce | expr.TypeThreshold) -> alerting.Query:
    return alerting.Query(ref).datasource_uid(EXPRESSIONS).model(model.ref_id(ref))


def _duration(seconds: int) -> str:
    return f"{seconds // 60}m" if seconds and seconds % 60 == 0 else f"{seconds}s"

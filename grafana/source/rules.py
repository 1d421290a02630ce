"""Grafana's alert rules, made from the rules that `gatewatch.jobs.alerts` declares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from gatewatch.jobs.alerts.rule import Rule
from gatewatch.jobs.alerts.rules import BUILT_IN
from gatewatch.jobs.alerts.service_rules import SERVICE_RULES
from gatewatch.jobs.text import number
from grafana.source import rules_measures as measures
from grafana.source import rules_silence as silence
from grafana.source.flux import DATASOURCE, DATASOURCE_UID
from grafana.source.links import uid

FOLDER: Final = "Gatewatch alerts"
INTERVAL: Final = "1m"
"""How often rules are evaluated: a multiple of 10 s, or Grafana does not start."""
EXPRESSIONS: Final = "__expr__"
"""The uid of Grafana's own datasource for expressions, which reduces and compares."""
SERVICE: Final = "gatewatch"
"""The value of the label `service`, which only these alerts have."""
MOST_POINTS: Final = 43_200
"""Limit of rows per series; no rule reaches it."""

_SHOWN: Final = {
    "": '{{ printf "%.4g" .Value }}',
    "s": "{{ humanizeDuration .Value }}",
    "share": "{{ humanizePercentage .Value }}",
    "B": "{{ humanize1024 .Value }}B",
}
PanelId = Callable[[str, str], int]
"""Returns the number of a panel, from the uid of its dashboard and its title."""


def rules_file(panel_id: PanelId, rules: Sequence[Rule] = BUILT_IN) -> dict[str, Any]:
    """Return the provisioning file of the rules that Grafana can evaluate.

    Args:
        panel_id: returns the number of a panel; the rules link to panels.
        rules: the declared rules.
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
    """Return one rule in the form of a provisioning file.

    Args:
        rule: the declaration of the rule; its `grafana` must be set.
        panel_id: returns the number of a panel; the rule links to panels.

    Raises:
        ValueError: only the jobs evaluate this rule.
    """
    if (grafana := rule.grafana) is None:
        raise ValueError(f"the rule {rule.name} is for the jobs alone; say with grafana= how Grafana shows it")
    dashboard, runbook = uid(grafana.dashboard), uid("runbook")
    model = {"query": query(rule), "datasource": DATASOURCE.to_json(), "intervalMs": 1000, "maxDataPoints": MOST_POINTS}
    # The threshold alone: how far a value must come back, and for how many captures, is counted in Flux.
    evaluator = {"type": "gt" if rule.condition.is_upper else "lt", "params": [rule.condition.threshold()]}
    return {
        "uid": f"gatewatch-{rule.name.replace('_', '-')}",
        "title": rule.name,
        "condition": "C",
        "data": [
            {**_query("A", DATASOURCE_UID, **model), "relativeTimeRange": {"from": grafana.lookback_seconds, "to": 0}},
            _query("B", EXPRESSIONS, type="reduce", expression="A", reducer="last"),
            _query("C", EXPRESSIONS, type="threshold", expression="B", conditions=[{"evaluator": evaluator}]),
        ],
        "for": duration(grafana.wait_seconds),
        "noDataState": "Alerting" if rule.quantity.measure == "write_silence" else "OK",
        "execErrState": "Alerting" if rule.quantity.measure == "store_silence" else "Error",
        # Where it depends on the causes of a score, the query gives each series its own.
        "labels": {"service": SERVICE} | ({} if rule.critical_for else {"severity": rule.condition.severity}),
        "annotations": {
            # Grafana's list of rules shows it without filling it in; so what differs from alert to alert is not in it.
            "summary": rule.summary,
            "value": f"{{{{ with $values.B }}}}{rule.quantity.text}: {_SHOWN[rule.quantity.unit]}{{{{ end }}}}",
            "description": " ".join(filter(None, (f"Alerts {_when(rule)}.", rule.while_live, rule.remedy))),
            # No slash before it: pages of Grafana know where they lie, and mails put the rest in front.
            "runbook_url": f"d/{runbook}?viewPanel={panel_id(runbook, rule.name)}",
            "__dashboardUid__": dashboard,
            "__panelId__": str(panel_id(dashboard, grafana.panel)),
        },
    }


def query(rule: Rule) -> str:
    """Return the query of a rule, in Flux. The function that makes it has the name of the rule's measure."""
    return str(getattr(silence if rule.about_silence else measures, rule.quantity.measure)(rule))


def _group(rule: Rule) -> str:
    if rule not in SERVICE_RULES:
        return "network"
    return "runs" if "run" in rule.quantity.series else "jobs"


def _when(rule: Rule) -> str:
    side = "above" if rule.condition.is_upper else "below"
    unit = f" {rule.quantity.unit}" if rule.quantity.unit in ("s", "B") else ""
    points = "reports" if rule in SERVICE_RULES else "captures"
    if rule.condition.within == 1:
        count = ""
    elif rule.condition.for_captures == rule.condition.within:
        count = f" in {rule.condition.within} {points} in a row"
    else:
        count = f" in {rule.condition.for_captures} of the last {rule.condition.within} {points}"
    return f"{side} {number(rule.condition.threshold())}{unit}{count}"


def _query(ref: str, source: str, **model: object) -> dict[str, Any]:
    return {"refId": ref, "datasourceUid": source, "model": {"refId": ref, **model}}


def duration(seconds: float) -> str:
    """Return a duration as Grafana writes it: in the largest unit of which it is a whole multiple."""
    whole = ((unit, size) for unit, size in (("h", 3600), ("m", 60)) if seconds and not seconds % size)
    unit, size = next(whole, ("s", 1))
    return f"{seconds / size:.0f}{unit}"

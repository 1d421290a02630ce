"""The rules that are evaluated: those that Gatewatch brings, and those that a configuration adds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from gatewatch.collector.errors import ConfigError
from gatewatch.jobs.alerts.network_rules import NETWORK_RULES
from gatewatch.jobs.alerts.rule import Rule
from gatewatch.jobs.alerts.service_rules import SERVICE_RULES

if TYPE_CHECKING:
    from gatewatch.collector.config import AlertSettings

BUILT_IN: Final = (*NETWORK_RULES, *SERVICE_RULES)
"""The rules that need no configuration."""


def active_rules(settings: AlertSettings, rules: Sequence[Rule] = BUILT_IN) -> tuple[Rule, ...]:
    """Return the rules for the evaluator: those given that are not disabled, and the configuration's own.

    Args:
        settings: `[alerts]`.
        rules: the declared ones. Those that only Grafana can evaluate are left out.

    Raises:
        ConfigError: an own rule has the name of another, or one is disabled that does not exist.
    """
    known = {rule.name for rule in rules}
    own = []
    for given in settings.rules:
        if given.name in known:
            raise ConfigError(f"[[alerts.rules]] name = {given.name!r}: there is a rule of this name; choose another")
        known.add(given.name)
        own.append(
            Rule(
                given.name,
                given.measurement,
                given.field,
                given.summary or f"{given.field} of {given.measurement} is out of bounds",
                where={tag: (value,) if isinstance(value, str) else tuple(value) for tag, value in given.where.items()},
                measure=given.measure,
                quantity=given.field,
                above=given.above,
                below=given.below,
                recovery=given.recovery,
                for_captures=given.for_captures,
                within=given.within or given.for_captures,
                severity=given.severity,
                evaluated_by="jobs",
                runbook=given.runbook,
            )
        )
    for name in settings.disable:
        if name not in known:
            raise ConfigError(f"[alerts] disable: there is no rule {name!r}; there are {', '.join(sorted(known))}")
    ours = [rule for rule in rules if rule.evaluated_by != "grafana"]
    return tuple(rule for rule in (*ours, *own) if rule.name not in settings.disable)

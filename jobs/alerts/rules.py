"""The rules that are evaluated: those that Gatewatch brings, and those that a configuration adds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from gatewatch.collector.errors import ConfigError
from gatewatch.jobs.alerts.check_rules import CHECK_RULES
from gatewatch.jobs.alerts.network_rules import NETWORK_RULES
from gatewatch.jobs.alerts.rule import Condition, Quantity, Rule
from gatewatch.jobs.alerts.service_rules import SERVICE_RULES

if TYPE_CHECKING:
    from gatewatch.collector.config import AlertSettings

BUILT_IN: Final = (*NETWORK_RULES, *SERVICE_RULES, *CHECK_RULES)
"""The rules that need no configuration, in the order of the runbook, whose sections keep their numbers."""
_CONDITION: Final = {"above", "below", "recovery", "for_captures", "severity"}


def active_rules(settings: AlertSettings, rules: Sequence[Rule] = BUILT_IN) -> tuple[Rule, ...]:
    """Return the rules for the evaluator: those given that are not disabled, and the configuration's own.

    Args:
        settings: `[alerts]`.
        rules: the declared ones. Those that only Grafana can evaluate are left out.

    Raises:
        ConfigError: an own rule has the name of another, or one is disabled that does not exist.
    """
    names = {rule.name for rule in rules}
    own = []
    for given in settings.rules:
        if given.name in names:
            raise ConfigError(f"[[alerts.rules]] name = {given.name!r}: there is a rule of this name; choose another")
        names.add(given.name)
        where = {tag: (value,) if isinstance(value, str) else tuple(value) for tag, value in given.where.items()}
        own.append(
            Rule(
                given.name,
                given.summary or f"{given.field} of {given.measurement} is out of bounds",
                "",
                Quantity(given.measurement, given.field, given.field, measure=given.measure, where=where),
                Condition(**given.model_dump(include=_CONDITION), within=given.within or 0),
                runbook=given.runbook,
            )
        )
    for name in settings.disable:
        if name not in names:
            raise ConfigError(f"[alerts] disable: there is no rule {name!r}; there are {', '.join(sorted(names))}")
    ours = [rule for rule in rules if rule.grafana is None or not rule.grafana.alone]
    return tuple(rule for rule in (*ours, *own) if rule.name not in settings.disable)

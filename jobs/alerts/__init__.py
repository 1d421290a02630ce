"""Alerting: rules over the points, their evaluation, and mail for runs without Grafana."""

from gatewatch.jobs.alerts.alert_job import Outcome, evaluate
from gatewatch.jobs.alerts.alert_manager import AlertManager, Exceeded, send_test
from gatewatch.jobs.alerts.rule import Rule
from gatewatch.jobs.alerts.rules import BUILT_IN

__all__ = ["BUILT_IN", "AlertManager", "Exceeded", "Outcome", "Rule", "evaluate", "send_test"]

"""Mail for those who run without Grafana: rules over the points, what they found, and mails about it."""

from jobs.notify.job import Outcome, evaluate
from jobs.notify.manager import AlertManager, Exceeded, send_test
from jobs.notify.rule import Rule
from jobs.notify.rules import BUILT_IN

__all__ = ["BUILT_IN", "AlertManager", "Exceeded", "Outcome", "Rule", "evaluate", "send_test"]

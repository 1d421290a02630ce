"""Thresholds: one value for each, whoever uses it."""

from __future__ import annotations

from gatewatch.jobs import thresholds
from gatewatch.jobs.alerts.network_rules import NETWORK_RULES
from gatewatch.jobs.scoring.detectors.rules import EXPLODED_DECADES, VANISHED_LOG10


def test_the_values_are_those_that_the_readme_and_the_runbook_describe():
    assert thresholds.GRADIENT_VANISHED == 1e-7
    assert (thresholds.UPDATE_SLOW, thresholds.UPDATE_HEALTHY, thresholds.UPDATE_FAST) == (1e-5, (1e-4, 1e-2), 1e-1)
    assert thresholds.GRADIENT_EXPLODES == 10
    assert thresholds.GRADIENT_EXPLODED_ALARM == 100
    assert thresholds.GRADIENT_EXPLODED_RUN == 1000


def test_the_rules_detector_compares_exact_decades():
    assert (VANISHED_LOG10, EXPLODED_DECADES) == (-7.0, 2.0)


def test_the_alerts_about_gradients_use_the_thresholds_of_the_rules_detector():
    by_name = {rule.name: rule for rule in NETWORK_RULES}
    assert by_name["gradient_vanishing"].condition.below == 1e-7
    assert by_name["gradient_exploding"].condition.above == 100

"""The runbook: every rule that a finding names has a section that says what to do."""

from __future__ import annotations

import re
from pathlib import Path

from gatewatch.jobs.alerts.rules import BUILT_IN
from gatewatch.jobs.runbook import sections, what_to_do

FINDINGS = Path(__file__).parents[2] / "jobs" / "findings"


def test_each_rule_says_its_causes_what_to_look_at_and_what_to_do():
    assert {rule.name for rule in BUILT_IN} <= sections().keys()
    for rule in BUILT_IN:
        assert [name for name, _ in what_to_do(rule.name)] == ["Causes", "Look at", "Do"]


def test_the_text_has_no_markdown():
    causes, look, do = (text for _, text in what_to_do("gate_not_finite"))
    assert "weights that are NaN already, see update_not_finite; overflow in half precision" in causes
    assert look.endswith("gate_stats of the captures before: whether mean of the gate cell grew.")
    assert do.startswith("Stop the run. Find the first batch with a value that is not finite")


def test_a_rule_without_a_section_has_nothing():
    assert what_to_do("nobody") == what_to_do("") == []


def test_each_rule_that_a_finding_names_has_a_section():
    named = {
        name
        for path in FINDINGS.glob("*.py")
        for line in re.findall(r"(?:rule=|, )\"[a-z_]+\".*", path.read_text())
        for name in re.findall(r"\"([a-z]+_[a-z_]+|anomaly)\"", line)
        if name in {*sections()} or "rule=" in line
    }
    assert {"anomaly", "check_failed", "data_changed", "gate_not_finite", "layer_frozen"} <= named <= {*sections()}

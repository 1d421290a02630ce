"""The rules about what was checked: a statement that a sound training keeps, and whether the data changed."""

from __future__ import annotations

from typing import Final

from gatewatch.collector.schema import GATE_SCORES
from gatewatch.jobs.alerts.rule import GATE, Condition, InGrafana, Quantity, Rule
from gatewatch.jobs.findings.explanations import EXACT

CHECK_RULES: Final = (
    Rule(
        "check_failed",
        "a statement that is true of every sound training is broken",
        "Look for what the sentence names at that step: a resume, a reset, a changed input. Mend it before you go on.",
        Quantity(GATE_SCORES, "anomaly_score", "score of the check", GATE, where={"detector": ("checks",)}),
        Condition(above=1.0, within=3, severity="critical"),
        InGrafana("anomalies", "What each detector says"),
        critical_for=EXACT,
    ),
    Rule(
        "data_changed",
        "what is fed has changed, and the network has not: a notice, no alarm of the network",
        "See on the dashboard Feed which feature moved. Where the change was not meant, mend what is fed.",
        Quantity(GATE_SCORES, "anomaly_score", "score of the feed", GATE, where={"detector": ("data",)}),
        Condition(above=1.0, for_captures=2, within=5),
        InGrafana("feed", "Distance to what was fed before"),
    ),
)

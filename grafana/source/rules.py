"""Grafana's alert rules: those of `gatewatch.jobs.alerts`, as queries that Grafana evaluates by the minute.

Thresholds, the way back, names, summaries and remedies are those of the mails. What differs is time: Grafana looks at
what the clock says is new, so a backtest, whose points lie in the market's past, is not seen: its mails come from the
jobs. And captures of ten seconds count as one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final

from gatewatch.collector.config import AlertSettings
from gatewatch.collector.schema import JOBS_HEALTH
from gatewatch.jobs.alerts.network_rules import NETWORK_RULES
from gatewatch.jobs.alerts.rule import Rule
from gatewatch.jobs.alerts.rules import BUILT_IN
from gatewatch.jobs.alerts.service_rules import STORE_SECONDS
from grafana.source import rules_network as network
from grafana.source import rules_service as service
from grafana.source.links import ANOMALIES, GATES, HEALTH, LEARNING, RUNS
from grafana.source.rules_flux import GATE, JOB, LAYER, PARAM, RUN
from grafana.source.rules_rule import BYTES, DURATION, MULTIPLE, SHARE, AlertRule, Panel, over_spans

FOLDER: Final = "Gatewatch alerts"
INTERVAL: Final = "1m"
"""How often rules are evaluated: a multiple of 10 s, or Grafana does not start."""
QUIET_SECONDS: Final = 600.0
"""Jobs tell of themselves every minute, runs more often: who writes nothing for so long is gone."""
_DAY: Final = int(AlertSettings().lookback_hours * 3600)
_HOUR: Final = 3600
_HALF: Final = _HOUR // 2
_LOOK: Final = network.RECENT_SECONDS

GRAFANA_ONLY: Final = (
    Rule(
        "jobs_silent",
        JOBS_HEALTH,
        "duration_s",
        "the jobs are not heard of any more",
        "Start them again (`gatewatch jobs`): until then nothing is scored, and no mail comes from them.",
        measure="silence",
        quantity="seconds since a job was heard of",
        above=float(service.TOLD_SECONDS),
        severity="critical",
    ),
    Rule(
        "nothing_written",
        JOBS_HEALTH,
        "duration_s",
        "nothing at all is written any more",
        "See that the jobs run and that their token may write: `gatewatch check` says what is wrong.",
        measure="silence",
        quantity="seconds since anything was written",
        above=QUIET_SECONDS,
        severity="critical",
    ),
)
"""Rules about the jobs themselves, who cannot mail that they are gone."""

PANELS: Final[Mapping[str, Panel]] = {
    "anomaly": (ANOMALIES, "Anomaly score"),
    "gate_not_finite": (LEARNING, "Values that are not finite"),
    "update_not_finite": (LEARNING, "Values that are not finite"),
    "forget_gate_shut": (GATES, "Memory timescale"),
    "forget_gate_open": (GATES, "Memory timescale"),
    "gradient_vanishing": (LEARNING, "Gradient norm, before and after clipping"),
    "gradient_exploding": (LEARNING, "Gradient norm, before and after clipping"),
    "layer_frozen": (LEARNING, "Update ratio"),
    "units_dead": (LEARNING, "Dead units"),
    "generalisation_gap": (LEARNING, "Generalisation gap"),
    "run_died": (RUNS, "Runs"),
    "captures_stalled": (HEALTH, "Steps from capture to capture"),
    "scores_stale": (HEALTH, "Lag"),
    "points_dropped": (HEALTH, "Points dropped"),
    "points_rejected": (HEALTH, "Points lost"),
    "captures_failing": (HEALTH, "Captures failed"),
    "spool_growing": (HEALTH, "Waiting in the spool"),
    "store_away": (HEALTH, "Last sign of a run"),
    "jobs_late": (HEALTH, "Lag"),
    "jobs_failing": (HEALTH, "Failures"),
    "jobs_missed": (HEALTH, "Turns missed"),
    "jobs_stuck": (HEALTH, "Duration of a turn"),
    "jobs_silent": (HEALTH, "Duration of a turn"),
    "nothing_written": (HEALTH, "Last sign of a run"),
}
"""Where to look when a rule fires."""
_RULES: Final = {rule.name: rule for rule in (*BUILT_IN, *GRAFANA_ONLY)}
_QUIET: Final = "nothing for"
_SPACINGS: Final = '{{ printf "%.4g" .Value }} usual spacings'
_WHY: Final = (
    "Look there at the table Why, which names what moved furthest; then at what the training did at that step."
)
_NOT_FINITE: Final = ("nan_count", "inf_count")


def rules() -> tuple[AlertRule, ...]:
    """All of them, in the order of the runbook."""
    return (*network_rules(), *run_rules(), *jobs_rules())


def network_rules() -> tuple[AlertRule, ...]:
    """What a network does."""
    values = network.value
    return (
        _rule("anomaly", lambda rule: values(rule, GATE), _LOOK, GATE, remedy=_WHY),
        _rule("gate_not_finite", lambda rule: values(rule, GATE, *_NOT_FINITE), _LOOK, GATE, wait="0s"),
        _rule("update_not_finite", lambda rule: values(rule, PARAM, *_NOT_FINITE), _LOOK, PARAM, wait="0s"),
        _rule("forget_gate_shut", network.once_inside, network.INSIDE_SECONDS, GATE),
        _rule("forget_gate_open", network.once_inside, network.INSIDE_SECONDS, GATE),
        _rule("gradient_vanishing", lambda rule: values(rule, PARAM), _LOOK, PARAM, scaled=True),
        _rule(
            "gradient_exploding",
            network.times_median,
            network.USUAL_SECONDS,
            PARAM,
            quantity="gradient norm",
            shown=f"{MULTIPLE} its median",
            of="times",
            wait="0s",
        ),
        _rule("layer_frozen", network.frozen, _LOOK, LAYER, scaled=True),
        _rule("units_dead", network.share_of_units, _LOOK, GATE, shown=SHARE),
        _rule("generalisation_gap", lambda rule: values(rule, RUN), network.GAP_SECONDS, RUN),
    )


def run_rules() -> tuple[AlertRule, ...]:
    """Whether runs are heard of, and what their collectors say."""
    rise = service.rise
    return (
        _rule(
            "run_died", service.silent, _DAY, RUN, quantity="without a sign of life for", shown=DURATION, of="seconds"
        ),
        _rule("captures_stalled", service.stalled, 6 * _HOUR, RUN, quantity=_QUIET, shown=_SPACINGS, of="spacings"),
        _rule(
            "scores_stale",
            service.unscored,
            _HOUR,
            RUN,
            quantity="a capture has waited for its score for",
            shown=DURATION,
            of="seconds",
            wait="2m",
        ),
        _rule("points_dropped", rise, _HOUR, RUN, quantity="points lost in 10 minutes:", wait="0s"),
        _rule("points_rejected", rise, _HOUR, RUN, quantity="points refused in 10 minutes:", wait="0s"),
        _rule("captures_failing", rise, _HOUR, RUN, quantity="failures in 10 minutes:", wait="0s"),
        _rule(
            "spool_growing", service.growth, _LOOK, RUN, quantity="grew by", shown=f"{BYTES} a heartbeat", of="bytes"
        ),
    )


def jobs_rules() -> tuple[AlertRule, ...]:
    """Whether the store and the jobs work."""
    return (
        _rule("store_away", service.answered, _LOOK, (), wait=f"{STORE_SECONDS:.0f}s", error="Alerting", of="seconds"),
        _rule(
            "jobs_late",
            lambda rule: network.value(rule, JOB),
            _LOOK,
            JOB,
            quantity="behind by",
            shown=DURATION,
            of="seconds",
        ),
        _rule("jobs_failing", service.rises, _LOOK, JOB),
        _rule("jobs_missed", service.rises, _HALF, JOB),
        _rule("jobs_stuck", service.stuck, 6 * _HOUR, JOB, quantity=_QUIET, shown=_SPACINGS, of="spacings"),
        _rule("jobs_silent", service.quiet, _DAY, (), quantity="last heard of", shown=f"{DURATION} ago", of="seconds"),
        _rule(
            "nothing_written",
            service.unwritten,
            _HALF,
            (),
            quantity="last written",
            shown=f"{DURATION} ago",
            of="seconds",
            wait="5m",
            no_data="Alerting",
        ),
    )


def rules_file(panel_id: Callable[[str, str], int]) -> dict[str, Any]:
    """The provisioning file of the rules.

    Args:
        panel_id: gives the number of a panel of a dashboard, by its title.
    """
    groups = {"network": network_rules(), "runs": run_rules(), "jobs": jobs_rules()}
    return {
        "apiVersion": 1,
        "groups": [
            {
                "orgId": 1,
                "name": f"Gatewatch {name}",
                "folder": FOLDER,
                "interval": INTERVAL,
                "rules": [rule.content(panel_id) for rule in found],
            }
            for name, found in groups.items()
        ],
    }


def _rule(
    name: str,
    flux: Callable[[Rule], str],
    seconds: int,
    labels: tuple[str, ...],
    scaled: bool = False,
    **more: Any,
) -> AlertRule:
    rule = _RULES[name]
    counted = "captures" if rule in NETWORK_RULES else "minutes that have points"
    found = AlertRule(rule, flux(rule), seconds, labels, PANELS[name], over_spans(rule, counted), **more)
    return dataclasses.replace(found, unit=network.unit(rule)) if scaled else found

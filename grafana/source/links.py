"""The dashboards' addresses, and the links between them."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.dashboard import DashboardLink
from grafana_foundation_sdk.models.dashboard import DashboardLinkType

RUNS: Final = "gatewatch-runs"
GATES: Final = "gatewatch-gates"
LEARNING: Final = "gatewatch-learning"
ANOMALIES: Final = "gatewatch-anomalies"
COMPARE: Final = "gatewatch-compare"
BACKTEST: Final = "gatewatch-backtest"
HEALTH: Final = "gatewatch-health"
RUNBOOK: Final = "gatewatch-runbook"

TAG: Final = "gatewatch"
"""The tag that all our dashboards have; links between them go by it."""


def link_to_others() -> DashboardLink:
    """Return the link to every other dashboard, with the variables and the time range of this one."""
    return (
        DashboardLink("Gatewatch")
        .type(DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(False)
        .include_vars(True)
        .keep_time(True)
    )


def dashboard_url(uid: str, *, time: str = "${__url_time_range}", **variables: str) -> str:
    """Return the address of a dashboard.

    Args:
        uid: of the dashboard.
        time: the time range, as parameters.
        variables: name → value, both as an address has them.
    """
    parameters = "&".join(f"var-{name}={value}" for name, value in variables.items())
    return f"/d/{uid}?{time}{'&' if parameters else ''}{parameters}"

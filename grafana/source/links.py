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
"""Which all dashboards carry, and by which they find each other."""


def others() -> DashboardLink:
    """To every other dashboard, with what is chosen here and the time range."""
    return (
        DashboardLink("Gatewatch")
        .type(DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(False)
        .include_vars(True)
        .keep_time(True)
    )


def to(uid: str, *, time: str = "${__url_time_range}", **variables: str) -> str:
    """The address of a dashboard.

    Args:
        uid: of the dashboard.
        time: the time range, as parameters.
        variables: name → value, both as an address has them.
    """
    given = "&".join(f"var-{name}={value}" for name, value in variables.items())
    return f"/d/{uid}?{time}{'&' if given else ''}{given}"

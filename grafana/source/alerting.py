"""What Grafana's alerting is provisioned with: the files in `provisioning/alerting`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grafana.source.board import panel_id
from grafana.source.mail import contact_points_file, policies_file, templates_file
from grafana.source.rules import rules_file


def alerting_files(dashboards: Mapping[str, dict[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """File → content.

    Args:
        dashboards: by uid; the rules lead to their panels.
    """
    return {
        "rules.json": rules_file(lambda uid, title: panel_id(dashboards[uid], title)),
        "contact-points.json": contact_points_file(),
        "policies.json": policies_file(),
        "templates.json": templates_file(),
    }

"""Provisioning of Grafana's mails: recipients, grouping of alerts, how often, and the text."""

from __future__ import annotations

from typing import Any, Final

from gatewatch.collector.config import AlertSettings
from grafana.source.mail_templates import SUBJECT, TEMPLATES, TEXT
from grafana.source.rules import SERVICE, duration

CONTACT_POINT: Final = "Gatewatch mail"
RECIPIENTS: Final = "$GATEWATCH_ALERT_TO"
"""Grafana fills it in from its environment; any other `$` is written `$$`."""


def contact_points_file() -> dict[str, Any]:
    """Return the provisioning file of the contact point."""
    settings = {
        "addresses": RECIPIENTS,
        "singleEmail": True,
        "subject": f'{{{{ template "{SUBJECT}" . }}}}',
        "message": f'{{{{ template "{TEXT}" . }}}}',
    }
    receiver = {"uid": "gatewatch-mail", "type": "email", "settings": settings, "disableResolveMessage": False}
    return {"apiVersion": 1, "contactPoints": [{"orgId": 1, "name": CONTACT_POINT, "receivers": [receiver]}]}


def policies_file() -> dict[str, Any]:
    """Return the provisioning file of the notification policy.

    Grafana has a single tree of policies. In the stack's own Grafana this file is the whole tree. The branch for our
    alerts matches a label that only they have, so it can also be added to the tree of a Grafana with other alerts.
    """
    tree = {"orgId": 1, "receiver": CONTACT_POINT, "group_by": ["grafana_folder", "alertname"], "routes": [route()]}
    return {"apiVersion": 1, "policies": [tree]}


def route() -> dict[str, Any]:
    """Return the route of our alerts: one mail per run; critical alerts have their own mail, which is sent sooner."""
    usual = AlertSettings()
    return {
        "receiver": CONTACT_POINT,
        "object_matchers": [["service", "=", SERVICE]],
        "group_by": ["run"],
        "group_wait": duration(usual.group_wait_seconds),
        "group_interval": duration(usual.group_interval_seconds),
        "repeat_interval": duration(usual.repeat_hours * 3600),
        "routes": [
            {
                "receiver": CONTACT_POINT,
                "object_matchers": [["alertname", "=~", "DatasourceError|DatasourceNoData"]],
                "group_by": ["alertname"],
                "group_wait": "5m",  # no mail about a store that is started again, or busy for a moment
            },
            {
                "receiver": CONTACT_POINT,
                "object_matchers": [["severity", "=", "critical"]],
                "group_by": ["run"],
                "group_wait": "10s",
                "group_interval": "1m",
            },
        ],
    }


def templates_file() -> dict[str, Any]:
    """Return the provisioning file of the mail templates. Grafana expands no variables in it, so dollars are single."""
    return {"apiVersion": 1, "templates": [{"orgId": 1, "name": SERVICE, "template": TEMPLATES}]}

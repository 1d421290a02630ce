"""What a token must be allowed to do in a Grafana for a push."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gatewatch.collector.errors import ConfigError
from gatewatch.jobs.grafana.connection import EDITABLE, ROLE, Grafana, Refused

PERMISSIONS: Final = (
    *("datasources:read", "datasources:create", "datasources:write"),
    *("folders:read", "folders:create", "dashboards:read", "dashboards:create", "dashboards:write"),
    *("alert.rules:read", "alert.provisioning:read", "alert.provisioning:write"),
)
OLDER: Final = ("alert.notifications:read", "alert.notifications:write", "alert.rules:write")
"""What versions before `EDITABLE` need beside them."""


def missing_permissions(grafana: Grafana) -> list[str]:
    """What the token may not do, of all that a push does; none where Grafana does not say."""
    needed = (*PERMISSIONS, *(OLDER if grafana.version < EDITABLE else ()))
    try:
        allowed = grafana.find("/access-control/user/permissions")
    except Refused:
        return []
    return [] if not isinstance(allowed, Mapping) else [one for one in needed if one not in allowed]


def check_permissions(grafana: Grafana) -> None:
    """See that the token may push.

    Raises:
        ConfigError: it may not; names what it lacks.
    """
    if missing := missing_permissions(grafana):
        raise ConfigError(f"{grafana.url}: the token lacks {', '.join(missing)}; {ROLE}")

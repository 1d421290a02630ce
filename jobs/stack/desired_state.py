"""The desired state of InfluxDB, from the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gatewatch.collector.address import server_url
from gatewatch.collector.environment import read_password, read_variable
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.store.influxdb.permissions import HISTORY_SUFFIX
from gatewatch.collector.store.influxdb.settings import checked

_PURPOSE: Final = "the set-up of InfluxDB"
_PASSWORD: Final = "GATEWATCH_INFLUXDB_PASSWORD"  # noqa: S105 - the name of a variable
_OF_GRAFANA: Final = tuple(f"GATEWATCH_{of}_{name}" for of in ("GRAFANA", "SMTP") for name in ("USER", "PASSWORD"))
_REPLACED: Final = re.compile(r"%\([^)]+\)s|\$__\w+\{[^}]+\}")
"""What Grafana replaces in a setting even where docker-compose.yml has it put in by Grafana itself."""
_SECONDS: Final[Mapping[str, int]] = {"h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}


@dataclass(frozen=True, slots=True)
class DesiredState:
    """The desired state of an InfluxDB.

    Attributes:
        url: where it is.
        user, password: the owner's, who is made at the first start.
        org: the organisation.
        bucket: that points are written to.
        retention_s: seconds that it keeps them; 0: for ever.
        history_retention_s: the same of the bucket of hourly aggregates.
    """

    url: str
    user: str
    password: str = field(repr=False)
    org: str
    bucket: str
    retention_s: int
    history_retention_s: int

    @property
    def history(self) -> str:
        """The bucket of hourly aggregates."""
        return self.bucket + HISTORY_SUFFIX

    @property
    def retentions(self) -> dict[str, int]:
        """Bucket → seconds that it keeps points; 0: for ever."""
        return {self.bucket: self.retention_s, self.history: self.history_retention_s}


def desired_state(environment: Mapping[str, str]) -> DesiredState:
    """Read the desired state from the environment.

    Raises:
        ConfigError: a variable is missing or cannot be used; names it.
    """
    address = _text(environment, "INFLUXDB_V2_URL")
    try:
        url = server_url(address, "INFLUXDB_V2_URL")
    except ConfigError:
        raise ConfigError("INFLUXDB_V2_URL is not the address of an InfluxDB; write it as http://host:8086") from None
    password = checked(_PASSWORD, read_password(_PASSWORD, environment), _PURPOSE)
    if not 8 <= len(password.encode(errors="replace")) <= 72:  # bcrypt, which InfluxDB keeps it by, holds no more
        raise ConfigError(f"{_PASSWORD} must be 8 to 72 bytes long; choose another")
    for name in _OF_GRAFANA:
        if _REPLACED.search(read_password(name, environment)):
            raise ConfigError(
                f"{name}: Grafana would replace what looks like %(name)s or $__file{{name}}; choose another"
            )
    return DesiredState(
        url=url,
        user=_text(environment, "GATEWATCH_INFLUXDB_USER", "gatewatch"),
        password=password,
        org=_text(environment, "INFLUXDB_V2_ORG", "gatewatch"),
        bucket=_bucket(_text(environment, "INFLUXDB_V2_BUCKET", "gatewatch")),
        retention_s=_retention(environment, "GATEWATCH_RETENTION"),
        history_retention_s=_retention(environment, "GATEWATCH_HISTORY_RETENTION"),
    )


def _text(environment: Mapping[str, str], name: str, default: str = "") -> str:
    return checked(name, read_variable(name, environment) or default, _PURPOSE)


def _bucket(name: str) -> str:
    if name.startswith("_") or '"' in name:
        raise ConfigError(
            f"INFLUXDB_V2_BUCKET: InfluxDB takes no bucket called {name!r}; choose a name without a quote that does"
            " not start with an underscore"
        )
    return name


def _retention(environment: Mapping[str, str], name: str) -> int:
    text = read_variable(name, environment)
    if text in ("", "0"):
        return 0
    match = re.fullmatch(r"([1-9]\d{0,5})([hdwy])", text)
    seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
    if not 0 < seconds <= 100 * _SECONDS["y"]:
        raise ConfigError(
            f"{name}={text!r} is no time to keep points for; write hours, days, weeks or years, such as 72h, 90d, 26w"
            " or 2y, or 0 for ever"
        )
    return seconds

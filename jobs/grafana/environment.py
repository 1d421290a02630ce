"""What the environment and the configuration say about the Grafana, the store that it reads, and who gets mails."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gatewatch.collector.config import load_settings, mail_address
from gatewatch.collector.environment import read_variable
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.store import influx_token, open_store
from gatewatch.jobs.grafana.address import address
from gatewatch.jobs.grafana.artifacts import RECIPIENTS, Bucket
from gatewatch.jobs.grafana.connection import ROLE, Grafana


def connect(url: str | None = None) -> Grafana:
    """The Grafana of the environment, seen to be one that can be worked with.

    Raises:
        ConfigError: none is named, the token is missing, or it is too old.
    """
    named = read_variable("GRAFANA_URL")
    if not (url or named):
        raise ConfigError("GRAFANA_URL is not set: name the Grafana there or with --url, such as http://host:3000")
    grafana = Grafana(url, token(), "--url") if url else Grafana(named, token())
    if not token():
        raise ConfigError(f"GRAFANA_TOKEN is not set; {ROLE}")
    _ = grafana.version
    return grafana


def token() -> str:
    """The Grafana's, from the environment; empty where there is none."""
    return read_variable("GRAFANA_TOKEN")


def alert_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment that the alerting files are read with: recipients from the configuration where it has none.

    Raises:
        ConfigError: one of the recipients is no mail address.
    """
    named = filter(None, map(str.strip, re.split("[;,\n]", read_variable(RECIPIENTS, environment))))
    try:
        recipients = [mail_address(one) for one in named]
    except ValueError as error:
        raise ConfigError(f"{RECIPIENTS}: {error}") from None
    return {**environment, RECIPIENTS: ";".join(recipients or load_settings().mail.to)}


def bucket_for(store_url: str | None, seen_as: str | None, *, needed: bool) -> Bucket | None:
    """Where Grafana is to read: the store's bucket; None where nothing names one and there is a datasource already.

    Args:
        seen_as: the address under which Grafana reaches it; None: the store's own.
        needed: whether there is no datasource yet.

    Raises:
        ConfigError: it is needed, and the store is no InfluxDB or lacks a variable; or an address is none.
    """
    seen = seen_as and address(seen_as, "--influxdb-url", port=8086, variable="INFLUXDB_V2_TOKEN").url
    destination = open_store(store_url).destination
    if "bucket" in destination:
        return Bucket(seen or destination["url"], destination["org"], destination["bucket"], influx_token())
    if needed or store_url or seen_as:
        raise ConfigError(
            f"Grafana reads an InfluxDB, and the store is {destination['url']}: name one with --store or"
            " INFLUXDB_V2_URL; `gatewatch copy` takes what there is along"
        )
    return None

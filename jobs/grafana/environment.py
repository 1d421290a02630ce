"""What the environment and the configuration say about the Grafana, the store that it reads, and who gets mails."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gatewatch.collector.address import server_url
from gatewatch.collector.config import load_settings, mail_address
from gatewatch.collector.environment import read_variable
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.store import open_store
from gatewatch.jobs.grafana.artifacts import RECIPIENTS, Bucket
from gatewatch.jobs.grafana.connection import ROLE, Grafana


def connect(url: str | None = None) -> Grafana:
    """Return the Grafana to push to, after a check of its version and of what the token may do.

    Args:
        url: its address; that of GRAFANA_URL where None.

    Raises:
        ConfigError: no address or token is given, the token may not push, or the Grafana is too old.
    """
    address = url or read_variable("GRAFANA_URL")
    if not address:
        raise ConfigError("GRAFANA_URL is not set: name the Grafana there or with --url, such as http://host:3000")
    grafana = Grafana(address, token(), "--url" if url else "GRAFANA_URL")
    if not token():
        raise ConfigError(f"GRAFANA_TOKEN is not set; {ROLE}")
    _ = grafana.version
    grafana.check_permissions()
    return grafana


def token() -> str:
    """Return Grafana's token of the environment; empty where there is none."""
    return read_variable("GRAFANA_TOKEN")


def alert_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment to fill the alerting files with; recipients come from the configuration where it has none.

    Raises:
        ConfigError: one of the recipients is not a mail address.
    """
    named = filter(None, map(str.strip, re.split("[;,\n]", read_variable(RECIPIENTS, environment))))
    try:
        recipients = [mail_address(one) for one in named]
    except ValueError as error:
        raise ConfigError(f"{RECIPIENTS}: {error}") from None
    return {**environment, RECIPIENTS: ";".join(recipients or load_settings().mail.to)}


def bucket_for(store_url: str | None, seen_as: str | None, *, needed: bool) -> Bucket | None:
    """Return what Grafana is to read; None where no InfluxDB is named and there is a datasource already.

    Args:
        store_url: the store's address; see `open_store`.
        seen_as: the address under which Grafana reaches the store; the store's own where None.
        needed: whether there is no datasource yet.

    Raises:
        ConfigError: it is needed, and the store is not an InfluxDB or lacks a variable; or an address is wrong.
    """
    seen = seen_as and server_url(seen_as, "--influxdb-url")
    store = open_store(store_url)
    if client := store.influxdb:
        return Bucket(client, seen or client.url)
    if needed or store_url or seen_as:
        raise ConfigError(
            f"Grafana reads an InfluxDB, and the store is {store.destination['url']}: name one with --store or"
            " INFLUXDB_V2_URL; `gatewatch copy` takes what there is along"
        )
    return None

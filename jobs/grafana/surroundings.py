"""What the environment and the configuration say about the Grafana, the store that it reads, and who gets mails."""

from __future__ import annotations

import os
from collections.abc import Mapping

from collector.config import load_settings
from collector.errors import ConfigError
from collector.store import influx_token, open_store
from jobs.grafana.artifacts import RECIPIENTS, Bucket
from jobs.grafana.connection import Grafana


def connect(url: str | None = None) -> Grafana:
    """The Grafana of the environment, seen to be one that can be worked with.

    Raises:
        ConfigError: none is named, the token is missing, or it is too old.
    """
    address = url or os.environ.get("GRAFANA_URL", "")
    if not address:
        raise ConfigError("GRAFANA_URL is not set: name the Grafana there or with --url, such as http://host:3000")
    grafana = Grafana(address, os.environ.get("GRAFANA_TOKEN", ""))
    _ = grafana.version
    return grafana


def alert_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment that the alerting files are read with: recipients from the configuration where it has none."""
    recipients = environment.get(RECIPIENTS, "").strip() or ";".join(load_settings().mail.to)
    return {**environment, RECIPIENTS: recipients}


def bucket_for(store_url: str | None, seen_as: str | None, *, needed: bool) -> Bucket | None:
    """Where Grafana is to read: the store's bucket; None where nothing names one and there is a datasource already.

    Args:
        seen_as: the address under which Grafana reaches it; None: the store's own.
        needed: whether there is no datasource yet.

    Raises:
        ConfigError: it is needed, and the store is no InfluxDB or lacks a variable.
    """
    destination = open_store(store_url).destination
    if "bucket" in destination:
        url = destination["url"] if seen_as is None else open_store(seen_as).destination["url"]
        return Bucket(url, destination["org"], destination["bucket"], influx_token())
    if needed or store_url or seen_as:
        raise ConfigError(
            f"Grafana reads an InfluxDB, and the store is {destination['url']}: name one with --store or"
            " INFLUXDB_V2_URL; `gatewatch copy` takes what there is along"
        )
    return None

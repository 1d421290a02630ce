"""Where points live: the store is chosen by its URL."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from collector.errors import ConfigError
from collector.store.protocol import Store

__all__ = ["Store", "open_store"]

_DEFAULT = "sqlite:///gatewatch.db"
_FORMS = "use sqlite:///relative.db, sqlite:////absolute/path.db, http://host:8086 or https://host"


def open_store(url: str | None = None) -> Store:
    """The store at a URL. Nothing is read or written, and no connection is made, before it is used.

    Args:
        url: `sqlite:///relative.db`, `sqlite:////absolute/path.db`, or `http(s)://host:port` of an InfluxDB, whose
            organisation, bucket and token are INFLUXDB_V2_ORG, INFLUXDB_V2_BUCKET and INFLUXDB_V2_TOKEN. None: the
            environment's GATEWATCH_STORE, else `[store] url` of the configuration file, else INFLUXDB_V2_URL, else
            `sqlite:///gatewatch.db`.

    Raises:
        ConfigError: the URL has none of these forms, or a variable is missing; names it.
    """
    address, source = _resolve(url)
    try:
        parts = urlsplit(address)
        scheme, host, _ = parts.scheme.lower(), parts.hostname, parts.port
    except ValueError:
        raise ConfigError(f"{source}: not a URL; {_FORMS}") from None
    if scheme == "sqlite" and not parts.netloc and parts.path.strip("/"):
        from collector.store.sqlite import SqliteStore  # noqa: PLC0415 - only what the URL asks for is loaded

        return SqliteStore(address.partition("://")[2][1:])
    if scheme in ("http", "https") and host:
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ConfigError(
                f"{source}: {scheme}://{host} must come without user, password, query or fragment;"
                " the token is INFLUXDB_V2_TOKEN"
            )
        from collector.store.influxdb import InfluxStore  # noqa: PLC0415 - only what the URL asks for is loaded

        return InfluxStore(
            address.rstrip("/"), org=_variable("ORG"), bucket=_variable("BUCKET"), token=_variable("TOKEN")
        )
    shown = address.partition("?")[0].rpartition("@")[2]  # neither user, password nor query
    raise ConfigError(f"{source}: {shown!r} is not the address of a store; {_FORMS}")


def _resolve(url: str | None) -> tuple[str, str]:
    if url is not None:
        return os.fspath(url), "the store's URL"
    if named := os.environ.get("GATEWATCH_STORE"):
        return named, "GATEWATCH_STORE"
    from collector.config import load_settings  # noqa: PLC0415 - pydantic loads slowly, and an argument needs none

    if configured := load_settings().store.url:
        return configured, "[store] url"
    if server := os.environ.get("INFLUXDB_V2_URL"):
        return server, "INFLUXDB_V2_URL"
    return _DEFAULT, "the default"


def _variable(name: str) -> str:
    variable = f"INFLUXDB_V2_{name}"
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ConfigError(f"{variable} is not set; an InfluxDB store needs it in the environment")
    if not value.isprintable():
        raise ConfigError(f"{variable} has a character that cannot be part of it; set it again")
    return value

"""Where points live: the store is chosen by its URL."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from gatewatch.collector.environment import read_variable
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.store.protocol import Store

__all__ = ["Store", "influx_token", "open_store", "reopen_store"]

_DEFAULT = "sqlite:///gatewatch.db"
_FILE = "sqlite:///"
_FORMS = "use sqlite:///relative.db, sqlite:////absolute/path.db, http://host:8086 or https://host"


def open_store(url: str | None = None) -> Store:
    """The store at a URL. Nothing is read or written, and no connection is made, before it is used.

    Args:
        url: `sqlite:///relative.db`, `sqlite:////absolute/path.db`, or `http(s)://host:port` of an InfluxDB, whose
            organisation, bucket and token are INFLUXDB_V2_ORG, INFLUXDB_V2_BUCKET and INFLUXDB_V2_TOKEN, or what the
            file INFLUXDB_V2_TOKEN_FILE holds. None: the environment's GATEWATCH_STORE, else `[store] url` of the
            configuration file, else INFLUXDB_V2_URL, else `sqlite:///gatewatch.db`.

    Raises:
        ConfigError: the URL has none of these forms, or a variable or the token's file is missing; names it.
    """
    address, source = _resolve(url)
    return _open(address, source)


def reopen_store(destination: Mapping[str, str]) -> Store:
    """The store whose `destination` this is. Of an InfluxDB the token comes from the environment, and it alone.

    Raises:
        ConfigError: the token is missing, or the mapping is no store's destination.
    """
    match destination:
        case {"url": str(url)} if url.startswith(_FILE) and Path(url.removeprefix(_FILE)).is_absolute():
            return _open(url, "the destination")
        case {"url": str(url), "org": str(org), "bucket": str(bucket)} if org and bucket and url.startswith("http"):
            return _open(url, "the destination", org, bucket)
    raise ConfigError(
        f"the destination must hold the url of a file, {_FILE}/absolute/path.db, or url, org and bucket of an InfluxDB"
    )


def _open(address: str, source: str, org: str | None = None, bucket: str | None = None) -> Store:
    try:
        parts = urlsplit(address)
        scheme, host, _ = parts.scheme.lower(), parts.hostname, parts.port
    except ValueError:
        raise ConfigError(f"{source}: not a URL; {_FORMS}") from None
    if address.lower().startswith(_FILE) and address[len(_FILE) :].strip("/"):
        from gatewatch.collector.store.sqlite.store import SqliteStore  # noqa: PLC0415 - only what the URL asks for is loaded

        return SqliteStore(address[len(_FILE) :])
    if scheme in ("http", "https") and host:
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ConfigError(
                f"{source}: {scheme}://{host} must come without user, password, query or fragment;"
                " the token is INFLUXDB_V2_TOKEN"
            )
        from gatewatch.collector.store.influxdb.store import InfluxStore  # noqa: PLC0415 - only what the URL asks for is loaded

        return InfluxStore(
            address.rstrip("/"),
            org=org or _variable("ORG"),
            bucket=bucket or _variable("BUCKET"),
            token=influx_token(),
        )
    shown = address.partition("?")[0].rpartition("@")[2]  # neither user, password nor query
    raise ConfigError(f"{source}: {shown!r} is not the address of a store; {_FORMS}")


def _resolve(url: str | None) -> tuple[str, str]:
    if url is not None:
        return os.fspath(url), "the store's URL"
    if named := read_variable("GATEWATCH_STORE"):
        return named, "GATEWATCH_STORE"
    from gatewatch.collector.config import load_settings  # noqa: PLC0415 - pydantic loads slowly, and an argument needs none

    if configured := load_settings().store.url:
        return configured, "[store] url"
    if server := read_variable("INFLUXDB_V2_URL"):
        return server, "INFLUXDB_V2_URL"
    return _DEFAULT, "the default"


def _variable(name: str) -> str:
    variable = f"INFLUXDB_V2_{name}"
    value = read_variable(variable)
    if not value:
        raise ConfigError(f"{variable} is not set; an InfluxDB store needs it in the environment")
    return _printable(value, variable)


def influx_token() -> str:
    """INFLUXDB_V2_TOKEN, or what the file holds that INFLUXDB_V2_TOKEN_FILE names: read each time, it may be replaced.

    Raises:
        ConfigError: there is none, or the file cannot be read; names it.
    """
    named = read_variable("INFLUXDB_V2_TOKEN_FILE")
    if read_variable("INFLUXDB_V2_TOKEN") or not named:
        return _variable("TOKEN")
    where = f"INFLUXDB_V2_TOKEN_FILE: {named}"
    try:
        token = Path(named).expanduser().read_bytes().decode().strip()
    except (OSError, RuntimeError, ValueError) as error:  # no home directory, not UTF-8, a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else "it is no file of text"
        raise ConfigError(f"{where} cannot be read: {reason}; name the file that holds the token") from None
    if not token:
        raise ConfigError(f"{where} is empty; put the token into it, or set INFLUXDB_V2_TOKEN")
    return _printable(token, where)


def _printable(value: str, where: str) -> str:
    if not value.isprintable():
        raise ConfigError(f"{where} has a character that cannot be part of it; set it again")
    return value

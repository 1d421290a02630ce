"""Opens the store of a URL: a SQLite file, or a bucket of InfluxDB 2."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from gatewatch.collector.address import server_url
from gatewatch.collector.environment import read_variable
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.store.base import Store
from gatewatch.collector.text import safe_repr
from gatewatch.collector.user_folders import BUCKET_ID

__all__ = ["Store", "open_store", "reopen_store"]

_DEFAULT = "sqlite:///gatewatch.db"
_FILE = "sqlite:///"
_FORMS = "use sqlite:///relative.db, sqlite:////absolute/path.db, http://host:8086 or https://host"


def open_store(
    url: str | None = None, *, org: str | None = None, bucket: str | None = None, token: str | None = None
) -> Store:
    """Return the store at a URL. Nothing is read or written, and no connection is made, before it is used.

    Args:
        url: `sqlite:///relative.db`, `sqlite:////absolute/path.db`, or `http(s)://host:port` of an InfluxDB. None: the
            environment's GATEWATCH_STORE, else `[store] url` of the configuration file, else INFLUXDB_V2_URL, else
            `sqlite:///gatewatch.db`.
        org: name of the organisation of an InfluxDB; None: INFLUXDB_V2_ORG.
        bucket: name of its bucket; None: INFLUXDB_V2_BUCKET.
        token: secret that may write the bucket, and read it too where points are read; None: INFLUXDB_V2_TOKEN, or what
            the file INFLUXDB_V2_TOKEN_FILE holds.

    Raises:
        ConfigError: the URL has none of these forms, or a variable or the token's file is missing; names it.
    """
    address, source = _resolve(url)
    given = {name: value for name, value in (("org", org), ("bucket", bucket), ("token", token)) if value}
    return _open(address, source, given, {name: f"the {name} that was given" for name in given})


def reopen_store(destination: Mapping[str, str]) -> Store:
    """Return the store that has this `destination`. The token of an InfluxDB comes from the environment.

    Raises:
        ConfigError: the token is missing, or the mapping is no store's destination.
    """
    match destination:
        case {"url": str(url)} if url.startswith(_FILE) and Path(url.removeprefix(_FILE)).is_absolute():
            return _open(url, "the destination", {}, {})
        case {"url": str(url), "org": str(org), "bucket": str(bucket)} if org and bucket and url.startswith("http"):
            known = {BUCKET_ID: destination[BUCKET_ID]} if BUCKET_ID in destination else {}
            return _open(url, "the destination", {"org": org, "bucket": bucket, **known}, {})
    raise ConfigError(
        f"the destination must hold the url of a file, {_FILE}/absolute/path.db, or url, org and bucket of an InfluxDB"
    )


def _open(address: str, source: str, given: Mapping[str, str], names: Mapping[str, str]) -> Store:
    """Open a store. Of an InfluxDB, errors call a setting by its name in `names`, else by its variable."""
    if address.lower().startswith(_FILE) and address[len(_FILE) :].strip("/"):
        if given:
            raise ConfigError(f"{source}: {address} is a file, which has no organisation, bucket or token")
        from gatewatch.collector.store.sqlite.store import SqliteStore  # noqa: PLC0415 - only what the URL asks for is loaded

        return SqliteStore(address[len(_FILE) :])
    server = server_url(address, source, what="the address of a store", forms=f"{_FORMS}{_meant(address)}")
    from gatewatch.collector.store.influxdb.store import open_bucket  # noqa: PLC0415 - as above

    return open_bucket(server, given, names)


def _meant(address: str) -> str:
    """Return the question whether a path or a host and port stands for a URL; empty where it may hold a secret."""
    path = re.sub(r"^sqlite:(//(?=[^/]))?", "", address)
    if "://" in path or not path.strip("/") or not path.isprintable() or set("@?#") & set(path):
        return ""
    host = re.fullmatch(r"[\w.-]+:\d{1,5}/?", path)
    return f"; did you mean '{'http://' if host else _FILE}{path}'?"


def _resolve(url: str | None) -> tuple[str, str]:
    if url is not None:
        if not isinstance(url, str | os.PathLike):
            raise ConfigError(f"the store's URL: {safe_repr(url)} is no text; {_FORMS}")
        return str(url), "the store's URL"
    if named := read_variable("GATEWATCH_STORE"):
        return named, "GATEWATCH_STORE"
    from gatewatch.collector.config import load_settings  # noqa: PLC0415 - pydantic loads slowly, and an argument needs none

    if configured := load_settings().store.url:
        return configured, "[store] url"
    if server := read_variable("INFLUXDB_V2_URL"):
        return server, "INFLUXDB_V2_URL"
    return _DEFAULT, "the default"

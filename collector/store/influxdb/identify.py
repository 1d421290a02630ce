"""Tells what answers at an address: InfluxDB 2, another version of it, or something else."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from gatewatch.collector.errors import WriteUnavailable
from gatewatch.collector.store.influxdb.http_errors import TRANSIENT, Refused
from gatewatch.collector.text import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gatewatch.collector.store.influxdb.client import Client

_PATHS: Final = ("/ping", "/health")
_MAJOR: Final = re.compile(r"v?(\d+)\.")


def other_server(client: Client, *, by_name: bool) -> str | None:
    """Return what answers there, where it is not InfluxDB 2; None where it is, or where that cannot be told.

    Args:
        client: of the server.
        by_name: only where it says what it is. InfluxDB 1.8 and 3 take writes as InfluxDB 2 does, and a proxy may let
            nothing but writes through.
    """
    first = 0
    for path in _PATHS:
        try:
            status, headers, content = client.probe(path)
        except (WriteUnavailable, Refused):
            return None
        if status in TRANSIENT or status == 500:  # it starts, is ill, or is away behind what answers
            return None
        first = first or status
        build, version = headers.get("X-Influxdb-Build"), headers.get("X-Influxdb-Version") or _version(content)
        if build or version:
            major = _MAJOR.match(version or "")
            if major is None or major[1] == "2":  # a server that somebody has built says "dev"
                return None
            return one_line(f"InfluxDB {(version or '').removeprefix('v')}{f' ({build})' if build else ''}", 100)
    return None if by_name else f"a server that answers {first} to {_PATHS[0]}"


def _version(content: bytes) -> str | None:
    """Return the version in the answer of an InfluxDB to /health; None where it is none."""
    with suppress(ValueError, RecursionError):
        answer: Mapping[str, object] | object = json.loads(content)
        if isinstance(answer, dict) and answer.get("name") == "influxdb":
            return str(answer.get("version") or "unknown")
    return None

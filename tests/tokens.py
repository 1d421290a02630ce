"""Tokens of a real InfluxDB, as narrow as a test wants them."""

from __future__ import annotations

from tests.conftest import Influxd


def token_of(influxd: Influxd, *rights: str, buckets: tuple[str, ...] = ()) -> str:
    """A token: `read` and `write` of these buckets, `read all` and `write all` of every one, `read tokens`."""
    found = [influxd.call(f"/api/v2/buckets?name={bucket}")["buckets"][0]["id"] for bucket in buckets]
    permissions = []
    for right in rights:
        action, _, what = right.partition(" ")
        kind = {"type": "authorizations" if what == "tokens" else "buckets", "orgID": influxd.org_id}
        permissions += [{"action": action, "resource": kind | more} for more in _each(what, found)]
    answer = influxd.call("/api/v2/authorizations", {"orgID": influxd.org_id, "permissions": permissions})
    return str(answer["token"])


def _each(what: str, buckets: list[str]) -> list[dict[str, str]]:
    return [{}] if what else [{"id": bucket} for bucket in buckets]

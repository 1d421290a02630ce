"""The bucket that a name or an id stands for, and a database of InfluxQL that is known to be that bucket.

InfluxQL knows databases, not buckets: a mapping leads from the one to the other, and one that is named like a bucket
may lead elsewhere. It looks them up in the organisation of the token, whatever the request says.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.store.influxdb.http_errors import Refused, not_influxdb

if TYPE_CHECKING:
    from gatewatch.collector.store.influxdb.client import Client

ID: Final = re.compile(r"[0-9a-f]{16}")
_POLICY: Final = "autogen"


class Bucket(NamedTuple):
    """A bucket as the server knows it: its id, its name and the id of its organisation."""

    id: str
    name: str
    org: str


class Database(NamedTuple):
    """What a bucket is called in InfluxQL: a database and a retention policy."""

    name: str
    policy: str


def visible(client: Client, path: str, key: str, needed: Sequence[str] = (), **query: object) -> list[dict[str, Any]]:
    """Return the entries of a list of the management API that the token may see.

    Args:
        client: of the server.
        path: of the list.
        key: that holds the list in the answer.
        needed: keys that each entry has, with text.
        query: parameters of the address.

    Raises:
        ConfigError: the token is unknown there.
        GatewatchError: the server does not answer as it should.
    """
    try:
        answer = client.json("GET", path, **query)
    except Refused as refused:
        if refused.status == 401:
            raise ConfigError(str(refused)) from None
        if refused.status not in (403, 404) or refused.answered_by != "influxdb":
            raise
        return []
    entries = answer.get(key, "") if isinstance(answer, dict) else ""
    if entries is None:
        return []
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise not_influxdb(client.url, 200)
    if not all(isinstance(each.get(name), str) for each in entries for name in needed):
        raise not_influxdb(client.url, 200)
    return entries


def org_query(client: Client) -> dict[str, str]:
    """Return the parameter that names the organisation of a client, which may have given its id."""
    return {"orgID" if ID.fullmatch(client.org) else "org": client.org}


def find_bucket(client: Client) -> Bucket | None:
    """Return the bucket of a client; None where it is missing, or the token may not read it.

    Raises:
        GatewatchError: as of `visible`.
    """
    keys = ("id", "name") if ID.fullmatch(client.bucket) else ("name",)  # in the order in which a write looks it up
    for key in keys:
        query = {key: client.bucket, **org_query(client)}
        for found in visible(client, "/api/v2/buckets", "buckets", ("id", "name", "orgID"), **query):
            return Bucket(found["id"], found["name"], found["orgID"])
    return None


def find_database(client: Client, bucket: Bucket, *, own: bool) -> Database | None:
    """Return a database of InfluxQL that is a bucket. Where none is, it is made, and named by the bucket's id.

    Args:
        client: of the bucket.
        bucket: to be read.
        own: whether only that which is named by the id will do.

    Returns:
        The database; None where there is none, and the token may not make it.

    Raises:
        GatewatchError: as of `visible`.
    """
    # A token of several organisations may be of another than the bucket, where a name means another bucket.
    own = own or len(visible(client, "/api/v2/orgs", "orgs", limit=2)) > 1
    named = ("database", "retention_policy", "bucketID")
    mappings = visible(client, "/api/v2/dbrps", "content", named, orgID=bucket.org)
    found = sorted(_leading_to(bucket, mappings), key=lambda each: each.name != bucket.id)
    if found and (found[0].name == bucket.id or not own):
        return found[0]
    body = {"orgID": bucket.org, "bucketID": bucket.id, "database": bucket.id, "retention_policy": _POLICY}
    try:
        client.json("POST", "/api/v2/dbrps", {**body, "default": True})
    except Refused as refused:
        if refused.transient:
            raise
        if refused.status in (401, 403):
            return None if own else next(_leading_to(bucket, mappings, default=False), None)
        # Another process has made it in this moment.
    return Database(bucket.id, _POLICY)


def _leading_to(bucket: Bucket, mappings: list[dict[str, Any]], *, default: bool = True) -> Iterator[Database]:
    """Yield the databases that lead to a bucket and to no other.

    Args:
        bucket: where they lead.
        mappings: of the organisation.
        default: whether only those whose policy is the default of the database: some statements ask for no other.
    """
    many = Counter((each["database"], each["retention_policy"]) for each in mappings)
    for each in mappings:
        database = Database(each["database"], each["retention_policy"])
        is_default = each.get("default") is True or not default
        if each["bucketID"] == bucket.id and all(database) and many[database] == 1 and is_default:
            yield database

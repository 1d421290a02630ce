"""What the set-up makes in an InfluxDB: owner, buckets, the hourly task and tokens. What is there already stays.

Every function raises `GatewatchError` where the server does not answer or refuses, and says which.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.store.influxdb.client import Client
from gatewatch.collector.store.influxdb.http_errors import Refused, not_influxdb
from gatewatch.jobs.stack.desired_state import DesiredState
from gatewatch.jobs.stack.downsampling import TASK
from gatewatch.jobs.stack.token_files import read_token, token_path, write_token

TIMEOUT_S: Final = 20.0
_PAGE: Final = 100
_ABOUT_TASK: Final = "Hourly aggregates, for histories that outlive the points. Gatewatch's set-up keeps it."

Permissions = frozenset[tuple[str, str]]
"""What a token may do: (`read` or `write`, the id of a bucket)."""
Say = Callable[[str], None]
"""Given a line for each thing that was done."""


def is_new(server: Client) -> bool:
    """Return whether nobody has set the server up yet.

    Raises:
        WriteUnavailable: it does not answer, or is starting.
    """
    try:
        answer = server.json("GET", "/api/v2/setup")
    except Refused as refused:  # 503 while it opens its files
        raise refused.unavailable() if refused.transient else refused from None
    if not isinstance(answer, dict) or "allowed" not in answer:
        raise not_influxdb(server.url, 200)
    return bool(answer["allowed"])


def onboard(server: Client, desired: DesiredState) -> None:
    """Make the owner, the organisation and the bucket; the server allows that once."""
    names = {"username": desired.user, "password": desired.password, "org": desired.org, "bucket": desired.bucket}
    # The token of the answer may do everything. Nobody needs it: it is not kept.
    server.json("POST", "/api/v2/setup", {**names, "retentionPeriodSeconds": desired.retention_s})


def organisation(owner: Client, desired: DesiredState) -> str:
    """Return the organisation's id.

    Raises:
        ConfigError: the owner is not let in, or there is no such organisation.
    """
    try:
        ids = {org["name"]: org["id"] for org in owner.json("GET", "/api/v2/orgs", limit=_PAGE)["orgs"]}
    except Refused as refused:
        if refused.status not in (401, 403):
            raise
        raise ConfigError(
            f"{owner.url} was set up before and does not let {desired.user!r} in: set GATEWATCH_INFLUXDB_USER and"
            " GATEWATCH_INFLUXDB_PASSWORD to those that it was set up with, or delete its data to begin anew"
        ) from None
    if desired.org not in ids:
        names = ", ".join(map(repr, sorted(ids))) or "none that this user sees"
        raise ConfigError(
            f"{owner.url} was set up before and has no organisation {desired.org!r}: set INFLUXDB_V2_ORG to one"
            f" that is there ({names})"
        )
    return str(ids[desired.org])


def ensure_buckets(owner: Client, org: str, retentions: Mapping[str, int], say: Say) -> dict[str, str]:
    """Make buckets that are missing, correct how long the others keep points, and return name → id.

    Args:
        retentions: name → seconds; 0: for ever.
    """
    ids = {}
    for name, seconds in retentions.items():
        rules = {"retentionRules": [{"type": "expire", "everySeconds": seconds}]}
        bucket = _bucket(owner, org, name)
        if bucket is None:
            bucket = owner.json("POST", "/api/v2/buckets", {"orgID": org, "name": name, **rules})
            say(f"made the bucket {name!r}, which keeps points {_how_long(seconds)}")
        elif (before := _retention(bucket)) != seconds:
            owner.json("PATCH", f"/api/v2/buckets/{bucket['id']}", rules)
            say(f"the bucket {name!r} keeps points {_how_long(seconds)}; it was {_how_long(before)}")
        ids[name] = str(bucket["id"])
    return ids


def ensure_task(owner: Client, org: str, flux: str, say: Say) -> None:
    """Make the task, or give it its Flux again where that was changed. One that somebody made inactive stays so."""
    tasks = owner.json("GET", "/api/v2/tasks", orgID=org, name=TASK, limit=_PAGE)["tasks"]
    if not tasks:
        owner.json("POST", "/api/v2/tasks", {"orgID": org, "flux": flux, "description": _ABOUT_TASK})
        say(f"made the task {TASK!r}")
    elif tasks[0]["flux"].strip() != flux.strip():
        owner.json("PATCH", f"/api/v2/tasks/{tasks[0]['id']}", {"flux": flux})
        say(f"put the task {TASK!r} back")


def token_permissions(bucket: str, history: str) -> dict[str, Permissions]:
    """Return the least permissions of each token: its name → permissions, from the ids of the buckets."""
    reads_and_writes = frozenset({("read", bucket), ("write", bucket)})
    return {
        "collector": reads_and_writes,
        "jobs": reads_and_writes,
        "grafana": frozenset({("read", bucket), ("read", history)}),
    }


def ensure_tokens(owner: Client, org: str, wanted: Mapping[str, Permissions], folder: Path, say: Say) -> None:
    """Replace each token and write it to its file, unless the file holds a token that works and has these permissions.

    InfluxDB stores only the hash of a token, so a token whose file is lost is replaced. An authorization is identified
    by its description. If several have the same description, all of them are deleted and a new one is made.
    """
    authorizations: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for authorization in owner.json("GET", "/api/v2/authorizations", orgID=org)["authorizations"]:
        authorizations[authorization.get("description", "")].append(authorization)
    for name, permissions in wanted.items():
        description = f"Gatewatch: {name}"
        stale = authorizations[description]
        if len(stale) == 1 and _allows(stale[0], permissions) and _accepts(owner.url, read_token(folder, name)):
            continue
        for authorization in stale:
            owner.json("DELETE", f"/api/v2/authorizations/{authorization['id']}")
        allowed = [
            {"action": action, "resource": {"type": "buckets", "id": bucket, "orgID": org}}
            for action, bucket in sorted(permissions)
        ]
        about = {"orgID": org, "description": description, "permissions": allowed}
        write_token(folder, name, str(owner.json("POST", "/api/v2/authorizations", about)["token"]))
        may = " and ".join(sorted({action for action, _ in permissions}))
        replaced = "; the one before no longer works" if stale else ""
        say(f"made the token {token_path(folder, name)}, which may {may}{replaced}")


def _bucket(owner: Client, org: str, name: str) -> dict[str, Any] | None:
    try:
        buckets: list[dict[str, Any]] = owner.json("GET", "/api/v2/buckets", orgID=org, name=name)["buckets"]
    except Refused as refused:
        if refused.status != 404:
            raise
        return None
    return buckets[0] if buckets else None


def _retention(bucket: Mapping[str, Any]) -> int:
    """Return how many seconds a bucket keeps points; 0: for ever."""
    rules = bucket.get("retentionRules") or [{}]
    return int(rules[0].get("everySeconds", 0))


def _how_long(seconds: int) -> str:
    return f"for {seconds / 86_400:g} days" if seconds else "for ever"


def _allows(authorization: Mapping[str, Any], wanted: Permissions) -> bool:
    """Return whether an authorization is in force, and allows what is wanted and no more."""
    allowed = {(p["action"], p["resource"]["type"], p["resource"].get("id")) for p in authorization["permissions"]}
    active = authorization.get("status", "active") == "active"
    return active and allowed == {(action, "buckets", bucket) for action, bucket in wanted}


def _accepts(url: str, token: str | None) -> bool:
    """Return whether a token is one of the server's, whatever it may do."""
    if token is None:
        return False
    with closing(Client(url, token=token, timeout=TIMEOUT_S)) as client:
        try:
            client.json("GET", "/api/v2/buckets", limit=1)
        except Refused as refused:
            if refused.status != 401:
                raise
            return False
    return True

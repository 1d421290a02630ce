"""InfluxDB's API for the set-up: signing in as the owner, and JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.store.influxdb.client import Client
from gatewatch.collector.store.influxdb.http_errors import Refused, not_influxdb
from gatewatch.jobs.stack.plan import Bucket, Grant, Permissions, Task

if TYPE_CHECKING:
    from gatewatch.jobs.stack.desired_state import DesiredState

TIMEOUT_S: Final = 20.0
_PAGE: Final = 100
_DESCRIPTION: Final = "Gatewatch: "
"""How the description of an authorization begins that is made here; the token's name follows."""


class Server:
    """An InfluxDB and its owner.

    Every method raises `GatewatchError` where the server does not answer or refuses, and says which.

    Args:
        desired: where it is and whose.
    """

    def __init__(self, desired: DesiredState) -> None:
        self._desired = desired
        self._owner = Client(desired.url, user=desired.user, password=desired.password, timeout=TIMEOUT_S)
        self._nobody = Client(desired.url, timeout=TIMEOUT_S)

    def close(self) -> None:
        """Sign out, and close connections."""
        self._owner.close()
        self._nobody.close()

    def is_new(self) -> bool:
        """Return whether nobody has set the server up yet.

        Raises:
            WriteUnavailable: it does not answer, or is starting.
        """
        try:
            answer = self._nobody.json("GET", "/api/v2/setup")
        except Refused as refused:  # 503 while it opens its files
            raise refused.unavailable() if refused.transient else refused from None
        if not isinstance(answer, dict) or "allowed" not in answer:
            raise not_influxdb(self._desired.url, 200)
        return bool(answer["allowed"])

    def onboard(self) -> None:
        """Make the owner, the organisation and the bucket; the server allows that once."""
        desired = self._desired
        names = {"username": desired.user, "password": desired.password, "org": desired.org, "bucket": desired.bucket}
        # The token of the answer may do everything. Nobody needs it: it is not kept.
        self._nobody.json("POST", "/api/v2/setup", {**names, "retentionPeriodSeconds": desired.retention_s})

    def organisation(self) -> str:
        """Return the organisation's id.

        Raises:
            ConfigError: the owner is not let in, or there is no such organisation.
        """
        desired = self._desired
        try:
            there = {org["name"]: org["id"] for org in self._owner.json("GET", "/api/v2/orgs", limit=_PAGE)["orgs"]}
        except Refused as refused:
            if refused.status not in (401, 403):
                raise
            raise ConfigError(
                f"{desired.url} was set up before and does not let {desired.user!r} in: set GATEWATCH_INFLUXDB_USER and"
                " GATEWATCH_INFLUXDB_PASSWORD to those that it was set up with, or delete its data to begin anew"
            ) from None
        if desired.org not in there:
            names = ", ".join(map(repr, sorted(there))) or "none that this user sees"
            raise ConfigError(
                f"{desired.url} was set up before and has no organisation {desired.org!r}: set INFLUXDB_V2_ORG to one"
                f" that is there ({names})"
            )
        return str(there[desired.org])

    def buckets(self, org: str) -> dict[str, Bucket]:
        """Return the buckets that are wanted and there, by name."""
        found = {}
        for name in self._desired.retentions:
            try:
                buckets = self._owner.json("GET", "/api/v2/buckets", orgID=org, name=name)["buckets"]
            except Refused as refused:
                if refused.status == 404:
                    continue
                raise
            for bucket in buckets:
                rules = bucket.get("retentionRules") or [{}]
                found[name] = Bucket(bucket["id"], int(rules[0].get("everySeconds", 0)))
        return found

    def make_bucket(self, org: str, name: str, retention_s: int) -> None:
        """Make a bucket that keeps points for so many seconds; 0: for ever."""
        self._owner.json("POST", "/api/v2/buckets", {"orgID": org, "name": name, "retentionRules": _rules(retention_s)})

    def keep_for(self, bucket: str, retention_s: int) -> None:
        """Change how long the bucket of an id keeps points."""
        self._owner.json("PATCH", f"/api/v2/buckets/{bucket}", {"retentionRules": _rules(retention_s)})

    def tasks(self, org: str, name: str) -> list[Task]:
        """Return the tasks of a name."""
        tasks = self._owner.json("GET", "/api/v2/tasks", orgID=org, name=name, limit=_PAGE)["tasks"]
        return [Task(task["id"], task["flux"]) for task in tasks or ()]

    def make_task(self, org: str, flux: str, description: str) -> None:
        """Make a task."""
        self._owner.json("POST", "/api/v2/tasks", {"orgID": org, "flux": flux, "description": description})

    def change_task(self, task: str, flux: str) -> None:
        """Give the task of an id other Flux."""
        self._owner.json("PATCH", f"/api/v2/tasks/{task}", {"flux": flux})

    def grants(self, org: str) -> dict[str, list[Grant]]:
        """Return the authorizations that a set-up has made: name of the token → each."""
        found: dict[str, list[Grant]] = defaultdict(list)
        for each in self._owner.json("GET", "/api/v2/authorizations", orgID=org)["authorizations"]:
            name = str(each.get("description", ""))
            if name.startswith(_DESCRIPTION):
                permissions = frozenset((p["action"], _resource(p["resource"])) for p in each["permissions"])
                found[name.removeprefix(_DESCRIPTION)].append(
                    Grant(each["id"], permissions, each.get("status", "active") == "active")
                )
        return dict(found)

    def make_token(self, org: str, name: str, permissions: Permissions) -> str:
        """Make a token and return it; the server does not show it again."""
        allowed = [
            {"action": action, "resource": {"type": "buckets", "id": bucket, "orgID": org}}
            for action, bucket in sorted(permissions)
        ]
        about = {"orgID": org, "description": f"{_DESCRIPTION}{name}", "permissions": allowed}
        return str(self._owner.json("POST", "/api/v2/authorizations", about)["token"])

    def drop_grant(self, grant: str) -> None:
        """Delete the authorization of an id, and its token with it."""
        self._owner.json("DELETE", f"/api/v2/authorizations/{grant}")

    def accepts(self, token: str) -> bool:
        """Return whether a token is one of the server's, whatever it may do."""
        client = Client(self._desired.url, token=token, timeout=TIMEOUT_S)
        try:
            client.json("GET", "/api/v2/buckets", limit=1)
        except Refused as refused:
            if refused.status != 401:
                raise
            return False
        finally:
            client.close()
        return True


def _rules(retention_s: int) -> list[Mapping[str, object]]:
    return [{"type": "expire", "everySeconds": retention_s}]


def _resource(resource: Mapping[str, str]) -> str:
    """The bucket's id; of a permission that is for more than a bucket something that no bucket is called."""
    return resource.get("id", "every") if resource["type"] == "buckets" else resource["type"]

"""The datasource in a Grafana."""

from __future__ import annotations

from typing import Final

from gatewatch.collector.errors import ConfigError
from gatewatch.jobs.grafana import provenance
from gatewatch.jobs.grafana.artifacts import DATASOURCE_NAME, DATASOURCE_UID, Bucket
from gatewatch.jobs.grafana.connection import Grafana, NoAnswer, Refused
from gatewatch.jobs.grafana.resources import Existing, Resource, normalize

ANSWER_S: Final = 10.0
"""Seconds that Grafana may take to say whether the datasource answers; while the store hangs it says nothing."""
CACHE_S: Final = 6.0
"""Seconds for which Grafana goes on using the datasource's former settings after a change, and a little more."""
_COMPARED: Final = ("name", "type", "access", "url", "user", "database", "basicAuth")


class Datasource:
    """Reads and writes the datasource; see `push.Kind`.

    Args:
        grafana: the connection.
        bucket: what the datasource should read, with the token to write; None where it is not to be written and any
            token will do.

    Raises:
        ConfigError: another datasource has the name or the uid of ours.
    """

    def __init__(self, grafana: Grafana, bucket: Bucket | None) -> None:
        self._grafana, self._bucket = grafana, bucket
        self._existing = None
        for source in grafana.get("/datasources"):
            what = f"{grafana.url}: there is a datasource {source['name']!r} of type {source['type']} with uid"
            if source["uid"] == DATASOURCE_UID:
                self._existing = source
                if source["type"] != "influxdb":
                    raise ConfigError(
                        f"{what} {DATASOURCE_UID!r} already; the dashboards need one of type influxdb: delete it"
                    )
            elif source["name"].lower() == DATASOURCE_NAME.lower():
                raise ConfigError(
                    f"{what} {source['uid']!r} already; the dashboards need the uid {DATASOURCE_UID!r}: rename or"
                    " delete it"
                )

    def find(self, resource: Resource) -> Existing | None:
        """See `push.Kind`."""
        source = self._existing
        if source is None:
            return None
        settings = dict(source.get("jsonData") or {})
        pushed, mark = settings.pop(provenance.SETTING, None), settings.pop(provenance.TOKEN, None)
        content = normalize({**{name: source.get(name) for name in _COMPARED}, "jsonData": settings})
        if source.get("readOnly"):
            return provenance.existing(content, pushed, "file")
        problem = ""
        if reason := unreachable(self._grafana):
            problem = f"it does not answer ({reason}): its token is set again"
        elif self._bucket is not None and not provenance.is_token(self._bucket.client.token, mark):
            problem = "another token"
        return provenance.existing(content, pushed, problem=problem, isDefault=bool(source.get("isDefault")))

    def write(self, resource: Resource, existing: Existing | None) -> None:
        """See `push.Kind`. The token is written each time: Grafana never shows which one it has."""
        assert self._bucket is not None  # noqa: S101 - a datasource is only wanted with its bucket
        body = {
            **resource.content,
            "uid": resource.uid,
            "isDefault": False if existing is None else existing.handle["isDefault"],
            "jsonData": {
                **resource.content["jsonData"],
                provenance.SETTING: resource.fingerprint,
                provenance.TOKEN: provenance.token_mark(self._bucket.client.token),
            },
            "secureJsonData": {"token": self._bucket.client.token},
        }
        if existing is None:
            self._grafana.post("/datasources", body)
        else:
            self._grafana.put(f"/datasources/uid/{resource.uid}", body)


def exists(grafana: Grafana) -> bool:
    """Return whether the datasource is there."""
    return any(source["uid"] == DATASOURCE_UID for source in grafana.get("/datasources"))


def unreachable(grafana: Grafana) -> str:
    """Return why the store does not answer Grafana; empty where it does."""
    try:
        health = grafana.get(f"/datasources/uid/{DATASOURCE_UID}/health", timeout_s=ANSWER_S)
    except Refused as refused:
        return refused.reason
    except NoAnswer:
        return f"no answer within {ANSWER_S:g} s"
    return "" if health.get("status") == "OK" else str(health.get("message"))

"""The datasource in a Grafana: find it, see whether it answers, and write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from gatewatch.collector.errors import ConfigError
from gatewatch.jobs.grafana import provenance
from gatewatch.jobs.grafana.artifacts import DATASOURCE_NAME, DATASOURCE_UID, Bucket
from gatewatch.jobs.grafana.connection import Grafana, NoAnswer, Refused
from gatewatch.jobs.grafana.resources import Found, Thing, plain

ANSWER_S: Final = 10.0
"""Seconds that Grafana may take to say whether it answers: of a store that hangs it says nothing for long."""
REMEMBERED_S: Final = 6.0
"""Seconds that Grafana goes on asking as it did before the datasource was changed, and a little more."""


def check_names(url: str, sources: Sequence[Mapping[str, Any]]) -> None:
    """See that no other datasource has the name or the uid of ours.

    Raises:
        ConfigError: one has; names it.
    """
    for one in sources:
        what = f"a datasource {one['name']!r} of type {one['type']} with uid {one['uid']!r}"
        if one["uid"] == DATASOURCE_UID and one["type"] != "influxdb":
            raise ConfigError(f"{url}: there is {what} already; the dashboards need one of type influxdb: delete it")
        if one["uid"] != DATASOURCE_UID and one["name"].lower() == DATASOURCE_NAME.lower():
            raise ConfigError(
                f"{url}: there is {what} already; the dashboards need the uid {DATASOURCE_UID!r}: rename or delete it"
            )


def exists(grafana: Grafana) -> bool:
    """Whether it is there."""
    return any(one["uid"] == DATASOURCE_UID for one in grafana.get("/datasources"))


def find(grafana: Grafana, sources: Sequence[Mapping[str, Any]], token: str | None) -> Found | None:
    """It, out of all datasources, or None.

    Args:
        token: that it should have; None: any that answers will do.
    """
    source = next((one for one in sources if one["uid"] == DATASOURCE_UID), None)
    if source is None:
        return None
    settings = dict(source.get("jsonData") or {})
    print_, mark = settings.pop(provenance.SETTING, None), settings.pop(provenance.TOKEN, None)
    content = {name: source.get(name) for name in ("name", "type", "access", "url", "user", "database", "basicAuth")}
    owner = "file" if source.get("readOnly") else ""
    if problem := "" if owner else answers(grafana):
        broken = f"it does not answer ({problem}): its token is set again"
    else:
        broken = "" if token is None or provenance.is_token(token, mark) else "another token"
    return provenance.read(
        plain({**content, "jsonData": settings}),
        print_,
        owner,
        broken,
        isDefault=bool(source.get("isDefault")),
    )


def answers(grafana: Grafana) -> str:
    """Why it does not answer Grafana; empty where it does."""
    try:
        health = grafana.get(f"/datasources/uid/{DATASOURCE_UID}/health", within_s=ANSWER_S)
    except Refused as refused:
        return refused.said
    except NoAnswer:
        return f"no answer within {ANSWER_S:g} s"
    return "" if health.get("status") == "OK" else str(health.get("message"))


def write(grafana: Grafana, thing: Thing, found: Found | None, bucket: Bucket) -> None:
    """Make it, or replace it. The token is written each time: Grafana never shows which one it has."""
    body = {
        **thing.content,
        "uid": thing.uid,
        "isDefault": False if found is None else found.handle["isDefault"],
        "jsonData": {
            **thing.content["jsonData"],
            provenance.SETTING: thing.print,
            provenance.TOKEN: provenance.token_mark(bucket.token),
        },
        "secureJsonData": {"token": bucket.token},
    }
    if found is None:
        grafana.post("/datasources", body)
    else:
        grafana.put(f"/datasources/uid/{thing.uid}", body)

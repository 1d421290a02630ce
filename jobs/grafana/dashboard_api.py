"""Dashboards in a Grafana: find one, and write one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

from gatewatch.jobs.grafana import provenance
from gatewatch.jobs.grafana.connection import Grafana
from gatewatch.jobs.grafana.resources import Found, Thing

_VERSIONS: Final = 100
"""How far back it is looked for one of ours."""


def find(grafana: Grafana, thing: Thing) -> Found | None:
    """The dashboard as it is there, or None."""
    held = grafana.find(f"/dashboards/uid/{quote(thing.uid, safe='')}")
    if held is None:
        return None
    prints = [provenance.pushed_by(message) for message in _messages(grafana, thing.uid)]
    return Found(
        {name: value for name, value in held["dashboard"].items() if name not in ("id", "version")},
        next((one for one in prints if one), None),
        touched=not prints or prints[0] is None,
        owner="file" if held["meta"].get("provisioned") else "",
        handle={
            "id": held["dashboard"]["id"],
            "version": held["dashboard"]["version"],
            "folder": held["meta"].get("folderUid") or "",
        },
    )


def write(grafana: Grafana, thing: Thing, found: Found | None, folder: str) -> None:
    """Make a dashboard in a folder, or replace the one that was found where that is.

    Raises:
        Refused: someone saved it since, or another has its title.
    """
    # With the version that was read Grafana refuses to write over one that someone saved since.
    known = {"id": None} if found is None else {name: found.handle[name] for name in ("id", "version")}
    body = {
        "dashboard": {**thing.content, **known},
        "folderUid": folder if found is None else found.handle["folder"],
        "message": provenance.message(thing.print),
        "overwrite": False,
    }
    saved = grafana.post("/dashboards/db", body)
    if found is None and next(_messages(grafana, thing.uid), None) != body["message"]:
        # The first version of a dashboard has a message of Grafana's own.
        known = {"id": saved["id"], "version": saved["version"]}
        grafana.post("/dashboards/db", {**body, "dashboard": {**thing.content, **known}})


def _messages(grafana: Grafana, uid: str) -> Iterator[str]:
    """Of the versions of a dashboard, the newest first."""
    found = grafana.get(f"/dashboards/uid/{quote(uid, safe='')}/versions?limit={_VERSIONS}")
    return (str(one.get("message")) for one in (found["versions"] if isinstance(found, dict) else found))

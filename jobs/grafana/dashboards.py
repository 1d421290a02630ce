"""Folders and dashboards in a Grafana."""

from __future__ import annotations

from typing import Any

from gatewatch.jobs.grafana import provenance
from gatewatch.jobs.grafana.artifacts import FOLDERS
from gatewatch.jobs.grafana.connection import Grafana
from gatewatch.jobs.grafana.resources import Existing, Resource


class Folders:
    """Reads and makes folders; see `push.Kind`.

    Attributes:
        uids: the uid that each of our folders has there. A folder with our title, as file provisioning makes it, serves
            as well as one with our uid.
    """

    def __init__(self, grafana: Grafana) -> None:
        self._grafana = grafana
        folders = grafana.get("/folders?limit=1000")
        by_name = {one["title"]: one["uid"] for one in folders} | {one["uid"]: one["uid"] for one in folders}
        self._there = {uid: by_name.get(uid) or by_name.get(title) for uid, title in FOLDERS.items()}
        self.uids = {uid: there or uid for uid, there in self._there.items()}

    def find(self, resource: Resource) -> Existing | None:
        """See `push.Kind`."""
        return Existing(resource.content) if self._there[resource.uid] else None

    def write(self, resource: Resource, existing: Existing | None) -> None:
        """See `push.Kind`."""
        self._grafana.post("/folders", {"uid": resource.uid, "title": resource.name})


class Dashboards:
    """Reads and writes dashboards; see `push.Kind`.

    Args:
        grafana: the connection.
        folder: the uid of the folder for new ones. One that exists stays in its folder.
    """

    def __init__(self, grafana: Grafana, folder: str) -> None:
        self._grafana, self._folder = grafana, folder

    def find(self, resource: Resource) -> Existing | None:
        """See `push.Kind`."""
        saved = self._grafana.find(f"/dashboards/uid/{resource.uid}")
        if saved is None:
            return None
        board, pushed = saved["dashboard"], [provenance.pushed_in(text) for text in self._messages(resource.uid)]
        return Existing(
            {name: value for name, value in board.items() if name not in ("id", "version")},
            next(filter(None, pushed), None),
            changed=not pushed or pushed[0] is None,
            owner="file" if saved["meta"].get("provisioned") else "",
            handle={
                "dashboard": {"id": board["id"], "version": board["version"]},
                "folderUid": saved["meta"].get("folderUid") or "",
            },
        )

    def write(self, resource: Resource, existing: Existing | None) -> None:
        """See `push.Kind`. With the version that was read Grafana refuses to replace one that someone saved since."""
        handle = {"dashboard": {"id": None}, "folderUid": self._folder} if existing is None else existing.handle
        body = {**handle, "message": provenance.message(resource.fingerprint), "overwrite": False}
        saved = self._save(resource, body)
        if existing is None and self._messages(resource.uid)[0] != body["message"]:
            # Grafana gives the first version of a dashboard a message of its own.
            self._save(resource, {**body, "dashboard": {"id": saved["id"], "version": saved["version"]}})

    def _save(self, resource: Resource, body: dict[str, Any]) -> Any:
        return self._grafana.post("/dashboards/db", {**body, "dashboard": {**resource.content, **body["dashboard"]}})

    def _messages(self, uid: str) -> list[str]:
        """Return the messages of the newest 100 versions, the newest first."""
        answer = self._grafana.get(f"/dashboards/uid/{uid}/versions?limit=100")
        versions = answer["versions"] if isinstance(answer, dict) else answer  # from Grafana 12 on, and before
        return [str(version.get("message")) for version in versions]

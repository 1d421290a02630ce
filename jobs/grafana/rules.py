"""Alert rules in a Grafana."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from gatewatch.jobs.grafana import provenance
from gatewatch.jobs.grafana.artifacts import ALERT_FOLDER, rule_content
from gatewatch.jobs.grafana.connection import PROVISIONING, Grafana
from gatewatch.jobs.grafana.resources import Existing, Resource, fingerprint

_RENAMED: Final = {
    "folderUID": "folder",
    "ruleGroup": "group",
    "keep_firing_for": "keepFiringFor",
    "notification_settings": "notificationSettings",
}
"""Name of a property in the API → its name in the alerting files."""
_NO_CONTENT: Final = ("id", "uid", "orgID", "updated", "provenance")


class Rules:
    """Reads and writes alert rules; see `push.Kind`.

    Args:
        grafana: the connection.
        folder: the uid that the folder of our rules has there.
    """

    def __init__(self, grafana: Grafana, folder: str) -> None:
        self._grafana, self._folder = grafana, folder
        self._intervals: dict[str, float] = {}
        self._rules = self._read()

    def find(self, resource: Resource) -> Existing | None:
        """See `push.Kind`."""
        rule = self._rules.get(resource.uid)
        if rule is None:
            return None
        content = {_RENAMED.get(name, name): value for name, value in rule.items() if name not in _NO_CONTENT}
        annotations = dict(rule.get("annotations") or {})
        pushed, _, stored = annotations.pop(provenance.ANNOTATION, "").partition(".")
        content |= {"annotations": annotations, "interval": 0}
        if rule["folderUID"] == self._folder:
            content |= {"folder": ALERT_FOLDER, "interval": self._interval(rule["ruleGroup"])}
        return provenance.existing(rule_content(content), pushed or None, rule.get("provenance") or "", stored=stored)

    def write(self, resource: Resource, existing: Existing | None, stored: str = "") -> None:
        """See `push.Kind`.

        Args:
            resource, existing: see there.
            stored: the fingerprint of what Grafana makes of it; that of the resource where empty.
        """
        body = dict(resource.content)
        del body["interval"]
        names = {ours: theirs for theirs, ours in _RENAMED.items()}
        mark = f"{resource.fingerprint}.{stored or resource.fingerprint}"
        body = {names.get(name, name): value for name, value in body.items()} | {
            "uid": resource.uid,
            "orgID": 1,
            "folderUID": self._folder,
            "for": f"{body.get('for', 0):.0f}s",
            "annotations": {**body.get("annotations", {}), provenance.ANNOTATION: mark},
            "data": [_with_times(query) for query in body["data"]],
        }
        if existing is None:
            self._grafana.post(f"{PROVISIONING}/alert-rules", body)
        else:
            self._grafana.put(f"{PROVISIONING}/alert-rules/{resource.uid}", body)

    def settle(self, written: Sequence[Resource]) -> None:
        """Finish rules that were written: set the intervals of their groups, and mark what Grafana added to them."""
        for name, interval in {one.content["group"]: one.content["interval"] for one in written}.items():
            path = self._group(name)
            group = self._grafana.find(path)
            if group is not None and group["interval"] != interval:
                self._grafana.put(path, {**group, "interval": int(interval)})
        self._rules, self._intervals = self._read() if written else {}, {}
        for resource in written:
            existing = self.find(resource)
            if existing is not None and existing.changed:
                self.write(resource, existing, fingerprint(existing.content))

    def _read(self) -> dict[str, Any]:
        return {rule["uid"]: rule for rule in self._grafana.get(f"{PROVISIONING}/alert-rules")}

    def _group(self, name: str) -> str:
        return f"{PROVISIONING}/folder/{self._folder}/rule-groups/{name}"

    def _interval(self, group: str) -> float:
        if group not in self._intervals:
            self._intervals[group] = (self._grafana.find(self._group(group)) or {}).get("interval", 0)
        return self._intervals[group]


def _with_times(query: Mapping[str, Any]) -> dict[str, Any]:
    """Return a query with both ends of its time range, of which `normalize` drops those that are 0."""
    return {**query, "relativeTimeRange": {"from": 0, "to": 0, **query.get("relativeTimeRange", {})}}

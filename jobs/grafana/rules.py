"""Alert rules in a Grafana: read them all, write one, set how often a group is evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from gatewatch.jobs.grafana import provenance
from gatewatch.jobs.grafana.artifacts import ALERT_FOLDER, rule_content
from gatewatch.jobs.grafana.connection import EDITABLE, Grafana
from gatewatch.jobs.grafana.resources import Found, Thing, fingerprint, seconds

_RULER: Final = "/ruler/grafana/api/v1/rules"
_API: Final = "/v1/provisioning"
_NAMES: Final = {
    "title": "title",
    "condition": "condition",
    "data": "data",
    "no_data_state": "noDataState",
    "exec_err_state": "execErrState",
    "is_paused": "isPaused",
    "notification_settings": "notificationSettings",
    "record": "record",
}
"""What the page's own API calls what the alerting files call otherwise."""


def read(grafana: Grafana, places: Mapping[str, str]) -> dict[str, Found]:
    """All rules, by their uids. The page's own API lists them in one answer, whatever their folder.

    Args:
        places: of our folders the uids that they have in this Grafana.
    """
    ours = {place: uid for uid, place in places.items()}
    return {
        node["grafana_alert"]["uid"]: _found(node, group["interval"], ours)
        for groups in grafana.get(_RULER).values()
        for group in groups
        for node in group["rules"]
        if "grafana_alert" in node
    }


def write(
    grafana: Grafana, places: Mapping[str, str], thing: Thing, found: Found | None, stored: str | None = None
) -> None:
    """Make or replace a rule.

    Args:
        places: as for `read`.
        stored: the fingerprint of what Grafana makes of it; None: of what it is known to make.
    """
    content = dict(thing.content)
    annotations = provenance.annotated(content.get("annotations", {}), thing.print, stored or thing.print)
    body = {
        "noDataState": "NoData",
        "execErrState": "Alerting",
        "labels": {},
        **{name: value for name, value in content.items() if name not in ("folder", "group", "interval")},
        "uid": thing.uid,
        "orgID": 1,
        "folderUID": places[content["folder"]],
        "ruleGroup": content["group"],
        "for": f"{content.get('for', 0):.0f}s",
        "annotations": annotations,
        "data": [_query(query) for query in content["data"]],
    }
    if found is None:
        grafana.post(f"{_API}/alert-rules", body)
    else:
        grafana.put(f"{_API}/alert-rules/{quote(thing.uid, safe='')}", body)


def settle(grafana: Grafana, places: Mapping[str, str], written: Sequence[Thing]) -> None:
    """After rules were written: see that their groups are evaluated as often as they should, and their traces hold."""
    if not written:
        return
    intervals = {thing.content["group"]: thing.content["interval"] for thing in written}
    for title, groups in grafana.get(_RULER).items():
        for group in groups:
            place = places[ALERT_FOLDER]
            ours = any(node.get("grafana_alert", {}).get("namespace_uid") == place for node in group["rules"])
            wanted = intervals.get(group["name"])
            if ours and wanted is not None and seconds(group["interval"]) != wanted:
                _set_interval(grafana, title, place, group, wanted)
    now = read(grafana, places)
    for thing in written:
        found = now.get(thing.uid)
        if found is not None and found.touched and found.content is not None:
            write(grafana, places, thing, found, fingerprint(found.content))


def _found(node: Mapping[str, Any], interval: str, ours: Mapping[str, str]) -> Found:
    alert = node["grafana_alert"]
    annotations = dict(node.get("annotations") or {})
    mark = annotations.pop(provenance.ANNOTATION, None)
    rule = {name: alert[theirs] for theirs, name in _NAMES.items() if theirs in alert}
    rule |= {
        "for": node.get("for"),
        "keepFiringFor": node.get("keep_firing_for"),
        "labels": node.get("labels"),
        "annotations": annotations,
        "group": alert["rule_group"],
        "folder": ours.get(alert["namespace_uid"], alert["namespace_uid"]),
        "interval": interval,
    }
    return provenance.read_rule(rule_content(rule), mark, alert.get("provenance") or "", {})


def _query(query: Mapping[str, Any]) -> dict[str, Any]:
    times = query.get("relativeTimeRange", {})
    return {**query, "relativeTimeRange": {"from": times.get("from", 0), "to": times.get("to", 0)}}


def _set_interval(grafana: Grafana, folder: str, uid: str, group: Mapping[str, Any], interval: float) -> None:
    if grafana.version >= EDITABLE:
        path = f"{_API}/folder/{uid}/rule-groups/{quote(group['name'], safe='')}"
        held = grafana.get(path)
        grafana.put(path, {**held, "interval": int(interval)})
    else:
        body = {**group, "interval": f"{interval:.0f}s"}
        grafana.post(f"{_RULER}/{quote(folder, safe='')}", body)

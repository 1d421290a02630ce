"""From what is wanted to what a Grafana has: read it, plan, and do what the plan says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from collector.errors import ConfigError, GatewatchError
from jobs.grafana import marks, notifications, rules
from jobs.grafana.artifacts import DASHBOARD_FOLDER, DATASOURCE_NAME, DATASOURCE_UID, FOLDERS, Bucket
from jobs.grafana.connection import EDITABLE, ROLE, Grafana, Refused
from jobs.grafana.plan import Step
from jobs.grafana.things import FOLDER, RULE, Found, Thing, plain

PERMISSIONS: Final = (
    *("datasources:read", "datasources:create", "datasources:write"),
    *("folders:read", "folders:create", "dashboards:read", "dashboards:create", "dashboards:write"),
    *("alert.rules:read", "alert.provisioning:read", "alert.provisioning:write"),
)
OLDER: Final = ("alert.notifications:read", "alert.notifications:write", "alert.rules:write")
"""What versions before `EDITABLE` need beside them."""
_VERSIONS: Final = 100


def missing_permissions(grafana: Grafana) -> list[str]:
    """What the token may not do, of all that a push does; none where Grafana does not say."""
    needed = (*PERMISSIONS, *(OLDER if grafana.version < EDITABLE else ()))
    try:
        allowed = grafana.find("/access-control/user/permissions")
    except Refused:
        return []
    return [] if not isinstance(allowed, Mapping) else [one for one in needed if one not in allowed]


def check_permissions(grafana: Grafana) -> None:
    """See that the token may push.

    Raises:
        ConfigError: it may not; names what it lacks.
    """
    if missing := missing_permissions(grafana):
        raise ConfigError(f"{grafana.url}: the token lacks {', '.join(missing)}; {ROLE}")


@dataclass(frozen=True, slots=True)
class State:
    """What a Grafana has of what is wanted.

    Attributes:
        found: by kind and uid.
        places: of our folders the uid that each has there. One that was there by its title, as file provisioning makes
            them, is as good as one of ours.
    """

    found: Mapping[tuple[str, str], Found]
    places: Mapping[str, str]


def read(grafana: Grafana, wanted: Sequence[Thing]) -> State:
    """What there is already of what is wanted.

    Raises:
        ConfigError: a name of ours is taken by something else; names it.
    """
    sources, folders = grafana.get("/datasources"), grafana.get("/folders?limit=1000")
    check_names(grafana.url, sources)
    titles = {one["title"]: one["uid"] for one in folders} | {one["uid"]: one["uid"] for one in folders}
    there = {uid: titles.get(uid) or titles.get(title) for uid, title in FOLDERS.items()}
    places = {uid: place or uid for uid, place in there.items()}
    held = notifications.read(grafana)
    ruled = rules.read(grafana, places)

    def look(thing: Thing) -> Found | None:
        match thing.kind:
            case "datasource":
                return _datasource(grafana, sources)
            case "folder":
                return Found(thing.content) if there[thing.uid] else None
            case "dashboard":
                return _dashboard(grafana, thing)
            case "rule":
                return ruled.get(thing.uid)
            case _:
                return notifications.found(held, thing)

    return State({thing.key: found for thing in wanted if (found := look(thing)) is not None}, places)


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


def has_datasource(grafana: Grafana) -> bool:
    """Whether the datasource is there."""
    return any(one["uid"] == DATASOURCE_UID for one in grafana.get("/datasources"))


def carry_out(
    grafana: Grafana, steps: Sequence[Step], places: Mapping[str, str], bucket: Bucket | None
) -> Iterator[tuple[Step, str]]:
    """Do what a plan says.

    Args:
        places: see `State`.
        bucket: of the datasource; None where that is not among the steps.

    Yields:
        each step that writes and why it failed; empty where it did not.

    Raises:
        ConfigError: the token may not do it.
        GatewatchError: Grafana is gone, or a folder cannot be made: a rule without its folder would be seen by nobody.
    """
    for step in steps:
        if step.writes:
            try:
                _write(grafana, step, places, bucket)
            except Refused as refused:
                if step.thing.kind == FOLDER:
                    raise
                yield step, str(refused)
            else:
                yield step, ""
    rules.settle(grafana, places, [step.thing for step in steps if step.thing.kind == RULE and step.writes])


def _write(grafana: Grafana, step: Step, places: Mapping[str, str], bucket: Bucket | None) -> None:
    thing, found = step.thing, step.found
    match thing.kind:
        case "datasource":
            if bucket is None:
                raise GatewatchError("a datasource without its bucket")
            _write_datasource(grafana, thing, found, bucket)
        case "folder":
            grafana.post("/folders", {"uid": thing.uid, "title": thing.name})
        case "dashboard":
            _write_dashboard(grafana, thing, found, places[DASHBOARD_FOLDER])
        case "rule":
            rules.write(grafana, places, thing, found)
        case _:
            notifications.write(grafana, step)


def _datasource(grafana: Grafana, sources: Sequence[Mapping[str, Any]]) -> Found | None:
    source = next((one for one in sources if one["uid"] == DATASOURCE_UID), None)
    if source is None:
        return None
    settings = dict(source.get("jsonData") or {})
    print_ = settings.pop(marks.SETTING, None)
    content = {name: source.get(name) for name in ("name", "type", "access", "url", "user", "database", "basicAuth")}
    owner = "file" if source.get("readOnly") else ""
    broken = "" if owner else answers(grafana)
    return marks.read(
        plain({**content, "jsonData": settings}),
        print_,
        owner,
        f"it does not answer ({broken}): its token is set again" if broken else "",
        isDefault=bool(source.get("isDefault")),
    )


def answers(grafana: Grafana) -> str:
    """Why the datasource does not answer Grafana; empty where it does."""
    try:
        health = grafana.get(f"/datasources/uid/{DATASOURCE_UID}/health")
    except Refused as refused:
        return refused.said
    return "" if health.get("status") == "OK" else str(health.get("message"))


def _write_datasource(grafana: Grafana, thing: Thing, found: Found | None, bucket: Bucket) -> None:
    body = {
        **thing.content,
        "uid": thing.uid,
        "isDefault": False if found is None else found.handle["isDefault"],
        "jsonData": {**thing.content["jsonData"], marks.SETTING: thing.print},
        "secureJsonData": {"token": bucket.token},
    }
    if found is None:
        grafana.post("/datasources", body)
    else:
        grafana.put(f"/datasources/uid/{thing.uid}", body)


def _dashboard(grafana: Grafana, thing: Thing) -> Found | None:
    held = grafana.find(f"/dashboards/uid/{quote(thing.uid, safe='')}")
    if held is None:
        return None
    prints = [marks.pushed_by(message) for message in _messages(grafana, thing.uid)]
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


def _write_dashboard(grafana: Grafana, thing: Thing, found: Found | None, folder: str) -> None:
    # With the version that was read Grafana refuses to write over one that someone saved since.
    known = {"id": None} if found is None else {name: found.handle[name] for name in ("id", "version")}
    body = {
        "dashboard": {**thing.content, **known},
        "folderUid": folder if found is None else found.handle["folder"],
        "message": marks.message(thing.print),
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

"""Look up the wanted resources in a Grafana, and carry out a plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from gatewatch.collector.errors import ConfigError
from gatewatch.jobs.grafana import artifacts, content
from gatewatch.jobs.grafana.artifacts import ALERT_FOLDER, DATASOURCE_UID
from gatewatch.jobs.grafana.connection import Grafana, NoAnswer, Refused
from gatewatch.jobs.grafana.content import Content, Kind, content_of, without
from gatewatch.jobs.grafana.plan import Existing, Resource, Step, as_existing

ANSWER_S: Final = 10.0
"""Seconds that Grafana may take to say whether the datasource answers; while the store hangs it says nothing."""
CACHE_S: Final = 6.0
"""Seconds for which Grafana goes on using the datasource's former settings after a change, and a little more."""
_ALERTING: Final = "/v1/provisioning"
_POLICIES: Final = f"{_ALERTING}/policies"
_LISTS: Final[Mapping[Kind, tuple[str, str]]] = {
    "datasource": ("/datasources", "uid"),
    "template": (f"{_ALERTING}/templates", "name"),
    "contact point": (f"{_ALERTING}/contact-points", "name"),
    "rule": (f"{_ALERTING}/alert-rules", "uid"),
}
"""Where resources with a mark are listed and made, and the key that is our uid."""


class Target:
    """A Grafana that resources are pushed to. It is read when this is made.

    Args:
        grafana: the connection.
        compare_token: whether the datasource must have the token that is wanted; else any token will do.

    Raises:
        ConfigError: a name of ours is taken by something else; names it.
    """

    def __init__(self, grafana: Grafana, *, compare_token: bool = True) -> None:
        self._grafana, self._compare_token = grafana, compare_token
        folders = grafana.get("/folders?limit=1000")
        by_name = {one["title"]: one["uid"] for one in folders} | {one["uid"]: one["uid"] for one in folders}
        # A folder with our title, as file provisioning makes it, serves as well as one with our uid.
        self._there = {uid: by_name.get(uid) or by_name.get(title) for uid, title in artifacts.FOLDERS.items()}
        self._folders = {uid: there or uid for uid, there in self._there.items()}
        self._read()
        self._check_datasources()

    def existing(self, wanted: Sequence[Resource]) -> dict[tuple[str, str], Existing]:
        """Return what there is of what is wanted, by `Resource.key`."""
        found = {resource.key: self._find(resource) for resource in wanted}
        return {key: existing for key, existing in found.items() if existing is not None}

    def carry_out(self, steps: Sequence[Step]) -> Iterator[tuple[Step, str]]:
        """Do what a plan says.

        Yields:
            each step that writes, and why it failed; empty where it did not.

        Raises:
            ConfigError: the token may not do it.
            GatewatchError: Grafana is gone, or a folder cannot be made: nobody would see a rule without its folder.
        """
        writing = [step for step in steps if step.writes]
        for step in writing:
            problem = ""
            try:
                self._write(step.resource, step.existing)
            except Refused as refused:
                if step.resource.kind == "folder":
                    raise
                problem = str(refused)
            yield step, problem
        self._settle([step.resource for step in writing if step.resource.kind == "rule"])

    def _read(self) -> None:
        self._listed: dict[tuple[str, str], Any] = {}
        for kind, (path, key) in _LISTS.items():
            # Of several contact points with one name the first is ours.
            self._listed |= {(kind, one[key]): one for one in reversed(self._grafana.get(path) or [])}
        self._intervals: dict[str, float] = {}

    def _check_datasources(self) -> None:
        for uid, source in ((uid, source) for (kind, uid), source in self._listed.items() if kind == "datasource"):
            what = f"{self._grafana.url}: there is a datasource {source['name']!r} of type {source['type']} with uid"
            if uid == DATASOURCE_UID and source["type"] != "influxdb":
                raise ConfigError(f"{what} {uid!r} already; the dashboards need one of type influxdb: delete it")
            if uid != DATASOURCE_UID and source["name"].lower() == artifacts.DATASOURCE_NAME.lower():
                remedy = f"the dashboards need the uid {DATASOURCE_UID!r}: rename or delete it"
                raise ConfigError(f"{what} {uid!r} already; {remedy}")

    def _find(self, resource: Resource) -> Existing | None:
        """Return the resource as it is there; None where it is not."""
        match resource.kind:
            case "folder":
                return Existing(resource.content) if self._there[resource.uid] else None
            case "dashboard":
                return self._dashboard(resource.uid)
            case "policy":
                return self._policy()
        answer = self._listed.get(resource.key)
        if answer is None:
            return None
        if resource.kind == "datasource":
            return as_existing(resource.kind, answer, self._datasource_problem(resource, answer))
        if resource.kind == "rule":
            answer = {**answer, "interval": 0}
            if answer["folderUID"] == self._folders[ALERT_FOLDER]:
                answer |= {"folderUID": ALERT_FOLDER, "interval": self._interval(answer["ruleGroup"])}
        return as_existing(resource.kind, answer)

    def _datasource_problem(self, resource: Resource, answer: Content) -> str:
        if reason := unreachable(self._grafana):
            return f"it does not answer ({reason}): its token is set again"
        token, mark = resource.body["secureJsonData"]["token"], (answer.get("jsonData") or {}).get(content.TOKEN_MARK)
        return "another token" if self._compare_token and not content.is_token(token, mark) else ""

    def _dashboard(self, uid: str) -> Existing | None:
        saved = self._grafana.get(f"/dashboards/uid/{uid}", missing_ok=True)
        if saved is None:
            return None
        versions = self._versions(uid)
        pushed = [content.pushed_in(version.get("message")) for version in versions]
        board = content_of("dashboard", saved["dashboard"])
        changed = not pushed or pushed[0] is None
        if not changed and content.fingerprint(board) != pushed[0]:
            # What is saved over Grafana's newer APIs keeps the message of the version before.
            first = max(number for number in range(len(pushed)) if set(pushed[: number + 1]) == {pushed[0]})
            changed = first > 0 and self._version(uid, versions[first]["version"]) != board
        owner = "file" if saved["meta"].get("provisioned") else ""
        return Existing(board, next(filter(None, pushed), None), changed, owner, answer=saved)

    def _versions(self, uid: str) -> list[Content]:
        """Return what Grafana says of the newest 100 versions of a dashboard, the newest first."""
        answer = self._grafana.get(f"/dashboards/uid/{uid}/versions?limit=100")
        return list(answer["versions"] if isinstance(answer, dict) else answer)  # from Grafana 12 on, and before

    def _version(self, uid: str, number: int) -> Any:
        """Return a version of a dashboard in the form in which two are compared."""
        return content_of("dashboard", self._grafana.get(f"/dashboards/uid/{uid}/versions/{number}")["data"])

    def _policy(self) -> Existing | None:
        """Return our route. It has no place for a mark: one that is not as wanted counts as changed by a user."""
        tree = self._grafana.get(_POLICIES)
        owner = tree.get("provenance") or ""
        for route in filter(_is_ours, tree.get("routes") or ()):
            return Existing(content_of("policy", route), owner=owner)
        return Existing(None, owner=owner) if owner else None

    def _write(self, resource: Resource, existing: Existing | None) -> None:
        """Make the resource, or replace the one that was read.

        Raises:
            Refused: Grafana does not take it.
        """
        match resource.kind:
            case "folder":
                self._grafana.write("POST", "/folders", resource.body)
            case "dashboard":
                self._write_dashboard(resource, existing)
            case "policy":
                self._grafana.write("PUT", _POLICIES, with_route(self._grafana.get(_POLICIES), resource.body))
            case _:
                self._write_marked(resource, existing)

    def _write_dashboard(self, resource: Resource, existing: Existing | None) -> None:
        """Write a dashboard. With the version that was read Grafana refuses to replace one that someone saved since."""
        folder = self._folders[artifacts.DASHBOARD_FOLDER]
        if existing is not None:
            folder = existing.answer["meta"].get("folderUid") or ""
        body = {"folderUid": folder, "message": content.MARK.format(resource.fingerprint), "overwrite": False}

        def save(replaced: Content) -> Any:
            dashboard = {**resource.body, "id": replaced.get("id"), "version": replaced.get("version")}
            return self._grafana.write("POST", "/dashboards/db", {**body, "dashboard": dashboard})

        saved = save({} if existing is None else existing.answer["dashboard"])
        if existing is None and self._versions(resource.uid)[0].get("message") != body["message"]:
            save(saved)  # Grafana gives the first version of a dashboard a message of its own

    def _write_marked(self, resource: Resource, existing: Existing | None, stored: str = "") -> None:
        """Write a resource with its mark.

        Args:
            resource, existing: see `_write`.
            stored: the fingerprint of what Grafana makes of it, where that differs.
        """
        kind, path = resource.kind, _LISTS[resource.kind][0]
        pushed = f"{resource.fingerprint}.{stored}" if stored else resource.fingerprint
        body = content.marked(kind, without(resource.body, "interval"), pushed)
        if kind == "rule":
            body["folderUID"] = self._folders[ALERT_FOLDER]
        if existing is not None:
            body |= {name: existing.answer[name] for name in ("uid", "isDefault") if name in existing.answer}
        if existing is None and kind != "template":
            self._grafana.write("POST", path, body)
        else:
            below = f"{path}/uid" if kind == "datasource" else path
            self._grafana.write("PUT", f"{below}/{body.get('uid', resource.uid)}", body)

    def _settle(self, written: Sequence[Resource]) -> None:
        """Finish rules that were written: set the intervals of their groups, and mark what Grafana added to them."""
        for name, interval in {one.body["ruleGroup"]: one.content["interval"] for one in written}.items():
            group = self._group(name)
            if group is not None and group["interval"] != interval:
                self._grafana.write("PUT", self._group_path(name), {**group, "interval": interval})
        if written:
            self._read()
        for resource in written:
            existing = self._find(resource)
            if existing is not None and existing.changed:
                self._write_marked(resource, existing, content.fingerprint(existing.content))

    def _group_path(self, name: str) -> str:
        return f"{_ALERTING}/folder/{self._folders[ALERT_FOLDER]}/rule-groups/{name}"

    def _group(self, name: str) -> Any:
        return self._grafana.get(self._group_path(name), missing_ok=True)

    def _interval(self, group: str) -> float:
        if group not in self._intervals:
            self._intervals[group] = (self._group(group) or {}).get("interval", 0)
        return self._intervals[group]


def with_route(tree: Content, route: Content) -> dict[str, Any]:
    """Return a tree of policies with our route in it: in place of its former one, else first; others stay as they are.

    Args:
        tree: the root policy, as Grafana gives it.
        route: ours.
    """
    routes = list(tree.get("routes") or ())
    place = next((number for number, one in enumerate(routes) if _is_ours(one)), None)
    routes[slice(0, 0) if place is None else slice(place, place + 1)] = [route]
    return {**without(tree, "provenance"), "routes": routes}


def _is_ours(route: Content) -> bool:
    return artifacts.MATCHER in (route.get("object_matchers") or ())


def datasource_exists(grafana: Grafana) -> bool:
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

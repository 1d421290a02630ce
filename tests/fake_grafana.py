"""A stand-in for a Grafana: a real HTTP server that keeps in memory what `gatewatch grafana push` sends it.

No Grafana can be installed where the tests run, so this stands for one, and it is the only stand-in among the tests.
It knows the paths that the push uses and answers them as Grafana does: statuses, messages, what it adds to a rule's
queries, what it refuses; `version` chooses where versions differ. What it cannot show is that a Grafana draws a panel
or fires a rule: `tests/integration/test_grafana.py` does that against a real one where GRAFANA_URL and GRAFANA_TOKEN
are given.
"""

from __future__ import annotations

import contextlib
import copy
import json
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "glsa_the-admin's-token"
ADMIN = (
    *("datasources:read", "datasources:create", "datasources:write", "datasources:query"),
    *("folders:read", "folders:create", "dashboards:read", "dashboards:create", "dashboards:write"),
    *("alert.provisioning:read", "alert.provisioning:write"),
)
EMAIL = {"uid": "", "name": "grafana-default-email", "type": "email", "disableResolveMessage": False}


class Refusal(Exception):  # noqa: N818 - what a Grafana answers
    def __init__(self, code: int, message: str, **more: Any) -> None:
        self.status, self.body = code, {"message": message, **more}


class FakeGrafana:
    """The server, on a port of the loopback address.

    Attributes:
        permissions: what the token may do.
        asks: why a datasource does not answer; empty: it does.
        remembers_s: how long it goes on asking as it did before the datasource was changed; Grafana does for 5 seconds.
        writes: method and path of each request that changed something.
        failing: called with method and path before each request; may raise a `Refusal`.
        datasources, folders, dashboards, versions, rules, intervals, configuration: what it holds.
    """

    def __init__(self, version: str = "12.1.0") -> None:
        self.version = version
        self.permissions: dict[str, list[str]] = {name: ["*"] for name in ADMIN}
        self.asks: Callable[[dict[str, Any]], str] = lambda source: ""
        self.remembers_s = 0.2
        self.before: tuple[float, dict[str, Any]] | None = None
        self.writes: list[str] = []
        self.failing: Callable[[str, str], None] = lambda method, path: None
        self.datasources: dict[str, dict[str, Any]] = {}
        self.folders: dict[str, str] = {}
        self.dashboards: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, list[dict[str, Any]]] = {}
        self.saved: dict[tuple[str, int], dict[str, Any]] = {}
        self.rules: dict[str, dict[str, Any]] = {}
        self.intervals: dict[tuple[str, str], int] = {}
        self.provenances: dict[str, str] = {}
        self.configuration: dict[str, Any] = {
            "template_files": {},
            "alertmanager_config": {
                "route": {"receiver": "grafana-default-email", "group_by": ["grafana_folder", "alertname"]},
                "receivers": [
                    {
                        "name": "grafana-default-email",
                        "grafana_managed_receiver_configs": [
                            {**EMAIL, "settings": {"addresses": "<example@email.com>"}, "secureFields": {}}
                        ],
                    }
                ],
            },
        }
        self._serial = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"grafana": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def tree(self) -> dict[str, Any]:
        tree: dict[str, Any] = self.configuration["alertmanager_config"]["route"]
        return tree

    @property
    def receivers(self) -> dict[str, dict[str, Any]]:
        """The first configuration of each contact point, by its name."""
        listed = self.configuration["alertmanager_config"]["receivers"]
        return {one["name"]: one["grafana_managed_receiver_configs"][0] for one in listed}

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any, headers: Any) -> tuple[int, Any]:
        with self._lock:
            self.failing(method, path)
            if path == "/health":
                return 200, {"commit": "21c1d14e91", "database": "ok", "version": self.version}
            if headers["Authorization"] != f"Bearer {TOKEN}":
                raise Refusal(401, "invalid API key")
            for (verb, pattern), (permission, handle) in _ROUTES.items():
                if verb == method and (match := re.fullmatch(pattern, path)):
                    if permission and permission not in self.permissions:
                        text = "You'll need additional permissions to perform this action. Permissions needed: "
                        raise Refusal(403, text + permission, accessErrorId="ACE0000000000", title="Access denied")
                    if method != "GET":
                        self.writes.append(f"{method} {path}")
                    names = [unquote(one) for one in match.groups()]
                    return handle(self, names, body, "X-Disable-Provenance" in headers)
        raise Refusal(404, "Not found")

    def save_dashboard(self, dashboard: dict[str, Any], message: str = "", folder: str = "gatewatch") -> int:
        """What saving it in the page does."""
        uid, now = dashboard["uid"], self.dashboards.get(dashboard["uid"])
        number = now["dashboard"]["version"] + 1 if now else 1
        key = now["dashboard"]["id"] if now else self.serial()
        self.dashboards[uid] = {
            "meta": {"type": "db", "folderUid": folder, "provisioned": False, "version": number},
            "dashboard": {**dashboard, "id": key, "version": number},
        }
        said = message if now else "Initial save"  # whatever message it was given
        version = {"id": self.serial(), "version": number, "message": said}
        self.versions.setdefault(uid, []).insert(0, version)
        self.saved[uid, number] = self.dashboards[uid]["dashboard"]
        return number

    def save_over_newer_api(self, dashboard: dict[str, Any]) -> None:
        """What saving it through /apis/dashboard.grafana.app does: the message of the version before stays."""
        self.save_dashboard(dashboard, self.versions[dashboard["uid"]][0]["message"])

    def serial(self) -> int:
        self._serial += 1
        return self._serial

    def provenance(self, disabled: bool) -> str:
        return "" if disabled else "api"


class _Handler(BaseHTTPRequestHandler):
    grafana: FakeGrafana

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or b"null")
        try:
            if not parts.path.startswith("/api"):
                raise Refusal(404, "Not found")
            path = parts.path.removeprefix("/api")
            status, answer = self.grafana.answer(self.command, path, parse_qs(parts.query), body, self.headers)
        except Refusal as refusal:
            status, answer = refusal.status, refusal.body
        data = json.dumps(answer).encode()
        with contextlib.suppress(ConnectionError):  # whoever asked has gone
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=UTF-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    do_POST = do_PUT = do_GET  # noqa: N815 - the base class's names

    def log_message(self, format: str, *args: Any) -> None:
        pass


Reply = tuple[int, Any]


def _permissions(grafana: FakeGrafana, names: list[str], body: Any, disabled: bool) -> Reply:
    return 200, grafana.permissions


def _settings(grafana: FakeGrafana, names: list[str], body: Any, disabled: bool) -> Reply:
    return 200, {"appUrl": "https://grafana.example.org/sub/", "buildInfo": {"version": grafana.version}}


def _sources(grafana: FakeGrafana, names: list[str], body: Any, disabled: bool) -> Reply:
    return 200, [{k: v for k, v in one.items() if k != "secureJsonData"} for one in grafana.datasources.values()]


def _write_source(grafana: FakeGrafana, names: list[str], body: Any, disabled: bool) -> Reply:
    others = [one for one in grafana.datasources.values() if one["uid"] != body["uid"]]
    if any(one["name"] == body["name"] for one in others) or (not names and body["uid"] in grafana.datasources):
        raise Refusal(409, "data source with the same name already exists")
    if names and grafana.datasources[names[0]].get("readOnly"):
        raise Refusal(403, "Cannot update read-only data source")
    if names:
        grafana.before = (time.monotonic() + grafana.remembers_s, grafana.datasources[names[0]])
    held = {"user": "", "database": "", "basicAuth": False, "isDefault": False, "readOnly": False, **body}
    grafana.datasources[body["uid"]] = {"id": grafana.serial(), "orgId": 1, "typeName": "InfluxDB", **held}
    return 200, {"id": grafana.serial(), "message": "Datasource added", "name": body["name"]}


def _source_health(grafana: FakeGrafana, names: list[str], body: Any, disabled: bool) -> Reply:
    source = grafana.datasources[names[0]]
    if grafana.before is not None and time.monotonic() < grafana.before[0]:
        source = grafana.before[1]
    if problem := grafana.asks(source):
        return 400, {"message": problem, "status": "ERROR"}
    return 200, {"message": "1 buckets found", "status": "OK"}


def _folders(grafana: FakeGrafana, names: list[str], body: Any, disabled: bool) -> Reply:
    return 200, [{"id": i, "uid": uid, "title": title} for i, (uid, title) in enumerate(grafana.folders.items(), 1)]


def _make_folder(grafana: FakeGrafana, names: list[str], body: Any, disabled: bool) -> Reply:
    if body["title"] in grafana.folders.values():
        raise Refusal(409, "a folder or dashboard in the general folder with the same name already exists")
    grafana.folders[body["uid"]] = body["title"]
    return 200, {"id": len(grafana.folders), **body}


def _dashboard(grafana: FakeGrafana, names: list[str], body: Any, disabled: bool) -> Reply:
    if names[0] not in grafana.dashboards:
        raise Refusal(404, "Dashboard not found")
    return 200, grafana.dashboards[names[0]]


def _versions(grafana: FakeGrafana, names: list[str], body: Any, disabled: bool) -> Reply:
    listed = grafana.versions[names[0]]
    return 200, {"continueToken": "", "versions": listed} if grafana.version.startswith("12.") else listed


def _version(grafana: FakeGrafana, names: list[str], body: Any, disabled: bool) -> Reply:
    uid, number = names[0], int(names[1])
    return 200, {"version": number, "uid": uid, "data": grafana.saved[uid, number]}


def _save(grafana: FakeGrafana, names: list[str], body: Any, disabled: bool) -> Reply:
    new, held = body["dashboard"], grafana.dashboards.get(body["dashboard"]["uid"])
    if body["folderUid"] not in ("", *grafana.folders):
        raise Refusal(400, "Folder not found")
    if held is not None and not body["overwrite"] and new.get("version") != held["dashboard"]["version"]:
        raise Refusal(412, "The dashboard has been changed by someone else", status="version-mismatch")
    for uid, other in grafana.dashboards.items():
        same = other["meta"]["folderUid"] == body["folderUid"] and other["dashboard"]["title"] == new["title"]
        if same and uid != new["uid"]:
            raise Refusal(412, "A dashboard with the same name in the folder already exists", status="name-exists")
    number = grafana.save_dashboard(new, body["message"], body["folderUid"])
    held = grafana.dashboards[new["uid"]]["dashboard"]
    return 200, {"id": held["id"], "status": "success", "uid": new["uid"], "version": number}


def _rules(grafana: FakeGrafana, names: list[str], body: Any, disabled: bool) -> Reply:
    rules = grafana.rules.values()  # those without a folder can be made, and nobody sees them
    return 200, [_shown(number, rule) for number, rule in enumerate(rules) if rule["folderUID"] in grafana.folders]


def _shown(number: int, rule: dict[str, Any]) -> dict[str, Any]:
    more = {"id": number, "updated": "2026-01-01T00:00:00Z", "keep_firing_for": "0s", "isPaused": False}
    return {**more, "notification_settings": None, "record": None, **rule}


def _seconds(text: str) -> int:
    return sum(int(n) * {"s": 1, "m": 60, "h": 3600}[unit] for n, unit in re.findall(r"(\d+)([smh])", text))


def _write_rule(grafana: FakeGrafana, names: list[str], body: Any, disabled: bool) -> Reply:
    rule = copy.deepcopy(body)
    held = grafana.rules.get(names[0]) if names else None
    if names and held is None:
        return 404, None
    others = [one for one in grafana.rules.values() if one["uid"] != rule["uid"]]
    if (not names and rule["uid"] in grafana.rules) or any(one["title"] == rule["title"] for one in others):
        raise Refusal(
            500,
            "a conflicting alert rule is found: rule title under the same organisation and folder should be unique",
        )
    rule["provenance"] = grafana.provenance(disabled)
    if held is not None and held["provenance"] not in ("", rule["provenance"]):
        raise Refusal(500, f"cannot changed provenance from '{held['provenance']}' to '{rule['provenance']}'")
    for query in rule["data"]:  # what Grafana fills in
        query["model"] = {"intervalMs": 1000, "maxDataPoints": 43200, **query["model"]}
        query.setdefault("queryType", "")
    rule["for"] = f"{seconds // 60}m" if (seconds := _seconds(rule["for"])) % 60 == 0 else f"{seconds}s"
    grafana.rules[rule["uid"]] = rule
    grafana.intervals.setdefault((rule["folderUID"], rule["ruleGroup"]), 60)
    return (200 if names else 201), rule


def _group(grafana: FakeGrafana, names: list[str], body: Any, disabled: bool) -> Reply:
    rules = [r for r in grafana.rules.values() if (r["folderUID"], r["ruleGroup"]) == (names[0], names[1])]
    if not rules:
        return 404, None
    return 200, {"title": names[1], "folderUid": names[0], "interval": grafana.intervals[*names], "rules": rules}


def _put_group(grafana: FakeGrafana, names: list[str], body: Any, disabled: bool) -> Reply:
    grafana.intervals[names[0], names[1]] = body["interval"]
    for rule in body["rules"]:
        grafana.rules[rule["uid"]]["provenance"] = grafana.provenance(disabled)
    return 200, body


def _see_receivers(route: dict[str, Any], names: set[str]) -> None:
    for one in (route, *route.get("routes", ())):
        if one["receiver"] not in names:
            raise Refusal(400, f"invalid object specification: receiver '{one['receiver']}' does not exist")


def _points(grafana: FakeGrafana, names: list[str], body: Any, disabled: bool) -> Reply:
    return 200, [*grafana.receivers.values()]


def _write_point(grafana: FakeGrafana, names: list[str], body: Any, disabled: bool) -> Reply:
    point = {**body, "uid": body.get("uid") or f"uid{grafana.serial()}", "provenance": grafana.provenance(disabled)}
    listed = grafana.configuration["alertmanager_config"]["receivers"]
    listed[:] = [one for one in listed if not names or one["grafana_managed_receiver_configs"][0]["uid"] != names[0]]
    listed.append({"name": point["name"], "grafana_managed_receiver_configs": [point]})
    return 202, point


def _policies(grafana: FakeGrafana, names: list[str], body: Any, disabled: bool) -> Reply:
    return 200, grafana.tree


def _put_policies(grafana: FakeGrafana, names: list[str], body: Any, disabled: bool) -> Reply:
    _see_receivers(body, {*grafana.receivers})
    provenance = grafana.provenance(disabled)
    grafana.configuration["alertmanager_config"]["route"] = body | ({"provenance": provenance} if provenance else {})
    return 202, {"message": "policies updated"}


def _templates(grafana: FakeGrafana, names: list[str], body: Any, disabled: bool) -> Reply:
    files = grafana.configuration["template_files"].items()
    return 200, [{"name": n, "template": t, "provenance": grafana.provenances.get(n, "")} for n, t in files]


def _put_template(grafana: FakeGrafana, names: list[str], body: Any, disabled: bool) -> Reply:
    grafana.configuration["template_files"][names[0]] = body["template"].strip()
    grafana.provenances[names[0]] = grafana.provenance(disabled)
    return 202, {"name": names[0], **body}


Handle = Callable[[FakeGrafana, list[str], Any, bool], Reply]
_ROUTES: dict[tuple[str, str], tuple[str, Handle]] = {
    ("GET", "/access-control/user/permissions"): ("", _permissions),
    ("GET", "/frontend/settings"): ("", _settings),
    ("GET", "/datasources"): ("datasources:read", _sources),
    ("POST", "/datasources"): ("datasources:create", _write_source),
    ("PUT", "/datasources/uid/([^/]+)"): ("datasources:write", _write_source),
    ("GET", "/datasources/uid/([^/]+)/health"): ("datasources:query", _source_health),
    ("GET", "/folders"): ("folders:read", _folders),
    ("POST", "/folders"): ("folders:create", _make_folder),
    ("GET", "/dashboards/uid/([^/]+)"): ("dashboards:read", _dashboard),
    ("GET", "/dashboards/uid/([^/]+)/versions"): ("dashboards:write", _versions),
    ("GET", r"/dashboards/uid/([^/]+)/versions/(\d+)"): ("dashboards:write", _version),
    ("POST", "/dashboards/db"): ("dashboards:write", _save),
    ("GET", "/v1/provisioning/alert-rules"): ("alert.provisioning:read", _rules),
    ("POST", "/v1/provisioning/alert-rules"): ("alert.provisioning:write", _write_rule),
    ("PUT", "/v1/provisioning/alert-rules/([^/]+)"): ("alert.provisioning:write", _write_rule),
    ("GET", "/v1/provisioning/folder/([^/]+)/rule-groups/([^/]+)"): ("alert.provisioning:read", _group),
    ("PUT", "/v1/provisioning/folder/([^/]+)/rule-groups/([^/]+)"): ("alert.provisioning:write", _put_group),
    ("GET", "/v1/provisioning/contact-points"): ("alert.provisioning:read", _points),
    ("POST", "/v1/provisioning/contact-points"): ("alert.provisioning:write", _write_point),
    ("PUT", "/v1/provisioning/contact-points/([^/]+)"): ("alert.provisioning:write", _write_point),
    ("GET", "/v1/provisioning/policies"): ("alert.provisioning:read", _policies),
    ("PUT", "/v1/provisioning/policies"): ("alert.provisioning:write", _put_policies),
    ("GET", "/v1/provisioning/templates"): ("alert.provisioning:read", _templates),
    ("PUT", "/v1/provisioning/templates/([^/]+)"): ("alert.provisioning:write", _put_template),
}

"""What a Grafana should have: the datasource, and what lies in the folders of dashboards and of alerting files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gatewatch.collector.environment import read_variable
from gatewatch.collector.errors import ConfigError, GatewatchError
from gatewatch.jobs.grafana.resources import (
    CONTACT_POINT,
    DASHBOARD,
    DATASOURCE,
    FOLDER,
    POLICY,
    RULE,
    TEMPLATE,
    Thing,
    plain,
    seconds,
)

DATASOURCE_UID: Final = "gatewatch"
DATASOURCE_NAME: Final = "Gatewatch"
DASHBOARD_FOLDER: Final = "gatewatch"
ALERT_FOLDER: Final = "gatewatch-alerts"
FOLDERS: Final[Mapping[str, str]] = {DASHBOARD_FOLDER: "Gatewatch", ALERT_FOLDER: "Gatewatch alerts"}
MATCHER: Final = ["service", "=", "gatewatch"]
"""What the policy's route matches: a label that every rule of ours has."""
RECIPIENTS: Final = "GATEWATCH_ALERT_TO"

DURATIONS: Final = ("group_wait", "group_interval", "repeat_interval")
_VARIABLE: Final = re.compile(r"\$(?:(\w+)|\{(\w+)\})", re.ASCII)
_QUERY_DEFAULTS: Final = {"intervalMs": 1000, "maxDataPoints": 43200}
"""What Grafana writes into the query of a rule that does not say it."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where Grafana reads: a bucket of an InfluxDB, by the address under which Grafana reaches it."""

    url: str
    org: str
    bucket: str
    token: str

    def __repr__(self) -> str:
        return f"Bucket({self.url!r}, org={self.org!r}, bucket={self.bucket!r})"


def dashboards_folder() -> Path:
    """Where the dashboards lie: in a checkout, else in the installed package.

    Raises:
        GatewatchError: there are none.
    """
    return _folder("dashboards")


def alerting_folder() -> Path:
    """Where the alerting files lie.

    Raises:
        GatewatchError: there are none.
    """
    return _folder("provisioning/alerting")


def wanted(bucket: Bucket | None, environment: Mapping[str, str]) -> list[Thing]:
    """All that a Grafana should have, in the order in which it is made.

    Args:
        bucket: None where the datasource is there already, and stays as it is.
        environment: the variables that the alerting files name. Without recipients there is neither a contact point
            nor a policy.

    Raises:
        GatewatchError: a file is missing or is not what it should be; names it.
    """
    things = [] if bucket is None else [datasource(bucket)]
    things += [Thing(FOLDER, uid, title, {"title": title}) for uid, title in FOLDERS.items()]
    things += dashboards(dashboards_folder())
    alerting = alerting_folder()
    things += templates(_load(alerting / "templates.json"))
    if read_variable(RECIPIENTS, environment):
        things += contact_points(_load(alerting / "contact-points.json"), environment)
        things += policies(_load(alerting / "policies.json"), environment)
    return things + rules(_load(alerting / "rules.json"), environment)


def datasource(bucket: Bucket) -> Thing:
    """The datasource of a bucket; its token is no part of it."""
    content = {
        "name": DATASOURCE_NAME,
        "type": "influxdb",
        "access": "proxy",
        "url": bucket.url,
        "jsonData": {"version": "Flux", "organization": bucket.org, "defaultBucket": bucket.bucket},
    }
    return Thing(DATASOURCE, DATASOURCE_UID, DATASOURCE_NAME, plain(content))


def dashboards(folder: Path) -> list[Thing]:
    """The dashboards of a folder, by their names."""
    things = []
    for path in sorted(folder.glob("*.json")):
        content = {name: value for name, value in _load(path).items() if name not in ("id", "version")}
        try:
            things.append(Thing(DASHBOARD, content["uid"], content["title"], content))
        except KeyError as error:
            raise GatewatchError(f"{path}: a dashboard without {error}; run `python -m grafana.source`") from None
    return things


def templates(file: Mapping[str, Any]) -> list[Thing]:
    """The message templates of a file; Grafana fills nothing into them."""
    return [
        Thing(TEMPLATE, one["name"], one["name"], {"template": one["template"].strip()}) for one in file["templates"]
    ]


def contact_points(file: Mapping[str, Any], environment: Mapping[str, str]) -> list[Thing]:
    """The contact points of a file."""
    return [
        Thing(CONTACT_POINT, point["name"], point["name"], contact_content({"name": point["name"], **receiver}))
        for point in expand(file["contactPoints"], environment)
        for receiver in point["receivers"][:1]
    ]


def contact_content(point: Mapping[str, Any]) -> Any:
    """A contact point in the form in which two are compared."""
    return plain({name: point.get(name) for name in ("name", "type", "settings", "disableResolveMessage")})


def policies(file: Mapping[str, Any], environment: Mapping[str, str]) -> list[Thing]:
    """The route for our alerts out of the tree that a file has; the rest of the tree is for a Grafana of our own."""
    trees = expand(file["policies"], environment)
    routes = [route for tree in trees for route in tree.get("routes", ()) if MATCHER in route["object_matchers"]]
    return [Thing(POLICY, "=".join(MATCHER[::2]), route["receiver"], route_content(route)) for route in routes[:1]]


def route_content(route: Mapping[str, Any]) -> Any:
    """A route and those below it in the form in which two are compared."""
    told = {name: value for name, value in route.items() if name != "provenance"}
    timed = {name: seconds(route[name]) for name in DURATIONS if route.get(name)}
    return plain({**told, **timed, "routes": [route_content(one) for one in route.get("routes") or ()]})


def rules(file: Mapping[str, Any], environment: Mapping[str, str]) -> list[Thing]:
    """The alert rules of a file. Of a rule Grafana fills in all but its annotations and its queries."""
    return list(_rules(file, environment))


def rule_content(rule: Mapping[str, Any]) -> Any:
    """A rule in the form in which two are compared.

    Args:
        rule: with the names of the alerting files; `group`, `interval` and `folder` beside them.
    """
    data = [{**query, "model": _QUERY_DEFAULTS | query["model"]} for query in rule["data"]]
    timed = {name: seconds(rule.get(name) or 0) for name in ("for", "interval", "keepFiringFor")}
    return plain({**rule, **timed, "data": data})


def expand(value: Any, environment: Mapping[str, str]) -> Any:
    """A value as Grafana reads it from a file: `$NAME` and `${NAME}` from the environment, `$$` for a dollar."""
    if isinstance(value, str):
        parts = value.split("$$")
        return "$".join(_VARIABLE.sub(lambda m: environment.get(m[1] or m[2], ""), part) for part in parts)
    if isinstance(value, Mapping):
        return {name: expand(one, environment) for name, one in value.items()}
    if isinstance(value, Sequence):
        return [expand(one, environment) for one in value]
    return value


def _rules(file: Mapping[str, Any], environment: Mapping[str, str]) -> Iterator[Thing]:
    for group in file["groups"]:
        for rule in group["rules"]:
            shown = {name: value for name, value in rule.items() if name not in ("uid", "dashboardUid", "panelId")}
            fixed = {name: shown.pop(name) for name in ("annotations", "data") if name in shown}
            place = {"group": group["name"], "interval": group["interval"], "folder": ALERT_FOLDER}
            content = rule_content(expand(shown | place, environment) | fixed)
            yield Thing(RULE, expand(rule["uid"], environment), content["title"], content)


def _folder(name: str) -> Path:
    here = Path(__file__).resolve().parent
    for place in (here / name, here.parents[1] / "grafana" / name):  # installed, or in a checkout
        if any(place.glob("*.json")):
            return place
    raise GatewatchError(f"{here / name}: there is nothing to push; install gatewatch again")


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise GatewatchError(f"{path}: missing; install gatewatch again") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not valid JSON: {error}") from None

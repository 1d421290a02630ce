"""What a Grafana should have: the datasource, and what the folders of dashboards and of alerting files hold."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

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
    Resource,
    normalize,
    seconds,
)

if TYPE_CHECKING:
    from gatewatch.collector.store.influxdb.client import Client

DATASOURCE_UID: Final = "gatewatch"
DATASOURCE_NAME: Final = "Gatewatch"
DASHBOARD_FOLDER: Final = "gatewatch"
ALERT_FOLDER: Final = "gatewatch-alerts"
FOLDERS: Final[Mapping[str, str]] = {DASHBOARD_FOLDER: "Gatewatch", ALERT_FOLDER: "Gatewatch alerts"}
MATCHER: Final = ["service", "=", "gatewatch"]
"""The label that every rule of ours has, by which the policy's route takes its alerts."""
RECIPIENTS: Final = "GATEWATCH_ALERT_TO"

DURATIONS: Final = ("group_wait", "group_interval", "repeat_interval")
_VARIABLE: Final = re.compile(r"\$(?:(\w+)|\{(\w+)\})", re.ASCII)
_QUERY_DEFAULTS: Final = {"intervalMs": 1000, "maxDataPoints": 43200}
"""What Grafana adds to the query of a rule."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """The bucket of an InfluxDB that Grafana reads.

    Attributes:
        client: reaches it from here; holds the token that Grafana gets.
        url: the address under which Grafana reaches it.
    """

    client: Client
    url: str


def dashboards_folder() -> Path:
    """Return the folder of the dashboards.

    Raises:
        GatewatchError: there are none.
    """
    return _folder("dashboards")


def alerting_folder() -> Path:
    """Return the folder of the alerting files.

    Raises:
        GatewatchError: there are none.
    """
    return _folder("provisioning/alerting")


def wanted(bucket: Bucket | None, environment: Mapping[str, str]) -> list[Resource]:
    """Return everything that a Grafana should have, in the order in which it is made.

    Args:
        bucket: None where the datasource is there already and stays as it is.
        environment: the variables that the alerting files name. Without recipients there is neither a contact point
            nor a policy.

    Raises:
        GatewatchError: a file is missing.
        ConfigError: a file is not JSON.
    """
    alerting = alerting_folder()
    resources = [] if bucket is None else [datasource(bucket)]
    resources += [Resource(FOLDER, uid, title, {"title": title}) for uid, title in FOLDERS.items()]
    resources += dashboards(dashboards_folder())
    resources += templates(_load(alerting / "templates.json"))
    if read_variable(RECIPIENTS, environment):
        resources += contact_points(_load(alerting / "contact-points.json"), environment)
        resources += policies(_load(alerting / "policies.json"), environment)
    return resources + rules(_load(alerting / "rules.json"), environment)


def datasource(bucket: Bucket) -> Resource:
    """Return the datasource of a bucket, without its token."""
    content = {
        "name": DATASOURCE_NAME,
        "type": "influxdb",
        "access": "proxy",
        "url": bucket.url,
        "jsonData": {"version": "Flux", "organization": bucket.client.org, "defaultBucket": bucket.client.bucket},
    }
    return Resource(DATASOURCE, DATASOURCE_UID, DATASOURCE_NAME, content)


def dashboards(folder: Path) -> list[Resource]:
    """Return the dashboards of a folder, by the names of their files."""
    boards = [_load(path) for path in sorted(folder.glob("*.json"))]
    return [
        Resource(
            DASHBOARD,
            board["uid"],
            board["title"],
            {name: value for name, value in board.items() if name not in ("id", "version")},
        )
        for board in boards
    ]


def templates(file: Mapping[str, Any]) -> list[Resource]:
    """Return the message templates of a file. Grafana expands no variables in them."""
    return [
        Resource(TEMPLATE, one["name"], one["name"], {"template": one["template"].strip()}) for one in file["templates"]
    ]


def contact_points(file: Mapping[str, Any], environment: Mapping[str, str]) -> list[Resource]:
    """Return the contact points of a file."""
    return [
        Resource(CONTACT_POINT, point["name"], point["name"], contact_content({"name": point["name"], **receiver}))
        for point in expand(file["contactPoints"], environment)
        for receiver in point["receivers"][:1]
    ]


def contact_content(point: Mapping[str, Any]) -> Any:
    """Return a contact point in the form in which two are compared."""
    return normalize({name: point.get(name) for name in ("name", "type", "settings", "disableResolveMessage")})


def policies(file: Mapping[str, Any], environment: Mapping[str, str]) -> list[Resource]:
    """Return the route for our alerts from the tree of a file; the rest of the tree is for a Grafana without others."""
    trees = expand(file["policies"], environment)
    routes = [route for tree in trees for route in tree.get("routes", ()) if MATCHER in route["object_matchers"]]
    return [Resource(POLICY, "=".join(MATCHER[::2]), route["receiver"], route_content(route)) for route in routes[:1]]


def route_content(route: Mapping[str, Any]) -> Any:
    """Return a route and those below it in the form in which two are compared: durations in seconds."""
    durations = {name: seconds(route[name]) for name in DURATIONS if route.get(name)}
    below = [route_content(one) for one in route.get("routes") or ()]
    return normalize({**route, **durations, "routes": below, "provenance": None})


def rules(file: Mapping[str, Any], environment: Mapping[str, str]) -> list[Resource]:
    """Return the alert rules of a file. Grafana expands variables in all of a rule but its annotations and queries."""
    resources = []
    for group in file["groups"]:
        place = {"group": group["name"], "interval": group["interval"], "folder": ALERT_FOLDER}
        for rule in group["rules"]:
            expanded = {name: value for name, value in rule.items() if name not in ("annotations", "data")}
            content = rule_content(rule | expand(expanded, environment) | place)
            uid = content.pop("uid")
            resources.append(Resource(RULE, uid, content["title"], content))
    return resources


def rule_content(rule: Mapping[str, Any]) -> Any:
    """Return a rule in the form in which two are compared: durations in seconds.

    Args:
        rule: with the names of the alerting files, and `group`, `interval` and `folder`.
    """
    durations = {name: seconds(rule.get(name) or 0) for name in ("for", "interval", "keepFiringFor")}
    data = [{**query, "model": _QUERY_DEFAULTS | query["model"]} for query in rule["data"]]
    return normalize({**rule, **durations, "data": data})


def expand(value: Any, environment: Mapping[str, str]) -> Any:
    """Return a value as Grafana reads it from a file: `$NAME` and `${NAME}` from the environment, `$$` for a dollar."""
    if isinstance(value, str):
        parts = value.split("$$")
        return "$".join(_VARIABLE.sub(lambda m: environment.get(m[1] or m[2], ""), part) for part in parts)
    if isinstance(value, Mapping):
        return {name: expand(one, environment) for name, one in value.items()}
    if isinstance(value, Sequence):
        return [expand(one, environment) for one in value]
    return value


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

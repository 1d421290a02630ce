"""What a Grafana should have: the datasource, and what the folders of dashboards and of alerting files hold."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gatewatch.collector.address import server_url
from gatewatch.collector.config import load_settings, mail_address
from gatewatch.collector.environment import read_variable
from gatewatch.collector.errors import ConfigError, GatewatchError
from gatewatch.collector.store import open_store
from gatewatch.jobs.grafana.content import TOKEN_MARK, Content, Kind, content_of, token_mark, without
from gatewatch.jobs.grafana.plan import Resource

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
_VARIABLE: Final = re.compile(r"\$(?:(\w+)|\{(\w+)\})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Bucket:
    """The bucket of an InfluxDB that Grafana reads.

    Attributes:
        client: reaches it from here; holds the token that Grafana gets.
        url: the address under which Grafana reaches it.
    """

    client: Client
    url: str


def bucket_for(store_url: str | None, seen_as: str | None, *, needed: bool) -> Bucket | None:
    """Return what Grafana is to read; None where no InfluxDB is named and there is a datasource already.

    Args:
        store_url: the store's address; see `open_store`.
        seen_as: the address under which Grafana reaches the store; the store's own where None.
        needed: whether there is no datasource yet.

    Raises:
        ConfigError: it is needed, and the store is not an InfluxDB or lacks a variable; or an address is wrong.
    """
    seen = seen_as and server_url(seen_as, "--influxdb-url")
    store = open_store(store_url)
    if client := store.influxdb:
        return Bucket(client, seen or client.url)
    if needed or store_url or seen_as:
        raise ConfigError(
            f"Grafana reads an InfluxDB, and the store is {store.destination['url']}: name one with --store or"
            " INFLUXDB_V2_URL; `gatewatch copy` takes what there is along"
        )
    return None


def alert_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment to fill the alerting files with; recipients come from the configuration where it has none.

    Raises:
        ConfigError: one of the recipients is not a mail address.
    """
    named = filter(None, map(str.strip, re.split("[;,\n]", read_variable(RECIPIENTS, environment))))
    try:
        recipients = [mail_address(one) for one in named]
    except ValueError as error:
        raise ConfigError(f"{RECIPIENTS}: {error}") from None
    return {**environment, RECIPIENTS: ";".join(recipients or load_settings().mail.to)}


def folder(name: str) -> Path:
    """Return a folder of what is pushed: `dashboards` or `provisioning/alerting`.

    Raises:
        GatewatchError: it is empty.
    """
    here = Path(__file__).resolve().parent
    for place in (here / name, here.parents[1] / "grafana" / name):  # installed, or in a checkout
        if any(place.glob("*.json")):
            return place
    raise GatewatchError(f"{here / name}: there is nothing to push; install gatewatch again")


def wanted(bucket: Bucket | None, environment: Mapping[str, str], pages: str = "") -> list[Resource]:
    """Return everything that a Grafana should have, in the order in which it is made.

    Args:
        bucket: None where the datasource is there already and stays as it is.
        environment: the variables that the alerting files name. Without recipients there is neither a contact point
            nor a policy.
        pages: the address of Grafana's pages. Grafana makes links only of runbooks with a whole address.

    Raises:
        GatewatchError: there are no files.
    """
    files = {path.stem: json.loads(path.read_bytes()) for path in folder("provisioning/alerting").glob("*.json")}
    resources = [] if bucket is None else [_datasource(bucket)]
    resources += [_resource("folder", uid, title, {"uid": uid, "title": title}) for uid, title in FOLDERS.items()]
    resources += dashboards(folder("dashboards"))
    for one in files["templates"]["templates"]:  # Grafana expands no variables in them
        resources.append(_resource("template", one["name"], one["name"], {"template": one["template"].strip()}))
    if read_variable(RECIPIENTS, environment):
        for point in expand(files["contact-points"]["contactPoints"], environment):
            body = {"disableResolveMessage": False, **without(point["receivers"][0], "uid"), "name": point["name"]}
            resources.append(_resource("contact point", point["name"], point["name"], body))
        # The rest of the tree is for a Grafana without other routes.
        for route in expand(files["policies"]["policies"][0]["routes"], environment):
            if MATCHER in route["object_matchers"]:
                resources.append(_resource("policy", "=".join(MATCHER[::2]), route["receiver"], route))
    for group in files["rules"]["groups"]:
        place = {"orgID": 1, "folderUID": ALERT_FOLDER, "ruleGroup": group["name"], "interval": group["interval"]}
        for rule in group["rules"]:
            # Grafana expands variables in all of a rule but these.
            body = {**expand(without(rule, "annotations", "data"), environment), **place}
            body |= {"data": rule["data"], "annotations": _with_address(rule["annotations"], pages)}
            resources.append(_resource("rule", rule["uid"], rule["title"], body))
    return resources


def dashboards(place: Path) -> list[Resource]:
    """Return the dashboards of a folder, by the names of their files."""
    boards = [json.loads(path.read_bytes()) for path in sorted(place.glob("*.json"))]
    return [_resource("dashboard", board["uid"], board["title"], board) for board in boards]


def expand(value: Any, environment: Mapping[str, str]) -> Any:
    """Return a value as Grafana reads it from a file: `$NAME` and `${NAME}` from the environment, `$$` for a dollar."""
    if isinstance(value, str):
        parts = value.split("$$")
        return "$".join(_VARIABLE.sub(lambda m: environment.get(m[1] or m[2], ""), part) for part in parts)
    if isinstance(value, Mapping):
        return {name: expand(one, environment) for name, one in value.items()}
    return [expand(one, environment) for one in value] if isinstance(value, list) else value


def _with_address(annotations: Mapping[str, str], pages: str) -> dict[str, str]:
    """Return the annotations of a rule with the whole address of its runbook, which files cannot know."""
    runbook = annotations.get("runbook_url", "")
    whole = {"runbook_url": f"{pages}/{runbook}"} if pages and runbook.startswith("d/") else {}
    return {**annotations, **whole}


def _resource(kind: Kind, uid: str, name: str, body: Content) -> Resource:
    return Resource(kind, uid, name, content_of(kind, body), body)


def _datasource(bucket: Bucket) -> Resource:
    org, name, token = bucket.client.org, bucket.client.bucket_name(), bucket.client.token
    body = {
        **{"uid": DATASOURCE_UID, "name": DATASOURCE_NAME, "type": "influxdb", "access": "proxy", "url": bucket.url},
        "jsonData": {"version": "Flux", "organization": org, "defaultBucket": name, TOKEN_MARK: token_mark(token)},
        "secureJsonData": {"token": token},
    }
    return _resource("datasource", DATASOURCE_UID, DATASOURCE_NAME, body)

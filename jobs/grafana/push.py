"""From what is wanted to what a Grafana has: read it, plan, and do what the plan says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gatewatch.collector.errors import GatewatchError
from gatewatch.jobs.grafana import dashboard_api, datasource, notifications, rules
from gatewatch.jobs.grafana.artifacts import DASHBOARD_FOLDER, FOLDERS, Bucket
from gatewatch.jobs.grafana.connection import Grafana, Refused
from gatewatch.jobs.grafana.plan import Step
from gatewatch.jobs.grafana.resources import FOLDER, RULE, Found, Thing


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


def read(grafana: Grafana, wanted: Sequence[Thing], token: str | None = None) -> State:
    """What there is already of what is wanted.

    Args:
        token: that the datasource should have; None: any that answers will do.

    Raises:
        ConfigError: a name of ours is taken by something else; names it.
    """
    sources, folders = grafana.get("/datasources"), grafana.get("/folders?limit=1000")
    datasource.check_names(grafana.url, sources)
    titles = {one["title"]: one["uid"] for one in folders} | {one["uid"]: one["uid"] for one in folders}
    there = {uid: titles.get(uid) or titles.get(title) for uid, title in FOLDERS.items()}
    places = {uid: place or uid for uid, place in there.items()}
    held = notifications.read(grafana)
    ruled = rules.read(grafana, places)

    def look(thing: Thing) -> Found | None:
        match thing.kind:
            case "datasource":
                return datasource.find(grafana, sources, token)
            case "folder":
                return Found(thing.content) if there[thing.uid] else None
            case "dashboard":
                return dashboard_api.find(grafana, thing)
            case "rule":
                return ruled.get(thing.uid)
            case _:
                return notifications.found(held, thing)

    return State({thing.key: found for thing in wanted if (found := look(thing)) is not None}, places)


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
            datasource.write(grafana, thing, found, bucket)
        case "folder":
            grafana.post("/folders", {"uid": thing.uid, "title": thing.name})
        case "dashboard":
            dashboard_api.write(grafana, thing, found, places[DASHBOARD_FOLDER])
        case "rule":
            rules.write(grafana, places, thing, found)
        case _:
            notifications.write(grafana, step)

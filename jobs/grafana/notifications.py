"""Contact points, policies and templates, over whichever API leaves them editable.

Newer versions do over the provisioning API. Older ones would mark them there as provisioned, which is for good: they
take the Alertmanager's configuration as a whole, as their own page sends it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from gatewatch.jobs.grafana import provenance
from gatewatch.jobs.grafana.artifacts import DURATIONS, MATCHER, contact_content, route_content
from gatewatch.jobs.grafana.connection import EDITABLE, Grafana
from gatewatch.jobs.grafana.plan import Step
from gatewatch.jobs.grafana.resources import POLICY, TEMPLATE, Found, Thing

_CONFIGURATION: Final = "/alertmanager/grafana/config/api/v1/alerts"
_API: Final = "/v1/provisioning"


@dataclass(frozen=True, slots=True)
class Held:
    """What a Grafana has of them.

    Attributes:
        points: its contact points: name, type, settings, uid, provenance.
        tree: its policies, from the root.
        templates: texts by name.
        owners: of templates that were provisioned, by name.
    """

    points: Sequence[Mapping[str, Any]]
    tree: Mapping[str, Any]
    templates: Mapping[str, str]
    owners: Mapping[str, str]


def read(grafana: Grafana) -> Held:
    """What there is."""
    if grafana.version >= EDITABLE:
        texts = grafana.get(f"{_API}/templates") or []
        return Held(
            grafana.get(f"{_API}/contact-points"),
            grafana.get(f"{_API}/policies"),
            {one["name"]: one["template"] for one in texts},
            {one["name"]: one.get("provenance") or "" for one in texts},
        )
    configuration = grafana.get(_CONFIGURATION)
    alertmanager = configuration["alertmanager_config"]
    points = [
        {**one, "name": receiver["name"]}
        for receiver in alertmanager["receivers"]
        for one in receiver.get(_MANAGED, ())
    ]
    return Held(
        points,
        alertmanager["route"],
        configuration.get("template_files") or {},
        configuration.get("template_file_provenances") or {},
    )


def write(grafana: Grafana, step: Step) -> None:
    """Do a step of a plan that is about one of them."""
    if grafana.version >= EDITABLE:
        _write_part(grafana, step)
    else:
        configuration = grafana.get(_CONFIGURATION)
        grafana.post(_CONFIGURATION, changed(configuration, step))


def found(held: Held, thing: Thing) -> Found | None:
    """What there is of a thing; None for nothing."""
    match thing.kind:
        case "template" if thing.uid in held.templates:
            text, print_ = provenance.uncommented(held.templates[thing.uid])
            return provenance.read({"template": text}, print_, held.owners.get(thing.uid) or "")
        case "contact point":
            points = [point for point in held.points if point["name"] == thing.uid]
            return _point(points[0]) if points else None
        case "policy":
            return _route(held.tree, thing)
    return None


def changed(configuration: Mapping[str, Any], step: Step) -> dict[str, Any]:
    """The Alertmanager's configuration after a step; all else in it as it was."""
    new = copy.deepcopy(dict(configuration))
    alertmanager, thing = new["alertmanager_config"], step.thing
    if thing.kind == POLICY:
        alertmanager["route"] = with_route(alertmanager["route"], thing.content)
    elif thing.kind == TEMPLATE:
        files = {**(new.get("template_files") or {}), thing.uid: _text(thing)}
        new["template_files"], alertmanager["templates"] = files, [*files]
    else:
        posted = _posted(thing)
        same = [r for r in alertmanager["receivers"] if r["name"] == thing.uid]
        for receiver in same:
            held = receiver[_MANAGED][0]
            receiver[_MANAGED][0] = {**posted, "uid": held["uid"]}
        if not same:
            # A uid of our own is refused here: it gives one itself.
            alertmanager["receivers"].append({"name": thing.uid, _MANAGED: [posted]})
    return new


def with_route(tree: Mapping[str, Any], route: Mapping[str, Any]) -> dict[str, Any]:
    """A tree of policies with our route: in place of the one it has, else before the others, which stay as they are."""
    ours = _timed(route)
    routes = list(tree.get("routes") or ())
    places = [i for i, one in enumerate(routes) if _is_ours(one)]
    routes[slice(places[0], places[0] + 1) if places else slice(0, 0)] = [ours]
    return {**{name: value for name, value in tree.items() if name != "provenance"}, "routes": routes}


_MANAGED: Final = "grafana_managed_receiver_configs"


def _write_part(grafana: Grafana, step: Step) -> None:
    thing = step.thing
    if thing.kind == TEMPLATE:
        grafana.put(f"{_API}/templates/{quote(thing.uid, safe='')}", {"template": _text(thing)})
    elif thing.kind == POLICY:
        grafana.put(f"{_API}/policies", with_route(grafana.get(f"{_API}/policies"), thing.content))
    elif step.found is not None:
        uid = step.found.handle["uid"]
        grafana.put(f"{_API}/contact-points/{quote(uid, safe='')}", {**_posted(thing), "uid": uid})
    else:
        grafana.post(f"{_API}/contact-points", _posted(thing))


def _posted(thing: Thing) -> dict[str, Any]:
    settings = thing.content["settings"]
    message = provenance.commented(settings.get("message", ""), thing.print)
    return {"disableResolveMessage": False, **thing.content, "settings": {**settings, "message": message}}


def _text(thing: Thing) -> str:
    return provenance.commented(thing.content["template"], thing.print)


def _point(point: Mapping[str, Any]) -> Found:
    settings = point.get("settings") or {}
    message, print_ = provenance.uncommented(settings.get("message") or "")
    content = contact_content({**point, "settings": {**settings, "message": message}})
    return provenance.read(content, print_, point.get("provenance") or "", uid=point["uid"])


def _route(tree: Mapping[str, Any], thing: Thing) -> Found | None:
    owner = tree.get("provenance") or ""
    route = next((one for one in tree.get("routes") or () if _is_ours(one)), None)
    if route is not None:
        content = route_content(route)
        # A route has no place for a trace: whatever is not as we have it was changed.
        return Found(content, thing.print if content == thing.content else None, owner=owner)
    return Found(None, owner=owner) if owner else None


def _is_ours(route: Mapping[str, Any]) -> bool:
    return MATCHER in (route.get("object_matchers") or ())


def _timed(route: Mapping[str, Any]) -> dict[str, Any]:
    timed = {name: f"{route[name]:.0f}s" for name in DURATIONS if name in route}
    return {**route, **timed, "routes": [_timed(one) for one in route.get("routes", ())]}

"""Message templates, contact points and the notification policy in a Grafana."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gatewatch.jobs.grafana import provenance
from gatewatch.jobs.grafana.artifacts import DURATIONS, MATCHER, contact_content, route_content
from gatewatch.jobs.grafana.connection import PROVISIONING, Grafana
from gatewatch.jobs.grafana.resources import Existing, Resource


class Templates:
    """Reads and writes message templates; see `push.Kind`."""

    def __init__(self, grafana: Grafana) -> None:
        self._grafana = grafana
        self._by_name = {one["name"]: one for one in grafana.get(f"{PROVISIONING}/templates") or []}

    def find(self, resource: Resource) -> Existing | None:
        """See `push.Kind`."""
        template = self._by_name.get(resource.uid)
        if template is None:
            return None
        text, pushed = provenance.uncommented(template["template"])
        return provenance.existing({"template": text}, pushed, template.get("provenance") or "")

    def write(self, resource: Resource, existing: Existing | None) -> None:
        """See `push.Kind`."""
        text = provenance.commented(resource.content["template"], resource.fingerprint)
        self._grafana.put(f"{PROVISIONING}/templates/{resource.uid}", {"template": text})


class ContactPoints:
    """Reads and writes contact points; see `push.Kind`."""

    def __init__(self, grafana: Grafana) -> None:
        self._grafana = grafana
        # Of several with one name the first is ours.
        self._by_name = {one["name"]: one for one in reversed(grafana.get(f"{PROVISIONING}/contact-points"))}

    def find(self, resource: Resource) -> Existing | None:
        """See `push.Kind`."""
        point = self._by_name.get(resource.uid)
        if point is None:
            return None
        settings = point.get("settings") or {}
        message, pushed = provenance.uncommented(settings.get("message") or "")
        content = contact_content({**point, "settings": {**settings, "message": message}})
        return provenance.existing(content, pushed, point.get("provenance") or "", uid=point["uid"])

    def write(self, resource: Resource, existing: Existing | None) -> None:
        """See `push.Kind`."""
        settings = resource.content["settings"]
        message = provenance.commented(settings.get("message", ""), resource.fingerprint)
        body = {"disableResolveMessage": False, **resource.content, "settings": {**settings, "message": message}}
        if existing is None:
            self._grafana.post(f"{PROVISIONING}/contact-points", body)
        else:
            uid = existing.handle["uid"]
            self._grafana.put(f"{PROVISIONING}/contact-points/{uid}", {**body, "uid": uid})


class Policy:
    """Reads and writes the route for our alerts in the tree of notification policies; see `push.Kind`."""

    def __init__(self, grafana: Grafana) -> None:
        self._grafana = grafana

    def find(self, resource: Resource) -> Existing | None:
        """See `push.Kind`. A route has no place for a mark: one that is not as wanted counts as changed by a user."""
        tree = self._grafana.get(f"{PROVISIONING}/policies")
        owner = tree.get("provenance") or ""
        for route in tree.get("routes") or ():
            if _is_ours(route):
                return Existing(route_content(route), owner=owner)
        return Existing(None, owner=owner) if owner else None

    def write(self, resource: Resource, existing: Existing | None) -> None:
        """See `push.Kind`."""
        path = f"{PROVISIONING}/policies"
        self._grafana.put(path, with_route(self._grafana.get(path), resource.content))


def with_route(tree: Mapping[str, Any], route: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tree of policies with our route in it: in place of its former one, else first; others stay as they are.

    Args:
        tree: the root policy, as Grafana gives it.
        route: ours, with durations in seconds.
    """
    routes = list(tree.get("routes") or ())
    place = next((number for number, one in enumerate(routes) if _is_ours(one)), None)
    routes[slice(0, 0) if place is None else slice(place, place + 1)] = [_with_units(route)]
    return {**{name: value for name, value in tree.items() if name != "provenance"}, "routes": routes}


def _is_ours(route: Mapping[str, Any]) -> bool:
    return MATCHER in (route.get("object_matchers") or ())


def _with_units(route: Mapping[str, Any]) -> dict[str, Any]:
    durations = {name: f"{route[name]:.0f}s" for name in DURATIONS if name in route}
    return {**route, **durations, "routes": [_with_units(one) for one in route.get("routes", ())]}

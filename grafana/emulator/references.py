"""Find references of dashboards to variables, dashboards, panels and datasources that do not exist."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from grafana.emulator.check import panels
from grafana.emulator.interpolate import references

FORMATS: Final = frozenset({"regex", "text", "percentencode"})
"""The formats in which dashboards may insert variables."""
_WAY: Final = re.compile(r"^/d/([\w-]+)(?:\?(.*))?$")
_VARIABLE: Final = re.compile(r"^var-(\w+)$")


def problems(dashboards: Sequence[Mapping[str, Any]], datasource: str) -> list[str]:
    """Return what is wrong with dashboards that belong together, a line for each problem.

    Args:
        dashboards: as their files hold them.
        datasource: the uid of the datasource that they should query.
    """
    by_uid = {dashboard["uid"]: dashboard for dashboard in dashboards}
    lines = [f"{uid}: the uid of {count} dashboards" for uid, count in _twice(d["uid"] for d in dashboards)]
    lines += [f"{name}: the title of {count} dashboards" for name, count in _twice(d["title"] for d in dashboards)]
    for dashboard in dashboards:
        lines += [f"{dashboard['uid']}: {problem}" for problem in _of_dashboard(dashboard, by_uid, datasource)]
    return lines


def _of_dashboard(
    dashboard: Mapping[str, Any], by_uid: Mapping[str, Mapping[str, Any]], datasource: str
) -> Iterator[str]:
    names: list[str] = []
    for variable in dashboard.get("templating", {}).get("list", ()):
        name = variable["name"]
        yield from (f"variable {name}: {problem}" for problem in _of_text(variable["query"], names))
        yield from (f"variable {name}: {problem}" for problem in _of_source(variable, datasource))
        if variable.get("id", name) != name:
            yield f"variable {name}: has the id {variable['id']}; Grafana takes those of one id for one variable"
        names.append(name)
    yield from (f"{count} variables are called {name}" for name, count in _twice(names))
    for annotation in dashboard.get("annotations", {}).get("list", ()):
        name = f"annotation {annotation['name']}"
        yield from (f"{name}: {problem}" for problem in _of_source(annotation, datasource))
        yield from (f"{name}: {problem}" for problem in _of_text(annotation["target"]["query"], names))
    whole = [*dashboard["panels"], *(inner for panel in dashboard["panels"] for inner in panel.get("panels", ()))]
    yield from (f"{count} panels have the id {number}" for number, count in _twice(panel["id"] for panel in whole))
    yield from (
        f"{count} panels are called {title!r}" for title, count in _twice(p["title"] for p in panels(dashboard))
    )
    for panel in panels(dashboard):
        yield from (f"panel {panel['title']!r}: {problem}" for problem in _of_panel(panel, names, datasource))
    for link in dashboard.get("links", ()):
        yield from (f"link {link['title']}: {problem}" for problem in _of_text(link.get("url") or "", names))
    yield from _links(dashboard, by_uid)


def _of_panel(panel: Mapping[str, Any], names: Sequence[str], datasource: str) -> Iterator[str]:
    if panel["type"] == "text":
        return
    if not str(panel.get("description", "")).strip():
        yield "has no description"
    yield from _of_source(panel, datasource)
    targets = panel.get("targets", ())
    yield from (f"{count} queries are called {name}" for name, count in _twice(t["refId"] for t in targets))
    if not targets:
        yield "has no query"
    for target in targets:
        yield from _of_source(target, datasource)
        yield from _of_text(target["query"], names)
    yield from _of_text(panel["title"], names)
    repeat = panel.get("repeat")
    if repeat and repeat not in names:
        yield f"is repeated by {repeat}, which is no variable here"


def _of_source(part: Mapping[str, Any], datasource: str) -> Iterator[str]:
    uid = (part.get("datasource") or {}).get("uid")
    if uid != datasource:
        yield f"asks the datasource {uid}, not {datasource}"


def _of_text(text: str, names: Sequence[str]) -> Iterator[str]:
    for name, form in references(text):
        if name not in names:
            yield f"${{{name}}} is no variable that is known there"
        if form is not None and form not in FORMATS:
            yield f"${{{name}:{form}}} is not one of the formats {', '.join(sorted(FORMATS))}"


def _links(dashboard: Mapping[str, Any], by_uid: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield what is wrong with the links of a dashboard, of its panels and of their values."""
    tags = {tag for other in by_uid.values() for tag in other.get("tags", ())}
    for link in dashboard.get("links", ()):
        if link.get("type") == "dashboards":
            yield from (
                f"links to dashboards with the tag {tag}: there is none" for tag in link["tags"] if tag not in tags
            )
    for url in _addresses(dashboard):
        way = _WAY.match(url)
        if way is None or way[1] not in by_uid:
            yield f"links to {url}, which is no dashboard of ours"
            continue
        there = {variable["name"] for variable in by_uid[way[1]].get("templating", {}).get("list", ())}
        for part in filter(None, (way[2] or "").split("&")):
            variable = _VARIABLE.match(part.partition("=")[0])
            if variable and variable[1] not in there:
                yield f"links to {way[1]} with the variable {variable[1]}, which it has not"


def _addresses(part: Any) -> Iterator[str]:
    if isinstance(part, Mapping):
        if isinstance(part.get("url"), str) and part["url"]:
            yield part["url"]
        for value in part.values():
            yield from _addresses(value)
    elif isinstance(part, list):
        for value in part:
            yield from _addresses(value)


def _twice(names: Any) -> list[tuple[Any, int]]:
    return [(name, count) for name, count in Counter(names).items() if count > 1]

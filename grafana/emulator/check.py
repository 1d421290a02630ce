"""Every query of dashboards, asked as Grafana would ask it when they are opened: how much came, how long it took."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from gatewatch.collector.errors import ConfigError
from grafana.emulator.frames import MAX_POINTS_FACTOR, FluxError, FluxSource, Frame
from grafana.emulator.interpolate import ALL, Moment, Variable, interpolate, interval_ms

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "M": 2_592_000, "y": 31_536_000}
_RELATIVE: Final = re.compile(r"now(?:-(\d+[smhdwMy]))?")
_PIXELS: Final = 1_800
"""The width of a page, of which a panel has so many twenty-fourths; a panel without `maxDataPoints` has one point a
pixel."""
VARIABLES: Final = "variables"
ANNOTATIONS: Final = "annotations"

Window = tuple[int, int]
"""A time range: its beginning and its end, nanoseconds since the Unix epoch."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A query and what came.

    Attributes:
        dashboard: its title.
        panel: its title as it is shown; that of a variable or of an annotation.
        kind: the panel's type; or variable, annotation.
        flux: as InfluxDB got it.
        frames: of the answer.
        milliseconds: that it took.
        problem: why there are none, where the query failed.
    """

    dashboard: str
    panel: str
    kind: str
    flux: str
    frames: Sequence[Frame] = ()
    milliseconds: float = 0.0
    problem: str | None = None

    @property
    def rows(self) -> int:
        """Of all frames."""
        return sum(map(len, self.frames))


@dataclass(frozen=True, slots=True)
class Row:
    """What the queries of one panel gave.

    Attributes:
        dashboard, panel: titles; variables and annotations are taken together.
        queries: how many were run.
        rows: that came.
        milliseconds: of the query that took longest.
        problem: of the first query that failed.
    """

    dashboard: str
    panel: str
    queries: int
    rows: int
    milliseconds: float
    problem: str | None


def check(
    dashboards: Sequence[Mapping[str, Any]], source: FluxSource, *, now: int, window: Window | None = None
) -> Iterator[Row]:
    """Open the dashboards; a row for each panel, and for each dashboard's variables and annotations.

    Args:
        dashboards: as their files hold them.
        source: the datasource.
        now: nanoseconds since the Unix epoch.
        window: the time range; each dashboard's own where None.

    Raises:
        ConfigError: reading is not allowed, or a dashboard's time range cannot be read.
        WriteUnavailable: the store does not answer.
    """
    for dashboard in dashboards:
        found: dict[tuple[str, str], Row] = {}
        for asked in ask(dashboard, source, now=now, window=window):
            group = {"variable": VARIABLES, "annotation": ANNOTATIONS}.get(asked.kind, asked.panel)
            key = (group, asked.kind if group == asked.panel else "")
            before = found.get(key) or Row(asked.dashboard, group, 0, 0, 0.0, None)
            found[key] = Row(
                asked.dashboard,
                group,
                before.queries + 1,
                before.rows + asked.rows,
                max(before.milliseconds, asked.milliseconds),
                before.problem or asked.problem,
            )
        yield from found.values()


def ask(
    dashboard: Mapping[str, Any],
    source: FluxSource,
    *,
    now: int,
    window: Window | None = None,
    chosen: Mapping[str, str | Sequence[str]] | None = None,
) -> Iterator[Asked]:
    """Open a dashboard: its variables first, each with what is chosen of those before it, then all else.

    Args:
        dashboard: as its file holds it.
        source: the datasource.
        now: nanoseconds since the Unix epoch.
        window: the time range; the dashboard's own where None.
        chosen: variable → value; of others what Grafana chooses when a dashboard is opened for the first time.

    Raises:
        ConfigError: reading is not allowed, or the dashboard's time range cannot be read.
        WriteUnavailable: the store does not answer.
    """
    start, stop = window or time_range(dashboard, now)
    title = str(dashboard["title"])
    moment = Moment(start, stop, source.bucket, source.org)
    values: dict[str, Variable] = {}
    for variable in dashboard.get("templating", {}).get("list", ()):
        name = variable["name"]
        asked = _asked(source, Asked(title, name, "variable", variable["query"]), values, moment)
        yield asked
        values[name] = choice(variable, _options(variable, asked.frames), (chosen or {}).get(name))
    for annotation in dashboard.get("annotations", {}).get("list", ()):
        if "query" in annotation.get("target", {}):
            asked = Asked(title, annotation["name"], "annotation", annotation["target"]["query"])
            yield _asked(source, asked, values, moment)
    for panel in panels(dashboard):
        most = int(panel.get("maxDataPoints") or _PIXELS * panel["gridPos"]["w"] // 24)
        begin = max(start, stop - _seconds(panel["timeFrom"]) * 10**9) if panel.get("timeFrom") else start
        limited = replace(moment, start=begin, interval_ms=interval_ms(begin, stop, most))
        for repeated, shown in _repeats(panel, values):
            for target in panel.get("targets", ()):
                asked = Asked(title, shown, panel["type"], target["query"])
                yield _asked(source, asked, values | repeated, limited, most)


def panels(dashboard: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The panels of a dashboard, those of collapsed rows among them; no rows."""
    for panel in dashboard.get("panels", ()):
        if panel["type"] != "row":
            yield panel
        yield from (inner for inner in panel.get("panels", ()) if inner["type"] != "row")


def time_range(dashboard: Mapping[str, Any], now: int) -> Window:
    """What a dashboard shows when it is opened.

    Raises:
        ConfigError: it is neither `now` nor `now-…`.
    """
    ends = dashboard.get("time", {"from": "now-6h", "to": "now"})
    found = []
    for end in (ends["from"], ends["to"]):
        match = _RELATIVE.fullmatch(end)
        if match is None:
            raise ConfigError(f"dashboard {dashboard.get('title')!r}: the time {end!r} is not of the form now-6h")
        found.append(now - (_seconds(match[1]) * 10**9 if match[1] else 0))
    return found[0], found[1]


def choice(
    variable: Mapping[str, Any], options: Sequence[tuple[str, str]], chosen: str | Sequence[str] | None = None
) -> Variable:
    """What is chosen of a variable.

    Args:
        variable: as its dashboard holds it.
        options: text and value of each.
        chosen: the value; None: All where the dashboard says so, else the first.
    """
    values = [value for _, value in options]
    if chosen is None:
        stored = (variable.get("current") or {}).get("value") or []
        everything = variable.get("includeAll") and ALL in ([stored] if isinstance(stored, str) else stored)
        chosen = [ALL] if everything else next(iter(values), "")
    return Variable(chosen, values, variable.get("allValue"))


def _seconds(text: str) -> int:
    """How long 6h is."""
    return int(text[:-1]) * _UNITS[text[-1]]


def _options(variable: Mapping[str, Any], frames: Sequence[Frame]) -> list[tuple[str, str]]:
    """Text and value of what a variable offers: of the first frame the first text, taken apart by its expression."""
    texts = next((field.values for frame in frames[:1] for field in frame.fields if field.kind == "string"), [])
    pattern = variable.get("regex") or ""
    if not pattern:
        return [(text, text) for text in texts]
    # JavaScript names its groups without the P.
    expression = re.compile(pattern.strip("/").replace("(?<", "(?P<"))
    found = (expression.search(text) for text in texts)
    return [(match["text"], match["value"]) for match in found if match]


def _repeats(panel: Mapping[str, Any], values: Mapping[str, Variable]) -> Iterator[tuple[dict[str, Variable], str]]:
    """Each panel that a panel becomes: the variable that it is repeated by, and its title."""
    name, title = panel.get("repeat"), panel.get("title", "")
    if not name:
        yield {}, title
        return
    variable = values[name]
    several = variable.options if variable.all else variable.value
    for value in [several] if isinstance(several, str) else several or [""]:
        yield {name: Variable(value)}, re.sub(r"\$\{\w+:text\}", lambda _, value=value: value, title)  # type: ignore[misc]


def _asked(
    source: FluxSource, asked: Asked, values: Mapping[str, Variable], moment: Moment, points: int | None = None
) -> Asked:
    flux = interpolate(asked.flux, values, moment)
    try:
        answer = source.ask(flux, None if points is None else points * MAX_POINTS_FACTOR)
    except FluxError as error:
        return replace(asked, flux=flux, problem=str(error))
    return replace(asked, flux=flux, frames=answer.frames, milliseconds=answer.milliseconds)

"""Run every query of a dashboard as Grafana would when it is opened."""

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
class QueryResult:
    """A query of a dashboard and its answer.

    Attributes:
        dashboard: the dashboard's title.
        panel: the panel's title as it is shown, or the name of the variable or annotation.
        kind: the panel's type, or `variable` or `annotation`.
        flux: the query as InfluxDB got it.
        frames: the answer's.
        milliseconds: that the answer took.
        problem: why the query failed; None where it did not.
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
        """The number of rows of all frames."""
        return sum(map(len, self.frames))


@dataclass(frozen=True, slots=True)
class PanelSummary:
    """What the queries of one panel gave.

    Attributes:
        dashboard, panel: titles; all variables together are one panel, and so are all annotations.
        queries: how many were run.
        rows: how many came.
        milliseconds: of the slowest query.
        problem: of the first query that failed; None where none did.
    """

    dashboard: str
    panel: str
    queries: int
    rows: int
    milliseconds: float
    problem: str | None


def check(
    dashboards: Sequence[Mapping[str, Any]], source: FluxSource, *, now: int, window: Window | None = None
) -> Iterator[PanelSummary]:
    """Open dashboards; yield a summary for each panel, and for each dashboard's variables and annotations.

    Args:
        dashboards: as their files hold them.
        source: the datasource.
        now: nanoseconds since the Unix epoch.
        window: the time range; each dashboard's own where None.

    Raises:
        ConfigError: reading is not allowed, or a dashboard's time range cannot be read.
        WriteUnavailable: the store does not answer.
    """
    groups = {"variable": VARIABLES, "annotation": ANNOTATIONS}
    for dashboard in dashboards:
        by_panel: dict[tuple[str, str], list[QueryResult]] = {}
        for result in open_dashboard(dashboard, source, now=now, window=window):
            group = groups.get(result.kind)
            key = (group, "") if group else (result.panel, result.kind)
            by_panel.setdefault(key, []).append(result)
        for (panel, _), results in by_panel.items():
            yield PanelSummary(
                results[0].dashboard,
                panel,
                len(results),
                sum(result.rows for result in results),
                max(result.milliseconds for result in results),
                next((result.problem for result in results if result.problem), None),
            )


def open_dashboard(
    dashboard: Mapping[str, Any],
    source: FluxSource,
    *,
    now: int,
    window: Window | None = None,
    chosen: Mapping[str, str | Sequence[str]] | None = None,
) -> Iterator[QueryResult]:
    """Run the queries of a dashboard: of its variables, each with what is chosen of those before it, then all others.

    Args:
        dashboard: as its file holds it.
        source: the datasource.
        now: nanoseconds since the Unix epoch.
        window: the time range; the dashboard's own where None.
        chosen: variable → value; for other variables what Grafana chooses when a dashboard is opened the first time.

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
        result = _run(source, QueryResult(title, name, "variable", variable["query"]), values, moment)
        yield result
        values[name] = choice(variable, _options(variable, result.frames), (chosen or {}).get(name))
    for annotation in dashboard.get("annotations", {}).get("list", ()):
        if "query" in annotation.get("target", {}):
            query = QueryResult(title, annotation["name"], "annotation", annotation["target"]["query"])
            yield _run(source, query, values, moment)
    for panel in panels(dashboard):
        most = int(panel.get("maxDataPoints") or _PIXELS * panel["gridPos"]["w"] // 24)
        begin = max(start, stop - _seconds(panel["timeFrom"]) * 10**9) if panel.get("timeFrom") else start
        limited = replace(moment, start=begin, interval_ms=interval_ms(begin, stop, most))
        for repeated, shown in _repeats(panel, values):
            for target in panel.get("targets", ()):
                query = QueryResult(title, shown, panel["type"], target["query"])
                yield _run(source, query, values | repeated, limited, most)


def panels(dashboard: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the panels of a dashboard, those in collapsed rows too, without the rows themselves."""
    for panel in dashboard.get("panels", ()):
        if panel["type"] != "row":
            yield panel
        yield from (inner for inner in panel.get("panels", ()) if inner["type"] != "row")


def time_range(dashboard: Mapping[str, Any], now: int) -> Window:
    """Return the time range that a dashboard shows when it is opened.

    Raises:
        ConfigError: an end is neither `now` nor `now-…`.
    """
    ends = dashboard.get("time", {"from": "now-6h", "to": "now"})
    times = []
    for end in (ends["from"], ends["to"]):
        match = _RELATIVE.fullmatch(end)
        if match is None:
            raise ConfigError(f"dashboard {dashboard.get('title')!r}: the time {end!r} is not of the form now-6h")
        times.append(now - (_seconds(match[1]) * 10**9 if match[1] else 0))
    return times[0], times[1]


def choice(
    variable: Mapping[str, Any], options: Sequence[tuple[str, str]], chosen: str | Sequence[str] | None = None
) -> Variable:
    """Return a variable with its value.

    Args:
        variable: as its dashboard holds it.
        options: text and value of each.
        chosen: the value; where None, All if the dashboard says so, else the first option.
    """
    values = [value for _, value in options]
    if chosen is None:
        stored = (variable.get("current") or {}).get("value") or []
        everything = variable.get("includeAll") and ALL in ([stored] if isinstance(stored, str) else stored)
        chosen = [ALL] if everything else next(iter(values), "")
    return Variable(chosen, values, variable.get("allValue"))


def _seconds(text: str) -> int:
    """Return the seconds of a duration such as 6h."""
    return int(text[:-1]) * _UNITS[text[-1]]


def _options(variable: Mapping[str, Any], frames: Sequence[Frame]) -> list[tuple[str, str]]:
    """Return text and value of a variable's options: the first text column, split by the variable's expression."""
    texts = next((field.values for frame in frames[:1] for field in frame.fields if field.kind == "string"), [])
    pattern = variable.get("regex") or ""
    if not pattern:
        return [(text, text) for text in texts]
    # JavaScript names its groups without the P.
    expression = re.compile(pattern.strip("/").replace("(?<", "(?P<"))
    matches = (expression.search(text) for text in texts)
    return [(match["text"], match["value"]) for match in matches if match]


def _repeats(panel: Mapping[str, Any], values: Mapping[str, Variable]) -> Iterator[tuple[dict[str, Variable], str]]:
    """Yield the panels that a panel is repeated as: the variable with the panel's value, and the panel's title."""
    name, title = panel.get("repeat"), panel.get("title", "")
    if not name:
        yield {}, title
        return
    variable = values[name]
    several = variable.options if variable.all else variable.value
    for value in [several] if isinstance(several, str) else several or [""]:
        yield {name: Variable(value)}, re.sub(r"\$\{\w+:text\}", lambda _, value=value: value, title)  # type: ignore[misc]


def _run(
    source: FluxSource, query: QueryResult, values: Mapping[str, Variable], moment: Moment, points: int | None = None
) -> QueryResult:
    flux = interpolate(query.flux, values, moment)
    try:
        answer = source.ask(flux, None if points is None else points * MAX_POINTS_FACTOR)
    except FluxError as error:
        return replace(query, flux=flux, problem=str(error))
    return replace(query, flux=flux, frames=answer.frames, milliseconds=answer.milliseconds)

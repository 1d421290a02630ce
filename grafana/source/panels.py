"""Functions that make the panels of dashboards, with the settings that all of them share.

Each function makes one panel; its `description` says what the panel shows and what is healthy. Options that only one
type of panel has are written as in the JSON of a dashboard.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Final

from grafana_foundation_sdk.builders.dashboard import DashboardFieldConfigSourceOverrides, Panel
from grafana_foundation_sdk.models import dashboard as model

from grafana.source.flux import DATASOURCE, Flux, Series
from grafana.source.values import (
    CLEAR,
    GREY,
    PLAIN,
    Values,
    by_pattern,
    by_text,
    fixed,
    gate_colours,
    grey_without,
    override,
    thresholds,
)

NO_DATA: Final = "Nothing in this time range: choose a longer one"
_MISREAD_EMPTY_FRAMES: Final = ("heatmap", "state-timeline", "trend")
"""Panels for which an empty frame, which stands for no data, may look like data."""
_WITHOUT_EMPTY_FRAMES: Final = model.DataTransformerConfig("filterFieldsByName", options={"include": {"pattern": ".*"}})
_LEGEND: Final = {"displayMode": "list", "placement": "bottom", "calcs": []}
_CALCULATIONS: Final = {"max": "Max", "min": "Min"}
"""How Grafana heads the column of a calculation in a legend."""
_ONE_VALUE: Final = {"mode": "single", "sort": "asc"}
_PALETTE: Final = model.FieldColor(model.FieldColorModeId.PALETTE_CLASSIC)
_BY_VALUE: Final = model.FieldColor(model.FieldColorModeId.THRESHOLDS)


Colours = Mapping[str, object]
"""The fixed colours of a heatmap: the values at the ends of its scale, and a colour scheme of d3."""
ZERO_TO_ONE: Final = {"min": 0, "max": 1, "scheme": "Viridis", "reverse": False}
SIGNED: Final = {"min": -1, "max": 1, "scheme": "RdBu", "reverse": True}
PARTS: Final = {"min": 0, "max": 0.25, "scheme": "Viridis", "reverse": False}


def time_series(
    title: str,
    series: Series,
    values: Values = PLAIN,
    *,
    worst: str = "max",
    grey_below: float | None = None,
    size: tuple[int, int] = (12, 9),
    show_points: str = "auto",
    legend: bool = True,
) -> Panel:
    """Return a panel of series over time. Series that differ in their gate have the gate's colour.

    Args:
        title: title of the panel.
        series: the series to show.
        values: how their values are shown. With a logarithmic axis the panel has no text for missing data, because it
            would show that text for each series without a number.
        worst: which value of a series is the worst, `max` or `min`. The legend is a table of the last and the worst
            values, ordered by the worst.
        grey_below: series that never reach this value are grey; None: none is.
        size: width, in 24ths of the dashboard, and height.
        show_points: `auto` or `never`.
        legend: whether the panel has one.
    """
    custom: dict[str, object] = {"lineWidth": 1, "fillOpacity": 0, "showPoints": show_points, "pointSize": 4}
    if values.bands:
        custom["thresholdsStyle"] = {"mode": "line" if values.bands[0][1] == CLEAR else "line+area"}
    if values.logarithmic:
        custom["scaleDistribution"] = {"type": "log", "log": 10}
    if values.soft_high is not None:
        custom["axisSoftMax"] = values.soft_high
    no_value = None if values.logarithmic else NO_DATA
    config = values.config(display_name=series.name or None, color=_PALETTE, no_value=no_value, custom=custom)
    order = {"sortBy": _CALCULATIONS[worst], "sortDesc": worst == "max"}
    shown = {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", worst], "showLegend": legend}
    options = {"legend": shown | order, "tooltip": {"mode": "multi", "sort": "desc"}}
    panel = _panel("timeseries", title, [series.query], config, options, size=size).max_data_points(600)
    colours: list[tuple[str, object, list[model.DynamicConfigValue]]] = []
    if "gate" in series.labels:
        name = " ".join("{gate}" if label == "gate" else ".+" for label in series.labels)
        colours += [("byRegexp", pattern, colour) for pattern, colour in gate_colours(name)]
    if grey_below is not None:
        never = {"reducer": "max", "op": "lt", "value": grey_below}
        colours.append(("byValue", never, override(color=fixed(GREY))))
    return panel.overrides(
        [
            DashboardFieldConfigSourceOverrides().matcher(model.MatcherConfig(matcher, which)).properties(colour)
            for matcher, which, colour in colours
        ]
    )


def heatmap(title: str, query: str, colours: Colours, axis: str) -> Panel:
    """Return a heatmap whose query computes the cells: one row per series, in the order of their names.

    Args:
        title: title of the panel.
        query: query in Flux; each of its tables is a row.
        colours: colours of the values.
        axis: what the rows' names are of; empty where they say it.
    """
    options = {
        "calculate": False,
        "cellGap": 0,
        "cellValues": {"decimals": 3, "unit": "short"},
        "color": {"mode": "scheme", "scale": "linear", "fill": "dark-orange", "exponent": 0.5, "steps": 64, **colours},
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": -1e6},  # zeros are shown: it hides what is not above this
        "legend": {"show": True},
        "rowsFrame": {"value": "mean activation"},
        "showValue": "never",
        "tooltip": {"show": True},
        "yAxis": {"axisLabel": axis, "unit": "short"},
    }
    config = model.FieldConfig(no_value=NO_DATA)
    # More cells side by side are narrower than one can see, and slow.
    return _panel("heatmap", title, [query], config, options, size=(8, 9)).max_data_points(250)


def state_timeline(title: str, series: Series, colours: Mapping[str, str]) -> Panel:
    """Return a panel with a bar per series, in the colours of its texts. For the other arguments see `time_series`."""
    config = model.FieldConfig(
        display_name=series.name,
        color=_PALETTE,
        mappings=by_text(colours),
        no_value=NO_DATA,
        custom={"lineWidth": 0, "fillOpacity": 80},
    )
    options = {
        "alignValue": "left",
        "legend": _LEGEND | {"showLegend": True},
        "mergeValues": True,
        "rowHeight": 0.9,
        "showValue": "never",
        "tooltip": _ONE_VALUE,
    }
    return _panel("state-timeline", title, [series.query], config, options, size=(24, 8)).max_data_points(150)


def stat(title: str, query: str, values: Values, links: Sequence[object] = ()) -> Panel:
    """Return a panel of one number, 0 or more, coloured by its value; grey where there is none.

    Args:
        title: of the panel.
        query: in Flux, for one number.
        values: how it is shown; the first of its bands begins at 0.
        links: where a click on it leads, see `link`.
    """
    config = dataclasses.replace(values, bands=grey_without(values.bands)).config(
        color=_BY_VALUE, no_value="–", links=[*links] or None
    )
    return _stat(title, query, config, "")


def text_stat(
    title: str,
    query: str,
    colours: Mapping[str, str],
    *,
    patterns: bool = False,
    no_value: str = "–",
    size: int | None = None,
) -> Panel:
    """Return a panel that shows one text.

    Args:
        title, query: see `time_series`.
        colours: text → colour.
        patterns: whether the texts are regular expressions: see `by_pattern`.
        no_value: the text where there is none.
        size: of the letters, in pixels, for sentences; None: as large as one line has room for, which is too small to
            read where the text is long.
    """
    mappings = by_pattern(colours) if patterns else by_text(colours)
    base = thresholds([(None, GREY)])  # of the text for no value
    config = model.FieldConfig(color=_BY_VALUE, no_value=no_value, mappings=mappings, thresholds=base)
    return _stat(title, query, config, "/.*/", {"valueSize": size} if size else {})


def trend(
    title: str, query: str, colours: Mapping[str, str], values: Values = PLAIN, *, size: tuple[int, int] = (12, 9)
) -> Panel:
    """Return a panel of lines over a number.

    Args:
        title: title of the panel.
        query: in Flux, for one table with the column `step` in ascending order, and one column per line. A line goes on
            over its nulls.
        colours: the beginning of a line's name → its colour.
        values: how the values are shown.
        size: width, in 24ths of the dashboard, and height.
    """
    custom: dict[str, object] = {"lineWidth": 1, "showPoints": "auto", "pointSize": 4, "spanNulls": True}
    if values.logarithmic:
        custom["scaleDistribution"] = {"type": "log", "log": 10}
    config = values.config(color=_PALETTE, no_value=None if values.logarithmic else "–", custom=custom)
    legend = _LEGEND | {"displayMode": "table", "calcs": ["lastNotNull", "min", "max"], "showLegend": True}
    options = {"legend": legend, "tooltip": {"mode": "multi", "sort": "none"}, "xField": "step"}
    panel = _panel("trend", title, [query], config, options, size=size)
    for beginning, colour in colours.items():
        panel = panel.override_by_regexp(f"{beginning}.*", override(color=fixed(colour)))
    return panel.override_by_name(
        "step", override(unit="none", decimals=0, custom__scaleDistribution={"type": "linear"})
    )


def table(
    title: str,
    *queries: str,
    columns: Sequence[str],
    names: Mapping[str, str] | None = None,
    height: int = 10,
    no_value: str = NO_DATA,
) -> Panel:
    """Return a table.

    Args:
        title: title of the panel.
        queries: queries in Flux. The rows of several queries are merged by the columns that they share.
        columns: the first columns, in this order; InfluxDB orders the others by name.
        names: column → the name under which it is shown.
        height: height of the panel.
        no_value: the text of a table without rows.
    """
    config = model.FieldConfig(color=_BY_VALUE, no_value=no_value, thresholds=thresholds([(None, GREY)]))
    options = {
        "cellHeight": "sm",
        "footer": {"show": False, "reducer": [], "countRows": False},
        "frameIndex": 0,
        "showHeader": True,
        "showTypeIcons": False,
    }
    order: dict[str, object] = {"indexByName": {name: number for number, name in enumerate(columns)}}
    order |= {"renameByName": names} if names else {}
    panel = _panel("table", title, queries, config, options, size=(24, height))
    panel = panel.override_by_regexp(".*", override(noValue="–"))
    panel = panel.with_transformation(model.DataTransformerConfig("merge", options={})) if queries[1:] else panel
    return panel.with_transformation(model.DataTransformerConfig("organize", options=order))


def bar_gauge(title: str, *queries: str, value: str, name: str, values: Values, most: int) -> Panel:
    """Return horizontal bars, the largest at the top.

    Args:
        title: title of the panel.
        queries: queries in Flux, whose rows are merged by the columns that they share.
        value: the column that is drawn: the only one of numbers.
        name: the name of a bar, in terms of Grafana's `${__data.fields.…}`.
        values: how the numbers are shown.
        most: maximum number of bars.
    """
    options = {
        "displayMode": "basic",
        "minVizHeight": 24,
        "namePlacement": "left",
        "orientation": "horizontal",
        "reduceOptions": {"calcs": [], "fields": "", "limit": most, "values": True},
        "showUnfilled": True,
        "valueMode": "color",
    }
    known = {"fieldName": value, "config": {"id": "isNotNull", "options": {}}}
    steps: tuple[tuple[str, dict[str, object]], ...] = (
        ("merge", {}),
        ("filterByValue", {"filters": [known], "match": "all", "type": "include"}),
        ("sortBy", {"fields": {}, "sort": [{"field": value, "desc": True}]}),
    )
    bands = thresholds(values.bands)
    config = model.FieldConfig(color=_BY_VALUE, no_value=NO_DATA, display_name=name, thresholds=bands)
    panel = _panel("bargauge", title, queries, config, options, size=(24, 8))
    # Of this column alone: a time in another, which a link takes, would be 1.80 as well.
    panel = panel.override_by_name(value, override(unit=values.unit, decimals=values.decimals, min=values.low))
    for step, settings in steps:
        panel = panel.with_transformation(model.DataTransformerConfig(step, options=settings))
    return panel


def markdown(title: str, content: str) -> Panel:
    """Return a panel of text in Markdown."""
    return Panel().type("text").title(title).options({"mode": "markdown", "content": content}).span(24).height(9)


def _stat(
    title: str, query: str, config: model.FieldConfig, fields: str, text: Mapping[str, int] | None = None
) -> Panel:
    options = {
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": fields, "values": False},
        "textMode": "auto",
    }
    options |= {"text": text} if text else {}
    return _panel("stat", title, [query], config, options, size=(4, 4))


def _panel(
    kind: str, title: str, queries: Sequence[str], config: model.FieldConfig, options: object, *, size: tuple[int, int]
) -> Panel:
    """Return a panel with the settings that all types share. Its first query is A; `size` is width and height."""
    width, height = size
    panel = Panel().type(kind).title(title).span(width).height(height).datasource(DATASOURCE)
    for letter, query in zip(ascii_uppercase, queries, strict=False):
        panel = panel.with_target(Flux(query, letter))
    panel = panel.defaults(config).options(options)
    return panel.transformations([_WITHOUT_EMPTY_FRAMES] if kind in _MISREAD_EMPTY_FRAMES else [])

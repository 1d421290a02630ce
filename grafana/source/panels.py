"""The panels that dashboards are made of, with everything that is the same in all of them.

A panel is one call, whose `description` says what it shows and what is healthy. What only one type of panel has is
written as Grafana writes it in a dashboard's JSON.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Final

from grafana_foundation_sdk.builders.dashboard import Panel
from grafana_foundation_sdk.models import dashboard as model

from grafana.source.flux import DATASOURCE, Flux, Series
from grafana.source.values import CLEAR, GREY, PLAIN, Bands, Values, by_text, override, thresholds

NO_DATA: Final = "Nothing here in this time range: choose a longer one, or another run"
_MISREAD_EMPTY_FRAMES: Final = ("heatmap", "state-timeline", "xychart")
"""Panels that may take the empty frame that stands for no data for data."""
_WITHOUT_EMPTY_FRAMES: Final = model.DataTransformerConfig("filterFieldsByName", options={"include": {"pattern": ".*"}})
_LEGEND: Final = {"displayMode": "list", "placement": "bottom", "calcs": []}
_ONE_VALUE: Final = {"mode": "single", "sort": "asc"}
_PALETTE: Final = model.FieldColor(model.FieldColorModeId.PALETTE_CLASSIC)
_BY_VALUE: Final = model.FieldColor(model.FieldColorModeId.THRESHOLDS)


Colours = Mapping[str, object]
"""The colours of a heatmap, the same whatever it shows: the values at its ends, and a colour scheme of d3."""
ZERO_TO_ONE: Final = {"min": 0, "max": 1, "scheme": "Viridis", "reverse": False}
SIGNED: Final = {"min": -1, "max": 1, "scheme": "RdBu", "reverse": True}
PARTS: Final = {"min": 0, "max": 0.25, "scheme": "Viridis", "reverse": False}


def time_series(
    title: str, series: Series, values: Values = PLAIN, *, size: tuple[int, int] = (12, 8), show_points: str = "auto"
) -> Panel:
    """Return a panel of series over time.

    Args:
        title: of the panel.
        series: what is shown.
        values: how. With a logarithmic axis it says nothing where there is no data: it would say so at each line that
            has no number.
        size: width, of 24, and height.
        show_points: `auto` or `never`.
    """
    custom: dict[str, object] = {"lineWidth": 1, "fillOpacity": 0, "showPoints": show_points, "pointSize": 4}
    if values.bands:
        custom["thresholdsStyle"] = {"mode": "line" if values.bands[0][1] == CLEAR else "line+area"}
    if values.logarithmic:
        custom["scaleDistribution"] = {"type": "log", "log": 10}
    no_value = None if values.logarithmic else NO_DATA
    config = values.config(display_name=series.name or None, color=_PALETTE, no_value=no_value, custom=custom)
    options = {"legend": _LEGEND | {"showLegend": True}, "tooltip": {"mode": "multi", "sort": "desc"}}
    return _panel("timeseries", title, [series.query], config, options, size=size).max_data_points(600)


def heatmap(title: str, query: str, colours: Colours, axis: str) -> Panel:
    """Return a heatmap of ready cells: a row for each series, in the order of their names.

    Args:
        title: of the panel.
        query: in Flux; each of its tables is a row.
        colours: of the values.
        axis: what a row is.
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


def state_timeline(title: str, series: Series, bands: Bands) -> Panel:
    """Return a panel with a bar for each series, coloured by its value. For the arguments see `time_series`."""
    config = Values(decimals=2, bands=bands).config(
        display_name=series.name, color=_BY_VALUE, no_value=NO_DATA, custom={"lineWidth": 0, "fillOpacity": 80}
    )
    options = {
        "alignValue": "left",
        "legend": _LEGEND | {"showLegend": False},
        "mergeValues": True,
        "rowHeight": 0.9,
        "showValue": "never",
        "tooltip": _ONE_VALUE,
    }
    return _panel("state-timeline", title, [series.query], config, options, size=(24, 8)).max_data_points(150)


def stat(title: str, query: str, values: Values) -> Panel:
    """Return a panel of one number, 0 or more, coloured by its value; grey where there is none.

    Args:
        title: of the panel.
        query: in Flux, for one number.
        values: how it is shown; the first of its bands begins at 0.
    """
    bands = [(None, GREY), *((0 if value is None else value, colour) for value, colour in values.bands)]
    config = dataclasses.replace(values, bands=bands).config(color=_BY_VALUE, no_value="–")
    return _stat(title, query, config, "")


def text_stat(title: str, query: str, colours: Mapping[str, str]) -> Panel:
    """Return a panel of one word, each in its colour. For the other arguments see `time_series`."""
    config = model.FieldConfig(color=_BY_VALUE, no_value="–", mappings=[by_text(colours)])
    return _stat(title, query, config, "/.*/")


def xy_chart(title: str, query: str, x: str) -> Panel:
    """Return the columns of one table over one of them, `x`; the title says what they are. See `time_series`."""
    size = {"fixed": 3, "min": 1, "max": 20}
    custom = {"axisLabel": title.lower(), "label": "auto", "lineWidth": 1, "pointSize": size, "show": "points+lines"}
    config = model.FieldConfig(color=_PALETTE, no_value=NO_DATA, custom=custom)
    options = {
        "dims": {"frame": 0, "x": x},
        "legend": _LEGEND | {"showLegend": True},
        "series": [],
        "seriesMapping": "auto",
        "tooltip": _ONE_VALUE,
    }
    panel = _panel("xychart", title, [query], config, options, size=(12, 9))
    return panel.override_by_name(x, override(custom__axisLabel=x))


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
        title: of the panel.
        queries: in Flux. What several give is merged by the columns that they share.
        columns: the first ones, in this order; InfluxDB orders them by name.
        names: of columns that are shown under another name.
        height: of the panel.
        no_value: what stands there without a row.
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


def markdown(title: str, content: str) -> Panel:
    """Return a panel of text in Markdown."""
    return Panel().type("text").title(title).options({"mode": "markdown", "content": content}).span(24).height(9)


def _stat(title: str, query: str, config: model.FieldConfig, fields: str) -> Panel:
    options = {
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": fields, "values": False},
        "textMode": "auto",
    }
    return _panel("stat", title, [query], config, options, size=(4, 4))


def _panel(
    kind: str, title: str, queries: Sequence[str], config: model.FieldConfig, options: object, *, size: tuple[int, int]
) -> Panel:
    """Return a panel with what all types have; of its queries the first is A, and its size is width and height."""
    width, height = size
    panel = Panel().type(kind).title(title).span(width).height(height).datasource(DATASOURCE)
    for letter, query in zip(ascii_uppercase, queries, strict=False):
        panel = panel.with_target(Flux(query, letter))
    panel = panel.defaults(config).options(options)
    return panel.transformations([_WITHOUT_EMPTY_FRAMES] if kind in _MISREAD_EMPTY_FRAMES else [])

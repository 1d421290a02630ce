"""The panels that dashboards are made of, with everything that is the same in all of them. A panel is one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from grafana_foundation_sdk.builders import common, heatmap, stat, statetimeline, table, text, timeseries, xychart
from grafana_foundation_sdk.builders.dashboard import FieldColor, ThresholdsConfig
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    GraphTresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    ScaleDistribution,
    SortOrder,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode, HeatmapColorScale
from grafana_foundation_sdk.models.text import TextMode
from grafana_foundation_sdk.models.xychart import ScatterShow, SeriesMapping

from grafana.source.flux import DATASOURCE, Flux

NO_DATA: Final = "Nothing here in this time range: choose a longer one, or another run"
GREEN: Final = "green"
YELLOW: Final = "yellow"
RED: Final = "red"
BLUE: Final = "blue"
GREY: Final = "text"
CLEAR: Final = "transparent"
HEATMAP_POINTS: Final = 250
"""Cells of a heatmap side by side: more are narrower than one can see, and slow."""
LINE_POINTS: Final = 600
STATE_POINTS: Final = 150
_COLOURS: Final = 64
_SHOW_ZEROS: Final = -1e6
"""A heatmap hides what is not above this."""

_WITHOUT_EMPTY_FRAMES: Final = DataTransformerConfig(
    id_val="filterFieldsByName", options={"include": {"pattern": ".*"}}
)
"""Leaves out the empty frame that stands for no data, which a panel may take for data."""

Band = tuple[float | None, str]
"""From which value on (None: from the lowest), and the colour."""
Bands = Sequence[Band]
_P = TypeVar("_P", timeseries.Panel, heatmap.Panel, stat.Panel, statetimeline.Panel, xychart.Panel, table.Panel)


def limit(value: float) -> Bands:
    """Return the bands of something that should stay below a value: a red line there."""
    return ((None, CLEAR), (value, RED))


def graded(yellow: float, red: float) -> Bands:
    """Return the bands of something that gets worse as it grows: green, yellow from a value on, then red."""
    return ((None, GREEN), (yellow, YELLOW), (red, RED))


SCORES: Final = graded(0.8, 1)


def thresholds(bands: Bands) -> ThresholdsConfig:
    """Return colours by value."""
    steps = [Threshold(value=value, color=colour) for value, colour in bands]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def by_text(colours: Mapping[str, str]) -> ValueMap:
    """Return colours by text."""
    return ValueMap(
        {name: ValueMappingResult(color=colour, index=i) for i, (name, colour) in enumerate(colours.items())}
    )


def fixed(colour: str) -> DynamicConfigValue:
    """Return a colour for an override."""
    return DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})


def column(**properties: object) -> list[DynamicConfigValue]:
    """Return the properties of an override, such as of a table's column; in names `__` stands for a dot."""
    return [DynamicConfigValue(key.replace("__", "."), value) for key, value in properties.items()]


@dataclass(frozen=True)
class Scale:
    """The colours of a heatmap, the same whatever it shows.

    Attributes:
        low, high: the values at its ends.
        scheme: the name of a colour scheme of d3.
        reverse: whether the scheme is reversed.
    """

    low: float
    high: float
    scheme: str
    reverse: bool = False


SHARE: Final = Scale(0, 1, "Viridis")
SIGNED: Final = Scale(-1, 1, "RdBu", reverse=True)
PARTS: Final = Scale(0, 0.25, "Viridis")


def lines(  # noqa: PLR0913 - a panel is one call
    title: str,
    description: str,
    query: str,
    name: str = "",
    unit: str = "short",
    *,
    low: float | None = None,
    high: float | None = None,
    decimals: int | None = None,
    bands: Bands = (),
    logarithmic: bool = False,
) -> timeseries.Panel:
    """Return a panel of series over time.

    Args:
        title: of the panel.
        description: what it shows, and what is healthy.
        query: in Flux; each of its tables is a series.
        name: of a series, in terms of its labels.
        unit: of the values; a name of Grafana's.
        low, high: the ends of the axis; Grafana's choice where None.
        decimals: of the values; Grafana's choice where None.
        bands: areas coloured by value, with lines at their ends; lines alone where the lowest is clear.
        logarithmic: whether the axis is. It then says nothing where there is no data: it would say so at each line
            that has no number.
    """
    panel = (
        _panel(timeseries.Panel(), title, description, query, no_value="" if logarithmic else NO_DATA)
        .max_data_points(LINE_POINTS)
        .unit(unit)
        .color_scheme(FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
        .line_width(1)
        .fill_opacity(0)
        .show_points(VisibilityMode.AUTO)
        .point_size(4)
        .legend(_legend().show_legend(True))
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )
    if name:
        panel = panel.display_name(name)
    if low is not None:
        panel = panel.min(low)
    if high is not None:
        panel = panel.max(high)
    if decimals is not None:
        panel = panel.decimals(decimals)
    if bands:
        clear = bands[0][1] == CLEAR
        mode = GraphTresholdsStyleMode.LINE if clear else GraphTresholdsStyleMode.LINE_AND_AREA
        style = common.GraphThresholdsStyleConfig().mode(mode)
        panel = panel.thresholds(thresholds(bands)).thresholds_style(style)
    if logarithmic:
        panel = panel.scale_distribution(common.ScaleDistributionConfig().type(ScaleDistribution.LOG).log(10))
    return panel


def cells(title: str, description: str, query: str, scale: Scale, axis: str) -> heatmap.Panel:
    """Return a heatmap of ready cells: a row for each series, in the order of their names.

    Args:
        title, description: see `lines`.
        query: in Flux; each of its tables is a row.
        scale: of the colours.
        axis: what a row is.
    """
    colour = (
        heatmap.HeatmapColorOptions()
        .mode(HeatmapColorMode.SCHEME)
        .scheme(scale.scheme)
        .reverse(scale.reverse)
        .scale(HeatmapColorScale.LINEAR)
        .fill("dark-orange")
        .exponent(0.5)
        .steps(_COLOURS)
        .min(scale.low)
        .max(scale.high)
    )
    return (
        _panel(heatmap.Panel(), title, description, query, span=8, height=9)
        .max_data_points(HEATMAP_POINTS)
        .calculate(False)
        .color(colour)
        .filter_values(heatmap.FilterValueRange().le(_SHOW_ZEROS))
        .cell_gap(0)
        .cell_values(heatmap.CellValues().unit("short").decimals(3))
        .y_axis(heatmap.YAxisConfig().axis_label(axis).unit("short"))
        .rows_frame(heatmap.RowsHeatmapOptions().value("mean activation"))
        .show_value(VisibilityMode.NEVER)
        .show_legend()
        .show_tooltip()
        .with_transformation(_WITHOUT_EMPTY_FRAMES)
    )


def states(title: str, description: str, query: str, name: str, bands: Bands) -> statetimeline.Panel:
    """Return a panel with a bar for each series, coloured by its value. For the arguments see `lines`."""
    return (
        _panel(statetimeline.Panel(), title, description, query, span=24)
        .max_data_points(STATE_POINTS)
        .display_name(name)
        .unit("short")
        .decimals(2)
        .color_scheme(_BY_VALUE)
        .thresholds(thresholds(bands))
        .merge_values(True)
        .show_value(VisibilityMode.NEVER)
        .row_height(0.9)
        .line_width(0)
        .fill_opacity(80)
        .legend(_legend())
        .tooltip(_SINGLE)
        .with_transformation(_WITHOUT_EMPTY_FRAMES)
    )


def number(
    title: str, description: str, query: str, unit: str, bands: Bands, *, decimals: int | None = None
) -> stat.Panel:
    """Return a panel of one number, 0 or more, coloured by its value; grey where there is none. See `lines`.

    Args:
        title, description, query, unit, decimals: see `lines`.
        bands: the first begins at 0.
    """
    colours = [(None, GREY), *((0 if value is None else value, colour) for value, colour in bands)]
    panel = _stat(title, description, query, "").unit(unit).thresholds(thresholds(colours))
    return panel if decimals is None else panel.decimals(decimals)


def word(title: str, description: str, query: str, colours: Mapping[str, str]) -> stat.Panel:
    """Return a panel of one word, each in its colour. For the other arguments see `lines`."""
    return _stat(title, description, query, "/.*/").mappings([by_text(colours)])


def over(title: str, description: str, query: str, x: str) -> xychart.Panel:
    """Return the columns of one table over one of them, `x`; the title says what they are. See `lines`."""
    return (
        _panel(xychart.Panel(), title, description, query, height=9)
        .color_scheme(FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
        .axis_label(title.lower())
        .override_by_name(x, column(custom__axisLabel=x))
        .show(ScatterShow.POINTS_AND_LINES)
        .line_width(1)
        .point_size(common.ScaleDimensionConfig().fixed(3).min(1).max(20))
        .series_mapping(SeriesMapping.AUTO)
        .dims(xychart.XYDimensionConfig().frame(0).x(x))
        .legend(_legend().show_legend(True))
        .tooltip(_SINGLE)
        .with_transformation(_WITHOUT_EMPTY_FRAMES)
    )


def rows(title: str, description: str, *queries: str, height: int = 10, no_value: str = NO_DATA) -> table.Panel:
    """Return a table. What several queries give is merged by the columns that they share. See `lines`."""
    return (
        _panel(table.Panel(), title, description, *queries, span=24, height=height, no_value=no_value)
        .show_header(True)
        .color_scheme(_BY_VALUE)
        .thresholds(thresholds([(None, GREY)]))
        .override_by_regexp(".*", column(noValue="–"))
    )


def words(title: str, content: str) -> text.Panel:
    """Return a panel of text in Markdown."""
    return text.Panel().title(title).mode(TextMode.MARKDOWN).content(content).span(24).height(9)


def _stat(title: str, description: str, query: str, fields: str) -> stat.Panel:
    return (
        _panel(stat.Panel(), title, description, query, span=4, height=4, no_value="–")
        .color_scheme(_BY_VALUE)
        .graph_mode(BigValueGraphMode.NONE)
        .color_mode(BigValueColorMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields(fields).values(False))
    )


def _panel(
    panel: _P,
    title: str,
    description: str,
    *queries: str,
    span: int = 12,
    height: int = 8,
    no_value: str = NO_DATA,
) -> _P:
    """Return the panel with what all panels have; of its queries the first is A."""
    panel = panel.title(title).description(description).datasource(DATASOURCE).span(span).height(height)
    for letter, query in zip("ABCDEFGHIJ", queries, strict=False):
        panel = panel.with_target(Flux(query, letter))
    return panel.no_value(no_value) if no_value else panel


def _legend() -> common.VizLegendOptions:
    return common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)


_SINGLE: Final = common.VizTooltipOptions().mode(TooltipDisplayMode.SINGLE)
_BY_VALUE: Final = FieldColor().mode(FieldColorModeId.THRESHOLDS)

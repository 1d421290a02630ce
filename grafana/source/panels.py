"""The panels that dashboards are made of: what is the same in all of them is said here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders import common, heatmap, stat, statetimeline, text, timeseries, xychart
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

Step = tuple[float | None, str]
"""From which value on (None: from the lowest), and the colour."""


def thresholds(*steps: Step) -> ThresholdsConfig:
    """Colours by value."""
    found = [Threshold(value=value, color=colour) for value, colour in steps]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(found)


def by_text(colours: Mapping[str, str]) -> ValueMap:
    """Colours by text."""
    found = {name: ValueMappingResult(color=colour, index=i) for i, (name, colour) in enumerate(colours.items())}
    return ValueMap(found)


def fixed(colour: str) -> DynamicConfigValue:
    """A colour of its own, for an override."""
    return DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})


@dataclass(frozen=True)
class Scale:
    """The colours of a heatmap, the same whatever is shown.

    Attributes:
        low, high: the values at its ends.
        scheme: a name of d3.
        reverse: whether it is turned round.
    """

    low: float
    high: float
    scheme: str
    reverse: bool = False


SHARE: Final = Scale(0, 1, "Viridis")
SIGNED: Final = Scale(-1, 1, "RdBu", reverse=True)
PARTS: Final = Scale(0, 0.25, "Viridis")


def lines(title: str, description: str, query: str, name: str = "", unit: str = "short") -> timeseries.Panel:
    """Series over time.

    Args:
        title, description: of the panel; the description says what is healthy.
        query: Flux.
        name: of a series, in terms of its labels.
        unit: of the values.
    """
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .with_target(Flux(query))
        .no_value(NO_DATA)
        .span(12)
        .height(8)
        .max_data_points(LINE_POINTS)
        .unit(unit)
        .color_scheme(FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
        .line_width(1)
        .fill_opacity(0)
        .show_points(VisibilityMode.AUTO)
        .point_size(4)
        .legend(legend.show_legend(True))
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )
    return panel.display_name(name) if name else panel


def banded(panel: timeseries.Panel, *steps: Step) -> timeseries.Panel:
    """With areas coloured by value, and lines at their ends; with a line alone where the lowest area is clear."""
    mode = GraphTresholdsStyleMode.LINE if steps[0][1] == CLEAR else GraphTresholdsStyleMode.LINE_AND_AREA
    style = common.GraphThresholdsStyleConfig().mode(mode)
    return panel.thresholds(thresholds(*steps)).thresholds_style(style)


def logarithmic(panel: timeseries.Panel) -> timeseries.Panel:
    """With a logarithmic scale. Its axis would show what stands for no value at each line that has no number."""
    config = panel.build().field_config
    if config is not None and config.defaults is not None:
        config.defaults.no_value = None
    return panel.scale_distribution(common.ScaleDistributionConfig().type(ScaleDistribution.LOG).log(10))


def cells(title: str, description: str, query: str, scale: Scale, axis: str) -> heatmap.Panel:
    """A heatmap of ready cells: a row for each series, in the order of their names.

    Args:
        title, description: of the panel; the description says what is healthy.
        query: Flux; each table is a row.
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
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .with_target(Flux(query))
        .no_value(NO_DATA)
        .span(8)
        .height(9)
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


def states(title: str, description: str, query: str, name: str, *bands: Step) -> statetimeline.Panel:
    """A bar for each series, coloured by its value. For the arguments see `lines` and `thresholds`."""
    return (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .with_target(Flux(query))
        .no_value(NO_DATA)
        .span(24)
        .height(8)
        .max_data_points(STATE_POINTS)
        .display_name(name)
        .unit("short")
        .decimals(2)
        .color_scheme(FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .thresholds(thresholds(*bands))
        .merge_values(True)
        .show_value(VisibilityMode.NEVER)
        .row_height(0.9)
        .line_width(0)
        .fill_opacity(80)
        .legend(common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM))
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.SINGLE))
        .with_transformation(_WITHOUT_EMPTY_FRAMES)
    )


def number(title: str, description: str, query: str, unit: str = "short", *bands: Step) -> stat.Panel:
    """One number, 0 or more, coloured by its value; grey where there is none. For the arguments see `lines`.

    Args:
        title, description, query, unit: see `lines`.
        bands: see `thresholds`; the first begins at 0.
    """
    steps = [(0 if value is None else value, colour) for value, colour in bands]
    return _stat(title, description, query, "").unit(unit).thresholds(thresholds((None, GREY), *steps))


def word(title: str, description: str, query: str, colours: Mapping[str, str]) -> stat.Panel:
    """One word, each in its colour. For the other arguments see `lines`."""
    return _stat(title, description, query, "/.*/").mappings([by_text(colours)])


def _stat(title: str, description: str, query: str, fields: str) -> stat.Panel:
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .with_target(Flux(query))
        .no_value("–")
        .span(4)
        .height(4)
        .color_scheme(FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .graph_mode(BigValueGraphMode.NONE)
        .color_mode(BigValueColorMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields(fields).values(False))
    )


def over(title: str, description: str, query: str, x: str) -> xychart.Panel:
    """The columns of one table over one of them, `x`; the title says what they are. For the arguments see `lines`."""
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    return (
        xychart.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .with_target(Flux(query))
        .no_value(NO_DATA)
        .span(12)
        .height(9)
        .color_scheme(FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
        .axis_label(title.lower())
        .override_by_name(x, column(custom__axisLabel=x))
        .show(ScatterShow.POINTS_AND_LINES)
        .line_width(1)
        .point_size(common.ScaleDimensionConfig().fixed(3).min(1).max(20))
        .series_mapping(SeriesMapping.AUTO)
        .dims(xychart.XYDimensionConfig().frame(0).x(x))
        .legend(legend.show_legend(True))
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.SINGLE))
        .with_transformation(_WITHOUT_EMPTY_FRAMES)
    )


def words(title: str, content: str) -> text.Panel:
    """Text, in Markdown."""
    return text.Panel().title(title).mode(TextMode.MARKDOWN).content(content).span(24).height(3)


def column(**properties: object) -> list[DynamicConfigValue]:
    """How a column of a table is shown; in names `__` stands for a dot."""
    return [DynamicConfigValue(key.replace("__", "."), value) for key, value in properties.items()]

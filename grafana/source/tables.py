"""Tables: what stands in them, in which order, and where their values lead."""

from __future__ import annotations

from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.builders.dashboard import FieldColor
from grafana_foundation_sdk.models.dashboard import DataTransformerConfig, FieldColorModeId

from grafana.source.flux import DATASOURCE, Flux
from grafana.source.panels import GREY, NO_DATA, column, thresholds


def rows(title: str, description: str, *queries: str) -> table.Panel:
    """A table. What several queries give is merged by the columns that they all have. For the arguments see `lines`."""
    panel = (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .no_value(NO_DATA)
        .span(24)
        .height(10)
        .show_header(True)
        .color_scheme(FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .thresholds(thresholds((None, GREY)))
        .override_by_regexp(".*", column(noValue="–"))
    )
    for letter, query in zip("ABCDEFGHIJ", queries, strict=False):
        panel = panel.with_target(Flux(query, letter))
    return panel


def ordered(panel: table.Panel, *names: str) -> table.Panel:
    """With these columns first, in this order; InfluxDB orders them by name."""
    options = {"indexByName": {name: number for number, name in enumerate(names)}}
    return panel.with_transformation(DataTransformerConfig(id_val="organize", options=options))


def link(title: str, url: str) -> dict[str, object]:
    """A link of a value to an address."""
    return {"title": title, "url": url, "targetBlank": False}

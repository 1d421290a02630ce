"""How values are shown in panels: units, axes and colours, and overrides for a single series or column."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

from grafana_foundation_sdk.models import dashboard as model

from gatewatch.collector.cells import GATES

GREEN: Final = "green"
YELLOW: Final = "yellow"
RED: Final = "red"
GREY: Final = "#8e8e8e"
"""Of what says nothing about the health of a run."""
CLEAR: Final = "transparent"
Mappings = list[model.ValueMap | model.RangeMap | model.RegexMap | model.SpecialValueMap]
Bands = Sequence[tuple[float | None, str]]
"""Pairs of a value (None: the lowest) and the colour from that value on."""


def limit(value: float) -> Bands:
    """Return the bands of something that should stay below a value: a red line there."""
    return ((None, CLEAR), (value, RED))


def graded(yellow: float, red: float) -> Bands:
    """Return the bands of something that gets worse as it grows: green, yellow from a value on, then red."""
    return ((None, GREEN), (yellow, YELLOW), (red, RED))


def grey_without(bands: Bands) -> Bands:
    """Return the bands of a number that is 0 or more; where there is none, it is grey."""
    return [(None, GREY), *((0 if value is None else value, colour) for value, colour in bands)]


@dataclasses.dataclass(frozen=True)
class Values:
    """How the values of a panel are shown.

    Attributes:
        unit: the name of a unit in Grafana.
        low, high: the ends of the axis; Grafana's choice where None.
        soft_high: where the axis ends as long as no value is larger; Grafana ends it at 100 where all values are 0.
        decimals: Grafana's choice where None.
        bands: areas coloured by value, with lines at their ends; lines alone where the lowest is clear.
        logarithmic: whether the axis is.
    """

    unit: str = "short"
    low: float | None = None
    high: float | None = None
    soft_high: float | None = None
    decimals: int | None = None
    bands: Bands = ()
    logarithmic: bool = False

    def config(self, **more: Any) -> model.FieldConfig:
        """Return Grafana's field configuration for these values; `more` are further options of it."""
        return model.FieldConfig(
            unit=self.unit,
            min_val=self.low,
            max_val=self.high,
            decimals=self.decimals,
            thresholds=thresholds(self.bands) if self.bands else None,
            **more,
        )


PLAIN: Final = Values()
SCORE_BANDS: Final = graded(0.8, 1)
WORST_SCORE: Final = Values(decimals=2, bands=SCORE_BANDS)
SCORE: Final = Values(low=0, decimals=2, bands=limit(1))
SHARE: Final = Values("percentunit", low=0, high=1)


def thresholds(bands: Bands) -> model.ThresholdsConfig:
    """Return Grafana's thresholds for bands of values."""
    return model.ThresholdsConfig(model.ThresholdsMode.ABSOLUTE, [model.Threshold(*band) for band in bands])


def by_text(colours: Mapping[str, str]) -> Mappings:
    """Return the value mappings that give each text its colour."""
    ordered = enumerate(colours.items())
    return [model.ValueMap({name: model.ValueMappingResult(color=colour, index=i) for i, (name, colour) in ordered})]


def by_pattern(colours: Mapping[str, str]) -> Mappings:
    """Return the value mappings that give a text the colour of the first pattern that matches it.

    Args:
        colours: regular expression → colour. What its first group matches is shown.
    """
    return [
        model.RegexMap(
            model.DashboardRegexMapOptions(pattern, model.ValueMappingResult(text="$1", color=colour, index=i))
        )
        for i, (pattern, colour) in enumerate(colours.items())
    ]


def fixed(colour: str) -> dict[str, str]:
    """Return a colour that does not depend on the value, for `override`."""
    return {"mode": "fixed", "fixedColor": colour}


def override(**properties: object) -> list[model.DynamicConfigValue]:
    """Return the overridden properties of one series or column; in names `__` stands for a dot."""
    return [model.DynamicConfigValue(name.replace("__", "."), value) for name, value in properties.items()]


def gate_colours(name: str = "{gate}") -> list[tuple[str, list[model.DynamicConfigValue]]]:
    """Return pairs of a regular expression and an override: each gate has its colour, in every panel.

    Args:
        name: a regular expression for the names of the series, in which `{gate}` stands for the gate.
    """
    return [(name.format(gate=gate), override(color=fixed(GATES[gate].colour))) for gate in GATES]


HIDDEN: Final = override(custom__hidden=True)
"""A column of a table that is read by links alone."""
HIDDEN_IN_LEGEND: Final = override(custom__hideFrom={"legend": True, "tooltip": False, "viz": False})

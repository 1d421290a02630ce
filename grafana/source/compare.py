"""Compare: two runs at the same step, whenever and however fast each of them went."""

from __future__ import annotations

from typing import Any, Final

from grafana_foundation_sdk.builders.dashboard import Panel

from gatewatch.collector.schema import GATE_STATS, LAYER_UPDATES
from grafana.source import logged, variables
from grafana.source.board import board
from grafana.source.compare_queries import APART, both, by_step, difference, metric_by_step
from grafana.source.flux import chosen, one_of
from grafana.source.panels import table, text_stat, trend
from grafana.source.queries import STATES
from grafana.source.values import (
    GREEN,
    GREY,
    PLAIN,
    RED,
    WORST_SCORE,
    YELLOW,
    Values,
    by_text,
    grey_without,
    override,
    thresholds,
)

_COLOURS: Final = {"1: ": "blue", "2: ": "orange", "Neither": GREY}
_SHARE: Final = Values("percentunit")
"""Without ends: Grafana would give them to the steps too."""


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    return board(
        "Compare",
        "Two runs at the same step. Each is looked at from its beginning to its end, whatever the time range is.",
        [
            variables.run(),
            variables.other_run(),
            variables.phase(),
            variables.layer(),
            variables.gate(),
        ],
        [_difference(), _both(), *_charts()],
        refresh="",
    )


def _difference() -> Panel:
    colours = {f"^(.*{APART})$": YELLOW, "^(.*anomalous from .*)$": RED, "^(Neither is anomalous)$": GREEN}
    return (
        text_stat("What tells them apart", difference(), colours, patterns=True)
        .description(
            "Which of the two has a score above 1, and from which step on: look at the charts there. "
            "Healthy: neither is anomalous, and they have the same layers."
        )
        .span(24)
        .height(3)
    )


def _both() -> Panel:
    """Return the table of the two runs: how they ended, and in which layers they differ."""
    coloured = override(
        thresholds=thresholds(grey_without(WORST_SCORE.bands)), custom__displayMode="color-text", decimals=2
    )
    return (
        table(
            "The two runs",
            *both(),
            columns=["run", "state", "step", "worst score", "layers", "not in the other"],
            height=5,
        )
        .description(
            "How far each came, how it ended and its largest anomaly score. Healthy: scores up to 1, the same layers: "
            "a layer that only one of them has cannot be compared."
        )
        .override_by_name("state", override(mappings=by_text(STATES), custom__displayMode="color-text"))
        .override_by_name("worst score", coloured)
    )


def _charts() -> list[Panel]:
    same = " Over the step, not over time. Healthy: the same course. Where they part, look at what differs there."
    gate = (chosen("phase"), chosen("layer"), chosen("gate"))
    param = (chosen("phase"), chosen("layer"), one_of("param", "recurrent"))
    of_gate, of_layer = "${gate:text} in ${layer:text}", "${layer:text}"
    ends = f"Share of the gate's activations at its {{}} end.{same}"
    small = Values("sci", decimals=1, logarithmic=True)
    fields = (
        (f"Mean of {of_gate}", f"Mean activation of the gate.{same}", GATE_STATS, "mean", gate, PLAIN),
        (f"Spread of {of_gate}", f"Standard deviation of its activations.{same}", GATE_STATS, "std", gate, PLAIN),
        (f"Fully open: {of_gate}", ends.format("high"), GATE_STATS, "saturated_high", gate, _SHARE),
        (f"Fully shut: {of_gate}", ends.format("low"), GATE_STATS, "saturated_low", gate, _SHARE),
        (
            f"Gradient norm of {of_layer}",
            f"Of the recurrent weights, before clipping.{same}",
            LAYER_UPDATES,
            "gradient_norm",
            param,
            small,
        ),
        (
            f"Update ratio of {of_layer}",
            f"How far a step moves the recurrent weights, relative to their size.{same}",
            LAYER_UPDATES,
            "update_ratio",
            param,
            small,
        ),
    )
    metrics = (
        ("Loss", f"The training loss of both runs.{same}", logged.LOSS),
        ("Validation loss", "Of both runs, over the step. Healthy: not above the other.", logged.VALIDATION_LOSS),
        ("Reward", "What each policy earns, over the step. Healthy: not below the other.", logged.REWARD),
    )
    return [
        *(
            trend(title, metric_by_step(which, title.lower()), _COLOURS, size=(8, 9)).description(text)
            for title, text, which in metrics
        ),
        *(
            trend(title, by_step(source, one_of("_field", field), *where), _COLOURS, values).description(text)
            for title, text, source, field, where, values in fields
        ),
    ]

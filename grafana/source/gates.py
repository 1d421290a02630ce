"""Gates: what the memory of one layer does, unit by unit and bar by bar."""

from __future__ import annotations

from typing import Any, Final

from grafana_foundation_sdk.builders.timeseries import Panel
from grafana_foundation_sdk.models.common import VisibilityMode

from gatewatch.collector.cells import MEMORY_GATES
from gatewatch.collector.schema import GATE_DERIVED, GATE_STATS
from grafana.source import variables
from grafana.source.board import Section, board
from grafana.source.flux import chosen, pattern
from grafana.source.links import GATES
from grafana.source.panels import (
    GREEN,
    PARTS,
    RED,
    SCORES,
    SHARE,
    SIGNED,
    YELLOW,
    cells,
    column,
    fixed,
    graded,
    limit,
    lines,
    number,
    word,
)
from grafana.source.queries import OF_LAYER, STATES, derived, histogram, last_value, series, state, units, worst_score

_KEEPS: Final = f"r.gate =~ {pattern(*sorted(MEMORY_GATES))}"
_ANY_GATE: Final = "(r.gate =~ /^${gate:regex}$/ or r.gate =~ /^${state:regex}$/)"
_CELL: Final = " Of the cell state it is the tanh of the mean, which is what the output gate lets through."
_VARIABLES: Final = (
    ("gate", chosen("gate"), SHARE, ""),
    ("state", chosen("gate", "state"), SIGNED, _CELL),
)
"""The variables that panels are repeated by: the condition on the tag, the scale, what the description adds."""


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    chosen_layer = [variables.tag(), variables.value(), variables.run(), variables.phase(), variables.layer()]
    return board(
        GATES,
        "Gates",
        "What the memory of one layer does: every gate, unit by unit, over time.",
        [*chosen_layer, variables.sigmoid_gates(), variables.states()],
        [
            Section("", _summary()),
            Section("Unit by unit", _units()),
            Section("Mean, and where nine tenths of the activations lie", _bands()),
            Section("Position in the sequence", _positions()),
            Section("Distribution", _distributions()),
            Section("Saturation and memory", _memory()),
        ],
    )


def _summary() -> list[Any]:
    return [
        word(
            "Run",
            "Live while it is heard of every 30 s; died: silent for 2 min without an end. Healthy: live or completed.",
            state(),
            STATES,
        ),
        number(
            "Keeps of its memory",
            "Mean of the gate that keeps the state (LSTM: forget, GRU: update), newest capture. Healthy: 0.2 to 0.98, "
            "and steady. Near 0 each bar erases what came before; near 1 nothing is forgotten.",
            last_value(GATE_STATS, "mean", *OF_LAYER, _KEEPS),
            "percentunit",
            ((None, RED), (0.05, YELLOW), (0.2, GREEN), (0.98, YELLOW), (0.995, RED)),
            decimals=1,
        ),
        number(
            "Remembers for",
            "Memory timescale in steps of the input, −1 / ln(mean keep gate). Healthy: as long as what the strategy "
            "looks for takes. A fresh Keras LSTM begins near 3.",
            last_value(GATE_DERIVED, "memory_timescale", *OF_LAYER),
            "suffix: bars",
            (),
            decimals=1,
        ),
        number(
            "Stuck, worst gate",
            "Share of activations fully open or shut, of the gate where it is largest. No gradient passes there. "
            "Healthy: below 60 %, and steady.",
            last_value(GATE_DERIVED, "saturation", *OF_LAYER),
            "percentunit",
            graded(0.6, 0.9),
            decimals=0,
        ),
        number(
            "Dead units",
            "Share of the layer's units that do nothing. Healthy: near 0; above half the layer is too large or broken.",
            last_value(GATE_DERIVED, "dead_share", *OF_LAYER),
            "percentunit",
            graded(0.25, 0.5),
        ),
        number(
            "Worst score",
            "Largest anomaly score of this layer in the time range. Healthy: up to 1. Above: open Anomalies.",
            worst_score(*OF_LAYER),
            "short",
            SCORES,
            decimals=2,
        ),
    ]


def _units() -> list[Any]:
    healthy = (
        "Mean activation of each unit (or group of neighbouring units). Healthy: rows that differ, and change slowly. "
        "Every row dark at once: the gate has shut; every row bright: it is stuck open; a stripe: a jump."
    )
    return [
        cells(f"${{{variable}:text}}", healthy + note, units("gate_units", "u", where), scale, "unit").repeat(variable)
        for variable, where, scale, note in _VARIABLES
    ]


def _positions() -> list[Any]:
    healthy = (
        "Mean activation at each position of the input sequence, the oldest bar first. Healthy: a gentle course along "
        "the sequence. The same at every position: the gate does not follow its input; only the last rows differ: "
        "older bars do not matter."
    )
    return [
        cells(
            f"${{{variable}:text}}, by position", healthy + note, units("gate_time", "t", where), scale, "position"
        ).repeat(variable)
        for variable, where, scale, note in _VARIABLES
    ]


def _distributions() -> list[Any]:
    healthy = (
        "How the activations spread over the gate's scale, from its low end (bottom) to its high end. The colour is "
        "the share in each twentieth; a quarter and more is the brightest. Healthy: a broad hill. All in the lowest "
        "or the highest row: saturated."
    )
    return [
        cells(f"${{{variable}:text}}, distribution", healthy, histogram(where), PARTS, "of its scale").repeat(variable)
        for variable, where, _, _ in _VARIABLES
    ]


def _bands() -> list[Any]:
    healthy = "The mean and, shaded, the 5th to the 95th percentile. Healthy: a band with some width, moving slowly. "
    return [
        _band("gate", f"{healthy}Below 0.1 or above 0.9 activations are saturated.").min(0).max(1),
        _band("state", f"{healthy}Beyond ±0.9 activations are saturated (a cell state beyond ±1.47)."),
    ]


def _band(variable: str, description: str) -> Panel:
    query = series(GATE_STATS, ["mean", "p05", "p95"], *OF_LAYER, chosen("gate", variable), by=["_field"])
    edge = [fixed("light-blue"), *column(custom__lineWidth=0)]
    return (
        lines(f"${{{variable}:text}}, mean and band", description, query)
        .span(8)
        .repeat(variable)
        .show_points(VisibilityMode.NEVER)
        .override_by_name("mean", [fixed("blue"), *column(custom__lineWidth=2)])
        .override_by_name("p05", edge)
        .override_by_name("p95", [*edge, *column(custom__fillBelowTo="p05", custom__fillOpacity=25)])
    )


def _memory() -> list[Any]:
    ends = series(GATE_STATS, ["saturated_low", "saturated_high"], *OF_LAYER, _ANY_GATE, by=["gate", "_field"])
    return [
        lines(
            "Saturation",
            "Share of activations fully shut (low) or open (high). Healthy: steady, at any level: long memory "
            "needs an open forget gate. A jump of a large part at once is a fault.",
            ends,
            "${__field.labels.gate} ${__field.name}",
            "percentunit",
            low=0,
            high=1,
            bands=limit(0.9),
        ),
        lines(
            "Memory timescale",
            "For how many steps of the input the layer remembers. Healthy: near the strategy's horizon, and steady. "
            "Falling to 0: only the newest bar counts.",
            derived("memory_timescale", *OF_LAYER, by=["gate"]),
            "${__field.labels.gate}",
            "suffix: bars",
            low=0,
        ),
        lines(
            "Drift",
            "How far the distribution moved from that of the captures before: 0 not at all, 1 no overlap "
            "(Jensen-Shannon distance). Healthy: falling as training goes on, below 0.3 afterwards.",
            derived("drift", *OF_LAYER, _ANY_GATE, by=["gate"]),
            "${__field.labels.gate}",
            low=0,
            high=1,
        ),
        lines(
            "Effective rank of the units",
            "In how many independent directions the units of a gate move. Healthy: steady or rising. Near 1: they all "
            "do the same, and the layer acts smaller than it is.",
            derived("effective_rank", *OF_LAYER, _ANY_GATE, by=["gate"]),
            "${__field.labels.gate}",
            low=0,
        ),
    ]

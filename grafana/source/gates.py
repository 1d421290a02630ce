"""Gates: what the memory of one layer does, unit by unit and bar by bar."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from grafana_foundation_sdk.builders.dashboard import Panel

from gatewatch.collector.schema import GATE_STATS
from grafana.source import variables
from grafana.source.board import board
from grafana.source.flux import Series, chosen
from grafana.source.panels import PARTS, SIGNED, ZERO_TO_ONE, Colours, heatmap, stat, text_stat, time_series
from grafana.source.queries import OF_LAYER, STATES, derived, histogram, last_value, series, state, units, worst_score
from grafana.source.values import GREEN, RED, WORST_SCORE, YELLOW, Values, fixed, graded, limit, override

_ANY_GATE: Final = "(r.gate =~ /^${gate:regex}$/ or r.gate =~ /^${state:regex}$/)"
_CELL: Final = " Of the cell state it is the tanh of the mean, which is what the output gate lets through."


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    of_layer = [*variables.of_run(), variables.layer()]
    return board(
        "Gates",
        "What the memory of one layer does: every gate, unit by unit, over time.",
        [*of_layer, *variables.gates_and_states()],
        [
            *_summary(),
            "Unit by unit",
            *_heatmaps(
                "",
                "Mean activation of each unit (or group of neighbouring units). Healthy: rows that differ, and change "
                "slowly. Every row dark at once: the gate has shut; every row bright: it is stuck open; a stripe: a "
                "jump.",
                partial(units, "gate_units", "u"),
                "unit",
            ),
            "Mean, and where nine tenths of the activations lie",
            *_bands(),
            "Position in the sequence",
            *_heatmaps(
                ", by position",
                "Mean activation at each position of the input sequence, the oldest bar first. Healthy: a gentle "
                "course along the sequence. The same at every position: the gate does not follow its input; only the "
                "last rows differ: older bars do not matter.",
                partial(units, "gate_time", "t"),
                "position",
            ),
            "Distribution",
            *_heatmaps(
                ", distribution",
                "How the activations spread over the gate's scale, from its low end (bottom) to its high end. The "
                "colour is the share in each twentieth; a quarter and more is the brightest. Healthy: a broad hill. "
                "All in the lowest or the highest row: saturated.",
                histogram,
                "of its scale",
                PARTS,
            ),
            "Saturation and memory",
            *_memory(),
        ],
    )


def _summary() -> list[Panel]:
    kept = ((None, RED), (0.05, YELLOW), (0.2, GREEN), (0.98, YELLOW), (0.995, RED))
    return [
        text_stat("Run", state(), STATES).description(
            "Live while it is heard of every 30 s; died: silent for 2 min without an end. Healthy: live or completed."
        ),
        stat(
            "Keeps of its memory",
            last_value("mean", variables.KEEPS_MEMORY, measurement=GATE_STATS),
            Values("percentunit", decimals=1, bands=kept),
        ).description(
            "Mean of the gate that keeps the state (LSTM: forget, GRU: update), newest capture. Healthy: 0.2 to 0.98, "
            "and steady. Near 0 each bar erases what came before; near 1 nothing is forgotten."
        ),
        stat("Remembers for", last_value("memory_timescale"), Values("suffix: bars", decimals=1)).description(
            "Memory timescale in steps of the input, −1 / ln(mean keep gate). Healthy: as long as what the strategy "
            "looks for takes. A fresh Keras LSTM begins near 3."
        ),
        stat(
            "Stuck, worst gate", last_value("saturation"), Values("percentunit", decimals=0, bands=graded(0.6, 0.9))
        ).description(
            "Share of activations fully open or shut, of the gate where it is largest. No gradient passes there. "
            "Healthy: below 60 %, and steady."
        ),
        stat("Dead units", last_value("dead_share"), Values("percentunit", bands=graded(0.25, 0.5))).description(
            "Share of the layer's units that do nothing. Healthy: near 0; above half the layer is too large or broken."
        ),
        stat("Worst score", worst_score(*OF_LAYER), WORST_SCORE).description(
            "Largest anomaly score of this layer in the time range. Healthy: up to 1. Above: open Anomalies."
        ),
    ]


def _heatmaps(
    title: str, description: str, query: Callable[[str], str], axis: str, colours: Colours | None = None
) -> list[Panel]:
    """Return two heatmaps: one is repeated for each gate between 0 and 1, the other for each other state.

    Args:
        title: the part of the title after the name of the gate.
        description, axis: see `heatmap`.
        query: returns the query, from the condition that selects one gate.
        colours: colours of both; None: those for mean activations, which differ between the two.
    """
    return [
        heatmap(f"${{{variable}:text}}{title}", query(chosen("gate", variable)), colours or own, axis)
        .description(description if colours else description + note)
        .repeat(variable)
        for variable, own, note in (("gate", ZERO_TO_ONE, ""), ("state", SIGNED, _CELL))
    ]


def _bands() -> list[Panel]:
    healthy = "The mean and, shaded, the 5th to the 95th percentile. Healthy: a band with some width, moving slowly. "
    edge = override(color=fixed("light-blue"), custom__lineWidth=0)
    ends = {
        "gate": (Values(low=0, high=1), "Below 0.1 or above 0.9 activations are saturated."),
        "state": (Values(), "Beyond ±0.9 activations are saturated (a cell state beyond ±1.47)."),
    }
    return [
        time_series(
            f"${{{name}:text}}, mean and band",
            Series(series(GATE_STATS, ["mean", "p05", "p95"], *OF_LAYER, chosen("gate", name), by=["_field"]).query),
            values,
            size=(8, 8),
            show_points="never",
        )
        .description(healthy + saturated)
        .repeat(name)
        .override_by_name("mean", override(color=fixed("blue"), custom__lineWidth=2))
        .override_by_name("p05", edge)
        .override_by_name("p95", [*edge, *override(custom__fillBelowTo="p05", custom__fillOpacity=25)])
        for name, (values, saturated) in ends.items()
    ]


def _memory() -> list[Panel]:
    return [
        time_series(
            "Saturation",
            series(GATE_STATS, ["saturated_low", "saturated_high"], *OF_LAYER, _ANY_GATE, by=["gate", "_field"]),
            Values("percentunit", low=0, high=1, bands=limit(0.9)),
        ).description(
            "Share of activations fully shut (low) or open (high). Healthy: steady, at any level: long memory "
            "needs an open forget gate. A jump of a large part at once is a fault."
        ),
        time_series("Memory timescale", derived("memory_timescale"), Values("suffix: bars", low=0)).description(
            "For how many steps of the input the layer remembers. Healthy: near the strategy's horizon, and steady. "
            "Falling to 0: only the newest bar counts."
        ),
        time_series("Drift", derived("drift", _ANY_GATE), Values(low=0, high=1)).description(
            "How far the distribution moved from that of the captures before: 0 not at all, 1 no overlap "
            "(Jensen-Shannon distance). Healthy: falling as training goes on, below 0.3 afterwards."
        ),
        time_series("Effective rank of the units", derived("effective_rank", _ANY_GATE), Values(low=0)).description(
            "In how many independent directions the units of a gate move. Healthy: steady or rising. Near 1: they all "
            "do the same, and the layer acts smaller than it is."
        ),
    ]

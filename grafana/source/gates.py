"""Gates: what the memory of one layer does, unit by unit and bar by bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from grafana_foundation_sdk.builders.dashboard import Panel

from gatewatch.collector.cells import GATES
from gatewatch.collector.schema import GATE_DERIVED, GATE_STATS
from grafana.source import variables
from grafana.source.board import board, closed_row
from grafana.source.flux import Series, chosen, pattern, pipe, points, union
from grafana.source.flux_steps import group, map_to
from grafana.source.heatmap_rows import distribution, positions, units
from grafana.source.links import CHOSEN_RUN, link
from grafana.source.panels import PARTS, SIGNED, ZERO_TO_ONE, Colours, heatmap, stat, text_stat, time_series
from grafana.source.queries import OF_LAYER, derived, last_value, series
from grafana.source.summary import run_state, score_stats
from grafana.source.values import (
    GREEN,
    HIDDEN_IN_LEGEND,
    RED,
    YELLOW,
    Values,
    gate_colours,
    limit,
    override,
)

_ANY_GATE: Final = "(r.gate =~ /^${gate:regex}$/ or r.gate =~ /^${state:regex}$/)"
_CELL: Final = " Of the cell state it is the tanh of the mean, which is what the output gate lets through."
_IS_SIGMOID: Final = f"r.gate =~ {pattern(*variables.SIGMOID)}"
_STUCK: Final = (0.6, 0.9)
_STILL: Final = (0.25, 0.5)
"""Shares of activations, and of units, from which it is worth a look and from which it is wrong."""


ANOMALIES: Final = link("Since when, and why", "anomalies", **CHOSEN_RUN, layer="${layer:percentencode}")


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    return board(
        "Gates",
        "What the memory of one layer does: every gate, unit by unit, over time.",
        [*variables.of_run(), variables.layer(), *variables.gates_and_states()],
        [
            *_summary(),
            *unit_heatmaps(),
            *_bands(),
            *_memory(),
            closed_row(
                "Position in the sequence",
                *_heatmaps(
                    ", by position",
                    "Mean activation at each position of the input sequence, the oldest bar first. Healthy: a gentle "
                    "course along the sequence. The same at every position: the gate does not follow its input; only "
                    "the last rows differ: older bars do not matter.",
                    positions,
                    "",
                ),
            ),
            closed_row(
                "Distribution of the activations",
                *_heatmaps(
                    ", distribution",
                    "How the activations spread over the gate's scale, from its low end (bottom) to its high end. The "
                    "colour is the share in each twentieth; a quarter and more have one colour. Healthy: a broad "
                    "hill. All in the lowest or the highest row: saturated.",
                    distribution,
                    "of its scale",
                    PARTS,
                ),
            ),
            closed_row("Drift and rank", *_movement()),
        ],
    )


def _summary() -> list[Panel]:
    kept = ((None, RED), (0.05, YELLOW), (0.2, GREEN), (0.98, YELLOW), (0.995, RED))
    worst, since = score_stats(*OF_LAYER, links=[ANOMALIES])
    return [
        run_state(),
        worst.span(5),
        since.span(5),
        text_stat(
            "What is wrong with its units",
            _worst_of_units(),
            {"^wrong: (.*)$": RED, "^nearly: (.*)$": YELLOW, "^(nothing)$": GREEN},
            patterns=True,
        )
        .span(6)
        .description(
            "The first that holds of: a gate fully open or shut (from 90 % of its activations on, where no gradient "
            "passes), units that do nothing, and units that stand still from capture to capture (both from half of "
            "the layer on). Healthy: nothing."
        ),
        stat(
            "Memory kept",
            last_value("mean", variables.KEEPS_MEMORY, measurement=GATE_STATS),
            Values("percentunit", decimals=1, bands=kept),
        ).description(
            "Mean of the gate that keeps the state (LSTM: forget, GRU: update), newest capture. Healthy: 0.2 to 0.98, "
            "and steady. Near 0 each bar erases what came before; near 1 nothing is forgotten."
        ),
    ]


def _worst_of_units() -> str:
    """Return one text: what is most wrong with the units of the layer in the newest capture, and how many it is."""
    sigmoid, other = _IS_SIGMOID, f"r.gate !~ {pattern(*variables.SIGMOID)}"
    end = 'r.gate + " fully " + (if r._field == "saturated_low" then "shut" else "open")'
    candidates: Sequence[tuple[str, str, list[str], list[str], str, tuple[float, float]]] = (
        ("ends", GATE_STATS, ["saturated_low", "saturated_high"], [sigmoid], end, _STUCK),
        ("states", GATE_DERIVED, ["saturation"], [other], 'r.gate + " at its ends"', _STUCK),
        ("dead", GATE_DERIVED, ["dead_share"], [], '"dead units"', _STILL),
        ("frozen", GATE_DERIVED, ["frozen_units"], [], '"frozen units of " + r.gate', _STILL),
    )
    found = union(
        **{
            name: points(measurement, fields, *OF_LAYER, *where)
            + pipe(
                "last()",
                map_to(
                    f"of: {words}, share: r._value, rank: {-rank}, level: if r._value < {nearly} then 0 "
                    f"else if r._value < {wrong} then 1 else 2"
                ),
            )
            for rank, (name, measurement, fields, where, words, (nearly, wrong)) in enumerate(candidates)
        }
    )
    percent = 'string(v: int(v: r.share * 100.0 + 0.5)) + "%"'
    return found + pipe(
        "group()",
        'sort(columns: ["level", "rank", "share"], desc: true)',
        "limit(n: 1)",
        map_to(
            '_value: if r.level == 0 then "nothing" else (if r.level == 1 then "nearly: " else "wrong: ")'
            f' + r.of + ", " + {percent}'
        ),
    )


def unit_heatmaps() -> list[Panel]:
    """Return the heatmaps of each gate and state, unit by unit."""
    return _heatmaps(
        "",
        "Mean activation of each unit; past 63 units a row is a group of neighbours. Healthy: rows that differ, and "
        "change slowly. Every row at 0 at once: the gate has shut; every row at 1: it is stuck open; a stripe: a jump.",
        units,
        "",
    )


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
    healthy = (
        "The mean of each and, shaded, where nine tenths of its activations lie. Healthy: bands with some width, "
        "moving slowly. "
    )
    return [
        _band(
            "Gates, mean and band",
            "gate",
            Values(low=0, high=1),
            healthy + "Below 0.1 or above 0.9 activations are saturated.",
        ),
        _band(
            "States, mean and band",
            "state",
            Values(),
            healthy + "Beyond ±0.9 activations are saturated (a cell state beyond ±1.47).",
        ),
    ]


def _band(title: str, variable: str, values: Values, description: str) -> Panel:
    ends = 'if r._field == "mean" then "" else if r._field == "p05" then ", 5 %" else ", 95 %"'
    read = series(GATE_STATS, ["mean", "p05", "p95"], *OF_LAYER, chosen("gate", variable), by=["gate", "_field"]).query
    named = map_to(f"_time: r._time, _value: r._value, _field: r.gate + ({ends})")
    query = read + pipe(named, group("_field"))
    panel = time_series(title, Series(query, ["_field"]), values, worst="min", show_points="never")
    panel = panel.description(description)
    for name, colour in gate_colours("{gate}(, .+)?"):
        panel = panel.override_by_regexp(name, colour)
    panel = panel.override_by_regexp(".+, .+", [*override(custom__lineWidth=0), *HIDDEN_IN_LEGEND])
    for gate in GATES:
        panel = panel.override_by_name(
            f"{gate}, 95 %", override(custom__fillBelowTo=f"{gate}, 5 %", custom__fillOpacity=15)
        )
    return panel


def _memory() -> list[Panel]:
    words = (
        f'if r._field == "saturated_low" then (if {_IS_SIGMOID} then "fully shut" else "at its low end") '
        f'else (if {_IS_SIGMOID} then "fully open" else "at its high end")'
    )
    read = series(
        GATE_STATS, ["saturated_low", "saturated_high"], *OF_LAYER, _ANY_GATE, by=["gate", "_field"], worst="max"
    ).query
    named = map_to(f'_time: r._time, _value: r._value, _field: r.gate + ", " + ({words})')
    stuck = time_series(
        "Saturation",
        Series(read + pipe(named, group("_field")), ["_field"]),
        Values("percentunit", low=0, high=1, bands=limit(0.9)),
    )
    for name, colour in gate_colours("{gate}, .+"):
        stuck = stuck.override_by_regexp(name, colour)
    return [
        stuck.override_by_regexp(
            ".+ (shut|low end)", override(custom__lineStyle={"fill": "dash", "dash": [8, 4]})
        ).description(
            "Share of activations fully shut (dashed) or open; the eight largest. Healthy: steady, at any level: long "
            "memory needs an open forget gate. A jump of a large part at once is a fault."
        ),
        time_series(
            "Memory timescale", derived("memory_timescale"), Values("suffix: bars", low=0), worst="min"
        ).description(
            "For how many steps of the input the layer remembers. Healthy: near the strategy's horizon, and steady. "
            "Falling to 0: only the newest bar counts."
        ),
    ]


def _movement() -> list[Panel]:
    return [
        time_series("Drift", derived("drift", _ANY_GATE), Values(low=0, high=1)).description(
            "How far the distribution moved from that of the captures before: 0 not at all, 1 no overlap "
            "(Jensen-Shannon distance). Healthy: falling as training goes on, below 0.3 afterwards."
        ),
        time_series(
            "Effective rank of the units", derived("effective_rank", _ANY_GATE), Values(low=0), worst="min"
        ).description(
            "In how many independent directions the units of a gate move. Healthy: steady or rising. Near 1: they all "
            "do the same, and the layer acts smaller than it is."
        ),
    ]

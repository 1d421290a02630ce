"""Backtest: gates against price and position, in the time of the market."""

from __future__ import annotations

from typing import Any, Final

from grafana_foundation_sdk.builders.dashboard import Panel

from gatewatch.collector.names import MARKET_PHASES
from gatewatch.collector.schema import GATE_STATS, TRAIN_METRICS
from grafana.source import variables
from grafana.source.board import board, closed_row
from grafana.source.flux import Series, one_of, pattern, pipe, union
from grafana.source.flux_steps import group, map_to, newest, window
from grafana.source.gates import ANOMALIES, unit_heatmaps
from grafana.source.heatmap_rows import units
from grafana.source.links import THIS_RUN, THIS_TIME, link
from grafana.source.panels import ZERO_TO_ONE, heatmap, table, time_series
from grafana.source.queries import OF_LAYER, OF_RUN, derived, own_time, scores, series
from grafana.source.summary import score_stats
from grafana.source.values import GREY, HIDDEN, SCORE, SHARE, Values, fixed, gate_colours, override

IN_MARKET: Final = one_of("phase", *MARKET_PHASES)
_PRICES: Final = ("price", "close")
_LOGGED: Final = "Nothing in this time range: press “Whole run” above. Or no {} was logged"
_ON_THE_RIGHT: Final = {"custom__axisPlacement": "right", "custom__lineWidth": 2}


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    return board(
        "Backtest",
        "Gates against price and position, in the time of the market. Choose a backtest in the list: it sets the time.",
        [*variables.of_run(IN_MARKET), variables.layer(), *variables.gates_and_states()],
        [
            _choice(),
            *(panel.span(5).height(5) for panel in score_stats(*OF_LAYER, links=[ANOMALIES])),
            _against(),
            heatmap("What each unit keeps", units(variables.KEEPS_MEMORY), ZERO_TO_ONE, "")
            .description(
                "Mean of the forget gate (LSTM) or the update gate (GRU) of each unit. Healthy: rows that differ, some "
                "that answer to the market. All at 0 at once: the memory was erased there."
            )
            .span(24),
            time_series("Position and equity", _metrics("position", "equity"), worst="min")
            .description(
                "Position on the left, equity on the right. Healthy: positions that change with the market, not with "
                "every bar, and an equity that does not hang on one of them."
            )
            .override_by_name("position", override(color=fixed("orange")))
            .override_by_name("equity", override(**_ON_THE_RIGHT, color=fixed("blue")))
            .no_value(f"{_LOGGED.format('position or equity')}"),
            time_series(
                "Anomaly score", Series(scores(*OF_LAYER) + window("max", "gate"), ["gate"]), SCORE, grey_below=0.8
            ).description(
                "By gate of the layer, in market time. Grey: never above 0.8. Healthy: up to 1, the red line."
            ),
            time_series("Stuck", derived("saturation"), SHARE).description(
                "Share of activations fully open or shut, by gate. Healthy: steady. Rising towards a drawdown: the "
                "market left what the network was trained on."
            ),
            time_series("Answer to volatility", derived("regime_sensitivity"), Values(low=-1, high=1))
            .description(
                "Rank correlation of each gate's mean with the price's volatility over the last 64 captures: −1 it "
                "shuts as the market gets wild, 1 it opens. Healthy: not all near 0. It needs a logged `price`."
            )
            .no_value(f"{_LOGGED.format('price')}; it takes 64 captures"),
            closed_row("Every gate, unit by unit", *unit_heatmaps()),
        ],
        since="now-5y",
        refresh="",
    )


def _choice() -> Panel:
    bars = (
        'run: r.run, phase: r.phase, bars: r.step + 1, "first bar": r.begin, "last bar": r.end, from: r.from, to: r.to'
    )
    query = own_time(IN_MARKET) + pipe(newest(100, "end"), map_to(bars))
    return (
        table(
            "Choose a backtest",
            query,
            columns=["run", "phase", "bars", "first bar", "last bar"],
            height=5,
            no_value="No backtest and no live run has been watched yet",
        )
        .description(
            "Click one: the time range becomes its own, in market time. Healthy: as many bars as were to be walked."
        )
        .override_by_name("run", override(links=[link("Show it, in its own time", "backtest", THIS_TIME, **THIS_RUN)]))
        .span(14)
        .override_by_name("run", override(custom__minWidth=140))
        .override_by_name("phase", override(custom__width=85))
        .override_by_name("bars", override(custom__width=80))
        .override_by_name("first bar", override(custom__width=170))
        .override_by_name("last bar", override(custom__width=170))
        .override_by_name("from", HIDDEN)
        .override_by_name("to", HIDDEN)
    )


def _metrics(*fields: str) -> Series:
    return series(TRAIN_METRICS, fields, *OF_RUN, fn="last", by=["_field"])


def _against() -> Panel:
    gates = series(GATE_STATS, ["mean"], *OF_LAYER, f"r.gate =~ {pattern(*variables.SIGMOID)}", by=["gate"]).query
    renamed = map_to('_time: r._time, _value: r._value, _field: r.gate + " gate"')
    query = union(told=_metrics(*_PRICES, "position").query, gates=gates + pipe(renamed, group("_field")))
    panel = time_series("Gates against price and position", Series(query, ["_field"]), size=(24, 10)).description(
        "Mean of the layer's gates and the position (left), and the price (right). Healthy: gates that answer to "
        "regimes. One that stands still while the market turns is not used; a forget gate that shuts in a fall "
        "forgets what came before it."
    )
    price = override(**_ON_THE_RIGHT, unit="short", color=fixed(GREY))
    position = override(custom__fillOpacity=15, custom__lineWidth=0, color=fixed("orange"))
    for name, colour in gate_colours("{gate} gate"):
        panel = panel.override_by_regexp(name, colour)
    return panel.override_by_regexp("^(price|close)$", price).override_by_name("position", position)

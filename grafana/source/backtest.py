"""Backtest: gates against price and position, in the time of the market."""

from __future__ import annotations

from typing import Any, Final

from gatewatch.collector.cells import MEMORY_GATES
from gatewatch.collector.schema import GATE_SCORES, GATE_STATS, TRAIN_METRICS
from grafana.source import variables
from grafana.source.board import Section, board
from grafana.source.flux import chosen, flux, newest, one_of, pattern, pipe, points
from grafana.source.links import BACKTEST, dashboard_url
from grafana.source.panels import SHARE, cells, column, fixed, limit, lines, rows
from grafana.source.queries import CONSENSUS, OF_LAYER, derived, series, units
from grafana.source.tables import HIDDEN, link, linked, ordered

IN_MARKET: Final = one_of("phase", "backtest", "live")
_KEEPS: Final = f"r.gate =~ {pattern(*sorted(MEMORY_GATES))}"
_RUN: Final = (chosen("run"), chosen("phase"))
_PRICES: Final = ("price", "close")


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    run = variables.run(phase=IN_MARKET)
    return board(
        BACKTEST,
        "Backtest",
        "Gates against price and position, in the time of the market. Choose a backtest in the list: it sets the time.",
        [variables.tag(), variables.value(), run, variables.phase(), variables.layer()],
        [
            Section("", [_choice(), _price(), _position(), _against()]),
            Section("Memory in the market", [_units(), _saturation(), _regime(), _scores()]),
        ],
        since="now-5y",
        refresh="",
    )


def _choice() -> Any:
    steps = points(GATE_STATS, ["step"], IN_MARKET, start="0", stop="")
    query = flux(
        f"begun = {steps}",
        pipe("first()"),
        f"ended = {steps}",
        pipe("last()"),
        "union(tables: [begun, ended])",
        pipe(
            "map(fn: (r) => ({run: r.run, phase: r.phase, at: int(v: r._time), bars: r._value + 1}))",
            'group(columns: ["run", "phase"])',
            _EXTENT,
            "group()",
            newest(100, "end"),
            _BARS,
        ),
    )
    here = dashboard_url(
        BACKTEST,
        time="from=${__data.fields.from}&to=${__data.fields.to}",
        run="${__value.raw:percentencode}",
        phase="${__data.fields.phase:percentencode}",
    )
    panel = (
        rows(
            "Choose a backtest",
            "Click one: the time range becomes its own, in market time. Healthy: as many bars as were to be walked.",
            query,
            height=6,
            no_value="No backtest and no live run has been watched yet",
        )
        .override_by_name("run", linked(link("Show it, in its own time", here)))
        .override_by_name("from", HIDDEN)
        .override_by_name("to", HIDDEN)
    )
    return ordered(panel, "run", "phase", "bars", "first bar", "last bar")


_EXTENT: Final = """reduce(identity: {begin: 9223372036854775807, end: 0, bars: 0}, fn: (r, accumulator) => ({
      begin: if r.at < accumulator.begin then r.at else accumulator.begin,
      end: if r.at > accumulator.end then r.at else accumulator.end,
      bars: if r.bars > accumulator.bars then r.bars else accumulator.bars,
    }))"""
_BARS: Final = """map(fn: (r) => ({
      run: r.run,
      phase: r.phase,
      bars: r.bars,
      "first bar": time(v: r.begin),
      "last bar": time(v: r.end),
      from: string(v: r.begin / 1000000 - 1000),
      to: string(v: r.end / 1000000 + 1000),
    }))"""


def _price() -> Any:
    return lines(
        "Price",
        "As the backtest logged it (`price` or `close`). Healthy: without gaps and jumps that the market did not have.",
        _metrics(*_PRICES),
        "${__field.name}",
    )


def _position() -> Any:
    right = column(custom__axisPlacement="right", custom__lineWidth=2)
    return (
        lines(
            "Position and equity",
            "Position on the left, equity on the right. Healthy: positions that change with the market, not with every "
            "bar, and an equity that does not hang on one of them.",
            _metrics("position", "equity"),
            "${__field.name}",
        )
        .override_by_name("position", [fixed("orange")])
        .override_by_name("equity", [*right, fixed("blue")])
    )


def _metrics(*fields: str) -> str:
    return series(TRAIN_METRICS, fields, *_RUN, fn="last", by=["_field"])


def _against() -> Any:
    query = flux(
        f"told = {_metrics(*_PRICES, 'position')}",
        f"gates = {series(GATE_STATS, ['mean'], *OF_LAYER, f'r.gate =~ {pattern(*variables.SIGMOID)}', by=['gate'])}",
        pipe(
            'map(fn: (r) => ({_time: r._time, _value: r._value, _field: r.gate + " gate"}))',
            'group(columns: ["_field"])',
        ),
        "union(tables: [told, gates])",
    )
    right = [*column(custom__axisPlacement="right", custom__lineWidth=2, unit="short"), fixed("text")]
    return (
        lines(
            "Gates against price and position",
            "Mean of the layer's gates and the position (left), and the price (right). Healthy: gates that answer to "
            "regimes. One that stands still while the market turns is not used; a forget gate that shuts in a fall "
            "forgets what came before it.",
            query,
            "${__field.name}",
        )
        .span(24)
        .height(10)
        .override_by_regexp("^(price|close)$", right)
        .override_by_name("position", [*column(custom__fillOpacity=15, custom__lineWidth=0), fixed("orange")])
    )


def _units() -> Any:
    return cells(
        "What each unit keeps",
        "Mean of the forget gate (LSTM) or the update gate (GRU) of each unit. Healthy: rows that differ, some that "
        "answer to the market. All dark at once: the memory was erased there.",
        units("gate_units", "u", _KEEPS),
        SHARE,
        "unit",
    ).span(12)


def _saturation() -> Any:
    return lines(
        "Stuck",
        "Share of activations fully open or shut, by gate. Healthy: steady. Rising towards a drawdown: the market left "
        "what the network was trained on.",
        derived("saturation", *OF_LAYER, by=["gate"]),
        "${__field.labels.gate}",
        "percentunit",
        low=0,
        high=1,
    ).height(9)


def _regime() -> Any:
    return lines(
        "Answer to volatility",
        "Rank correlation of each gate's mean with the price's volatility over the last 64 captures: −1 it shuts as "
        "the market gets wild, 1 it opens. Healthy: not all near 0. It needs a logged `price`.",
        derived("regime_sensitivity", *OF_LAYER, by=["gate"]),
        "${__field.labels.gate}",
        low=-1,
        high=1,
    )


def _scores() -> Any:
    return lines(
        "Anomaly score",
        "By gate of the layer, in market time. Healthy: up to 1, the red line.",
        series(GATE_SCORES, ["anomaly_score"], CONSENSUS, *OF_LAYER, fn="max", by=["gate"]),
        "${__field.labels.gate}",
        low=0,
        decimals=2,
        bands=limit(1),
    )

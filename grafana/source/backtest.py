"""Backtest: gates against price and position, in the time of the market."""

from __future__ import annotations

from typing import Any, Final

from gatewatch.collector.cells import MEMORY_GATES
from gatewatch.collector.schema import GATE_DERIVED, GATE_SCORES, GATE_STATS, TRAIN_METRICS
from grafana.source import variables
from grafana.source.board import Section, board
from grafana.source.flux import chosen, flux, one_of, pattern, points, window
from grafana.source.links import BACKTEST, to
from grafana.source.panels import CLEAR, RED, SHARE, banded, cells, column, fixed, lines
from grafana.source.queries import CONSENSUS, OF_LAYER, units
from grafana.source.tables import link, ordered, rows

IN_MARKET: Final = one_of("phase", "backtest", "live")
_KEEPS: Final = f"r.gate =~ {pattern(*sorted(MEMORY_GATES))}"
_RUN: Final = (chosen("run"), chosen("phase"))
_PRICES: Final = ("price", "close")


def dashboard() -> dict[str, Any]:
    """The dashboard."""
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
        "  |> first()",
        f"ended = {steps}",
        "  |> last()",
        "union(tables: [begun, ended])",
        "  |> map(fn: (r) => ({run: r.run, phase: r.phase, at: int(v: r._time), bars: r._value + 1}))",
        '  |> group(columns: ["run", "phase"])',
        "  |> reduce(identity: {begin: 9223372036854775807, end: 0, bars: 0}, fn: (r, accumulator) => ({",
        "      begin: if r.at < accumulator.begin then r.at else accumulator.begin,",
        "      end: if r.at > accumulator.end then r.at else accumulator.end,",
        "      bars: if r.bars > accumulator.bars then r.bars else accumulator.bars,",
        "    }))",
        "  |> group()",
        '  |> sort(columns: ["end"], desc: true)',
        "  |> limit(n: 100)",
        "  |> map(fn: (r) => ({",
        "      run: r.run,",
        "      phase: r.phase,",
        "      bars: r.bars,",
        '      "first bar": time(v: r.begin),',
        '      "last bar": time(v: r.end),',
        "      from: string(v: r.begin / 1000000 - 1000),",
        "      to: string(v: r.end / 1000000 + 1000),",
        "    }))",
    )
    here = to(
        BACKTEST,
        time="from=${__data.fields.from}&to=${__data.fields.to}",
        run="${__value.raw:percentencode}",
        phase="${__data.fields.phase:percentencode}",
    )
    hidden = column(custom__hidden=True)
    panel = (
        rows(
            "Choose a backtest",
            "Click one: the time range becomes its own, in market time. Healthy: as many bars as were to be walked.",
            query,
        )
        .height(6)
        .no_value("No backtest and no live run has been watched yet")
        .override_by_name("run", column(links=[link("Show it, in its own time", here)]))
        .override_by_name("from", hidden)
        .override_by_name("to", hidden)
    )
    return ordered(panel, "run", "phase", "bars", "first bar", "last bar")


def _price() -> Any:
    return lines(
        "Price",
        "As the backtest logged it (`price` or `close`). Healthy: without gaps and jumps that the market did not have.",
        _metrics(*_PRICES),
        "${__field.name}",
    )


def _position() -> Any:
    query = _metrics("position", "equity")
    return (
        lines(
            "Position and equity",
            "Position on the left, equity on the right. Healthy: positions that change with the market, not with every "
            "bar, and an equity that does not hang on one of them.",
            query,
            "${__field.name}",
        )
        .override_by_name("position", [fixed("orange")])
        .override_by_name("equity", [*column(custom__axisPlacement="right", custom__lineWidth=2), fixed("blue")])
    )


def _metrics(*fields: str) -> str:
    return flux(points(TRAIN_METRICS, fields, *_RUN), window("last", "_field"))


def _against() -> Any:
    told = points(TRAIN_METRICS, [*_PRICES, "position"], *_RUN)
    query = flux(
        f"told = {told}",
        window("last", "_field"),
        f"gates = {points(GATE_STATS, ['mean'], *OF_LAYER, f'r.gate =~ {pattern(*variables.SIGMOID)}')}",
        window("mean", "gate"),
        '  |> map(fn: (r) => ({_time: r._time, _value: r._value, _field: r.gate + " gate"}))',
        '  |> group(columns: ["_field"])',
        "union(tables: [told, gates])",
    )
    panel = lines(
        "Gates against price and position",
        "Mean of the layer's gates and the position (left), and the price (right). Healthy: gates that answer to "
        "regimes. One that stands still while the market turns is not used; a forget gate that shuts in a fall forgets "
        "what came before it.",
        query,
        "${__field.name}",
    )
    right = [*column(custom__axisPlacement="right", custom__lineWidth=2, unit="short"), fixed("text")]
    return (
        panel.span(24)
        .height(10)
        .override_by_regexp("^(price|close)$", right)
        .override_by_name("position", [*column(custom__fillOpacity=15, custom__lineWidth=0), fixed("orange")])
    )


def _units() -> Any:
    query = units("gate_units", "u", _KEEPS)
    return cells(
        "What each unit keeps",
        "Mean of the forget gate (LSTM) or the update gate (GRU) of each unit. Healthy: rows that differ, some that "
        "answer to the market. All dark at once: the memory was erased there.",
        query,
        SHARE,
        "unit",
    ).span(12)


def _saturation() -> Any:
    query = flux(points(GATE_DERIVED, ["saturation"], *OF_LAYER), window("mean", "gate"))
    panel = lines(
        "Stuck",
        "Share of activations fully open or shut, by gate. Healthy: steady. Rising towards a drawdown: the market left "
        "what the network was trained on.",
        query,
        "${__field.labels.gate}",
        "percentunit",
    )
    return panel.height(9).min(0).max(1)


def _regime() -> Any:
    query = flux(points(GATE_DERIVED, ["regime_sensitivity"], *OF_LAYER), window("mean", "gate"))
    panel = lines(
        "Answer to volatility",
        "Rank correlation of each gate's mean with the price's volatility over the last 64 captures: −1 it shuts as "
        "the market gets wild, 1 it opens. Healthy: not all near 0. It needs a logged `price`.",
        query,
        "${__field.labels.gate}",
    )
    return panel.min(-1).max(1)


def _scores() -> Any:
    query = flux(
        points(GATE_SCORES, ["anomaly_score"], CONSENSUS, *OF_LAYER),
        window("max", "gate"),
    )
    panel = lines(
        "Anomaly score",
        "By gate of the layer, in market time. Healthy: up to 1, the red line.",
        query,
        "${__field.labels.gate}",
    )
    return banded(panel.min(0).decimals(2), (None, CLEAR), (1, RED))

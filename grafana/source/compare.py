"""Compare: two runs at the same step, whenever and however fast each of them went."""

from __future__ import annotations

from typing import Any, Final

from gatewatch.collector.schema import GATE_STATS, LAYER_UPDATES, TRAIN_METRICS
from grafana.source import variables
from grafana.source.board import Section, board
from grafana.source.flux import chosen, flux, one_of, points
from grafana.source.links import COMPARE
from grafana.source.panels import over

POINTS: Final = 200
"""Of a line: the steps are taken together in so many equal parts."""
_OF_GATE: Final = (chosen("phase"), chosen("layer"), chosen("gate"))
_RUNS: Final = (("run", "1"), ("other", "2"))


def dashboard() -> dict[str, Any]:
    """The dashboard."""
    runs = [variables.run(), variables.run("other", "With", besides="run")]
    return board(
        COMPARE,
        "Compare",
        "Two runs at the same step. Each is looked at from its beginning to its end, whatever the time range is.",
        [variables.tag(), variables.value(), *runs, variables.phase(), variables.layer(), variables.gate()],
        [Section("", _panels())],
        refresh="",
    )


def _panels() -> list[Any]:
    same = "Healthy: the same course. Where they part, look at what differs there."
    step = " Over the step, not over time."
    return [
        _panel("Loss", f"The training loss of both runs.{step} {same}", TRAIN_METRICS, "loss", (chosen("phase"),)),
        _panel(
            "Validation loss",
            f"Of both runs.{step} Healthy: not above the other.",
            TRAIN_METRICS,
            "val_loss",
            (chosen("phase"),),
        ),
        _panel("Mean of the gate", f"Mean activation of the chosen gate.{step} {same}", GATE_STATS, "mean", _OF_GATE),
        _panel(
            "Fully open",
            f"Share of the chosen gate's activations at its high end.{step} {same}",
            GATE_STATS,
            "saturated_high",
            _OF_GATE,
        ),
        _panel(
            "Fully shut",
            f"Share of the chosen gate's activations at its low end.{step} {same}",
            GATE_STATS,
            "saturated_low",
            _OF_GATE,
        ),
        _panel(
            "Spread of the gate",
            f"Standard deviation of its activations.{step} {same} Near 0: its units have become alike.",
            GATE_STATS,
            "std",
            _OF_GATE,
        ),
        _panel(
            "Gradient norm",
            f"Of the recurrent weights of the chosen layer, before clipping.{step} {same}",
            LAYER_UPDATES,
            "gradient_norm",
            (chosen("phase"), chosen("layer"), one_of("param", "recurrent")),
        ),
        _panel(
            "Update ratio",
            f"How far a step moves the recurrent weights, relative to their size.{step} Healthy: around 1e-3 in both.",
            LAYER_UPDATES,
            "update_ratio",
            (chosen("phase"), chosen("layer"), one_of("param", "recurrent")),
        ),
    ]


def _panel(title: str, description: str, measurement: str, field: str, where: tuple[str, ...]) -> Any:
    return over(title, description, by_step(measurement, field, *where), "step")


def by_step(measurement: str, field: str, *where: str) -> str:
    """One table: the steps, and of each run a column with the means of a field.

    Each run is read in windows of a 300th of its own time; InfluxDB does that while it reads, however long it went.
    """
    ends = [_ends(variable, number, measurement, field, where) for variable, number in _RUNS]
    sides = [_side(variable, number, measurement, field, where) for variable, number in _RUNS]
    return flux(
        *ends,
        f"width = (if last1 > last2 then last1 else last2) / {POINTS} + 1",
        *sides,
        "union(tables: [side1, side2])",
        '  |> group(columns: ["series", "step"])',
        '  |> mean(column: "value")',
        "  |> group()",
        '  |> pivot(rowKey: ["step"], columnKey: ["series"], valueColumn: "value")',
        '  |> sort(columns: ["step"])',
    )


def _ends(variable: str, number: str, measurement: str, field: str, where: tuple[str, ...]) -> str:
    """When the run began and ended, how wide a window of it is, and its last step."""
    one = points(measurement, [field], chosen("run", variable), *where, start="0", stop="")
    steps = points(measurement, ["step"], chosen("run", variable), *where, start="0", stop="")
    return flux(
        f"first{number} = {one}",
        "  |> first()",
        f"newest{number} = {one}",
        "  |> last()",
        f"times{number} = union(tables: [first{number}, newest{number}])",
        '  |> keep(columns: ["_time"])',
        '  |> sort(columns: ["_time"])',
        '  |> findColumn(fn: (key) => true, column: "_time")',
        f"steps{number} = {steps}",
        "  |> last()",
        "  |> group()",
        "  |> max()",
        '  |> findColumn(fn: (key) => true, column: "_value")',
        f"known{number} = length(arr: times{number}) > 0 and length(arr: steps{number}) > 0",
        f"begin{number} = if known{number} then int(v: times{number}[0]) else 0",
        f"end{number} = if known{number} then int(v: times{number}[length(arr: times{number}) - 1]) else 0",
        f"every{number} = (end{number} - begin{number}) / 300 + 1",
        f"last{number} = if known{number} then int(v: steps{number}[0]) else 0",
    )


def _side(variable: str, number: str, measurement: str, field: str, where: tuple[str, ...]) -> str:
    read = points(
        measurement,
        [field, "step"],
        chosen("run", variable),
        *where,
        start=f"time(v: begin{number})",
        stop=f"time(v: end{number} + 1)",
    )
    return flux(
        f"side{number} = {read}",
        f"  |> aggregateWindow(every: duration(v: every{number}), fn: mean, createEmpty: false)",
        '  |> keep(columns: ["_time", "_value", "_field", "run"])',
        '  |> group(columns: ["_field", "run"])',
        '  |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")',
        f"  |> filter(fn: (r) => exists r.step and exists r.{field})",
        "  |> map(fn: (r) => ({",
        f'      series: "{number}: " + r.run,',
        "      step: int(v: r.step) / width * width,",
        f"      value: r.{field},",
        "    }))",
    )

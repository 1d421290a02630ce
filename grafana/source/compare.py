"""Compare: two runs at the same step, whenever and however fast each of them went."""

from __future__ import annotations

from typing import Any, Final

from grafana_foundation_sdk.builders.dashboard import Panel

from gatewatch.collector.schema import GATE_STATS, LAYER_UPDATES, TRAIN_METRICS
from grafana.source import variables
from grafana.source.board import board
from grafana.source.flux import chosen, flux, keep_where, one_of, pipe, points
from grafana.source.flux_steps import aggregate_window, column_values, group, keep, map_to
from grafana.source.panels import xy_chart

POINTS: Final = 200
"""Number of points of a line: the steps are divided into this many equal parts."""
_RUNS: Final = (("run", "1"), ("other", "2"))


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    runs = [variables.run(), variables.run("r.run !~ /^${run:regex}$/", name="other", label="With")]
    return board(
        "Compare",
        "Two runs at the same step. Each is looked at from its beginning to its end, whatever the time range is.",
        [*runs, variables.phase(), variables.layer(), variables.gate()],
        _panels(),
        refresh="",
    )


def _panels() -> list[Panel]:
    step = " Over the step, not over time."
    same = f"{step} Healthy: the same course. Where they part, look at what differs there."
    loss, gate = (chosen("phase"),), (chosen("phase"), chosen("layer"), chosen("gate"))
    param = (chosen("phase"), chosen("layer"), one_of("param", "recurrent"))
    ends = "Share of the chosen gate's activations at its {} end." + same
    spread = f"Standard deviation of its activations.{same} Near 0: its units have become alike."
    norm = f"Of the recurrent weights of the chosen layer, before clipping.{same}"
    ratio = f"How far a step moves the recurrent weights, relative to their size.{step} Healthy: around 1e-3 in both."
    panels = (
        ("Loss", f"The training loss of both runs.{same}", TRAIN_METRICS, "loss", loss),
        ("Validation loss", f"Of both runs.{step} Healthy: not above the other.", TRAIN_METRICS, "val_loss", loss),
        ("Mean of the gate", f"Mean activation of the chosen gate.{same}", GATE_STATS, "mean", gate),
        ("Fully open", ends.format("high"), GATE_STATS, "saturated_high", gate),
        ("Fully shut", ends.format("low"), GATE_STATS, "saturated_low", gate),
        ("Spread of the gate", spread, GATE_STATS, "std", gate),
        ("Gradient norm", norm, LAYER_UPDATES, "gradient_norm", param),
        ("Update ratio", ratio, LAYER_UPDATES, "update_ratio", param),
    )
    return [
        xy_chart(title, by_step(source, field, *where), "step").description(text)
        for title, text, source, field, where in panels
    ]


def by_step(measurement: str, field: str, *where: str) -> str:
    """Return the query for one table: the steps, and one column per run with the means of a field.

    Each run is read in 300 windows of equal length. InfluxDB computes the means while it reads, so a long run is quick.

    Args:
        measurement, field: what is compared.
        where: conditions on tags other than the run.
    """
    return flux(
        *(_ends(number, measurement, field, chosen("run", variable), *where) for variable, number in _RUNS),
        f"width = (if last1 > last2 then last1 else last2) / {POINTS} + 1",
        *(_side(number, measurement, field, chosen("run", variable), *where) for variable, number in _RUNS),
        "union(tables: [side1, side2])"
        + pipe(
            group("series", "step"),
            'mean(column: "value")',
            "group()",
            'pivot(rowKey: ["step"], columnKey: ["series"], valueColumn: "value")',
            'sort(columns: ["step"])',
        ),
    )


def _ends(number: str, measurement: str, field: str, *where: str) -> str:
    """Return the lines that find when the run began and ended, how wide its windows are, and its last step."""
    one = points(measurement, [field], *where, start="0", stop="")
    steps = points(measurement, ["step"], *where, start="0", stop="")
    return flux(
        f"first{number} = {one}" + pipe("first()"),
        f"newest{number} = {one}" + pipe("last()"),
        f"times{number} = union(tables: [first{number}, newest{number}])"
        + pipe(keep("_time"), 'sort(columns: ["_time"])', column_values("_time")),
        f"steps{number} = {steps}" + pipe("last()", "group()", "max()", column_values("_value")),
        f"known{number} = length(arr: times{number}) > 0 and length(arr: steps{number}) > 0",
        f"begin{number} = if known{number} then int(v: times{number}[0]) else 0",
        f"end{number} = if known{number} then int(v: times{number}[length(arr: times{number}) - 1]) else 0",
        f"every{number} = (end{number} - begin{number}) / 300 + 1",
        f"last{number} = if known{number} then int(v: steps{number}[0]) else 0",
    )


def _side(number: str, measurement: str, field: str, *where: str) -> str:
    """Return the lines that read the means of a run's windows, each at its step."""
    start, stop = f"time(v: begin{number})", f"time(v: end{number} + 1)"
    read = points(measurement, [field, "step"], *where, start=start, stop=stop)
    return f"side{number} = {read}" + pipe(
        aggregate_window("mean", f"duration(v: every{number})"),
        keep("_time", "_value", "_field", "run"),
        group("_field", "run"),
        'pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")',
        keep_where(f"exists r.step and exists r.{field}"),
        map_to(
            f"""
      series: "{number}: " + r.run,
      step: int(v: r.step) / width * width,
      value: r.{field},
    """
        ),
    )

"""Compare: two runs at the same step, whenever and however fast each of them went."""

from __future__ import annotations

from typing import Any, Final

from grafana_foundation_sdk.builders.dashboard import Panel

from gatewatch.collector.schema import GATE_STATS, LAYER_UPDATES, RUNS, TRAIN_METRICS
from grafana.source import logged, variables
from grafana.source.board import board
from grafana.source.flux import chosen, flux, keep_where, one_of, pipe, points, union
from grafana.source.flux_steps import OLDEST_FIRST, aggregate_window, column_values, extend, group, keep, map_to
from grafana.source.panels import table, trend
from grafana.source.queries import STATES, life, scores
from grafana.source.values import GREY, PLAIN, WORST_SCORE, Values, by_text, grey_without, override, thresholds

POINTS: Final = 200
"""Number of points of a line: the steps are divided into this many equal parts."""
_BY_NAME: Final = 'sort(columns: ["run"])'
_RUNS: Final = (("run", "1"), ("other", "2"))
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
        [_both(), *_charts()],
        refresh="",
    )


def _both() -> Panel:
    """Return the table of the two runs: how they ended, and in which layers they differ.

    A run that has not the chosen phase is there, without layers.
    """
    coloured = override(
        thresholds=thresholds(grey_without(WORST_SCORE.bands)), custom__displayMode="color-text", decimals=2
    )
    ends = {}
    for variable, number in _RUNS:
        events = points(RUNS, ["event"], chosen("run", variable), start="0", stop="")
        ends[f"end{number}"] = events + pipe(
            "last()",
            "group()",
            OLDEST_FIRST,
            "last()",
            map_to(
                f"""
      run: "{number}: " + r.run,
      state: {life()},
      layers: joined(of: layers{number}),
      "not in the other": joined(of: alone{number}),
    """
            ),
        )
    about = flux(
        variables.SCHEMA,
        'import "strings"',
        'joined = (of) => if length(arr: of) > 0 then strings.joinStr(arr: of, v: ", ") else ""',
        *(f"found{number} = {_tag_values('layer', GATE_STATS, variable)}" for variable, number in _RUNS),
        *(f"layers{number} = found{number} |> {column_values('_value')}" for _, number in _RUNS),
        *(
            f"alone{number} = found{number} |> {_not_in(other)} |> {column_values('_value')}"
            for number, other in ("12", "21")
        ),
        union(**ends) + pipe("group()", _BY_NAME),
    )
    steps = {f"step{number}": _last_step(variable, number) for variable, number in _RUNS}
    worst = {f"worst{number}": _worst(variable, number) for variable, number in _RUNS}
    return (
        table(
            "The two runs",
            about,
            union(**steps) + pipe(_BY_NAME),
            union(**worst) + pipe(_BY_NAME),
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


def _not_in(number: str) -> str:
    return keep_where(f"not contains(set: layers{number}, value: r._value)")


def _last_step(variable: str, number: str) -> str:
    read = points(RUNS, ["step"], chosen("run", variable), chosen("phase"), start="0", stop="")
    return read + pipe("last()", "group()", "max()", map_to(f'run: "{number}: " + r.run, step: r._value'))


def _worst(variable: str, number: str) -> str:
    read = scores(chosen("run", variable), chosen("phase"), start="0", stop="")
    return read + pipe("max()", "group()", "max()", map_to(f'run: "{number}: " + r.run, "worst score": r._value'))


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
            trend(title, _metric_by_step(which, title.lower()), _COLOURS, size=(8, 9)).description(text)
            for title, text, which in metrics
        ),
        *(
            trend(title, by_step(source, (one_of("_field", field),) * 2, *where), _COLOURS, values).description(text)
            for title, text, source, field, where, values in fields
        ),
    ]


def _metric_by_step(which: str, name: str) -> str:
    """Return the query for a logged metric that meets a condition: one that both runs have, or else each its first."""
    names = (
        f"names{number} = {_tag_values('_field', TRAIN_METRICS, variable, which)} |> {column_values('_value')}"
        for variable, number in _RUNS
    )
    return flux(
        variables.SCHEMA,
        *names,
        'named1 = if length(arr: names1) > 0 then names1[0] else ""',
        "shared = contains(set: names2, value: named1)",
        'named2 = if shared then named1 else if length(arr: names2) > 0 then names2[0] else ""',
        by_step(TRAIN_METRICS, ("r._field == named1", "r._field == named2"), chosen("phase"), what=f"a {name}"),
    )


def _tag_values(tag: str, measurement: str, variable: str, *where: str) -> str:
    """Return the expression for the values of a tag in a run."""
    return variables.in_index(tag, measurement, chosen("run", variable), chosen("phase"), *where)


def by_step(measurement: str, fields: tuple[str, str], *where: str, what: str = "this") -> str:
    """Return the query for one table: the steps, and one column per run with the means of a field.

    Where neither run has the field, a column without values says so: the panel has no other place for words.

    Each run is read in 300 windows of equal length. InfluxDB computes the means while it reads, so a long run is quick.

    Args:
        measurement: what is compared.
        fields: for each run the condition that leaves the field.
        where: conditions on tags other than the run.
        what: the field, in words.
    """
    runs = [
        (number, measurement, field, chosen("run", variable), *where)
        for (variable, number), field in zip(_RUNS, fields, strict=True)
    ]
    return flux(
        *(_ends(*run) for run in runs),
        f"width = (if last1 > last2 then last1 else last2) / {POINTS} + 1",
        *(_side(*run) for run in runs),
        f"neither = {points(RUNS, ['step'], chosen('run'), chosen('phase'), start='0', stop='')}"
        + pipe(
            "last()",
            "group()",
            "limit(n: 1)",
            keep_where("not known1 and not known2"),
            map_to(f'step: r._value, "Neither run has {what}": float(v: r.missing)'),
        ),
        "both = union(tables: [side1, side2])"
        + pipe(
            group("series", "step"),
            'mean(column: "value")',
            "group()",
            'pivot(rowKey: ["step"], columnKey: ["series"], valueColumn: "value")',
        ),
        "union(tables: [both, neither])" + pipe("group()", 'sort(columns: ["step"])'),
    )


def _ends(number: str, measurement: str, field: str, *where: str) -> str:
    """Return the lines that find when the run began and ended, how wide its windows are, and its last step."""
    one = points(measurement, (), field, *where, start="0", stop="")
    steps = points(measurement, ["step"], *where, start="0", stop="")
    return flux(
        f"first{number} = {one}" + pipe("first()"),
        f"newest{number} = {one}" + pipe("last()"),
        f"times{number} = union(tables: [first{number}, newest{number}])"
        + pipe(keep("_time"), OLDEST_FIRST, column_values("_time")),
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
    read = points(measurement, (), f'({field} or r._field == "step")', *where, start=start, stop=stop)
    return f"side{number} = {read}" + pipe(
        aggregate_window("mean", f"duration(v: every{number})"),
        keep("_time", "_value", "_field", "run"),
        extend('_field: if r._field == "step" then "step" else "value"'),
        group("_field", "run"),
        'pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")',
        keep_where("exists r.step and exists r.value"),
        map_to(f'series: "{number}: " + r.run, step: int(v: r.step) / width * width, value: r.value'),
    )

"""The queries of the dashboard Compare: what tells two runs apart, and each of their series at the same step."""

from __future__ import annotations

from typing import Final

from gatewatch.collector.schema import GATE_SCORES, GATE_STATS, RUNS, TRAIN_METRICS
from grafana.source import variables
from grafana.source.flux import chosen, flux, keep_where, one_of, pipe, points, union
from grafana.source.flux_steps import OLDEST_FIRST, aggregate_window, column_values, extend, group, keep, map_to
from grafana.source.queries import CONSENSUS, life, scores

POINTS: Final = 200
"""Number of points of a line: the steps are divided into this many equal parts."""
APART: Final = "; they share no layer"
"""How the text ends that says which is anomalous, where they have no layer in common."""
_BY_NAME: Final = 'sort(columns: ["run"])'
_RUNS: Final = (("run", "1"), ("other", "2"))
_FIRST_HIGH: Final = (keep_where("r._value > 1.0"), "first()", "group()", 'min(column: "_time")')
_DIFFERENCE: Final = """
  if not known1 and not known2 then "Neither has scores"
  else if odd1 and odd2 then "Both are anomalous: 1" + from1 + "; 2" + from2
  else if odd1 then "1 is anomalous" + from1 + (if known2 then ", 2 is not" else ", 2 has no scores")
  else if odd2 then "2 is anomalous" + from2 + (if known1 then ", 1 is not" else ", 1 has no scores")
  else if known1 and known2 then "Neither is anomalous"
  else if known1 then "1 is not anomalous, 2 has no scores" else "2 is not anomalous, 1 has no scores"
"""


def difference() -> str:
    """Return one text: which of the two is anomalous and from which step on, and whether they share a layer.

    Scores are searched in two steps, or a long run would take seconds: a run's first window with one above 1, whose
    maximum InfluxDB computes while it reads, and then the capture in that window.
    """
    lines = []
    for variable, number in _RUNS:
        of_run = (CONSENSUS, chosen("run", variable), chosen("phase"))
        windows = scores(*of_run, start=f"time(v: begin{number})", stop=f"time(v: end{number} + 1)")
        captures = scores(*of_run, start=f"time(v: until{number} - every{number})", stop=f"time(v: until{number})")
        at = {"start": f"time(v: at{number})", "stop": f"time(v: at{number} + 1)"}
        steps, sources = (points(GATE_SCORES, [field], *of_run, **at) for field in ("step", "source"))
        lines += [
            _ends(number, GATE_SCORES, one_of("_field", "anomaly_score"), *of_run),
            f"windows{number} = {windows}"
            + pipe(aggregate_window("max", f"duration(v: every{number})"), *_FIRST_HIGH, column_values("_time")),
            f"until{number} = if length(arr: windows{number}) > 0 then int(v: windows{number}[0]) else every{number}",
            f"high{number} = {captures}" + pipe(*_FIRST_HIGH, extend('where: r.layer + " " + r.gate')),
            f"captures{number} = high{number} |> {column_values('_time')}",
            f"where{number} = high{number} |> {column_values('where')}",
            f"at{number} = if length(arr: captures{number}) > 0 then int(v: captures{number}[0]) else 0",
            f"sources_at{number} = {sources}"
            + pipe(
                "group()",
                keep_where(f'length(arr: where{number}) > 0 and r.layer + " " + r.gate == where{number}[0]'),
                column_values("_value"),
            ),
            f'source{number} = if length(arr: sources_at{number}) > 0 then " (" + sources_at{number}[0] + ")" else ""',
            f"steps_at{number} = {steps}" + pipe("last()", "group()", "max()", column_values("_value")),
            f"odd{number} = length(arr: steps_at{number}) > 0",
            f'from{number} = if odd{number} then " from step " + string(v: steps_at{number}[0]) + ", first " + '
            f'where{number}[0] + source{number} else ""',
            _layers(variable, number),
        ]
    known = points(RUNS, ["step"], chosen("run"), start="0", stop="")
    return flux(
        variables.SCHEMA,
        *lines,
        f"shared = found1 |> {keep_where('contains(set: layers2, value: r._value)')} |> {column_values('_value')}",
        f"difference = {_DIFFERENCE}",
        f'apart = if length(arr: shared) > 0 then "" else "{APART}"',
        known + pipe("last()", "group()", "limit(n: 1)", map_to("_value: difference + apart")),
    )


def both() -> tuple[str, str, str]:
    """Return rows about the two runs, to be merged by `run`: state and layers, the last step, and the worst score.

    A run that has not the chosen phase is there, without layers.
    """
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
        *(_layers(*run) for run in _RUNS),
        *(
            f"alone{number} = found{number} |> {_not_in(other)} |> {column_values('_value')}"
            for number, other in ("12", "21")
        ),
        union(**ends) + pipe("group()", _BY_NAME),
    )
    steps = {f"step{number}": _last_step(variable, number) for variable, number in _RUNS}
    worst = {f"worst{number}": _worst(variable, number) for variable, number in _RUNS}
    return about, union(**steps) + pipe(_BY_NAME), union(**worst) + pipe(_BY_NAME)


def _layers(variable: str, number: str) -> str:
    """Return the lines that find the layers of a run, as a table and as a list."""
    found = f"found{number} = {_tag_values('layer', GATE_STATS, variable)}"
    return flux(found, f"layers{number} = found{number} |> {column_values('_value')}")


def _not_in(number: str) -> str:
    return keep_where(f"not contains(set: layers{number}, value: r._value)")


def _last_step(variable: str, number: str) -> str:
    read = points(RUNS, ["step"], chosen("run", variable), chosen("phase"), start="0", stop="")
    return read + pipe("last()", "group()", "max()", map_to(f'run: "{number}: " + r.run, step: r._value'))


def _worst(variable: str, number: str) -> str:
    read = scores(chosen("run", variable), chosen("phase"), start="0", stop="")
    return read + pipe("max()", "group()", "max()", map_to(f'run: "{number}: " + r.run, "worst score": r._value'))


def metric_by_step(which: str, name: str) -> str:
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
        by_step(TRAIN_METRICS, which, chosen("phase"), what=f"a {name}", named=True),
    )


def _tag_values(tag: str, measurement: str, variable: str, *where: str) -> str:
    """Return the expression for the values of a tag in a run."""
    return variables.in_index(tag, measurement, chosen("run", variable), chosen("phase"), *where)


def by_step(measurement: str, field: str, *where: str, what: str = "this", named: bool = False) -> str:
    """Return the query for one table: the steps, and one column per run with the means of a field.

    Where neither run has the field, a column without values says so: the panel has no other place for words.

    Each run is read in 300 windows of equal length. InfluxDB computes the means while it reads, so a long run is quick.

    Args:
        measurement: what is compared.
        field: the condition that leaves the field.
        where: conditions on tags other than the run.
        what: the field, in words.
        named: whether the condition leaves several fields, and the query's variables `named1` and `named2` hold the
            name of each run's. InfluxDB reads them all first: it compares with no variable while it reads.
    """
    runs = [(number, measurement, field, chosen("run", variable), *where) for variable, number in _RUNS]
    return flux(
        *(_ends(*run, named=named) for run in runs),
        f"width = (if last1 > last2 then last1 else last2) / {POINTS} + 1",
        *(_side(*run, named=named) for run in runs),
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


def _ends(number: str, measurement: str, field: str, *where: str, named: bool = False) -> str:
    """Return the lines that find when the run began and ended, how wide its windows are, and its last step."""
    one = points(measurement, (), field, *where, start="0", stop="")
    steps = points(measurement, ["step"], *where, start="0", stop="")
    of_name = [keep_where(f"r._field == named{number}")] if named else []
    return flux(
        f"first{number} = {one}" + pipe("first()", *of_name),
        f"newest{number} = {one}" + pipe("last()", *of_name),
        f"times{number} = union(tables: [first{number}, newest{number}])"
        + pipe(keep("_time"), OLDEST_FIRST, column_values("_time")),
        f"steps{number} = {steps}" + pipe("last()", "group()", "max()", column_values("_value")),
        f"known{number} = length(arr: times{number}) > 0 and length(arr: steps{number}) > 0",
        f"begin{number} = if known{number} then int(v: times{number}[0]) else 0",
        f"end{number} = if known{number} then int(v: times{number}[length(arr: times{number}) - 1]) else 0",
        f"every{number} = (end{number} - begin{number}) / 300 + 1",
        f"last{number} = if known{number} then int(v: steps{number}[0]) else 0",
    )


def _side(number: str, measurement: str, field: str, *where: str, named: bool = False) -> str:
    """Return the lines that read the means of a run's windows, each at its step."""
    start, stop = f"time(v: begin{number})", f"time(v: end{number} + 1)"
    read = points(measurement, (), f'({field} or r._field == "step")', *where, start=start, stop=stop)
    of_name = [keep_where(f'r._field == "step" or r._field == named{number}')] if named else []
    return f"side{number} = {read}" + pipe(
        aggregate_window("mean", f"duration(v: every{number})"),
        *of_name,
        keep("_time", "_value", "_field", "run"),
        extend('_field: if r._field == "step" then "step" else "value"'),
        group("_field", "run"),
        'pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")',
        keep_where("exists r.step and exists r.value"),
        map_to(f'series: "{number}: " + r.run, step: int(v: r.step) / width * width, value: r.value'),
    )

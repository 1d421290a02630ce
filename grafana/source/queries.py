"""Queries that more than one dashboard asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gatewatch.collector.cells import GATES
from gatewatch.collector.schema import (
    DIED_SECONDS,
    GATE_DERIVED,
    GATE_SCORES,
    GATE_STATS,
    HISTOGRAM_BINS,
    HISTOGRAM_FIELDS,
    RUNS,
)
from gatewatch.jobs.queries.flux_values import literal
from grafana.source.flux import Series, chosen, dictionary, flux, keep_where, pipe, points, union
from grafana.source.flux_steps import (
    GOES_ON,
    column_values,
    extend,
    group,
    keep,
    map_to,
    window,
)

OF_RUN: Final = (chosen("run"), chosen("phase"))
OF_LAYER: Final = (*OF_RUN, chosen("layer"))
CONSENSUS: Final = 'r.detector == "consensus"'
STATES: Final = {"live": "green", "completed": "blue", "interrupted": "yellow", "died": "red", "failed": "red"}
"""State of a run → its colour."""
MOST_LINES: Final = 8
"""Maximum number of lines in a panel: the worst ones."""
_THROUGH_TANH: Final = " or ".join(
    f"r.gate == {literal(name)}" for name, gate in GATES.items() if gate.scale.through_tanh
)


_EXTENT: Final = """reduce(identity: {begin: 9223372036854775807, end: 0, step: 0}, fn: (r, accumulator) => ({
      begin: if r.at < accumulator.begin then r.at else accumulator.begin,
      end: if r.at > accumulator.end then r.at else accumulator.end,
      step: if r.step > accumulator.step then r.step else accumulator.step,
    }))"""
_OWN_TIME: Final = """
      run: r.run,
      phase: r.phase,
      step: r.step,
      begin: time(v: r.begin),
      end: time(v: r.end),
      from: string(v: (r.begin - r.room) / 1000000),
      to: if r.lives then "now" else string(v: (r.end + r.room) / 1000000),
    """


def life() -> str:
    """Return the expression for a run's state, from its last event and the event's time, as `gatewatch runs` has it."""
    silent = f"int(v: now()) - int(v: r._time) > {int(DIED_SECONDS * 1e9)}"
    return f'if {GOES_ON} then (if {silent} then "died" else "live") else r._value'


def state() -> str:
    """Return the state of the chosen run."""
    read = points(RUNS, ["event"], *OF_RUN, start="0", stop="")
    return read + pipe("last()", "group()", 'sort(columns: ["_time"])', "last()", map_to(f"_value: {life()}"))


def own_time(*where: str) -> str:
    """Return one row for each run and phase: when its captures begin and end.

    All series of a run have their captures at the same times, so any of them serves.

    Args:
        where: conditions on tags.

    Returns:
        A query for the columns run, phase, step (the last), begin and end (times), and `from` and `to`: the time range
        of links into the run, a little wider, in milliseconds; `to` is `now` while it lives.
    """
    steps = points(GATE_STATS, ["step"], *where, start="0", stop="")
    return union(begun=steps + pipe("first()"), ended=steps + pipe("last()")) + pipe(
        map_to("run: r.run, phase: r.phase, at: int(v: r._time), step: r._value"),
        group("run", "phase"),
        _EXTENT,
        "group()",
        extend(f"room: (r.end - r.begin) / 50 + 5000000000, lives: int(v: now()) - r.end < {int(DIED_SECONDS * 1e9)}"),
        map_to(_OWN_TIME),
    )


def series(
    measurement: str,
    fields: Sequence[str],
    *where: str,
    fn: str = "mean",
    by: Sequence[str] = ("layer", "gate"),
    worst: str | None = None,
) -> Series:
    """Return fields over time, one value per window and series.

    Args:
        measurement, fields, where: see `points`.
        fn: the function that reduces a window to one value.
        by: the tags that distinguish the series, or `_field`.
        worst: `max`, `min` or `last`, where there may be many series: see `only_worst`. None: all of them.
    """
    read = points(measurement, fields, *where)
    return only_worst(read, fn, by, peak=worst) if worst else Series(read + window(fn, *by), by)


def derived(field: str, *where: str, by: Sequence[str] = ("gate",), worst: str | None = None) -> Series:
    """Return a derived metric of the chosen layers over time; for `by` and `worst` see `series`."""
    return series(GATE_DERIVED, [field], *OF_LAYER, *where, by=by, worst=worst)


def last_value(field: str, *where: str, measurement: str = GATE_DERIVED) -> str:
    """Return the query for one number: the largest of the newest values of the series in the chosen layer."""
    read = points(measurement, [field], *OF_LAYER, *where)
    return read + pipe("last()", "group()", "max()", keep("_time", "_value"))


def scores(*where: str, **times: str) -> str:
    """Return the anomaly scores of the consensus; for `times` see `points`."""
    return points(GATE_SCORES, ["anomaly_score"], CONSENSUS, *where, **times)


def worst_score(*where: str, columns: Sequence[str] = ("_time", "_value"), **times: str) -> str:
    """Return the largest score in a time range; for `times` see `points`."""
    return scores(*where, **times) + pipe("max()", "group()", "max()", keep(*columns))


def worst_by(read: str, *tags: str) -> str:
    """Return the query for the largest value per window among all series that share these tags."""
    return read + window("max", *tags) + window("max", *tags)


def only_worst(read: str, fn: str, labels: Sequence[str], *, peak: str = "max") -> Series:
    """Return the series with the worst values over time, `MOST_LINES` of them at most.

    Args:
        read: the points.
        fn: the function that reduces a window to one value.
        labels: the tags that distinguish the series, or `_field`.
        peak: how a series is compared with others: by its largest value (`max`), by its last, or by its smallest
            (`min`), where small values are the bad ones.
    """
    key = ' + "\\n" + '.join(f"r.{label}" for label in labels)
    first = "bottom" if peak == "min" else "top"
    query = flux(
        f"worst = {read}"
        + pipe(f"{peak}()", group(*labels), f"{'min' if peak == 'min' else 'max'}()", "group()")
        + pipe(f'{first}(n: {MOST_LINES}, columns: ["_value"])', map_to(f"name: {key}"), column_values("name")),
        read + window(fn, *labels) + pipe(keep_where(f"contains(set: worst, value: {key})")),
    )
    return Series(query, labels)


def units(measurement: str, letter: str, gate: str) -> str:
    """Return the rows of a heatmap of the chosen layer, one per unit or position. A cell state is shown as its tanh.

    Args:
        measurement: gate_units or gate_time.
        letter: with which its fields begin.
        gate: the condition that leaves one gate.
    """
    return _rows(
        'import "math"',
        gate,
        (measurement, (), f"r._field =~ /^{letter}[0-9]/"),
        extend(f"_value: if {_THROUGH_TANH} then math.tanh(x: r._value) else r._value"),
        keep("_time", "_value", "_field"),
    )


def histogram(gate: str) -> str:
    """Return the rows of a heatmap, one per twentieth of the gate's scale, named by its lower end in percent."""
    names = dictionary({name: f"{i * 100 // HISTOGRAM_BINS:02d} %" for i, name in enumerate(HISTOGRAM_FIELDS)})
    return _rows(
        f'import "dict"\nnames = {names}',
        gate,
        (GATE_STATS, (), "r._field =~ /^hist_/"),
        keep("_time", "_value", "_field"),
        extend('_field: dict.get(dict: names, key: r._field, default: "")'),
    )


def _rows(begin: str, gate: str, what: tuple[str, Sequence[str], str], *steps: str) -> str:
    """Return a query for the rows of a heatmap, one field per row, up to the last capture.

    A window without a capture has what the one before has: Grafana draws a gap in black, as if it were a low value, and
    markets close at weekends.

    Args:
        begin: the first lines.
        gate: the condition that leaves one gate.
        what: the measurement, its fields, and the condition that leaves the rows' fields.
        steps: what is done with the windows.
    """
    measurement, fields, rows = what
    return flux(
        begin,
        f"last = {points(GATE_STATS, ['step'], *OF_LAYER, gate)}"
        + pipe("last()", "group()", 'max(column: "_time")', column_values("_time")),
        "end = if length(arr: last) > 0 then time(v: int(v: last[0]) + 1) else v.timeRangeStop",
        points(measurement, fields, rows, *OF_LAYER, gate, stop="end")
        + pipe(
            "aggregateWindow(every: v.windowPeriod, fn: mean)",
            "fill(usePrevious: true)",
            keep_where("exists r._value"),
            *steps,
            group("_field"),
        ),
    )

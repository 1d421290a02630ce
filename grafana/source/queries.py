"""Queries that more than one dashboard asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gatewatch.collector.schema import (
    DIED_SECONDS,
    GATE_DERIVED,
    GATE_SCORES,
    GATE_STATS,
    RUNS,
)
from grafana.source.flux import Series, chosen, flux, keep_where, pipe, points, union
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
UNSAID: Final = "–"
"""The source of a score that says none: it is of before scores did."""
CONSENSUS: Final = 'r.detector == "consensus"'
STATES: Final = {"live": "green", "completed": "blue", "interrupted": "yellow", "died": "red", "failed": "red"}
"""State of a run → its colour."""
MOST_LINES: Final = 8
"""Maximum number of lines in a panel: the worst ones."""
_EXTENT: Final = """reduce(
    identity: {begin: 9223372036854775807, end: 0, step: 0, lives: false},
    fn: (r, accumulator) => ({
      begin: if r.end > 0 and r.end < accumulator.begin then r.end else accumulator.begin,
      end: if r.end > accumulator.end then r.end else accumulator.end,
      step: if r.step > accumulator.step then r.step else accumulator.step,
      lives: accumulator.lives or r.lives,
    }),
  )"""
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
    events = points(RUNS, ["event"], *where, start="0", stop="")
    captured = map_to("run: r.run, phase: r.phase, end: int(v: r._time), step: r._value, lives: false")
    heard = map_to(f'run: r.run, phase: r.phase, end: 0, step: 0, lives: ({life()}) == "live"')
    return union(
        begun=steps + pipe("first()", captured),
        ended=steps + pipe("last()", captured),
        heard=events + pipe("last()", heard),
    ) + pipe(
        group("run", "phase"),
        _EXTENT,
        "group()",
        keep_where("r.end > 0"),
        extend("room: (r.end - r.begin) / 50 + 5000000000"),
        map_to(_OWN_TIME),
    )


def last_capture(
    *where: str, measurement: str = GATE_STATS, start: str = "v.timeRangeStart", stop: str = "v.timeRangeStop"
) -> str:
    """Return the expression for the time of the last capture, as a list with one time, or with none.

    Args:
        where: conditions on tags.
        measurement: what was captured.
        start, stop: see `points`.
    """
    steps = points(measurement, ["step"], *where, start=start, stop=stop)
    return steps + pipe("last()", "group()", 'max(column: "_time")', column_values("_time"))


def run_end() -> str:
    """Return the lines that define `over`, whether the run ended in the time range, and `end`.

    `end` is past the last capture of a run that is over, else the end of the time range.
    """
    is_in_range = "newest >= int(v: v.timeRangeStart) and newest < int(v: v.timeRangeStop)"
    return flux(
        f"captured = {last_capture(*OF_RUN, start='0', stop='')}",
        f"heard = {state()} |> {column_values('_value')}",
        "newest = if length(arr: captured) > 0 then int(v: captured[0]) else 0",
        f'over = {is_in_range} and (length(arr: heard) == 0 or heard[0] != "live")',
        "end = if over then time(v: newest + 1) else v.timeRangeStop",
    )


def until_end(states: str) -> str:
    """Return the query for states in words over time, which are `ended` after the last capture of a run that is over.

    Grafana would draw the last state up to the end of the time range. `run_end` must come before it.
    """
    return flux(
        f"states = {states}",
        'ended = states |> last() |> filter(fn: (r) => over) |> map(fn: (r) => ({r with _time: end, _value: "ended"}))',
        'union(tables: [states, ended]) |> sort(columns: ["_time"])',
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
    names, is_worst = worst_names(read, labels, peak)
    return Series(flux(names, read + window(fn, *labels) + pipe(is_worst)), labels)


def worst_names(read: str, labels: Sequence[str], peak: str = "max") -> tuple[str, str]:
    """Return the line that lists the worst series, and the step that keeps them; for the arguments see `only_worst`."""
    key = ' + "\\n" + '.join(f"r.{label}" for label in labels)
    fn, first = ("min", "bottom") if peak == "min" else ("max", "top")
    largest_of = (f"{peak}()", group(*labels), f"{fn}()", "group()", f'{first}(n: {MOST_LINES}, columns: ["_value"])')
    line = f"worst = {read}" + pipe(*largest_of, map_to(f"name: {key}"), column_values("name"))
    return line, keep_where(f"contains(set: worst, value: {key})")

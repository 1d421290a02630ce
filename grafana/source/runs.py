"""Runs: every run, whether it lives, how far it is, how well it does, and the way into each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

from grafana_foundation_sdk.builders.dashboard import Panel

from gatewatch.collector.schema import GATE_SCORES, RUNS, TRAIN_METRICS
from gatewatch.jobs.queries.flux_values import literal
from grafana.source import logged, variables
from grafana.source.board import board, closed_row
from grafana.source.flux import flux, inline_union, keep_where, pipe, points, union
from grafana.source.flux_steps import column_values, extend, group, keep, map_to, newest, prefix_user_tags
from grafana.source.links import ROWS_LAYER, ROWS_RUN, THIS_RUN, THIS_TIME, link
from grafana.source.panels import bar_gauge, stat, table
from grafana.source.queries import CONSENSUS, STATES, UNSAID, life, own_time, worst_score
from grafana.source.values import GREY, HIDDEN, WORST_SCORE, Values, by_text, grey_without, override, thresholds

MOST_RUNS: Final = 500
"""Maximum number of rows in the list: the runs with the newest events."""
MOST_BARS: Final = 8
_BY_RUN: Final = group("run", "phase")
_WIDTHS: Final = {
    **{"run": 165, "state": 90, "worst score": 120, "where": 185, "source": 85, "above 1 since": 170},
    **{"loss": 80, "reward": 85, "phase": 80, "last heard of": 170},
}
"""The first columns of the list, and how wide they are."""
_MORE_WIDTHS: Final = {
    **{"run": 165, "phase": 75, "step": 75, "epoch": 75, "model": 190},
    **{"best loss": 90, "val loss": 85, "best val loss": 110, "best reward": 110},
}
_ARE_LISTED: Final = keep_where("contains(set: listed, value: r.run)")
_WIDE: Final = ("group()", _ARE_LISTED, 'pivot(rowKey: ["run", "phase"], columnKey: ["_field"], valueColumn: "_value")')
"""Steps that make one row per run and phase, with one column per field; all fields must have one type."""
_TIME: Final = "dateTimeAsIso"
"""The unit of times to the second."""


_SERIES: Final = "run: r.run, phase: r.phase, layer: r.layer, gate: r.gate"
# A column that no run has is null where float() reads it, and an error where two of them are compared.
_WORST: Final = """
      run: r.run,
      phase: r.phase,
      layer: r.layer,
      where: if r.layer =~ /^_/ then r.gate else r.layer + " " + r.gate,
      "worst score": r.peak,
      "above 1 since": r.since,
    """
_SOURCE: Final = """
      run: r.run,
      phase: r.phase,
      source: if not exists r.since then "UNSAID"
        else if exists r.other and float(v: int(v: float(v: r.other)) / CODES) <= float(v: r.since)
        then (NAME else "UNSAID")
        else if exists r.said and float(v: r.said) <= float(v: r.since) then "network" else "UNSAID",
    """
_SOURCES: Final = ("data", "optimizer", "state", "policy")
"""Where the cause of a score lies if it is not in the network."""
_CODES: Final = 10
"""A time and the number of a source are one number, the time this many times: so the earliest keeps its source."""
_NOT_NETWORK: Final = keep_where('r._value != "network"')
_MILLISECONDS: Final = "float(v: int(v: r._time) / 1000000)"
_SINCE: Final = ("anomaly_score", f"{keep_where('r._value > 1.0')}\n  |> first()", _MILLISECONDS)
"""For `_found`: when a score of a series was above 1 first."""


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    return board(
        "Runs",
        "Every run that was heard of in the time range: whether it lives, how far it is, how well it does.",
        variables.tag_and_value(),
        [
            _states_now(),
            stat("Worst score, last hour (limit 1)", worst_score(columns=["_value"], start="-1h", stop=""), WORST_SCORE)
            .description("Largest anomaly score of any run in the last hour. Healthy: up to 1.")
            .span(8),
            _table(),
            _bars(),
            closed_row("More about each run: steps, best values, model, your tags", _more()),
        ],
        since="now-30d",
        refresh="1m",
    )


def _last_events() -> str:
    """Return the last event of every run and phase in the time range, of the runs with the chosen tag."""
    return points(RUNS, ["event"]) + pipe("last()", variables.OF_CHOSEN_TAG)


def _states_now() -> Panel:
    """Return the panel that counts runs and phases by their state, all in one: on a phone each panel is a screen."""
    counts = ", ".join(f"{name}: 0" for name in STATES)
    added = ", ".join(f'{name}: if r.state == "{name}" then counted.{name} + 1 else counted.{name}' for name in STATES)
    query = _last_events() + pipe(
        "group()", map_to(f"state: {life()}"), f"reduce(identity: {{{counts}}}, fn: (r, accumulator) => ({{{added}}}))"
    )
    panel = stat("Runs by state", query.replace("counted.", "accumulator."), Values("none")).span(16)
    for name, colour in STATES.items():
        bands = ((None, GREY), (1, colour))
        panel = panel.override_by_name(name, override(thresholds=thresholds(bands)))
    return panel.description(
        "Live: heard of within two minutes. Died: silent for longer without having said how it ended. Failed: ended by "
        "an error, which the list names. Healthy: none died or failed."
    )


def _table() -> Panel:
    ways = [
        link("Gates: what its memory does", "gates", THIS_TIME, **THIS_RUN),
        link("Learning: losses and gradients", "learning", THIS_TIME, **THIS_RUN),
        link("Feed: whether what it is fed changed", "feed", THIS_TIME, **THIS_RUN),
        link("Anomalies: what is odd, and why", "anomalies", THIS_TIME, **THIS_RUN),
        link("Backtest: gates against the market", "backtest", THIS_TIME, **THIS_RUN),
        link("Compare it with another", "compare", run=THIS_RUN["run"]),
    ]
    why = override(links=[link("What is odd, since when, and why", "anomalies", THIS_TIME, **ROWS_RUN, **ROWS_LAYER)])
    coloured = override(
        thresholds=thresholds(grey_without(WORST_SCORE.bands)),
        custom__displayMode="color-text",
        custom__align="left",
        decimals=2,
    )
    panel = (
        table(
            "Runs",
            _states(),
            _of_listed(_last(points(RUNS, ["error"]), "error")),
            _of_listed(_last(_metrics(logged.LOSS), "loss")),
            _of_listed(_last(_metrics(logged.REWARD), "reward")),
            _worst(),
            _source(),
            _span(),
            columns=[*_WIDTHS, "error"],
            height=14,
        )
        .description(
            f"A row for each run and phase, the one heard of last first, at most {MOST_RUNS}. Click a score to see "
            "what is odd and why, or a run to look into it, in its own time: the market's for a backtest. The source: "
            "where the cause of what was above 1 first lies: network, data, optimizer, state or policy; of several at "
            "one time not the network, which may only follow. Healthy: live or completed, a worst score up to 1."
        )
        .override_by_name("run", override(links=ways))
        .override_by_name("state", override(mappings=by_text(STATES), custom__displayMode="color-text"))
        .override_by_name("worst score", coloured + why)
        .override_by_name("where", why)
        .override_by_name("above 1 since", override(unit=_TIME, custom__align="left"))
        .override_by_name("last heard of", override(unit=_TIME))
        .override_by_regexp("^(loss|reward)$", override(decimals=4))
        .override_by_name("error", override(custom__cellOptions={"type": "auto", "wrapText": True}))
        .override_by_regexp("^(layer|from|to)$", HIDDEN)
    )
    return _wide(panel, _WIDTHS)


def _more() -> Panel:
    best = {"best loss": (logged.LOSS, "min"), "best val loss": (logged.VALIDATION_LOSS, "min")}
    best["best reward"] = (logged.REWARD, "max")
    panel = table(
        "More about each run",
        _states(user_tags=True),
        _progress(),
        _of_listed(_last(points(RUNS, ["model"]), "model")),
        _of_listed(_last(_metrics(logged.VALIDATION_LOSS), "val loss")),
        *(_of_listed(_last(_metrics(which), name, fn)) for name, (which, fn) in best.items()),
        columns=[*_MORE_WIDTHS],
        height=14,
    ).description("The same runs: how far they came, and their best values. Healthy: a step that grows while it lives.")
    return _wide(panel.override_by_regexp("(best|val) .*", override(decimals=4)), _MORE_WIDTHS)


def _wide(panel: Panel, widths: Mapping[str, int]) -> Panel:
    for name, width in widths.items():
        panel = panel.override_by_name(name, override(custom__width=width))
    return panel


def _states(*, user_tags: bool = False) -> str:
    """Return a row for each run and phase: its state and when it was heard of, or its user's tags."""
    if user_tags:
        dropped = ["_time", "_start", "_stop", "_value", "_field", "_measurement", "seen"]
        columns: Sequence[str] = (
            extend("seen: r._time"),
            newest(MOST_RUNS, "seen"),
            f"drop(columns: {literal(dropped)})",
        )
        return _last_events() + pipe(
            prefix_user_tags("seen", *[name for name in _MORE_WIDTHS if name not in ("run", "phase")]),
            "group()",
            *columns,
        )
    row = map_to(f'run: r.run, phase: r.phase, state: {life()}, "last heard of": r._time')
    return _last_events() + pipe("group()", row, newest(MOST_RUNS, "last heard of"))


def _of_listed(read: str, *steps: str) -> str:
    """Return a query about the runs in the list, over all times."""
    listed = _last_events() + pipe("group()", newest(MOST_RUNS), column_values("run"))
    return flux(f"listed = {listed}", read + pipe(*steps))


def _metrics(which: str) -> str:
    return points(TRAIN_METRICS, (), which, start="0", stop="")


def _last(read: str, name: str, fn: str = "last") -> str:
    """Return one value for each listed run and phase in a column of this name; of several fields the first by name."""
    of_run = (_BY_RUN, 'sort(columns: ["_field"])', "first()", "group()", _ARE_LISTED)
    return read + pipe(f"{fn}()", *of_run, map_to(f"run: r.run, phase: r.phase, {literal(name)}: r._value"))


def _progress() -> str:
    """Return the last step and the epoch of each run."""
    epochs = points(TRAIN_METRICS, ["epoch"], start="0", stop="")
    return _of_listed(union(steps=points(RUNS, ["step"]) + pipe("last()"), epochs=epochs + pipe("last()")), *_WIDE)


def _worst() -> str:
    """Return the largest score of each run, where it is, and since when it has been above 1 there."""
    kinds = {"peak": ("anomaly_score", "max()", "r._value"), "since": _SINCE}
    return _of_listed(
        inline_union(*_found(_SERIES, kinds)),
        "group()",
        _ARE_LISTED,
        'pivot(rowKey: ["run", "phase", "layer", "gate"], columnKey: ["kind"], valueColumn: "value")',
        _BY_RUN,
        'sort(columns: ["peak"], desc: true)',
        "limit(n: 1)",  # max() would make 0 of the nulls of those that never were above 1
        "group()",
        map_to(_WORST),
    )


def _source() -> str:
    """Return the source of the first score above 1 of each run that has any."""
    code = " else ".join(f"if r._value == {literal(name)} then {i}.0" for i, name in enumerate(_SOURCES))
    other = f"{_MILLISECONDS} * {_CODES}.0 + ({code} else {len(_SOURCES)}.0)"
    kinds = {
        "since": _SINCE,
        "said": ("source", "first()", _MILLISECONDS),
        "other": ("source", f"{_NOT_NETWORK}\n  |> first()", other),
    }
    number = f"int(v: float(v: r.other)) % {_CODES}"
    names = " else ".join(f"if {number} == {i} then {literal(name)}" for i, name in enumerate(_SOURCES))
    return _of_listed(
        inline_union(*_found("run: r.run, phase: r.phase", kinds)),
        group("run", "phase", "kind"),
        'min(column: "value")',
        "group()",
        _ARE_LISTED,
        'pivot(rowKey: ["run", "phase"], columnKey: ["kind"], valueColumn: "value")',
        map_to(_SOURCE.replace("CODES", str(_CODES)).replace("NAME", names).replace("UNSAID", UNSAID)),
    )


def _found(labels: str, kinds: Mapping[str, tuple[str, str, str]]) -> list[str]:
    """Return queries for what scores show of each series, a row each: one number and what `kind` it is.

    They read scores in the time range; of a backtest, which has market times, those of all times.

    Args:
        labels: columns of the rows, as in a record of Flux.
        kinds: kind → a field of scores, the steps that keep one of its points, and the expression for the number.
    """
    times_of: tuple[tuple[list[str], dict[str, str]], ...] = (
        (['r.phase != "backtest"'], {}),
        (['r.phase == "backtest"'], {"start": "0", "stop": ""}),
    )
    return [
        points(GATE_SCORES, [field], CONSENSUS, *where, **times)
        + pipe(step, map_to(f'{labels}, kind: "{kind}", value: {value}'))
        for kind, (field, step, value) in kinds.items()
        for where, times in times_of
    ]


def _span() -> str:
    """Return the time range of links into each run."""
    return _of_listed(own_time(), _ARE_LISTED, keep("run", "phase", "from", "to"))


def _bars() -> Panel:
    """Return the worst runs as bars, whenever they ran and however short."""
    why = override(links=[link("What is odd, since when, and why", "anomalies", THIS_TIME, **ROWS_RUN, **ROWS_LAYER)])
    scores_alone = _worst() + pipe('drop(columns: ["above 1 since"])')
    values = dataclasses.replace(WORST_SCORE, low=0)
    name = "${__data.fields.run}, ${__data.fields.where}"
    return (
        bar_gauge("Worst scores", scores_alone, _span(), value="worst score", name=name, values=values, most=MOST_BARS)
        .description(
            f"The {MOST_BARS} runs with the largest anomaly score, whenever they ran. Healthy: up to 1. "
            "Click a bar to see what is odd and why."
        )
        .no_value("No run in this time range has scores")
        .override_by_name("worst score", why)
    )

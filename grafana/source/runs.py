"""Runs: every run, whether it lives, how far it is, how well it does, and the way into each."""

from __future__ import annotations

from typing import Any, Final

from grafana_foundation_sdk.builders.dashboard import Panel

from gatewatch.collector.schema import RUNS, TRAIN_METRICS
from grafana.source import variables
from grafana.source.board import board
from grafana.source.flux import Series, flux, keep_where, pattern, pipe, points, union
from grafana.source.flux_steps import column_values, extend, group, keep, largest, map_to, newest, prefix_user_tags
from grafana.source.links import THIS_RUN, THIS_TIME, link
from grafana.source.panels import stat, table, time_series
from grafana.source.queries import STATES, life, own_time, scores, worst_by, worst_score
from grafana.source.values import GREEN, GREY, HIDDEN, RED, SCORE, WORST_SCORE, Values, by_text, override, thresholds

MOST_RUNS: Final = 500
"""Maximum number of rows in the list: the runs with the newest events."""
MOST_LINES: Final = 20
_BY_RUN: Final = group("run", "phase")
_LOSS: Final = ("val_loss", "loss", "train/loss")
_REWARD: Final = ("reward", "rollout/ep_rew_mean", "equity")
_LOSSES: Final = f"r._field =~ {pattern(*_LOSS)}"
_REWARDS: Final = f"r._field =~ {pattern(*_REWARD)}"
_BEST: Final = "best "
_COLUMNS: Final = (
    *("state", "seen", "step", "epoch", "model", "error", "worst score", "from", "to"),
    *(f"{prefix}{name}" for prefix in ("", _BEST) for name in (*_LOSS, *_REWARD)),
)
"""The columns of the table that are not tags."""
_WIDTHS: Final = {
    **{"run": 210, "phase": 85, "state": 100, "worst score": 105, "step": 80, "epoch": 70},
    **{"loss": 85, "val_loss": 85, "best val_loss": 110, "best loss": 90, "seen": 160},
}
"""The columns that come first, and how wide they are."""
_NAMES: Final = {"seen": "last heard of"}
_ARE_LISTED: Final = keep_where("contains(set: listed, value: r.run)")
_WIDE: Final = ("group()", _ARE_LISTED, 'pivot(rowKey: ["run", "phase"], columnKey: ["_field"], valueColumn: "_value")')
"""Steps that make one row per run and phase, with one column per field; all fields must have one type."""


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    return board(
        "Runs",
        "Every run that was heard of in the time range: whether it lives, how far it is, how well it does.",
        variables.tag_and_value(),
        [
            _count("Live", "Runs that were heard of within two minutes.", "live", GREEN),
            _count("Died", "Silent for two minutes without having said how they ended. Healthy: 0.", "died", RED),
            _count("Failed", "Ended by an error. Healthy: 0; the list below names the error.", "failed", RED),
            _count("Completed", "Ended as they should.", "completed", GREY),
            stat("Worst score, last hour", worst_score(columns=["_value"], start="-1h", stop=""), WORST_SCORE)
            .description("Largest anomaly score of any run in the last hour. Healthy: up to 1.")
            .span(8),
            _table(),
            _scores(),
        ],
        since="now-30d",
        refresh="1m",
    )


def _last_events() -> str:
    """Return the last event of every run and phase in the time range, of the runs with the chosen tag."""
    return points(RUNS, ["event"]) + pipe("last()", variables.OF_CHOSEN_TAG)


def _count(title: str, description: str, state: str, colour: str) -> Panel:
    named = map_to(f"_value: {life()}")
    query = _last_events() + pipe("group()", named, keep_where(f'r._value == "{state}"'), "count()")
    values = Values("none", bands=((None, GREY), (1, colour)))
    return stat(title, query, values).description(description).no_value("0")


def _table() -> Panel:
    ways = [
        link("Gates: what its memory does", "gates", THIS_TIME, **THIS_RUN),
        link("Learning: losses and gradients", "learning", THIS_TIME, **THIS_RUN),
        link("Anomalies: what is odd, and why", "anomalies", THIS_TIME, **THIS_RUN),
        link("Backtest: gates against the market", "backtest", THIS_TIME, **THIS_RUN),
        link("Compare it with another", "compare", run=THIS_RUN["run"]),
    ]
    coloured = override(thresholds=thresholds(WORST_SCORE.bands), custom__displayMode="color-text", decimals=2)
    panel = (
        table(
            "Runs",
            _states(),
            _progress(),
            _of_listed(points(RUNS, ["model", "error"]), "last()", *_WIDE),
            _of_listed(_metrics(f"({_LOSSES} or {_REWARDS})"), "last()", *_WIDE),
            _best(_LOSSES, "min"),
            _best(_REWARDS, "max"),
            _worst(),
            _span(),
            columns=[*_WIDTHS],
            names=_NAMES,
            height=14,
        )
        .description(
            f"A row for each run and phase, the one heard of last first, at most {MOST_RUNS}. Click a run to look "
            "into it, in its own time: the market's for a backtest. Healthy: live or completed, a worst score up to 1."
        )
        .override_by_name("run", override(links=ways))
        .override_by_name("state", override(mappings=by_text(STATES), custom__displayMode="color-text"))
        .override_by_name("worst score", coloured)
        .override_by_regexp("^(best )?(.*loss|.*rew.*|equity)$", override(decimals=4))
        .override_by_name("error", override(custom__width=300))
        .override_by_name("from", HIDDEN)
        .override_by_name("to", HIDDEN)
    )
    for name, width in _WIDTHS.items():
        panel = panel.override_by_name(_NAMES.get(name, name), override(custom__width=width))
    return panel


def _states() -> str:
    return _last_events() + pipe(
        prefix_user_tags(*_COLUMNS),
        "group()",
        extend(f"state: {life()}, seen: r._time"),
        'drop(columns: ["_time", "_start", "_stop", "_value", "_field", "_measurement"])',
        newest(MOST_RUNS, "seen"),
    )


def _of_listed(read: str, *steps: str) -> str:
    """Return a query about the runs in the list, over all times."""
    listed = _last_events() + pipe("group()", newest(MOST_RUNS), column_values("run"))
    return flux(f"listed = {listed}", read + pipe(*steps))


def _metrics(which: str) -> str:
    return points(TRAIN_METRICS, (), which, start="0", stop="")


def _progress() -> str:
    """Return the last step and the epoch of each run."""
    epochs = points(TRAIN_METRICS, ["epoch"], start="0", stop="")
    return _of_listed(union(steps=points(RUNS, ["step"]) + pipe("last()"), epochs=epochs + pipe("last()")), *_WIDE)


def _best(which: str, fn: str) -> str:
    return _of_listed(_metrics(which), f"{fn}()", "group()", extend(f'_field: "{_BEST}" + r._field'), *_WIDE)


def _worst() -> str:
    """Return the largest scores in the time range; for a backtest, which has market times, those of all times."""
    live, market = scores('r.phase != "backtest"'), scores('r.phase == "backtest"', start="0", stop="")
    largest_by_run = pipe(_BY_RUN, "max()")
    named = map_to('run: r.run, phase: r.phase, "worst score": r._value')
    return _of_listed(union(live=live + largest_by_run, market=market + largest_by_run), "group()", _ARE_LISTED, named)


def _span() -> str:
    """Return the time range of links into each run."""
    return _of_listed(own_time(), _ARE_LISTED, keep("run", "phase", "from", "to"))


def _scores() -> Panel:
    query = flux(
        f"worst = {scores()}"
        + pipe("max()", group("run"), "max()", "group()", largest(MOST_LINES), column_values("run")),
        worst_by(scores(), "run") + pipe(keep_where("contains(set: worst, value: r.run)")),
    )
    return (
        time_series("Worst score by run, last day", Series(query, ["run"]), SCORE, size=(24, 8))
        .description(
            f"The largest anomaly score of each run, of the {MOST_LINES} runs where it is largest. Healthy: up to 1."
        )
        .time_from("24h")
    )

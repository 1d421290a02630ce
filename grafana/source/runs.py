"""Runs: every run, whether it lives, how far it is, how well it does, and the way into each."""

from __future__ import annotations

from typing import Any, Final

from grafana_foundation_sdk.models.dashboard import DataTransformerConfig

from gatewatch.collector.schema import GATE_SCORES, GATE_STATS, RUNS, TRAIN_METRICS
from gatewatch.jobs.findings.run_state import DIED_SECONDS
from grafana.source import variables
from grafana.source.board import Section, board
from grafana.source.flux import combined, flux, newest, pattern, pipe, points, prefix_user_tags, values
from grafana.source.links import ANOMALIES, BACKTEST, COMPARE, GATES, LEARNING, dashboard_url
from grafana.source.links import RUNS as UID
from grafana.source.panels import GREEN, GREY, RED, SCORES, by_text, column, limit, lines, number, rows
from grafana.source.queries import CONSENSUS, STATES, life, worst_score
from grafana.source.tables import HIDDEN, link, linked, ordered

MOST_RUNS: Final = 500
"""Rows of the list: the runs heard of last."""
MOST_LINES: Final = 20
_TAGGED: Final = 'filter(fn: (r) => "" =~ /^${value:regex}$/ or r["${tag}"] =~ /^${value:regex}$/)'
_KEY: Final = 'group(columns: ["run", "phase"])'
_LOSS: Final = ("val_loss", "loss", "train/loss")
_REWARD: Final = ("reward", "rollout/ep_rew_mean", "equity")
_LOSSES: Final = f"r._field =~ {pattern(*_LOSS)}"
_REWARDS: Final = f"r._field =~ {pattern(*_REWARD)}"
_BEST: Final = "best "
_COLUMNS: Final = (
    *("state", "seen", "step", "epoch", "model", "error", "worst score", "from", "to"),
    *(f"{prefix}{name}" for prefix in ("", _BEST) for name in (*_LOSS, *_REWARD)),
)
"""The columns of the table beside the tags."""


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    return board(
        UID,
        "Runs",
        "Every run that was heard of in the time range: whether it lives, how far it is, how well it does.",
        [variables.tag(), variables.value()],
        [Section("", [*_counts(), _table(), _scores()])],
        since="now-30d",
        refresh="1m",
    )


def _heard() -> str:
    """Return the last event of every run and phase in the time range."""
    return flux(points(RUNS, ["event"]), pipe("last()", _TAGGED))


def _counts() -> list[Any]:
    return [
        _count("Live", "Runs that were heard of within two minutes.", "live", GREEN),
        _count("Died", "Silent for two minutes without having said how they ended. Healthy: 0.", "died", RED),
        _count("Failed", "Ended by an error. Healthy: 0; the list below names the error.", "failed", RED),
        _count("Completed", "Ended as they should.", "completed", GREY),
        number(
            "Worst score, last hour",
            "Largest anomaly score of any run in the last hour. Healthy: up to 1.",
            worst_score(columns=["_value"], start="-1h", stop=""),
            "short",
            SCORES,
            decimals=2,
        ).span(8),
    ]


def _count(title: str, description: str, state: str, colour: str) -> Any:
    named = f"map(fn: (r) => ({{_value: {life()}}}))"
    query = flux(_heard(), pipe("group()", named, f'filter(fn: (r) => r._value == "{state}")', "count()"))
    return number(title, description, query, "none", ((None, GREY), (1, colour))).no_value("0")


def _table() -> Any:
    run, phase = "${__value.raw:percentencode}", "${__data.fields.phase:percentencode}"
    ways = [
        link(title, dashboard_url(uid, time="from=${__data.fields.from}&to=${__data.fields.to}", run=run, phase=phase))
        for title, uid in (
            ("Gates: what its memory does", GATES),
            ("Learning: losses and gradients", LEARNING),
            ("Anomalies: what is odd, and why", ANOMALIES),
            ("Backtest: gates against the market", BACKTEST),
        )
    ]
    score = {"mode": "absolute", "steps": [{"value": value, "color": colour} for value, colour in SCORES]}
    coloured = column(thresholds=score, custom__displayMode="color-text", decimals=2)
    panel = (
        rows(
            "Runs",
            f"A row for each run and phase, the one heard of last first, at most {MOST_RUNS}. Click a run to look "
            "into it, in its own time: the market's for a backtest. Healthy: live or completed, a worst score up to 1.",
            _states(),
            _progress(),
            _of_listed(points(RUNS, ["model", "error"]), "last()", *_WIDE),
            _of_listed(_metrics(f"({_LOSSES} or {_REWARDS})"), "last()", *_WIDE),
            _best(_LOSSES, "min"),
            _best(_REWARDS, "max"),
            _worst(),
            _span(),
            height=14,
        )
        .with_transformation(DataTransformerConfig(id_val="merge", options={}))
        .override_by_name("run", linked(*ways, link("Compare it with another", dashboard_url(COMPARE, run=run))))
        .override_by_name("state", column(mappings=[by_text(STATES).to_json()], custom__displayMode="color-text"))
        .override_by_name("worst score", coloured)
        .override_by_regexp("^(best )?(.*loss|.*rew.*|equity)$", column(decimals=4))
        .override_by_name("error", column(custom__width=300))
        .override_by_name("from", HIDDEN)
        .override_by_name("to", HIDDEN)
    )
    for name, width in _WIDTHS.items():
        panel = panel.override_by_name(_NAMES.get(name, name), column(custom__width=width))
    return ordered(panel, *_WIDTHS, names=_NAMES)


_WIDTHS: Final = {
    **{"run": 210, "phase": 85, "state": 100, "worst score": 105, "step": 80, "epoch": 70},
    **{"loss": 85, "val_loss": 85, "best val_loss": 110, "best loss": 90, "seen": 160},
}
"""The columns that come first, and how wide they are."""
_NAMES: Final = {"seen": "last heard of"}


def _states() -> str:
    return flux(
        _heard(),
        prefix_user_tags(*_COLUMNS),
        pipe(
            "group()",
            f"map(fn: (r) => ({{r with state: {life()}, seen: r._time}}))",
            'drop(columns: ["_time", "_start", "_stop", "_value", "_field", "_measurement"])',
            newest(MOST_RUNS, "seen"),
        ),
    )


_ARE_LISTED: Final = "filter(fn: (r) => contains(set: listed, value: r.run))"
_WIDE: Final = (
    "group()",
    _ARE_LISTED,
    'pivot(rowKey: ["run", "phase"], columnKey: ["_field"], valueColumn: "_value")',
)
"""Steps that give rows of fields, all of one type, a column each; run and phase are the row."""


def _of_listed(read: str, *steps: str) -> str:
    """Return a query about the runs in the list, whenever they were."""
    listed = pipe("group()", newest(MOST_RUNS), values("run"))
    return flux(f"listed = {_heard()}", listed, read, pipe(*steps))


def _metrics(which: str) -> str:
    return points(TRAIN_METRICS, (), which, start="0", stop="")


def _progress() -> str:
    """Return the last step and the epoch of each run."""
    return _of_listed(
        flux(
            f"steps = {points(RUNS, ['step'])}",
            pipe("last()"),
            f"epochs = {points(TRAIN_METRICS, ['epoch'], start='0', stop='')}",
            pipe("last()"),
            "union(tables: [steps, epochs])",
        ),
        *_WIDE,
    )


def _best(which: str, fn: str) -> str:
    named = f'map(fn: (r) => ({{r with _field: "{_BEST}" + r._field}}))'
    return _of_listed(_metrics(which), f"{fn}()", "group()", named, *_WIDE)


def _worst() -> str:
    """Return the largest scores: of a backtest, which is in market time, those of all times; else of the time range."""
    live = points(GATE_SCORES, ["anomaly_score"], CONSENSUS, 'r.phase != "backtest"')
    market = points(GATE_SCORES, ["anomaly_score"], CONSENSUS, 'r.phase == "backtest"', start="0", stop="")
    named = 'map(fn: (r) => ({run: r.run, phase: r.phase, "worst score": r._value}))'
    return _of_listed(_union("live", live, "max()", "market", market, "max()"), "group()", _ARE_LISTED, named)


def _span() -> str:
    """Return when the captures of each run begin and end, in milliseconds, or `now`: the time range of links into it.

    All series of a run have their captures at the same times, so any of them serves.
    """
    steps = points(GATE_STATS, ["step"], start="0", stop="")
    return _of_listed(
        _union("begun", steps, "first()", "ended", steps, "last()"),
        "map(fn: (r) => ({run: r.run, phase: r.phase, at: int(v: r._time) / 1000000}))",
        _KEY,
        _EXTENT,
        "group()",
        _ARE_LISTED,
        f"map(fn: (r) => ({{r with lives: int(v: now()) / 1000000 - r.to < {int(DIED_SECONDS * 1000)}}}))",
        'map(fn: (r) => ({r with to: if r.lives then "now" else string(v: r.to + 60000)}))',
        "map(fn: (r) => ({run: r.run, phase: r.phase, to: r.to, from: string(v: r.from - 1000)}))",
    )


_EXTENT: Final = """reduce(identity: {from: 9223372036854, to: 0}, fn: (r, accumulator) => ({
      from: if r.at < accumulator.from then r.at else accumulator.from,
      to: if r.at > accumulator.to then r.at else accumulator.to,
    }))"""


def _union(name: str, read: str, fn: str, other: str, read_other: str, fn_other: str) -> str:
    """Return two tables as one, each with one value for a run and phase."""
    return flux(
        *(f"{name} = {read}", pipe(_KEY, fn)),
        *(f"{other} = {read_other}", pipe(_KEY, fn_other)),
        f"union(tables: [{name}, {other}])",
    )


def _scores() -> Any:
    scores = points(GATE_SCORES, ["anomaly_score"], CONSENSUS)
    top = f'top(n: {MOST_LINES}, columns: ["_value"])'
    query = flux(
        f"worst = {scores}",
        pipe("max()", 'group(columns: ["run"])', "max()", "group()", top, values("run")),
        scores,
        combined("max", "run"),
        pipe("filter(fn: (r) => contains(set: worst, value: r.run))"),
    )
    panel = lines(
        "Worst score by run, last day",
        f"The largest anomaly score of each run, of the {MOST_LINES} runs where it is largest. Healthy: up to 1.",
        query,
        "${__field.labels.run}",
        low=0,
        decimals=2,
        bands=limit(1),
    )
    return panel.span(24).time_from("24h")

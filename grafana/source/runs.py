"""Runs: every run, whether it lives, how far it is, how well it does, and the way into each."""

from __future__ import annotations

from typing import Any, Final

from grafana_foundation_sdk.models.dashboard import DataTransformerConfig

from gatewatch.collector.schema import GATE_SCORES, GATE_STATS, RUNS, TRAIN_METRICS
from gatewatch.jobs.findings.run_state import DIED_SECONDS
from grafana.source import variables
from grafana.source.board import Section, board
from grafana.source.flux import apart, combined, flux, pattern, points
from grafana.source.links import ANOMALIES, BACKTEST, COMPARE, GATES, LEARNING, to
from grafana.source.links import RUNS as UID
from grafana.source.panels import CLEAR, GREEN, GREY, RED, YELLOW, banded, by_text, column, lines, number
from grafana.source.queries import CONSENSUS, STATES, life
from grafana.source.tables import link, rows

MOST_RUNS: Final = 500
"""Rows of the list: the runs heard of last."""
MOST_LINES: Final = 20
_TAGGED: Final = '  |> filter(fn: (r) => "" =~ /^${value:regex}$/ or r["${tag}"] =~ /^${value:regex}$/)'
_KEY: Final = '  |> group(columns: ["run", "phase"])'
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
    """The dashboard."""
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
    """The last event of every run and phase in the time range."""
    return flux(points(RUNS, ["event"]), "  |> last()", _TAGGED)


def _counts() -> list[Any]:
    worst = flux(
        points(GATE_SCORES, ["anomaly_score"], CONSENSUS, start="-1h", stop=""),
        "  |> max()",
        "  |> group()",
        "  |> max()",
        '  |> keep(columns: ["_value"])',
    )
    return [
        _count("Live", "Runs that were heard of within two minutes.", "live", GREEN),
        _count("Died", "Silent for two minutes without having said how they ended. Healthy: 0.", "died", RED),
        _count("Failed", "Ended by an error. Healthy: 0; the list below names the error.", "failed", RED),
        _count("Completed", "Ended as they should.", "completed", GREY),
        number(
            "Worst score, last hour",
            "Largest anomaly score of any run in the last hour. Healthy: up to 1.",
            worst,
            "short",
            *((None, GREEN), (0.8, YELLOW), (1, RED)),
        )
        .decimals(2)
        .span(8),
    ]


def _count(title: str, description: str, state: str, colour: str) -> Any:
    query = flux(
        _heard(),
        "  |> group()",
        f"  |> map(fn: (r) => ({{_value: {life()}}}))",
        f'  |> filter(fn: (r) => r._value == "{state}")',
        "  |> count()",
    )
    return number(title, description, query, "none", (None, GREY), (1, colour)).no_value("0")


def _table() -> Any:
    ways = [
        link(
            name, to(uid, time=_SPAN, run="${__value.raw:percentencode}", phase="${__data.fields.phase:percentencode}")
        )
        for name, uid in (
            ("Gates: what its memory does", GATES),
            ("Learning: losses and gradients", LEARNING),
            ("Anomalies: what is odd, and why", ANOMALIES),
            ("Backtest: gates against the market", BACKTEST),
        )
    ]
    ways.append(link("Compare it with another", to(COMPARE, run="${__value.raw:percentencode}")))
    score = {"mode": "absolute", "steps": _steps((None, GREEN), (0.8, YELLOW), (1, RED))}
    state_colours = by_text(STATES).to_json()
    hidden = column(custom__hidden=True)
    panel = (
        rows(
            "Runs",
            f"A row for each run and phase, the one heard of last first, at most {MOST_RUNS}. Click a run to look "
            "into it, in its own time: the market's for a backtest. Healthy: live or completed, a worst score up to 1.",
            _states(),
            _counts_of(),
            _about(),
            _newest_metrics(),
            _best(_LOSSES, "min"),
            _best(_REWARDS, "max"),
            _worst(),
            _span(),
        )
        .height(14)
        .with_transformation(_transformation("merge", {}))
        .with_transformation(_transformation("organize", {"indexByName": _ORDER, "renameByName": _NAMES}))
        .override_by_name("run", column(links=ways))
        .override_by_name("state", column(mappings=[state_colours], custom__displayMode="color-text"))
        .override_by_name("worst score", column(thresholds=score, custom__displayMode="color-text", decimals=2))
        .override_by_regexp("^(best )?(.*loss|.*rew.*|equity)$", column(decimals=4))
        .override_by_name("error", column(custom__width=300))
        .override_by_name("from", hidden)
        .override_by_name("to", hidden)
    )
    for name, width in _WIDTHS.items():
        panel = panel.override_by_name(_NAMES.get(name, name), column(custom__width=width))
    return panel


_SPAN: Final = "from=${__data.fields.from}&to=${__data.fields.to}"
_WIDTHS: Final = {
    "run": 210,
    "phase": 85,
    "state": 100,
    "worst score": 105,
    "step": 80,
    "epoch": 70,
    "loss": 85,
    "val_loss": 85,
    "best val_loss": 110,
    "best loss": 90,
    "seen": 160,
}
"""The columns that come first, and how wide they are."""
_ORDER: Final = {name: number for number, name in enumerate(_WIDTHS)}
_NAMES: Final = {"seen": "last heard of"}


def _transformation(name: str, options: dict[str, Any]) -> DataTransformerConfig:
    return DataTransformerConfig(id_val=name, options=options)


def _steps(*steps: tuple[float | None, str]) -> list[dict[str, Any]]:
    return [{"value": value, "color": colour} for value, colour in steps]


def _states() -> str:
    return flux(
        _heard(),
        apart(*_COLUMNS),
        "  |> group()",
        f"  |> map(fn: (r) => ({{r with state: {life()}, seen: r._time}}))",
        '  |> drop(columns: ["_time", "_start", "_stop", "_value", "_field", "_measurement"])',
        '  |> sort(columns: ["seen"], desc: true)',
        f"  |> limit(n: {MOST_RUNS})",
    )


def _listed() -> str:
    """The names of the runs in the list: what else is asked is asked of them, whenever it was."""
    return flux(
        f"listed = {_heard()}",
        "  |> group()",
        '  |> sort(columns: ["_time"], desc: true)',
        f"  |> limit(n: {MOST_RUNS})",
        '  |> findColumn(fn: (key) => true, column: "run")',
    )


_ARE_LISTED: Final = "  |> filter(fn: (r) => contains(set: listed, value: r.run))"


def _counts_of() -> str:
    """How far each run is: the last step and the epoch."""
    return flux(
        _listed(),
        f"steps = {points(RUNS, ['step'])}",
        "  |> last()",
        f"epochs = {points(TRAIN_METRICS, ['epoch'], start='0', stop='')}",
        "  |> last()",
        "union(tables: [steps, epochs])",
        *_wide(),
    )


def _about() -> str:
    return flux(_listed(), points(RUNS, ["model", "error"]), "  |> last()", *_wide())


def _newest_metrics() -> str:
    which = f"({_LOSSES} or {_REWARDS})"
    return flux(_listed(), points(TRAIN_METRICS, (), which, start="0", stop=""), "  |> last()", *_wide())


def _best(which: str, fn: str) -> str:
    return flux(
        _listed(),
        points(TRAIN_METRICS, (), which, start="0", stop=""),
        f"  |> {fn}()",
        "  |> group()",
        f'  |> map(fn: (r) => ({{r with _field: "{_BEST}" + r._field}}))',
        *_wide(),
    )


def _wide() -> tuple[str, ...]:
    """Of rows of fields, all of one type, a column each; the run and the phase are the row."""
    return (
        "  |> group()",
        _ARE_LISTED,
        '  |> pivot(rowKey: ["run", "phase"], columnKey: ["_field"], valueColumn: "_value")',
    )


def _worst() -> str:
    """The largest scores: of a backtest whenever the market had it, of others in the time range."""
    live = points(GATE_SCORES, ["anomaly_score"], CONSENSUS, 'r.phase != "backtest"')
    market = points(GATE_SCORES, ["anomaly_score"], CONSENSUS, 'r.phase == "backtest"', start="0", stop="")
    return flux(
        _listed(),
        f"live = {live}",
        _KEY,
        "  |> max()",
        f"market = {market}",
        _KEY,
        "  |> max()",
        "union(tables: [live, market])",
        "  |> group()",
        _ARE_LISTED,
        '  |> map(fn: (r) => ({run: r.run, phase: r.phase, "worst score": r._value}))',
    )


def _span() -> str:
    """From when to when a run has captures, in milliseconds, or until now: what a link into it sets.

    All series of a run have their captures at the same times: whichever InfluxDB takes, its first and last will do.
    """
    steps = points(GATE_STATS, ["step"], start="0", stop="")
    return flux(
        _listed(),
        f"begun = {steps}",
        _KEY,
        "  |> first()",
        f"ended = {steps}",
        _KEY,
        "  |> last()",
        "union(tables: [begun, ended])",
        "  |> map(fn: (r) => ({run: r.run, phase: r.phase, at: int(v: r._time) / 1000000}))",
        _KEY,
        "  |> reduce(identity: {from: 9223372036854, to: 0}, fn: (r, accumulator) => ({",
        "      from: if r.at < accumulator.from then r.at else accumulator.from,",
        "      to: if r.at > accumulator.to then r.at else accumulator.to,",
        "    }))",
        "  |> group()",
        _ARE_LISTED,
        f"  |> map(fn: (r) => ({{r with lives: int(v: now()) / 1000000 - r.to < {int(DIED_SECONDS * 1000)}}}))",
        '  |> map(fn: (r) => ({r with to: if r.lives then "now" else string(v: r.to + 60000)}))',
        "  |> map(fn: (r) => ({run: r.run, phase: r.phase, to: r.to, from: string(v: r.from - 1000)}))",
    )


def _scores() -> Any:
    scores = points(GATE_SCORES, ["anomaly_score"], CONSENSUS)
    query = flux(
        f"worst = {scores}",
        "  |> max()",
        '  |> group(columns: ["run"])',
        "  |> max()",
        "  |> group()",
        f'  |> top(n: {MOST_LINES}, columns: ["_value"])',
        '  |> findColumn(fn: (key) => true, column: "run")',
        scores,
        combined("max", "run"),
        "  |> filter(fn: (r) => contains(set: worst, value: r.run))",
    )
    panel = lines(
        "Worst score by run, last day",
        f"The largest anomaly score of each run, of the {MOST_LINES} runs where it is largest. Healthy: up to 1.",
        query,
        "${__field.labels.run}",
    )
    return banded(panel.span(24).time_from("24h").min(0).decimals(2), (None, CLEAR), (1, RED))

"""The list of runs: what the first page shows of each, from small reads of the store."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from gatewatch.collector.names import OWN_TAGS
from gatewatch.collector.schema import RUNS, TRAIN_METRICS
from gatewatch.collector.store.columns import tag_columns
from gatewatch.jobs.findings.run_state import current_state
from gatewatch.jobs.frames import not_finite, numbers
from gatewatch.jobs.view.trend import Line, Trend, number_columns

if TYPE_CHECKING:
    from gatewatch.collector.store import Store
    from gatewatch.jobs.view.trends import Trends

MOST_METRICS: Final = 6
"""How many metrics of a run are listed, losses first."""
MILLISECOND: Final = 1_000_000


class RunList:
    """The rows of the list. What has not changed since the last call is not read again.

    Args:
        store: holds the runs.
        trends: brings their trends up to date, in a thread of its own.
    """

    def __init__(self, store: Store, trends: Trends) -> None:
        self._store, self._trends = store, trends
        self._lock = threading.Lock()
        self._revisions: dict[str, str] | None = None
        self._known: list[dict[str, Any]] = []
        self._last_event: dict[str, tuple[str, datetime]] = {}
        self._drawn: dict[str, tuple[Trend, dict[str, Any]]] = {}

    def rows(self, now: datetime) -> dict[str, Any]:
        """Return the runs, the one with the newest event first, and how many of them wait for their trend.

        Args:
            now: with a zone; tells a run that goes on from one that has died.

        Raises:
            WriteUnavailable, ConfigError: the store cannot be read.
        """
        with self._lock:
            revisions = self._store.revisions()
            if revisions != self._revisions:
                self._read()
                self._revisions = revisions
            rows = [row | {"state": self._state(row["run"], now)} for row in self._known]
        wanted = {row["run"]: f"{revisions.get(row['run'])} {row['state']}" for row in rows}
        self._trends.want(wanted, [row["run"] for row in rows if row["state"] == "live"])
        trends, waiting = self._trends.known()
        return {"runs": [row | {"trend": self._shown(row["run"], trends)} for row in rows], "waiting": waiting}

    def _shown(self, run: str, trends: Mapping[str, Trend]) -> dict[str, Any] | None:
        """Return a trend as the page takes it, which is made once; None where it is not known yet."""
        if (trend := trends.get(run)) is None:
            return None
        if (kept := self._drawn.get(run)) is None or kept[0] is not trend:
            kept = self._drawn[run] = (trend, _trend(trend))
        return kept[1]

    def _state(self, run: str, now: datetime) -> str:
        event, seen = self._last_event[run]
        return current_state(event, (now - seen).total_seconds())

    def _read(self) -> None:
        runs = self._store.runs()
        tags = _tags(self._store.newest(RUNS, prefix_tags=True))
        metrics = _metrics(self._store.newest(TRAIN_METRICS, prefix_tags=True))
        self._known = [_row(row, tags, metrics) for row in runs.to_dict("records")]
        self._last_event = {
            str(row["run"]): (str(row["state"]), row["last_seen"].floor("us").to_pydatetime())
            for row in runs.to_dict("records")
        }


def _row(row: Mapping[Any, Any], tags: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    run = str(row["run"])
    logged = metrics.get(run, {})
    steps = [each for each in (row["step"], logged.get("step")) if isinstance(each, int | float)]
    return {
        "run": run,
        "phases": str(row["phases"] or ""),
        "started": _milliseconds(row["started"]),
        "seen": _milliseconds(row["last_seen"]),
        "step": int(max(steps)) if steps else None,
        "epoch": logged.get("epoch"),
        "framework": row["framework"],
        "model": row["model"],
        "error": row["error"],
        "tags": tags.get(run, {}),
        "metrics": logged.get("metrics", []),
    }


def _milliseconds(moment: pd.Timestamp) -> int | None:
    return None if pd.isna(moment) else moment.value // MILLISECOND


def _tags(newest: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Return run → the user's own tags."""
    own = {column: name for column, name in tag_columns(newest.columns).items() if name not in OWN_TAGS}
    by_run: dict[str, dict[str, str]] = {}
    for row in newest.to_dict("records"):
        found = {name: row[column] for column, name in own.items() if isinstance(row[column], str)}
        if isinstance(row.get("run"), str):
            by_run.setdefault(row["run"], {}).update(found)
    return by_run


def _metrics(newest: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return run → step, epoch and the metrics of its newest point; a value that is not finite is "NaN"."""
    by_run: dict[str, dict[str, Any]] = {}
    if newest.empty or "run" not in newest:
        return by_run
    names = number_columns(newest)
    broken, step, epoch = not_finite(newest), numbers(newest, "step"), numbers(newest, "epoch")
    values = {column: numbers(newest, column) for column in names}
    ordered = sorted(names, key=lambda column: ("loss" not in names[column], names[column]))
    for i, run in enumerate(newest["run"]):
        if not isinstance(run, str):
            continue
        finite = [(names[column], float(values[column][i])) for column in ordered if np.isfinite(values[column][i])]
        shown: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in finite[:MOST_METRICS]]
        if broken[i]:
            shown.insert(0, {"name": f"{int(broken[i])} not finite", "value": None})
        by_run[run] = {
            "step": step[i] if math.isfinite(step[i]) else None,
            "epoch": int(epoch[i]) if math.isfinite(epoch[i]) else None,
            "metrics": shown,
        }
    return by_run


def _trend(trend: Trend) -> dict[str, Any]:
    worst = trend.worst
    return {
        "now": trend.now,
        "worst": worst
        and {
            "score": worst.score,
            "phase": worst.phase,
            "layer": worst.layer,
            "gate": worst.gate,
            "since": worst.since,
            "since_time": worst.since_time and worst.since_time // MILLISECOND,
        },
        "scores": {name: values for name, values in _line(trend.scores).items() if name != "low"},
        "loss": {"name": trend.loss_name, **_line(trend.loss)},
    }


def _line(line: Line) -> dict[str, Any]:
    """Return a line with its times as shares of its span, to four digits: no chart of this size shows more."""
    span = float(line.start[-1] - line.start[0]) if len(line.start) > 1 else 1.0
    x = np.round((line.start - line.start[:1]) / span, 4) if len(line.start) else line.start
    return {"x": x.tolist(), "low": _short(line.low), "high": _short(line.high)}


def _short(values: Any) -> list[float]:
    return [float(f"{value:.4g}") for value in values.tolist()]

"""The monitoring loop as one function over public parts, for a script or a notebook that watches a run by itself.

The service, `gatewatch jobs`, does the same for every run of a store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from gatewatch.collector.config import load_settings
from gatewatch.collector.errors import ConfigError, GatewatchError, WriteUnavailable
from gatewatch.collector.schema import GATE_DERIVED, GATE_SCORES, GATE_STATS, LAYER_UPDATES, TRAIN_METRICS
from gatewatch.collector.store.columns import field_columns
from gatewatch.jobs.findings.run_state import current_state

if TYPE_CHECKING:
    import pandas as pd

    from gatewatch.collector.store import Store
    from gatewatch.jobs.alerts import AlertManager

_MEASURED: Final = (LAYER_UPDATES, TRAIN_METRICS, GATE_DERIVED, GATE_SCORES)


@dataclass(slots=True)
class WatchResult:
    """What `watch_run` did.

    Attributes:
        turns: number of turns.
        scored: number of scores that were written.
        anomalous: of these, scores above 1.
        failed: why the last pass over the run stopped; None where it did not.
    """

    turns: int = 0
    scored: int = 0
    anomalous: int = 0
    failed: str | None = None


def watch_run(
    store: Store,
    run: str,
    *,
    every: float = 15.0,
    alerts: AlertManager | None = None,
    report: Path | None = None,
    until: Callable[[], bool] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> WatchResult:
    """Watch one run while it goes on, until it has ended and its last capture is scored.

    Each turn does this, then waits:

    - read the new captures, and compute their derived metrics;
    - score them against the store's baselines (the normal templates of `gatewatch baseline`) and with detectors that
      are trained on the baselines and on the run's own past;
    - send alerts, and write the report.

    If the run has not begun, or the store does not answer, the loop waits for it. It may run beside the service: both
    write the same points.

    Args:
        store: the store that holds the run's points.
        run: name of the run.
        every: seconds between two turns.
        alerts: compares the newest metrics with its thresholds (see `newest_metrics` for their names), and sends a
            mail for each metric that crosses one. If the mail server is away, the next turn tries again.
        report: file that the report is written to after each turn; a browser that shows it reloads it.
        until: called before each turn; returns whether the turn is the last, although the run has not ended.
        sleep: waits the given number of seconds.

    Raises:
        ConfigError: the store cannot be read or written with these settings, the report cannot be written, or no mail
            server is configured.
    """
    from gatewatch.jobs.report.page import write_report  # noqa: PLC0415 - Plotly is imported only where it is used
    from gatewatch.jobs.scoring.scoring_pass import run_pass  # noqa: PLC0415 - scikit-learn is imported only where it is used

    rate = load_settings().jobs.false_alarm_rate
    watched, alerted, looks = WatchResult(), set[str](), RunWatch(store)
    with TemporaryDirectory(prefix="gatewatch-") as checkpoints:
        while True:
            last, done = until is not None and until(), False
            with suppress(WriteUnavailable):
                if (state := looks.state(run)) is not None:
                    ended = state != "live"
                    (turn,) = run_pass(store, run, state=Path(checkpoints), finish=ended, false_alarm_rate=rate)
                    watched.scored += turn.scored
                    watched.anomalous += turn.anomalous
                    watched.failed = turn.failed
                    if alerts is not None:
                        alerted = _alert(alerts, newest_metrics(store, run), alerted)
                    done = ended and (turn.failed is not None or is_scored(store, run))
                    if report is not None:
                        write_report(store, run, report, refresh=None if done or last else max(1, round(every)))
            watched.turns += 1
            if done or last:
                return watched
            sleep(every)


def _alert(alerts: AlertManager, metrics: Mapping[str, float], alerted: set[str]) -> set[str]:
    """Send an alert about metrics newly beyond their thresholds; return those that need no further alert."""
    beyond = alerts.check_metrics(metrics)
    try:
        alerts.send_alert([exceeded for exceeded in beyond if exceeded.metric not in alerted])
    except ConfigError:
        raise
    except GatewatchError:
        return alerted & {exceeded.metric for exceeded in beyond}
    return {exceeded.metric for exceeded in beyond}


def newest_metrics(store: Store, run: str) -> dict[str, float]:
    """Return the newest values of a run: name of a field → its largest value among layers and gates.

    They come from the newest points of each of `layer_updates`, `train_metrics`, `gate_derived` and `gate_scores`.
    """
    metrics: dict[str, float] = {}
    for measurement in _MEASURED:
        newest = store.tallies(measurement, "step" if measurement != GATE_DERIVED else "window_s").get(run)
        if newest is None:
            continue
        points = store.find(measurement, run=run, start=newest[1], prefix_tags=True)
        names = field_columns(points.columns)
        largest = points[[*names]].select_dtypes("number").max().dropna()
        metrics |= {names[str(column)]: float(value) for column, value in largest.items()}
    return metrics


class RunWatch:
    """Tells again and again whether a run lives. The time of day counts at the first look alone: it may jump later.

    Args:
        store: the store that holds the run's points.
        clock: seconds, monotonic.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self._last_seen: pd.Timestamp | None = None
        self._heard = 0.0

    def state(self, run: str) -> str | None:
        """Return `live`, `died`, or how the run ended; None where the store holds no such run."""
        runs = self._store.runs().set_index("run")
        if run not in runs.index:
            return None
        now, last_seen = self._clock(), runs["last_seen"][run]
        if last_seen != self._last_seen:
            silent: pd.Timedelta = datetime.now(UTC) - last_seen
            self._heard = now - (max(0.0, silent.total_seconds()) if self._last_seen is None else 0.0)
            self._last_seen = last_seen
        return current_state(str(runs["state"][run]), now - self._heard)


def is_scored(store: Store, run: str) -> bool:
    """Return whether every capture of a run has its derived points, which are written last."""
    return store.tallies(GATE_STATS, "step").get(run) == store.tallies(GATE_DERIVED, "window_s").get(run)

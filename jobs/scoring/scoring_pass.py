"""One pass over a store: reads captures, writes `gate_derived` and `gate_scores`.

The points of a capture depend on it and on earlier captures of its run alone, so a pass is idempotent: run twice, late,
or by two processes at once, it writes the same points. Checkpoints store how far each run was scored; they may be lost.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from gatewatch.collector.errors import ConfigError, WriteUnavailable
from gatewatch.collector.schema import GATE_DERIVED, GATE_STATS, TRAIN_METRICS
from gatewatch.collector.store import Store
from gatewatch.collector.store.runs import find_run
from gatewatch.jobs import checkpoint as checkpoints
from gatewatch.jobs.baselines import Baselines
from gatewatch.jobs.findings.run_state import current_state
from gatewatch.jobs.scoring.captures import NEVER, feature_names, series_groups
from gatewatch.jobs.scoring.detectors import DETECTORS, Detector
from gatewatch.jobs.scoring.metrics import METRICS
from gatewatch.jobs.scoring.metrics.base import Metric
from gatewatch.jobs.scoring.references import References
from gatewatch.jobs.scoring.run_limit import FALSE_ALARM_RATE
from gatewatch.jobs.scoring.run_scorer import PassResult, RunScorer

__all__ = ["PassResult", "run_pass"]


def run_pass(  # noqa: PLR0913 - all but the first three by name
    store: Store,
    run: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    *,
    state: Path | None = None,
    shard: tuple[int, int] = (0, 1),
    finish: bool = True,
    limit: int | None = None,
    again: bool = False,
    detectors: Sequence[type[Detector]] = DETECTORS,
    metrics: Sequence[Metric] = METRICS,
    false_alarm_rate: float = FALSE_ALARM_RATE,
) -> list[PassResult]:
    """Write derived metrics and scores for the runs of a store; runs whose captures are all scored are skipped.

    Args:
        store: holds the captures, and gets the points.
        run: only this run.
        progress: called before each run with its name, its number and the number of runs.
        state: folder of checkpoints; None: every run is scored from its beginning.
        shard: only the runs of this shard: its number, and how many there are.
        finish: whether to score the newest capture of a live run at once. If not, it is scored when a newer capture
            exists, or when it did not change between two passes, so that no incomplete capture is scored.
        limit: the maximum number of captures scored for each group of a run's series; the next pass scores the others.
        again: score every run from its beginning, and write its points again.
        detectors: classes of the detectors, in the order in which they score.
        metrics: the derived metrics.
        false_alarm_rate: the share of healthy runs that may alarm, where there are enough baselines.

    Returns:
        What was done with each run, newest run first.

    Raises:
        ConfigError: there is no such run.
        WriteUnavailable: the store does not answer.
    """
    runs = store.runs()
    states = dict(zip(runs["run"], runs["state"], strict=True))
    configs = dict(zip(runs["run"], runs["config"], strict=True))
    names = [name for name in states if zlib.crc32(name.encode()) % shard[1] == shard[0]]
    if run is not None:
        names = [find_run(run, [*states], store.url)]
    captured, derived = store.tallies(GATE_STATS, "step"), store.tallies(GATE_DERIVED, "window_s")
    losses, gaps = store.tallies(TRAIN_METRICS, "val_loss"), store.tallies(GATE_DERIVED, "generalisation_gap")
    scorer = partial(
        RunScorer, store, Baselines(store, false_alarm_rate), References(store), state, limit, detectors, metrics
    )
    passes = []
    for number, name in enumerate(names):
        if progress is not None:
            progress(name, number, len(names))
        result = PassResult(name)
        passes.append(result)
        newest_loss, newest_gap = (each.get(name, (0, NEVER))[1] for each in (losses, gaps))
        try:
            if not again and newest_loss <= newest_gap and captured.get(name) == derived.get(name):
                result.unchanged = True
                if finish:
                    for group in series_groups(store, name):
                        result.count_captures(group.phase, max(points for _, points in group.series))
                continue
            if again and state is not None:
                checkpoints.forget(state, name)
            ended = finish or current_state(states[name], 0.0) != "live"
            gaps_after = NEVER if again else newest_gap if newest_loss > newest_gap else None
            scorer(result, ended, gaps_after, feature_names(configs[name])).process_new()
            result.unchanged = not result.written and not result.behind
        except (ConfigError, WriteUnavailable):
            raise
        except Exception as error:  # odd points of one run must not keep the others from their scores
            result.failed = f"{type(error).__name__}: {error}"
    return passes

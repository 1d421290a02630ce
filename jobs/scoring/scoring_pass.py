"""One pass over a store: reads captures, writes `gate_derived` and `gate_scores`.

What is written of a capture depends on it and on earlier captures of its run alone, so a pass run twice, or late, or
by two at once, writes the same points. How far a run was looked at is kept in checkpoints, which may be lost.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

from gatewatch.collector.errors import ConfigError, WriteUnavailable
from gatewatch.collector.schema import GATE_DERIVED, GATE_STATS, TRAIN_METRICS
from gatewatch.collector.store import Store
from gatewatch.jobs import checkpoint as checkpoints
from gatewatch.jobs.baselines import Baselines
from gatewatch.jobs.findings.run_state import life
from gatewatch.jobs.scoring.run_scorer import Look, Pass
from gatewatch.jobs.scoring.series_groups import NEVER, groups_of

__all__ = ["Pass", "run_pass"]

Progress = Callable[[str, int, int], None]


def run_pass(
    store: Store,
    run: str | None = None,
    progress: Progress | None = None,
    *,
    state: Path | None = None,
    shard: tuple[int, int] = (0, 1),
    finish: bool = True,
    limit: int | None = None,
    again: bool = False,
) -> list[Pass]:
    """Derive and score the runs of a store; one whose captures all have their points already is left as it is.

    Args:
        store: where the captures are, and where the points go.
        run: only this run.
        progress: told the run, its number and the number of runs before each.
        state: folder of checkpoints; None: every run is looked at from its beginning.
        shard: only the runs of this shard: its number, and how many there are.
        finish: take the newest capture of a run that goes on too. Otherwise it waits until a newer one is there, or
            until it did not change from one pass to the next: so none is taken while half of it is still on its way.
        limit: captures of a run, at the most; the others are left for the next pass.
        again: look at every run from its beginning, and write its points again.

    Returns:
        What was done, by run, newest run first.

    Raises:
        ConfigError: there is no such run.
        WriteUnavailable: the store does not answer.
    """
    runs = store.runs()
    states = dict(zip(runs["run"], runs["state"], strict=True))
    names = [name for name in states if zlib.crc32(name.encode()) % shard[1] == shard[0]]
    if run is not None:
        if run not in states:
            known = f"it holds {', '.join([*states][:5])}" if states else "it is empty"
            raise ConfigError(f"run {run!r} is not in {store.url}; {known}")
        names = [run]
    done = _Done(store)
    baselines = Baselines(store)
    passes = []
    for number, name in enumerate(names):
        if progress is not None:
            progress(name, number, len(names))
        result = Pass(name)
        passes.append(result)
        try:
            if not again and done.with_all_of(name):
                result.unchanged = True
                if finish:
                    _count_captures(store, result)
                continue
            if again and state is not None:
                checkpoints.forget(state, name)
            ended = finish or life(states[name], 0.0) != "live"
            told = NEVER if again else done.gap(name)
            look = Look(store, result, baselines, state, told, again or not done.with_all_gaps(name))
            look.at_what_is_new(ended, limit)
            result.unchanged = not result.written and not result.behind
        except (ConfigError, WriteUnavailable):
            raise
        except Exception as error:  # one run's points are odd: the others have their scores all the same
            result.failed = f"{type(error).__name__}: {error}"
    return passes


class _Done:
    """Which runs have all their points, told by counting."""

    def __init__(self, store: Store) -> None:
        self._captured = store.tallies(GATE_STATS, "step")
        self._derived = store.tallies(GATE_DERIVED, "window_s")
        self._losses = store.tallies(TRAIN_METRICS, "val_loss")
        self._gaps = store.tallies(GATE_DERIVED, "generalisation_gap")

    def with_all_of(self, run: str) -> bool:
        never = (0, 0)
        return self.with_all_gaps(run) and self._captured.get(run, never) == self._derived.get(run, never)

    def with_all_gaps(self, run: str) -> bool:
        return self._losses.get(run, (0, NEVER))[1] <= self.gap(run)

    def gap(self, run: str) -> int:
        """Time of the newest gap that was told."""
        return self._gaps.get(run, (0, NEVER))[1]


def _count_captures(store: Store, result: Pass) -> None:
    for group in groups_of(store, result.run):
        captured = max(points for _, points in group.series)
        result.captures += captured
        result.phases[group.phase] = min(result.phases.get(group.phase, captured), captured)

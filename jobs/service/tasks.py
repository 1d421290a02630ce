"""What a worker does, on this machine or another: functions of a module, with plain arguments and results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gatewatch.collector.errors import ConfigError, WriteUnavailable
from gatewatch.collector.runtime.native_threads import single_threaded_blas
from gatewatch.collector.store import Store, reopen_store

if TYPE_CHECKING:
    from gatewatch.jobs.alerts import Outcome
    from gatewatch.jobs.scoring.scoring_pass import PassResult

Progress = Callable[[str, int, int], None]


class Stopping(BaseException):  # as KeyboardInterrupt: no failure, and not to be caught as one
    """Raised by `progress`: leave off before the next run."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn of a job did. It can be pickled.

    Attributes:
        passes: what was done, by run.
        alerts: what became of the alerts.
        seconds: that it took.
        problem: why the store could not be read or written, one line; None where it could.
        lasting: whether somebody must mend something before the store can be used.
    """

    passes: tuple[PassResult, ...] = ()
    alerts: Outcome | None = None
    seconds: float = 0.0
    problem: str | None = None
    lasting: bool = False

    @property
    def behind(self) -> int:
        """Captures that are left for the next turn, without the newest of each run and phase: it waits to be whole."""
        return sum(done.behind for done in self.passes if done.behind > max(1, len(done.phases)))


@contextmanager
def opened(destination: Mapping[str, str]) -> Iterator[Store]:
    """Open the store, which must exist: a store that is a file is made by a collector, never by a job.

    Raises:
        ConfigError: it cannot be opened.
        WriteUnavailable: its file does not exist.
    """
    store = reopen_store(destination)
    if not store.exists():
        raise WriteUnavailable(f"{destination['url']} does not exist yet; the first training makes it", slow=True)
    try:
        yield store
    finally:
        store.close()


def turn(work: Callable[[Store], Turn], destination: Mapping[str, str]) -> Turn:
    """Do some work on a store; that it cannot be used now is an outcome, anything else an exception."""
    begin = time.monotonic()
    done = Turn()
    try:
        with opened(destination) as store, single_threaded_blas():
            done = work(store)
    except WriteUnavailable as error:
        done = Turn(problem=str(error), lasting=error.slow)
    except ConfigError as error:
        done = Turn(problem=str(error), lasting=True)
    except Stopping:
        pass
    return replace(done, seconds=time.monotonic() - begin)


def score(
    destination: Mapping[str, str],
    shard: tuple[int, int],
    state: str,
    limit: int,
    false_alarm_rate: float,
    progress: Progress | None = None,
) -> Turn:
    """Derive and score what is new of the runs of one shard.

    Args:
        destination: of the store; the token of an InfluxDB comes from the worker's environment.
        shard: its number and how many there are.
        state: the folder of checkpoints on the worker's machine; where it cannot be made the pass does without.
        limit: captures of a run at the most; the others are left for the next turn.
        false_alarm_rate, progress: as of `run_pass`.
    """

    from gatewatch.jobs.scoring.scoring_pass import run_pass  # noqa: PLC0415 - scikit-learn loads slowly, and here nobody waits for it

    folder: Path | None = Path(state)
    try:
        Path(state).mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = None
    given = partial(run_pass, state=folder, shard=shard, limit=limit, false_alarm_rate=false_alarm_rate)
    work = partial(given, progress=progress, finish=False)
    return turn(lambda store: Turn(tuple(work(store))), destination)

"""The service: what runs when, what is said of it, and how it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gatewatch.collector.errors import ConfigError, WriteUnavailable, reason_of
from gatewatch.collector.times import SteadyTime
from gatewatch.jobs.service.dask_cluster import DaskCluster
from gatewatch.jobs.service.health import Health
from gatewatch.jobs.service.intervals import IntervalScheduler
from gatewatch.jobs.service.problem_log import ProblemLog
from gatewatch.jobs.service.tasks import Stopping, Turn, opened, score, turn
from gatewatch.jobs.text import duration, first_few, printable

if TYPE_CHECKING:
    from gatewatch.collector.config import Settings
    from gatewatch.collector.store import Store
    from gatewatch.jobs.alerts import Outcome

ALERTS: Final = "alerts"
HEALTH: Final = "health"
DRAIN_SECONDS: Final = 20.0
"""How long what is going on may take to end, once it is asked to."""
STUCK_INTERVALS: Final = 4
STUCK_SECONDS: Final = 60.0
"""A turn without progress for this many intervals, and this many seconds, is logged."""
_LOOK_SECONDS: Final = 0.2


class Service:
    """Scores what is new of every run, evaluates alerts and writes `jobs_health`, until it is stopped.

    Whatever happens in a turn of a job, the next is tried: a store that is away is said once when it goes and once
    when it is back. Any number of services may work on one store; they write the same points.

    Args:
        destination: of the store.
        settings: `[jobs]`: the interval, the executor and so on.
        folder: of checkpoints.
        evaluate: evaluates the alerts of a store, each interval; None where there are none.
        tell: given a line of each turn that did something.
        warn: given a line of what goes wrong, and when it is well again.

    Raises:
        ConfigError: the executor cannot be had.
    """

    def __init__(
        self,
        destination: Mapping[str, str],
        settings: Settings,
        folder: Path,
        *,
        evaluate: Callable[[Store], Outcome | None] | None = None,
        tell: Callable[[str], None] = lambda line: None,
        warn: Callable[[str], None],
    ) -> None:
        self._destination = dict(destination)
        self._settings = settings.jobs
        self._tell = tell
        self._problems = ProblemLog(warn)
        self._stopping = False
        workers, name = self._settings.workers, self._settings.executor
        self._cluster = None if name == "local" else DaskCluster(name, workers, self._problems)
        jobs: dict[str, Callable[[], Turn]] = {}
        for k in range(workers):
            job = "score" if workers == 1 else f"score-{k + 1}"
            chosen = self._settings.captures_per_pass, self._settings.false_alarm_rate
            arguments = (self._destination, (k, workers), str(folder), *chosen)
            if self._cluster is None:
                jobs[job] = partial(score, *arguments, partial(self._progress, job))
            else:  # workers cannot report to this process how far they are
                jobs[job] = partial(self._cluster.call, score, *arguments)
        if evaluate is not None:
            jobs[ALERTS] = partial(turn, lambda store: Turn(alerts=evaluate(store)), self._destination)
        self.health = Health(jobs, time.monotonic())
        self._time = SteadyTime(time.time_ns, time.monotonic)
        self._scheduler = self._scheduled(jobs)

    def run(self) -> bool:
        """Work until `stop` is called or the main thread ends; return whether everything had ended by then."""
        try:
            while not self._stopping and threading.main_thread().is_alive():
                self._scheduler.start_due()
                time.sleep(_LOOK_SECONDS)
                self._watch()
        finally:
            drained = self._drain()
        return drained

    def stop(self) -> None:
        """Begin nothing new, and end. From any thread, or from a signal's handler."""
        self._stopping = True

    def _scheduled(self, jobs: Mapping[str, Callable[[], Turn]]) -> IntervalScheduler:
        scheduler = IntervalScheduler(self._missed)
        interval = self._settings.interval_seconds
        for name, work in jobs.items():
            scheduler.add(name, interval, partial(self._turn, name, work))
        scheduler.add(HEALTH, min(interval, 15.0), self._flush)
        return scheduler

    def _flush(self) -> None:
        points = self.health.take(time.monotonic(), self._time())
        if not points:
            return
        try:
            with opened(self._destination) as store:
                store.write(points)
        except (ConfigError, WriteUnavailable):  # the jobs meet it too, and say it
            self.health.give_back(points)
        except Exception as error:
            text = f"jobs_health cannot be written: {reason_of(error)}"
            self._problems.raise_problem(HEALTH, text, "jobs_health is written")
        else:
            self._problems.clear(HEALTH)

    def _progress(self, job: str, run: str, number: int, total: int) -> None:
        if self._stopping:
            raise Stopping
        self.health.heard(job, f" with run {printable(run)!r}, {number + 1} of {total}", time.monotonic())

    def _turn(self, job: str, work: Callable[[], Turn]) -> None:
        self.health.begun(job, time.monotonic())
        self._problems.clear(f"start {job}")
        try:
            done = work()
        except BaseException as error:
            if not threading.main_thread().is_alive():  # Python begins nothing new any more, nor does Dask
                self.health.cut_off(job)
                return
            self.health.failed(job, time.monotonic(), self._time())
            self._problems.raise_problem(job, f"{job} failed: {reason_of(error)}", f"{job} works again")
        else:
            self.health.done(job, done, time.monotonic(), self._time())
            self._problems.clear(job)
            self._report(job, done)
        self._problems.clear(f"stuck {job}")

    def _missed(self, job: str, reason: str | None) -> None:
        if job == HEALTH:
            return
        self.health.missed(job)
        if reason is not None and threading.main_thread().is_alive():
            self._problems.raise_problem(f"start {job}", f"{job} cannot start: {reason}", f"{job} starts again")

    def _report(self, job: str, turn: Turn) -> None:
        if turn.problem is not None:
            text = f"{printable(turn.problem)}; trying on"
            self._problems.raise_problem("store", text, "the store is back", source=job, lasting=turn.lasting)
        else:
            self._problems.clear("store", job)
        for done in turn.passes:
            run = f"run {printable(done.run)!r}"
            if done.failed is not None:
                self._problems.raise_problem(run, f"{run} failed: {printable(done.failed)}", f"{run} is scored again")
            else:
                self._problems.clear(run)
        if line := work_line(turn):
            self._tell(line)

    def _watch(self) -> None:
        longest = max(STUCK_SECONDS, STUCK_INTERVALS * self._settings.interval_seconds)
        for running in self.health.running(time.monotonic()):
            if running.silent > longest and not self._stopping:
                took = f"{running.job} has been busy{running.at} for {duration(running.silent)}"
                text = f"{took}: it hangs, or the interval is too short for so much"
                self._problems.raise_problem(f"stuck {running.job}", text, f"{running.job} has ended its turn")

    def _drain(self) -> bool:
        self._stopping = True
        deadline = time.monotonic() + DRAIN_SECONDS
        while self.health.running(time.monotonic()) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS / 4)
        if "store" not in self._problems:
            last = threading.Thread(target=self._flush, daemon=True)
            try:
                last.start()
                last.join(max(1.0, deadline - time.monotonic()))
            except RuntimeError:  # Python 3.12 starts no thread once the main thread has ended
                self._flush()
        drained = not self.health.running(time.monotonic())
        if self._cluster is not None:
            self._cluster.close()
        return drained


def work_line(turn: Turn) -> str | None:
    """Return what a turn did in one line; None where there was nothing to do."""
    worked = [done for done in turn.passes if done.written]
    if not worked:
        return None
    names = first_few([printable(done.run) for done in worked])
    derived, scored = sum(done.derived for done in worked), sum(done.scored for done in worked)
    above = sum(done.anomalous for done in worked)
    left = f"; {turn.behind:,} captures are left for the next turn" if turn.behind else ""
    return f"{names}: {derived:,} derived, {scored:,} scored, {above:,} above 1 in {duration(turn.seconds)}{left}"

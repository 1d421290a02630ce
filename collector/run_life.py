"""The life of a run: its name, its beginning, its heartbeats and its end, and how far it is recorded."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.log import log
from gatewatch.collector.names import check_phase, check_run, check_tags
from gatewatch.collector.run_metadata import config_text, new_run
from gatewatch.collector.run_name import RunName
from gatewatch.collector.run_progress import Progress
from gatewatch.collector.run_store import chosen_store, open_shipper
from gatewatch.collector.runtime.error_guard import ErrorGuard
from gatewatch.collector.runtime.fork import reset_in_forked_child
from gatewatch.collector.runtime.ranks import current_rank
from gatewatch.collector.runtime.shutdown import register, unregister
from gatewatch.collector.schema import RUNS, Point
from gatewatch.collector.spool.shipper import Shipper
from gatewatch.collector.store import Store
from gatewatch.collector.text import describe_exception, one_line, safe_repr
from gatewatch.collector.times import SteadyTime

CLOSE_SECONDS: Final = 10.0
"""How long the end of a run waits for a slow store."""
_ENDINGS: Final = ("completed", "failed", "interrupted")


class RunLife(ErrorGuard):
    """A run in a store, from its first event to its last. A subclass says what is recorded of it.

    Construction checks every argument and touches nothing; `open()` touches the store. After that nothing is raised:
    what goes wrong is logged once and counted.

    Args:
        run: the run's id; generated from the time where None.
        store: a store or its URL; as `open_store` chooses where None.
        phase: train, validation, backtest or live.
        tags: the user's own, few.
        resume: whether to go on with a run of this name; where there is none yet, it begins.
        all_ranks: whether each process of a distributed training records a run of its own.

    Attributes:
        step: the last step that the training has made.
        epoch: the number of the present epoch.
        progress: how far the run is recorded.
        resumed: whether it goes on with the run of an earlier process.
        moved_times: how many steps have points at another time than their market time.

    Raises:
        ConfigError: an argument is wrong.
    """

    def __init__(
        self,
        *,
        run: str | None,
        store: Store | str | None,
        phase: str,
        tags: Mapping[str, str] | None,
        resume: bool,
        all_ranks: bool,
    ) -> None:
        super().__init__()
        self.run = new_run() if run is None else check_run(run)
        self.phase = check_phase(phase)
        self.tags = {"run": self.run, "phase": self.phase, **check_tags(tags)}
        if resume and run is None:
            raise ConfigError("resume=True needs the name of the run to go on with: run='my-run'")
        self.store = chosen_store(store)
        self.step = self.epoch = self.moved_times = 0
        self.progress, self.resumed = Progress(), False
        self._given_run, self._resume, self._all_ranks = self.run, resume, all_ranks
        self._named, self._own_store = run is not None, isinstance(store, str | None)
        self._before = Progress()
        self._position: tuple[int, int] | None = None
        self._time = SteadyTime(time.time_ns, time.perf_counter)
        self._name: RunName | None = None
        self._shipper: Shipper | None = None
        self._process: int | None = None
        self._unrecorded = self._end_written = False
        self._ending = threading.RLock()
        reset_in_forked_child(self)

    @property
    def started(self) -> bool:
        """Whether the run has begun and not ended."""
        return self._shipper is not None

    @property
    def has_begun(self) -> bool:
        """Whether this process has begun to record the run, which may have ended since."""
        return self._process == os.getpid()

    @property
    def ended(self) -> bool:
        """Whether the run has begun and ended, or could not begin: the loop may go on, and nothing is recorded.

        It warns once, since a loop may go on after SIGTERM has ended the run.
        """
        if self._unrecorded:
            return True
        over = self._process is not None and not self.started
        if over:
            self.warn_once(f"run {self.run!r} has ended; the steps after its end are not recorded")
        return over

    @property
    def learns(self) -> bool:
        """Whether the parameters may be expected to change: not in a validation or a backtest."""
        return self.phase in ("train", "live")

    def begin(self, start: Callable[[], object]) -> None:
        """Let the run begin, unless another process of a distributed training records it.

        Args:
            start: calls the method `start`. Only a ConfigError gets out of it; after any other error the training goes
                on unrecorded.

        Raises:
            ConfigError: see `start`.
        """
        self._unrecorded = not self._records()
        if self._unrecorded:
            return
        try:
            start()
        except ConfigError:
            raise
        except Exception as error:
            self._unrecorded = not self.started
            lost = "nothing is recorded" if self._unrecorded else "a part of it is not recorded"
            self.warn_once(f"the start of the run failed, training goes on and {lost}: {describe_exception(error)}")

    def _records(self) -> bool:
        """Return whether this process records a run; with `all_ranks` it gives the run of its rank a name."""
        rank = current_rank()
        if rank.number and not self._all_ranks:
            text = f"rank {rank.number} records nothing, rank 0 does; all_ranks=True records a run of each"
            if rank.joined:
                log.info("gatewatch: %s", text)
            else:  # what a launcher has left in the environment of a process that is not distributed
                self.warn_once(f"{text} (by the variables RANK or LOCAL_RANK, and WORLD_SIZE)")
            return False
        self._rename(f"{self._given_run}-rank{rank.number}" if rank.number else self._given_run)
        return True

    def _rename(self, run: str) -> None:
        self.run = check_run(run)
        self.tags = {**self.tags, "run": self.run}

    def open(self, framework: str, model: str, config: Mapping[str, Any]) -> None:
        """Open the store, reserve the name of the run and write its first event.

        Args:
            framework: such as keras/tensorflow.
            model: its type and name.
            config: further facts about the run, stored as JSON.

        Raises:
            ConfigError: the store can never take the points as things are, or the name was used before.
        """
        if self._name is None or self._process != os.getpid():
            self._name = RunName(self.store, self.run, self.phase, resume=self._resume)
        name, again = self._name, not self._named or self._process is not None
        fields = {"framework": framework, "model": one_line(model), "config": config_text(config)}
        self._shipper, started = open_shipper(
            self.store,
            name,
            lambda event: self._event(event, name.earlier, **fields),
            beat=self._beat,
            last=lambda: self._warn_of_others(at_end=True),
            again=again,
        )
        self._process, self._end_written = os.getpid(), False
        register(self)
        if started is not None:
            self._put([started])
        if not again and name.earlier is not None:
            self.progress, self.resumed = name.earlier, True
            self._position = self._position or (max(0, self.progress.step), self.progress.epochs)
        if self._position is not None:
            self.go_to(*self._position)
        self._keep_progress()

    def go_to(self, step: int, epoch: int) -> None:
        """Go on after a step of the run, in an epoch of it. What is recorded already is not recorded again.

        Args:
            step: the last that the training has made, as it was restored.
            epoch: the number of the epoch that comes next, or that the training is in.
        """
        if not self.started:
            self._position = step, epoch
            return
        self._position = None
        self.step, self.epoch, self._before = step, epoch, replace(self.progress)
        if step < self.progress.step:
            text = "gatewatch: run %r goes on after step %d; up to step %d it is recorded already, and only then again"
            log.warning(text, self.run, step, self.progress.step)

    @property
    def is_recorded(self) -> bool:
        """Whether this step was recorded before the run went back to an earlier one."""
        return self.step <= self._before.step

    @property
    def epoch_is_recorded(self) -> bool:
        """Whether the end of this epoch was, likewise."""
        return self.epoch < self._before.epochs

    def place_in_market(self, time: int) -> int:
        """Return the time for the points of this step: its market time, or later by what keeps it apart from others.

        Args:
            time: the market time in nanoseconds since the Unix epoch.
        """
        if self._process != os.getpid():
            self.warn_once(
                f"run {self.run!r} was begun by the process that forked this one: where both give one market time, one "
                "overwrites the other; make a monitor in each process, with a run of its own"
            )
        market = self.progress.market
        if problem := market.problem(time, self.step):
            self.warn_once(*problem)
        placed = market.place(time, self.step)
        self.moved_times += placed != time
        return placed

    def note_recorded(self, *, epoch_ended: bool = False) -> None:
        """Note on this machine that this step is recorded, for a process that goes on with the run.

        Args:
            epoch_ended: whether the epoch is over too.
        """
        progress = self.progress
        progress.step = max(progress.step, self.step)
        if epoch_ended and self.epoch >= progress.epochs:
            progress.epochs, progress.epoch_step = self.epoch + 1, self.step
        self._keep_progress()

    def _keep_progress(self) -> None:
        if self._name is not None:
            with self.guarded("a note of how far the run is recorded"):
                self._name.keep(self.progress)

    def record_end(self, status: str, error: BaseException | None = None) -> None:
        """Write the end of the run; only the first call does."""
        with self._ending:
            if self.started and not self._end_written and os.getpid() == self._process:
                self._end_written = True
                with self.guarded("the end of the run"):
                    self._health()
                    self._put(
                        [self._event(status, None, **({} if error is None else {"error": describe_exception(error)}))]
                    )
                if problem := self._problem():
                    self.warn_once(f"run {self.run!r} ends {problem}")

    def close(
        self, status: str = "completed", error: BaseException | None = None, seconds: float | None = None
    ) -> None:
        """End the run: write its end, and ship for some seconds what is left; the rest waits in the spool.

        Calling it again does nothing. In a forked child it ships the points that the child queued, and does not end the
        run.

        Args:
            status: completed, failed or interrupted.
            error: the exception that ended the run.
            seconds: how long it may ship; None: `CLOSE_SECONDS`.

        Raises:
            ConfigError: there is no such status.
        """
        if status not in _ENDINGS:
            raise ConfigError(f"status={safe_repr(status)}: must be one of {', '.join(_ENDINGS)}")
        if self._shipper is not None and self._shipper.at_work_here:  # a finalizer that has interrupted it
            self._close_elsewhere(status, error, seconds)
            return
        with self._ending:
            shipper = self._shipper
            if shipper is None:
                return
            self.record_end(status, error)
            self._shipper = None
        try:
            with self.guarded("the end of the run"):
                self._release()
            with self.guarded("the end of the run"):
                stopped = shipper.close(CLOSE_SECONDS if seconds is None else seconds)
                if self._own_store and stopped:
                    self.store.close()
        finally:  # also where Ctrl-C ends the waiting
            if self._name is not None:
                self._name.release()
            unregister(self)

    def abandon(self) -> None:
        """End the run as interrupted, without waiting: for a monitor that nobody holds any more."""
        if self.started and os.getpid() == self._process:
            self._close_elsewhere("interrupted")

    def _close_elsewhere(self, *arguments: Any) -> None:
        """Close in another thread; where Python starts none any more, the end of the process closes."""
        with suppress(RuntimeError):
            threading.Thread(target=self.close, args=arguments, name="gatewatch-end").start()

    def after_fork_in_child(self) -> None:
        """Replace the locks in a forked child, since threads of the parent that hold them do not exist there."""
        self._ending = threading.RLock()
        self._time.after_fork_in_child()
        if not self._named and self._process is None:
            self._given_run = new_run()  # each worker's own
            self._rename(self._given_run)

    def _beat(self) -> None:
        """Write that the process lives. Called by the shipper's thread."""
        if self.started and os.getpid() == self._process:
            self._health()
            with self._ending:
                if self.started and not self._end_written:
                    self._put([self._event("heartbeat")])
            self._warn_of_others()

    def _warn_of_others(self, *, at_end: bool = False) -> None:
        if self._name is not None and self._named and os.getpid() == self._process:
            self._name.warn_of_others(at_end=at_end)

    def _event(self, event: str, earlier: Progress | None = None, **fields: str) -> Point:
        session = {} if self._name is None else {"session": self._name.session}
        step = self.step if earlier is None else max(0, earlier.step)
        return Point(RUNS, self.tags, {"event": event, **session, **fields, "step": step}, self._time())

    def _put(self, points: list[Point]) -> None:
        if self._shipper is not None:
            self._shipper.put(points)

    # What a subclass adds.

    def _health(self) -> None:
        """Write how the recording goes, before each heartbeat and the end."""

    def _release(self) -> None:
        """Let go of the model, since the run has ended."""

    def _problem(self) -> str | None:
        """Return what is to be said of the run at its end, after `run 'name' ends`; None for nothing."""
        return None

"""One run, for any framework: turn captures into points, and write its start, heartbeats and end."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from gatewatch.collector.capture import gate_points, metrics_point, no_numbers
from gatewatch.collector.capture_schedule import CaptureSchedule, Every
from gatewatch.collector.cells import CELLS, Cells
from gatewatch.collector.epoch_files import check_folder, save_epoch, save_seconds
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.names import check_phase, check_run, check_tags
from gatewatch.collector.run_metadata import config_text, new_run, versions
from gatewatch.collector.run_name import RunName
from gatewatch.collector.run_store import chosen_store, open_shipper
from gatewatch.collector.runtime.error_guard import ErrorGuard, log
from gatewatch.collector.runtime.fork import reset_in_forked_child
from gatewatch.collector.runtime.native_threads import single_threaded_blas
from gatewatch.collector.runtime.ranks import current_rank
from gatewatch.collector.runtime.shutdown import register, unregister
from gatewatch.collector.schema import COLLECTOR_HEALTH, RUNS, FieldValue, Point
from gatewatch.collector.spool.shipper import Shipper
from gatewatch.collector.statistics import STATISTICS, Statistic
from gatewatch.collector.store import Store
from gatewatch.collector.text import describe_exception, one_line, safe_repr
from gatewatch.collector.times import SteadyTime
from gatewatch.collector.trace import Layers
from gatewatch.collector.update_recorder import UpdateRecorder
from gatewatch.collector.updates import Measured, Updates, update_points

CLOSE_SECONDS: Final = 10.0
"""How long the end of a run waits for a slow store."""
_ENDINGS: Final = ("completed", "failed", "interrupted")


class RunSession(ErrorGuard):
    """The run behind a monitor: its name, its store, its schedule and its points.

    Construction checks every argument and touches nothing; `start()` touches the store and the folder. After that
    nothing is raised: what goes wrong is logged once and counted.

    Args:
        log_dir: where the `gate_epoch_<n>.npz` files go; None for none.
        run: the run's id; generated from the time where None.
        store: a store or its URL; as `open_store` chooses where None.
        phase: train, validation, backtest or live.
        tags: the user's own, few.
        every: capture every so many steps, or "auto".
        overhead: the budget of "auto".
        all_ranks: whether each process of a distributed training records a run of its own.
        cells: whose gates have scales of their own.
        statistics: what is taken of each gate.

    Attributes:
        unreplayed: layer → why the latest look did not record it.

    Raises:
        ConfigError: an argument is wrong.
    """

    def __init__(  # noqa: PLR0913 - the monitors' arguments, passed on by name
        self,
        *,
        log_dir: str | os.PathLike[str] | None,
        run: str | None,
        store: Store | str | None,
        phase: str,
        tags: Mapping[str, str] | None,
        every: Every,
        overhead: float,
        all_ranks: bool,
        cells: Cells = CELLS,
        statistics: Sequence[Statistic] = STATISTICS,
    ) -> None:
        super().__init__()
        self.run = new_run() if run is None else check_run(run)
        self.phase = check_phase(phase)
        self.tags = {"run": self.run, "phase": self.phase, **check_tags(tags)}
        self._given_run, self._all_ranks = self.run, all_ranks
        if not isinstance(log_dir, str | os.PathLike | None):
            raise ConfigError(f"log_dir={safe_repr(log_dir)}: must be a path, or None for no files")
        self.log_dir = None if log_dir is None else Path(log_dir).absolute()
        self.store = chosen_store(store)
        self.schedule = CaptureSchedule(every, overhead, time.perf_counter)
        self.step = self.epoch = self.captured = 0
        self.replay_error: float | None = None
        self.unreplayed: dict[str, str] = {}
        self._named, self._own_store = run is not None, isinstance(store, str | None)
        self._time = SteadyTime(time.time_ns, time.perf_counter)
        self._cells, self._statistics = cells, statistics
        self._shipper: Shipper | None = None
        self._updates: UpdateRecorder | None = None
        self._name: RunName | None = None
        self._rate: float | None = None
        self._process: int | None = None
        self._unrecorded = self._end_written = False
        self._ending = threading.RLock()
        self._last_capture_step, self._every = 0, 1
        self._shipping_seconds = 0.0
        reset_in_forked_child(self)

    @property
    def started(self) -> bool:
        """Whether the run has begun and not ended."""
        return self._shipper is not None

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

    def start(self, *, framework: str, model: str, config: Mapping[str, Any], updates: Updates | None = None) -> None:
        """Open the store and check the folders, then begin the run.

        Args:
            framework: such as keras/tensorflow.
            model: its type and name.
            config: further facts about the run, stored as JSON.
            updates: sees what a step does to the parameters.

        Raises:
            ConfigError: the store can never take the points as things are, a folder cannot be written, or the
                name was used before.
        """
        if self.log_dir is not None:
            check_folder(self.log_dir)
        if self._name is None or self._process != os.getpid():
            self._name = RunName(self.store, self.run, self.phase)
        described = {**config, **self._settings()}
        fields = {"framework": framework, "model": one_line(model), "config": config_text(described)}
        started = self._run_event("started", **fields)
        unused = started if self._named and self._process is None else None
        self._shipper, written = open_shipper(self.store, self._name, self._beat, unused)
        self._process, self._end_written = os.getpid(), False
        self._shipping_seconds = 0.0
        self.schedule.begin(self.step)
        self._updates = None
        if updates is not None:
            with self.guarded("a look at the parameters"):
                self._updates = UpdateRecorder(updates, self.schedule, self.step, self.guarded)
        register(self)
        if not written:
            self._put([started])
        self.prepare()

    def _settings(self) -> dict[str, object]:
        """Return what is recorded of the monitor and its process with the run."""
        return {
            "log_dir": None if self.log_dir is None else str(self.log_dir),
            "every": self.schedule.every,
            "overhead": self.schedule.overhead,
            "tags": {key: value for key, value in self.tags.items() if key not in ("run", "phase")},
            "versions": versions(),
            "host": platform.node(),
            "pid": os.getpid(),
        }

    def metrics(self, metrics: Mapping[str, Any] | None, time: int | None = None) -> None:
        """Write the metrics that the framework logged, if any; warn once about each that is not a number.

        The first call after a capture also writes the learning rate, if it is known and the metrics do not have it.
        """
        logged = dict(metrics or {})
        for name in no_numbers(logged):
            self.warn_once(f"metric {name!r} is left out: it is no number")
        rate, self._rate = self._rate, None
        if rate is not None and self._last_capture_step == self.step and logged.get("learning_rate") is None:
            logged["learning_rate"] = rate
        point = metrics_point(logged, self.tags, self._time() if time is None else time, self.step, self.epoch)
        if point is not None:
            self._put([point])

    def capture(self, look: Callable[[], Layers], time: int | None = None) -> Layers:
        """Look at the gates and write their points; the cost is charged to the budget.

        Call `metrics()` for the same step next: it also writes the learning rate.

        Args:
            look: gives layer → gates; called in `single_threaded_blas`.
            time: nanoseconds since the epoch; now where None.
        """
        with self.charged("capture"), single_threaded_blas():
            updates: Measured = {}
            self._rate = None
            if self._updates is not None:
                with self.guarded("a look at the parameters"):
                    updates, self._rate = self._updates.take(self.step)
            layers = look()
            moment = self._time() if time is None else time
            points = update_points(updates, self.tags, moment, self.step)
            at = (moment, self.step, self.epoch)
            points += gate_points(layers, self.tags, *at, cells=self._cells, statistics=self._statistics)
            self._put(points)
        self.captured += 1
        self._every = max(1, self.step - self._last_capture_step)
        self._last_capture_step = self.step
        self._health()
        return layers

    def due(self) -> bool:
        """Return, at the end of a step, whether to capture.

        With "auto" a capture waits for the optimizer where that does not step as often as the loop.
        """
        wait = False
        if self._updates is not None and self.schedule.every == "auto":
            with self.guarded_and_charged("follow"):
                self._updates.follow(self.step)
                wait = self._updates.is_waiting(self.step)
        return self.schedule.due(self.step, wait=wait)

    def prepare(self, upcoming: int | None = None) -> None:
        """At the end of a step: save the parameters to compare with, if the next step of the optimizer is needed.

        Args:
            upcoming: the number of the next step, where it is known.
        """
        due = self.schedule.prepare(self.step, upcoming)
        if self._updates is None:
            return
        needed = False
        with self.guarded_and_charged("follow"):
            self._updates.follow(self.step)
            needed = self._updates.needs_look(self.step, due=due)
        if needed:
            with self.guarded_and_charged("prepare"):
                self._updates.begin_look(self.step)

    def save_epoch(self, layers: Layers) -> None:
        """Write the epoch's file, where there is a folder for it and the budget allows."""
        if self.log_dir is not None and self.schedule.affordable(save_seconds(layers)):
            with self.charged("save"):
                save_epoch(self.log_dir, layers, run=self.run, phase=self.phase, epoch=self.epoch, step=self.step)

    def report_unreplayed(self, unreplayed: Mapping[str, str], recorded: Collection[str]) -> None:
        """Log that layers are not recorded, or are again, each once.

        Args:
            unreplayed: layer → why the latest look did not record it.
            recorded: the layers that it did record.
        """
        for path, reason in unreplayed.items():
            self.warn_once(f"layer {path!r} is not recorded: {reason}", f"layer {path}")
        for path in [path for path in self.unreplayed if path in recorded and path not in unreplayed]:
            self.warn_once(f"layer {path!r} is recorded again")
        self.unreplayed = dict(unreplayed)

    @contextmanager
    def guarded_and_charged(self, kind: str) -> Iterator[None]:
        """Keep errors of what runs inside from the training, and charge its time to the budget."""
        with self.guarded("a look at the parameters"), self.charged(kind):
            yield

    @contextmanager
    def charged(self, kind: str) -> Iterator[None]:
        """Charge the time of what runs inside to the budget."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.schedule.charge(kind, time.perf_counter() - begin)

    def record_end(self, status: str, error: BaseException | None = None) -> None:
        """Write the end of the run; only the first call does."""
        with self._ending:
            if self.started and not self._end_written and os.getpid() == self._process:
                self._end_written = True
                with self.guarded("the end of the run"):
                    self._health()
                    self._event(status, **({} if error is None else {"error": describe_exception(error)}))
                if not self.captured:
                    self.warn_once(f"run {self.run!r} ends without a capture: {self._why_none()}")

    def _why_none(self) -> str:
        """Say why nothing was captured."""
        looks = ("the first capture", "a capture")
        failed = [self.problems[activity] for activity in looks if activity in self.problems]
        if failed:
            return f"each look failed, the first with {failed[0]}"
        if not self.step:
            return "the training ended before its first step, or nothing called step()"
        return f"none of its {self.step} steps was due, with every={self.schedule.every!r}"

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
            raise ConfigError(f"status={status!r}: must be one of {', '.join(_ENDINGS)}")
        if self._shipper is not None and self._shipper.at_work_here:  # a finalizer that has interrupted it
            self._close_elsewhere(status, error, seconds)
            return
        with self._ending:
            shipper = self._shipper
            if shipper is None:
                return
            self.record_end(status, error)
            self._shipper = None
        with self.guarded("the end of the run"):
            if self._updates is not None:
                self._updates.release()
        with self.guarded("the end of the run"):
            stopped = shipper.close(CLOSE_SECONDS if seconds is None else seconds)
            if stopped and shipper.delivery.problem is None:
                self._warn_of_others()
            if self._own_store and stopped:
                self.store.close()
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
        self._shipping_seconds = 0.0
        if not self._named and self._process is None:
            self._given_run = new_run()  # each worker's own
            self._rename(self._given_run)

    def _beat(self) -> None:
        """Write that the process lives. Called by the shipper's thread."""
        if self.started and os.getpid() == self._process:
            self._health()
            with self._ending:
                if self.started and not self._end_written:
                    self._event("heartbeat")
            self._warn_of_others()

    def _warn_of_others(self) -> None:
        if self._name is not None and self._named:
            self._name.warn_of_others()

    def _event(self, event: str, **fields: FieldValue) -> None:
        self._put([self._run_event(event, **fields)])

    def _run_event(self, event: str, **fields: FieldValue) -> Point:
        session = {} if self._name is None else {"session": self._name.session}
        return Point(RUNS, self.tags, {"event": event, **session, **fields, "step": self.step}, self._time())

    def _health(self) -> None:
        """Write `collector_health`."""
        shipper = self._shipper
        if shipper is None:
            return
        self.schedule.charge("ship", shipper.busy_seconds - self._shipping_seconds)
        self._shipping_seconds = shipper.busy_seconds
        fields: dict[str, FieldValue] = {
            "captured": self.captured,
            "shipped": shipper.delivery.shipped,
            "spooled_bytes": shipper.spool.waiting_bytes,
            "rejected": shipper.delivery.rejected,
            "dropped": shipper.spool.dropped,
            "failures": sum(list(self.failures.values())),
            "capture_ms": self.schedule.capture_seconds * 1e3,
            "overhead_ratio": self.schedule.overhead_ratio,
            "every": self._every if self.schedule.every == "auto" else self.schedule.every,
            "unreplayed_layers": len(self.unreplayed),
        }
        if self.replay_error is not None:
            fields["replay_error"] = self.replay_error
        if self.unreplayed:
            fields["unreplayed"] = "; ".join(f"{path}: {reason}" for path, reason in self.unreplayed.items())[:4096]
        self._put([Point(COLLECTOR_HEALTH, self.tags, fields, self._time())])

    def _put(self, points: list[Point]) -> None:
        if self._shipper is not None:
            self._shipper.put(points)

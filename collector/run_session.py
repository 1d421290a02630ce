"""One run, for any framework: when to capture, and the points that a capture becomes."""

from __future__ import annotations

import os
import platform
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from gatewatch.collector.capture import broken_gates, broken_losses, gate_points, metrics_point, no_numbers
from gatewatch.collector.capture_schedule import CaptureSchedule, Every
from gatewatch.collector.cells import CELLS, Cells
from gatewatch.collector.checks import check_log_dir, check_metrics
from gatewatch.collector.epoch_files import check_folder, save_epoch, save_seconds
from gatewatch.collector.errors import TooLargeError
from gatewatch.collector.feed.recorder import FeedRecorder, FeedSource, field_names
from gatewatch.collector.names import check_feature_names, check_run
from gatewatch.collector.probe_loss import PROBE_LOSS
from gatewatch.collector.recording_health import WITHOUT_FEED, health_fields, why_without_capture
from gatewatch.collector.recurrent_state import state_points
from gatewatch.collector.run_life import RunLife
from gatewatch.collector.run_metadata import check_config, versions
from gatewatch.collector.runtime.native_threads import single_threaded_blas
from gatewatch.collector.schema import COLLECTOR_HEALTH, REFERENCE_LOOK, Point
from gatewatch.collector.state_recorder import StateRecorder
from gatewatch.collector.statistics import STATISTICS, Statistic
from gatewatch.collector.trace import Layers, Look
from gatewatch.collector.update_recorder import UpdateRecorder
from gatewatch.collector.updates import Measured, Updates, update_points

NEWEST: Final = 5_000
"""Captures that `monitor.verdict()` reads at most: with twelve gates they took 90 MB and 1.4 s of CPU time."""
_CAPTURES: Final = 32
"""Fewer are too few to be scored, and may come before an optimizer that seldom makes a step."""


class RunSession(RunLife):
    """The run behind a monitor: its name, its store, its schedule and its points.

    Construction checks every argument and touches nothing; `start()` touches the store and the folder. After that
    nothing is raised: what goes wrong is logged once and counted.

    Args:
        log_dir: where the `gate_epoch_<n>.npz` files go; None for none.
        every: capture every so many steps, or "auto".
        overhead: the budget of "auto".
        cells: whose gates have scales of their own.
        statistics: what is taken of each gate.
        reference: the run with which the jobs compare this one; recorded in its `config`.
        feature_names: of what is fed.
        config: the user's own settings; recorded in its `config`, under that name.
        **of_the_run: see `RunLife`.

    Attributes:
        feed: looks at what is fed.
        unreplayed: layer → why the latest look did not record it.
        has_probe_targets: whether captures have the loss of the probe; a metric of that name is then stored as another.
        states: what sequences begin with, and where episodes do.
        at_release: called when the run ends, to let go of the model.

    Raises:
        ConfigError: an argument is wrong.
    """

    def __init__(
        self,
        *,
        log_dir: str | os.PathLike[str] | None,
        every: Every,
        overhead: float,
        cells: Cells = CELLS,
        statistics: Sequence[Statistic] = STATISTICS,
        reference: str | None = None,
        feature_names: Sequence[str] | None = None,
        config: Mapping[str, Any] | None = None,
        **of_the_run: Any,
    ) -> None:
        super().__init__(**of_the_run)
        self.feature_names = check_feature_names(feature_names)
        self.feed = FeedRecorder(self.guarded, self.charged, self.warn_once, self.feature_names)
        self.log_dir = check_log_dir(log_dir)
        self._user_settings = check_config(config)
        self.reference = None if reference is None else check_run(reference, "reference")
        self.schedule = CaptureSchedule(every, overhead, time.perf_counter)
        self.captured = 0
        self._newest: deque[int] = deque(maxlen=NEWEST)
        self._saw_updates = False
        self.replay_error: float | None = None
        self.unreplayed: dict[str, str] = {}
        self.states = StateRecorder(self.warn_once)
        self.at_release: Callable[[], None] | None = None
        self._too_large: TooLargeError | None = None
        self._cells, self._statistics = cells, statistics
        self._updates: UpdateRecorder | None = None
        self._watched: Updates | None = None
        self._feed_source: FeedSource | None = None
        self._rate: float | None = None
        self.has_probe_targets = False
        self._probe_loss: float | None = None
        self._last_capture_step, self._every = 0, 1
        self._shipping_seconds = 0.0

    def start(
        self,
        *,
        framework: str,
        model: str,
        config: Mapping[str, Any],
        updates: Updates | None = None,
        feed: FeedSource | None = None,
    ) -> None:
        """Open the store and check the folders, then begin the run.

        Args:
            framework: such as keras/tensorflow.
            model: its type and name.
            config: further facts about the run, stored as JSON.
            updates: sees what a step does to the parameters.
            feed: shows the batches of the training; None where somebody hands them over.

        Raises:
            ConfigError: the store can never take the points as things are, a folder cannot be written, or the
                name was used before.
        """
        if self.log_dir is not None:
            check_folder(self.log_dir)
        self._shipping_seconds = 0.0
        self.open(framework, model, {**config, **self._settings()})
        self._watched, self._feed_source = updates, feed
        self._begin_counting()

    @property
    def verdict_start(self) -> int | None:
        """The time of the first of the `NEWEST` newest captures; None where there are not as many."""
        return min(self._newest) if len(self._newest) == NEWEST else None

    def go_to(self, step: int, epoch: int) -> None:
        """See `RunLife.go_to`."""
        super().go_to(step, epoch)
        self._begin_counting()

    def _begin_counting(self) -> None:
        """Let the schedule and the look at the updates begin at this step."""
        self.schedule.begin(self.step)
        self._updates = None
        self.feed.begin(self._feed_source)
        if self._watched is not None:
            with self.guarded("a look at the parameters"):
                self._updates = UpdateRecorder(self._watched, self.schedule, self.step, self.guarded)
        self.prepare()

    def _settings(self) -> dict[str, object]:
        """Return what is recorded of the monitor and its process with the run."""
        return {
            "log_dir": None if self.log_dir is None else str(self.log_dir),
            "every": self.schedule.every,
            "overhead": self.schedule.overhead,
            "reference": self.reference,
            "feature_names": None if self.feature_names is None else field_names(self.feature_names),
            "config": self._user_settings,
            "tags": {key: value for key, value in self.tags.items() if key not in ("run", "phase")},
            "versions": versions(),
            "host": platform.node(),
            "pid": os.getpid(),
        }

    def metrics(self, metrics: Mapping[str, Any] | None, time: int | None = None) -> None:
        """Write the metrics that the framework logged, if any; warn once about each that is not a number.

        The first call after a capture also writes the loss of the probe, and the learning rate, if it is known and the
        metrics do not have it.
        """
        logged = check_metrics(metrics)
        for name in no_numbers(logged):
            self.warn_once(f"metric {name!r} is left out: it is no number")
        (rate, loss), self._rate, self._probe_loss = (self._rate, self._probe_loss), None, None
        of_capture = self._last_capture_step == self.step
        if rate is not None and of_capture and logged.get("learning_rate") is None:
            logged["learning_rate"] = rate
        computed = {PROBE_LOSS: loss if of_capture else None} if self.has_probe_targets else {}
        if self.has_probe_targets and PROBE_LOSS in logged:
            self.warn_once(f"metric {PROBE_LOSS!r} is stored as '{PROBE_LOSS}_': the loss of the probe has its name")
        self._warn_of_not_finite(broken_losses(logged))
        moment = self._time() if time is None else time
        point = metrics_point(logged, self.tags, moment, self.step, self.epoch, computed=computed)
        if point is not None:
            self._put([point])

    def capture(self, look: Callable[[], Look], time: int | None = None) -> Layers:
        """Look at the gates and write their points; the cost is charged to the budget.

        Call `metrics()` for the same step next: it also writes the learning rate and the loss of the probe.

        Args:
            look: calls the model; called in `single_threaded_blas`.
            time: nanoseconds since the epoch; now where None.
        """
        with self.charged("capture"), single_threaded_blas():
            updates: Measured = {}
            self._rate = self._probe_loss = None
            if self._updates is not None:
                with self.guarded("a look at the parameters"):
                    updates, self._rate = self._updates.take(self.step)
                    self._saw_updates |= bool(updates)
            if self._too_large is not None:  # it took long to find out
                raise self._too_large
            try:
                seen = look()
            except TooLargeError as error:
                self._too_large = error.with_traceback(None)
                raise
            layers, self._probe_loss = seen.layers, seen.probe_loss
            moment = self._time() if time is None else time
            points = [*update_points(updates, self.tags, moment, self.step), *self._feed_points(moment)]
            at = (moment, self.step, self.epoch)
            with self.guarded("the recurrent states"):
                points += state_points(self.states.fields(), self.tags, moment, self.step)
            points_of = partial(gate_points, cells=self._cells, statistics=self._statistics)
            points += points_of(seen.reference, {**self.tags, **REFERENCE_LOOK}, *at)
            of_gates = points_of(layers, self.tags, *at)
            self._warn_of_not_finite(broken_gates(of_gates))
            points += of_gates
            if not self.is_recorded:
                self._put(points)
                self.states.recorded()
                if self._updates is not None:
                    self._updates.recorded(updates)
        self.captured += 1
        self._newest.append(moment)
        self._every = max(1, self.step - self._last_capture_step)
        self._last_capture_step = self.step
        self._health()
        return layers

    def _warn_of_not_finite(self, where: str) -> None:
        """Say once in a run, while it trains, that values are NaN or infinite."""
        if where:
            text = f"run {self.run!r}, step {self.step}: values are NaN or infinite in {where}"
            self.warn_once(text, "not finite")

    def _feed_points(self, moment: int) -> list[Point]:
        """Return the points of what was fed, of the step whose update is recorded."""
        with self.guarded("a look at the feed"):
            of_update = None if self._updates is None else self._updates.held_step
            shares = None if self._updates is None else self._updates.kernel_shares()
            self.feed.settle(self.step, of_update)
            return self.feed.take(self.tags, moment, self.step, of_update, shares)
        return []

    def due(self) -> bool:
        """Return, at the end of a step, whether to capture; a step that is recorded already is not captured again.

        With "auto" a capture waits for the optimizer where that does not step as often as the loop.
        """
        wait = False
        if self._updates is not None and self.schedule.every == "auto":
            with self.guarded("a look at the parameters"):
                self._updates.follow(self.step)
                wait = self._updates.is_waiting(self.step)
        return self.schedule.due(self.step, wait=wait) and not self.is_recorded

    def prepare(self, upcoming: int | None = None) -> bool:
        """At the end of a step: save the parameters to compare with, if the next step of the optimizer is needed.

        Args:
            upcoming: the number of the next step, where it is known.

        Returns:
            Whether a capture will be due at the next step, as far as can be known.
        """
        due = self.schedule.prepare(self.step, upcoming)
        self._prepare_updates(due)
        held, looks = (None, False) if self._updates is None else (self._updates.held_step, self._updates.is_looking)
        self.feed.settle(self.step, held)
        self.feed.want(due or looks)
        return due

    def _prepare_updates(self, due: bool) -> None:
        if self._updates is None:
            return
        needed = False
        with self.guarded("a look at the parameters"):
            if self._updates.follow(self.step):
                with self.charged("measure"):
                    self._updates.end_look()
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

    def _health(self) -> None:
        """Write `collector_health`."""
        shipper = self._shipper
        if shipper is None:
            return
        self.schedule.charge("ship", shipper.busy_seconds - self._shipping_seconds)
        self._shipping_seconds = shipper.busy_seconds
        fields = health_fields(
            shipper,
            self.schedule,
            captured=self.captured,
            steps_between=self._every,
            failures=sum(list(self.failures.values())),
            moved_times=self.moved_times,
            replay_error=self.replay_error,
            unreplayed=self.unreplayed,
        )
        self._put([Point(COLLECTOR_HEALTH, self.tags, fields, self._time())])

    def _problem(self) -> str | None:
        """Say what was never seen, and why, where that is so."""
        if self.phase == "train" and self._updates is not None and self.captured >= _CAPTURES and not self._saw_updates:
            return "without gradients and updates: no optimizer was seen to make a step with what the model learns"
        if self.phase == "train" and self.captured >= _CAPTURES and self.feed.is_blind:
            return WITHOUT_FEED
        if self.captured or self.resumed:
            return None
        return why_without_capture(self.problems, self.step, self.schedule.every)

    def _release(self) -> None:
        updates, self._updates, self._watched, self._feed_source = self._updates, None, None, None
        with self.guarded("a look at the feed"):
            self.feed.release()
        if updates is not None:
            updates.release()
        if self.at_release is not None:
            self.at_release()

    def after_fork_in_child(self) -> None:
        """See `RunLife.after_fork_in_child`."""
        super().after_fork_in_child()
        self._shipping_seconds = 0.0

"""A monitor that is a context around a loop of one's own: what `step` and `end_epoch` do, for any framework."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from gatewatch.collector.base_monitor import BaseMonitor
from gatewatch.collector.checks import check_step_input
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.names import MARKET_PHASES
from gatewatch.collector.recurrent_state import Begin, read_starts
from gatewatch.collector.runtime.shutdown import final_status
from gatewatch.collector.text import safe_repr
from gatewatch.collector.times import Time, nanoseconds
from gatewatch.collector.trace import Layers, Look, Trace

_EARLIEST: Final = 10**17
"""Nanoseconds: March 1973. A whole number below it counts seconds, milli- or microseconds."""

State = Mapping[str, Any] | Sequence[Any]


class Monitor(BaseMonitor, ABC):
    """A context manager whose `step` counts the steps of a loop and captures where one is due.

    A framework's monitor says how to begin and how to look.
    """

    _latest: tuple[int, Layers] | None = None
    _brings_windows = False
    _probe: Any

    @abstractmethod
    def _begin(self) -> None:
        """Check the model and the probe, and start the session.

        Raises:
            ConfigError: something is wrong with them, with the store or a folder.
        """

    @abstractmethod
    def _look(self, x: Any, state: State | None) -> Look:
        """Look at `x`, or of the probe where it is None, from a recurrent state where one is given."""

    @abstractmethod
    def _trace(self, inputs: Any, state: State | None = None) -> Trace:
        """Call the model with what the adapter calls it with; with the loss, where that is the probe."""

    def _trace_reference(self) -> Trace:
        """Call the model with the probe from the same states each time, whatever states it has by now."""
        return self._trace(self._probe)

    def _gives_gates(self) -> Collection[str]:
        """Return the layers that tell by `get_gate_history()` what they did last, whatever they are called with."""
        return ()

    def _begin_states(self, state: State | None, *, needed: bool) -> Mapping[str, Begin]:
        """Return layer → what the sequences of this step began with, as far as it was given or seen.

        Args:
            state: as `step` is given it.
            needed: also what it takes long to read.
        """
        return {}

    def _expect_step(self, *, due: bool) -> None:
        """Prepare for what the next step begins with; `due`: it will be captured, as far as can be known."""

    def __enter__(self) -> Self:
        if not self._session.started:
            self._session.begin(self._begin)  # the first capture is that of a step, which may have the market's time
            if self._session.started:
                self._expect_step(due=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._session.close(final_status(error), error)

    def step(
        self,
        x: Any = None,
        *,
        batch: Any = None,
        targets: Any = None,
        groups: Any = None,
        time: Time | None = None,
        metrics: Mapping[str, Any] | None = None,
        state: State | None = None,
        starts: Any = None,
    ) -> None:
        """Count one step of a loop, and capture where one is due.

        `recurrent_state` says what the sequences of a step began with: `state` where it is given, else what the
        framework shows, see the monitor's class. Sequences at which an episode starts are counted in every step that
        has `starts`, and those of them whose state was not the initial one (zero, or a parameter of the model): each
        capture has the exact sums since the one before.

        Args:
            x: what to look at instead of the probe, as the model takes it: the window of a backtest, for example. A
                stateful layer begins with the state that it has at this moment: call `step` before the model, or give
                the state that it had then. In a backtest or a live phase the probe is looked at besides: its points
                have the tag `look=reference`, and change with the network alone.
            batch: what the model was fed in this step, as it takes it: the points of `feed_stats` and `feed_features`
                are made from it. Where None, from what is known of the step anyway: in torch the call of the module in
                training; outside of training `x`.
            targets: of the batch, its sequences in the same order; they say whether a feature tells the target.
            groups: one label for each sequence of the batch, texts or whole numbers: its symbol, environment or episode
                kind. `feed_groups` then tells which of them moves; at most 16 groups of a run are recorded.
            time: the market's time: nanoseconds since the epoch, a moment or a day; now where None. A moment without a
                zone is taken as UTC, whatever its `fold` is, so give local times a zone where clocks are set back. A
                time that was given before is stored some nanoseconds later; `collector_health` counts it.
            metrics: name → number, written with every capture, and with every step that has a time.
            state: the recurrent state to begin with: layer → its states, each (batch, units), in the order of the
                framework's initial state; or those of the only recurrent layer. It is what the sequences of this step
                begin with, before the model is called.
            starts: one flag for each sequence of this step, True where its first element is the first of an episode;
                or one flag for all.

        Raises:
            ConfigError: the run has not begun (use `with`). Once it has, nothing is raised: a step whose arguments are
                wrong is said once in a warning and counted in `collector_health`.
        """
        if not self._is_recording("step"):
            return
        session = self._session
        session.step += 1
        with session.guarded("reading step(time=...)"):
            self._after_step(metrics, x, time, state, (batch, targets, groups), starts)
        due = session.prepare()
        with session.guarded("the recurrent states"), session.charged("states"):
            self._expect_step(due=due)

    def end_epoch(self, metrics: Mapping[str, Any] | None = None) -> None:
        """End an epoch of a loop: write its metrics and its `gate_epoch_<n>.npz`.

        Args:
            metrics: name → number.

        Raises:
            ConfigError: the run has not begun (use `with`).
        """
        if self._is_recording("end_epoch"):
            self._end_epoch(metrics)
            self._session.epoch += 1

    def state_dict(self) -> dict[str, int]:
        """Return the number of the last step and of the present epoch, to be saved in a checkpoint of the training."""
        return {"step": self._session.step, "epoch": self._session.epoch}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on counting where a checkpoint was saved, before or after the run has begun.

        Steps and epochs that the run has recorded since are not recorded again.

        Args:
            state: what `state_dict()` returned when the checkpoint was saved.

        Raises:
            ConfigError: it is something else.
        """
        try:
            step, epoch = int(state["step"]), int(state["epoch"])
        except (TypeError, KeyError, ValueError):
            raise ConfigError(f"load_state_dict({safe_repr(state)}): give what state_dict() returned") from None
        self._session.go_to(step, epoch)

    def close(self, status: str = "completed") -> None:
        """End the run: completed, failed or interrupted. Calling it again does nothing.

        What is left is shipped for at most ten seconds; the rest waits in the spool.
        """
        self._session.close(status)

    def _is_recording(self, method: str) -> bool:
        """Return whether the run goes on; False where it has ended, which a loop need not notice."""
        if self._session.started or self._session.ended:
            return self._session.started
        raise ConfigError(f"{method}() outside a run: use `with GateMonitor(model, probe=...) as monitor:`")

    def _after_step(
        self,
        metrics: Mapping[str, Any] | None,
        x: Any = None,
        time: Time | None = None,
        state: State | None = None,
        fed: tuple[Any, Any, Any] = (None, None, None),
        starts: Any = None,
    ) -> None:
        session = self._session
        due = session.due()
        batch, targets, groups = fed
        self._brings_windows = x is not None
        session.feed.give(x if batch is None and session.phase != "train" else batch, targets, groups, due=due)
        with session.charged("states"):
            is_readable = self._note_states(state, starts, due=due)
        moment = None if time is None else _market_time(time)
        if moment is not None and (due or (metrics is not None and not session.is_recorded)):
            moment = session.place_in_market(moment)
        if due and is_readable:
            with session.guarded("a capture"):
                self._capture(x, moment, state)
        if due or (moment is not None and not session.is_recorded):  # a bar is not to be had again
            with session.guarded("the metrics of a step"), session.charged("metrics"):
                session.metrics(metrics, moment)
            session.note_recorded()

    def _note_states(self, state: State | None, starts: Any, *, due: bool) -> bool:
        """Count what the sequences of a step begin with; return whether the state of the step could be read."""
        session, flags = self._session, None
        begins: Mapping[str, Begin] | None = None
        with session.guarded("reading step(state=...)"):
            begins = self._begin_states(state, needed=due or starts is not None or session.states.is_new)
        if starts is not None:
            try:
                flags = read_starts(starts)
            except ConfigError as error:
                session.states.lose_flags()
                session.record_failure("reading step(starts=...)", error)
        with session.guarded("reading step(starts=...)"):
            session.states.note(begins or {}, flags)
        return begins is not None

    def _end_epoch(self, metrics: Mapping[str, Any] | None) -> None:
        session = self._session
        if session.epoch_is_recorded:
            return
        with session.guarded("the epoch's metrics"):
            session.metrics(metrics)
        with session.guarded("the epoch's file"):
            is_captured = self._latest is not None and self._latest[0] == session.step
            # The probe is no window, and the last one is gone, with the state that it began with.
            if not is_captured and not self._brings_windows and session.schedule.affordable(0.0):
                with session.guarded("a capture"):
                    self._capture()
                    session.metrics(None)  # the capture's own
            if self._latest is not None and self._latest[0] == session.step:
                session.save_epoch(self._latest[1])
        session.note_recorded(epoch_ended=True)

    def _capture(self, x: Any = None, moment: int | None = None, state: State | None = None) -> None:
        check_step_input(x)
        self._latest = self._session.step, self._session.capture(lambda: self._look_twice(x, state), moment)

    def _look_twice(self, x: Any, state: State | None) -> Look:
        """Look at what a capture is of; where that is the window of a backtest, at the probe too."""
        seen, session = self._look(x, state), self._session
        if x is not None and self._probe is not None and session.phase in MARKET_PHASES:
            with session.guarded("the look at the probe"):
                traced = self._trace_reference()
                own = self._gives_gates()
                layers = {path: layer for path, layer in traced.layers.items() if path not in own}
                return Look(seen.layers, self._loss_of(traced), layers)
        return seen


def _market_time(time: Time) -> int:
    moment = nanoseconds(time)
    if isinstance(time, int | np.integer) and 0 < moment < _EARLIEST:
        raise ConfigError(f"time={time}: nanoseconds since the Unix epoch are meant; give those, or a datetime")
    return moment

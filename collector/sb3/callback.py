"""`GateMonitorCallback`: the callback for Stable-Baselines3, made for sb3-contrib's RecurrentPPO."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any, Final

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from gatewatch.collector.base_monitor import BaseMonitor
from gatewatch.collector.capture_schedule import Every
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.recurrent_state import OF_THE_MODEL
from gatewatch.collector.sb3.feed import rollout_feed, rollout_groups
from gatewatch.collector.sb3.iteration_metrics import IterationMetrics
from gatewatch.collector.sb3.probe import Probe, act, fitted, present_probe, read_probe, rollout_probe
from gatewatch.collector.sb3.rollout_check import check_rollout
from gatewatch.collector.sb3.run_metadata import model_config, model_name
from gatewatch.collector.store import Store
from gatewatch.collector.text import one_line
from gatewatch.collector.torch.layers import RecurrentLayer, recurrent_layers
from gatewatch.collector.torch.monitor import choose, describe
from gatewatch.collector.torch.trace import trace
from gatewatch.collector.torch.updates import TorchUpdates
from gatewatch.collector.trace import Look, Trace

_EVENTS: Final = ("on_training_start", "on_rollout_start", "on_rollout_end", "on_training_end")
"""The events of a training that the callback needs."""


class GateMonitorCallback(BaseMonitor, BaseCallback):
    """Record the gates, gradients and weight updates of a recurrent policy while it trains.

    ```python
    model = RecurrentPPO("MlpLstmPolicy", env)
    model.learn(total_timesteps=100_000, callback=GateMonitorCallback())
    ```

    What is recorded is what the LSTMs of actor and critic (`lstm_actor/l0`, `lstm_critic/l0`) do with a fixed probe,
    environments side by side as the batch, their states reset to zero where an episode starts. The policy's own code
    runs them, in inference mode. A recurrent layer of a features extractor is recorded too, also that of an algorithm
    whose policy has no other (PPO, A2C).

    Such a policy changes only between two rollouts, so that is when it is looked at: the first time when the first
    rollout has been collected (`step` 0: nothing has been learnt yet), then after each training that is due one.
    `step` is the number of timesteps whose rollouts the policy has been trained on, `epoch` the iteration (one rollout
    and its training). Gradients and updates are those of the first optimizer step of the training before a capture.
    Before a training that is followed by a capture, a slice of its rollout (up to 64 steps, 2,048 observations, where
    most episodes start) is evaluated as the training will, by a copy of the policy in training mode:
    `logprob_difference` in `recurrent_state` is the largest difference between its log-probabilities and those that
    were stored when the actions were taken; `starts_not_reset` counts the episodes whose state was not reset.
    After each iteration what SB3 logs is written, and of the episodes that ended in it (as its `Monitor` wrapper tells)
    the mean `reward`, the mean `episode_length`, and how many `episodes` there were; of its rollout `advantage_std`,
    before advantages are normalised, `action_share`, the share of the most frequent of its `actions`, and, where the
    environments put a `position` into their `info`, `position_share`, that of the most frequent position.

    Another `learn()` with the same callback goes on with the run and its steps.

    Once training has begun nothing is raised into it, and it never waits for the store.

    Args:
        log_dir: folder of the `gate_epoch_<n>.npz` files, one of each iteration that ends in a capture, as far as the
            budget allows; None for no such files.
        run: the run's id, which must be new, except with `resume`; generated from the time where None.
        store: a URL (`sqlite:///gatewatch.db`, `http://localhost:8086`) or an open store; where None as `open_store`
            chooses.
        probe: observations as the policy is given them (normalised where a VecNormalize does that), of shape (time,
            environments, *observation), or a mapping of such where observations are dicts; or a pair of these and
            `episode_starts` of shape (time, environments), 1 where an episode starts. The states begin at zero. Where
            None, the beginning of the first rollout with its episode starts and states: up to 256 steps of up to 32
            environments, 2,048 observations in all.
        every: capture after the first training that brings `step` to or past a multiple of so many timesteps; or
            "auto": as often as `overhead` allows.
        layers: only these, by name (`lstm_actor/l0`) or by the path of their module; all where None.
        phase: train, validation, backtest or live.
        tags: at most 8 of your own, such as {"symbol": "GOOG"}.
        config: your own settings, such as {"units": 24, "dropout": 0.1}: a mapping that JSON can hold, recorded
            with the run and shown where runs are compared.
        overhead: the share of the training's time that "auto" may spend on captures.
        verbose: 1 to print at the beginning which run goes to which store.
        resume: go on with the run of this name after a crash, where there is one. Steps that the training makes once
            more are not recorded twice.
        all_ranks: record each process of a distributed training, as a run of its own (`run`, `run-rank1`, …); otherwise
            rank 0 records and the others do nothing.
        reference: a run whose training feed this phase is compared with, such as that of the training in a backtest;
            recorded in the run's `config`. It may be this very run, where its phases are side by side.
        feature_names: what the features that are fed are called, in their order: that of the last dimension, several
            inputs side by side (a tuple in its order, a mapping in the order of its sorted names).

    Raises:
        ConfigError: an argument is wrong; from `learn`, before its first step, where the policy has no recurrent layer,
            the probe does not fit it, the store refuses or a folder cannot be written.
    """

    def __init__(  # noqa: PLR0913 - the public signature: one argument for each thing a user may choose
        self,
        log_dir: str | os.PathLike[str] | None = "gate_logs",
        *,
        run: str | None = None,
        store: Store | str | None = None,
        probe: Any = None,
        every: Every = "auto",
        layers: Sequence[str] | None = None,
        phase: str = "train",
        tags: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
        overhead: float = 0.01,
        verbose: int = 0,
        resume: bool = False,
        all_ranks: bool = False,
        reference: str | None = None,
        feature_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(verbose)
        self._set_up(locals())
        self._given = None if probe is None else read_probe(probe)
        self._probe: Probe | None = None
        self._layers: dict[str, RecurrentLayer] = {}
        self._metrics = IterationMetrics()
        self._dones: list[Any] = []  # of each step of the rollout, those of the last before it first
        self._collected = self._begun = False
        self._offset = 0

    # What Stable-Baselines3 calls.

    def _init_callback(self) -> None:
        """Refuse to be inside a callback that keeps events to itself: nothing would be captured.

        Those who initialise this one are those who pass events on to it. `parent` is None inside a list within a list.
        """
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and isinstance(outer := frame.f_locals.get("self"), BaseCallback):
            kind, frame = type(outer), frame.f_back
            if not all(_handles(kind, event) for event in _EVENTS):
                raise ConfigError(
                    f"GateMonitorCallback cannot be inside {kind.__name__}, which passes on few events of a training: "
                    f"give it to learn() itself, as in callback=[{kind.__name__}(...), GateMonitorCallback()]"
                )

    def _on_training_start(self) -> None:
        self._session.begin(self._start)

    def _start(self) -> None:
        session, model = self._session, self._algorithm
        if session.started:  # an earlier learn() has failed
            session.close("interrupted")
        self._layers = self._choose()
        traced = self._look_before()
        updates = TorchUpdates(model.policy, session.guarded_and_charged, session.warn_once)
        config = {
            **model_config(model),
            **describe(model.policy, self._layers),
            "probe": "from the first rollout" if self._probe is None else self._probe.shape,
            "probe_fingerprint": None if self._probe is None else self._probe.fingerprint,
        }
        session.start(framework="sb3", model=model_name(model), config=config, updates=updates)
        if traced is not None:
            self._report(traced)
        resumes = session.resumed and not self._begun
        learnt = resumes and not model.num_timesteps and model._n_updates  # a checkpoint, with its timesteps reset
        self._offset = session.step - model.num_timesteps if self._begun or learnt else 0
        session.step = self._offset + model.num_timesteps
        if resumes:
            session.go_to(session.step, session.progress.epochs)
        self._begun, self._collected = True, False
        self._metrics.begin(self.logger)
        self._dones = []
        if self.verbose:
            print(one_line(f"gatewatch: run {self.run} goes to {session.store.url}"))
        if self._probe is not None and traced is not None and not session.is_recorded:
            with session.guarded("the first capture"):
                session.capture(lambda: Look(traced.layers))
            session.note_recorded()

    def _on_step(self) -> bool:
        if self._session.started:
            with self._session.guarded("the rewards"):
                self._dones.append(np.array(self.locals.get("dones", ()), bool))
                self._metrics.step(self.locals.get("infos", ()))
        return True

    def _on_rollout_end(self) -> None:
        session = self._session
        if not session.started:
            return
        self._collected = True
        with session.guarded("the metrics"), session.charged("rollout"):
            self._metrics.rollout(self._algorithm)
        starts, is_checked = self._starts(), False
        if self._probe is None:
            with session.guarded("the first capture"):
                self._probe = rollout_probe(self._algorithm)
                if not session.is_recorded:
                    self._check_rollout(starts)
                    is_checked = True
                    session.capture(self._look)
                    session.note_recorded()
        if session.prepare(self._offset + self.model.num_timesteps) and not is_checked:
            self._check_rollout(starts)
        if session.feed.is_wanted:
            with session.feed.looking():
                fed = rollout_feed(self._algorithm)
                sequences = len(next(iter(fed.values())))
                session.feed.see(fed, groups=rollout_groups(self._algorithm, sequences))

    def _starts(self) -> Any:
        """Return where the environments say that episodes start, (steps, environments); None where it is not known."""
        dones, self._dones = self._dones, self._dones[-1:]
        if len(dones) == self._algorithm.rollout_buffer.buffer_size:  # the first rollout: its first flags are its own
            dones.insert(0, np.array(self._algorithm.rollout_buffer.episode_starts[0], bool))
        return np.stack(dones[:-1]) if len({one.shape for one in dones}) == 1 else None

    def _check_rollout(self, starts: Any) -> None:
        """Put what a slice of the rollout shows into the next capture."""
        session = self._session
        with session.guarded("a check of the rollout"), session.charged("rollout"):
            check = check_rollout(self._algorithm, self._layers, starts)
            session.states.put(OF_THE_MODEL, logprob_difference=check.logprob_difference)
            for layer, norm in check.norms.items():
                session.states.put(layer, initial_norm=norm)
            for layer, not_reset in check.not_reset.items():
                session.states.put(layer, starts=check.starts, starts_not_reset=not_reset)

    def _on_rollout_start(self) -> None:
        self._after_training()

    def _on_training_end(self) -> None:
        self._after_training()
        self._metrics.end(self.logger)
        self._session.close()

    def _after_training(self) -> None:
        session = self._session
        if not session.started or not self._collected:  # nothing has been trained yet, or no longer
            return
        self._collected = False
        session.step = self._offset + self.model.num_timesteps
        if session.due():
            with session.guarded("a capture"):
                layers = session.capture(self._look)
                with session.guarded("the epoch's file"):
                    session.save_epoch(layers)
        with session.guarded("the metrics"):
            metrics = self._metrics.take(self.logger)
            if not session.is_recorded:
                session.metrics(metrics)
        if not session.is_recorded:
            session.note_recorded(epoch_ended=True)
            session.epoch += 1

    # What there is to look at, and the look.

    @property
    def _algorithm(self) -> OnPolicyAlgorithm:
        if not isinstance(self.model, OnPolicyAlgorithm):
            raise ConfigError(
                f"GateMonitorCallback watches on-policy algorithms, sb3-contrib's RecurrentPPO above all, "
                f"not {type(self.model).__name__}; gatewatch.torch.GateMonitor watches any torch module"
            )
        return self.model

    def _choose(self) -> dict[str, RecurrentLayer]:
        model = self._algorithm
        if not recurrent_layers(model.policy, self.cells):
            raise ConfigError(
                f"the policy of {model_name(model)} has no recurrent layer to watch: train one that has, such as "
                "sb3_contrib's RecurrentPPO('MlpLstmPolicy', env)"
            )
        return choose(model.policy, self._chosen, self.cells)

    def _look_before(self) -> Trace | None:
        """Look at the probe, or while there is none at the observations that the training begins with."""
        model = self._algorithm
        if self._given is not None:
            self._probe = fitted(self._given, model)
        elif self._probe is not None:
            try:
                return self._trace(self._probe)
            except Exception:  # it is of another model, with the same callback
                self._probe = None
        return self._first_look(lambda: self._trace(self._probe or present_probe(model)))  # of the right shape

    def _look(self) -> Look:
        assert self._probe is not None  # noqa: S101 - where there is none yet nobody looks
        return self._report(self._trace(self._probe))

    def _trace(self, probe: Probe) -> Trace:
        return trace(self._algorithm.policy, lambda twin: act(twin, probe), self._layers)


def _handles(kind: type[BaseCallback], event: str) -> bool:
    return any(getattr(kind, name) is not getattr(BaseCallback, name) for name in (event, f"_{event}"))

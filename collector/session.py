"""One run as the collector sees it, whatever the framework: what was captured becomes points, and its life is told."""

from __future__ import annotations

import atexit
import json
import logging
import os
import platform
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from threadpoolctl import ThreadpoolController

from collector.cadence import Cadence, Every
from collector.capture import Gates, gate_points, metrics_point
from collector.epochs import save_epoch, save_seconds
from collector.errors import ConfigError, GatewatchError, WriteUnavailable
from collector.schema import COLLECTOR_HEALTH, RUNS, FieldValue, Point, check_phase, check_run, check_tags
from collector.shipper import Shipper
from collector.store import Store, open_store

CLOSE_SECONDS: Final = 10.0
"""How long the end of a run waits for a slow store."""
HEARTBEAT_SECONDS: Final = 30.0
ENDINGS: Final = ("completed", "failed", "interrupted")

log = logging.getLogger("gatewatch")


class Session:
    """The run behind a monitor: its name, its store, its cadence and its points.

    Construction checks every argument and touches nothing; `start()` touches the store and the folder. After that
    nothing is raised: what goes wrong is logged once and counted.

    Args:
        log_dir: where the `gate_epoch_<n>.npz` files go; None for none.
        run: the run's id; made up where None.
        store: a store or its URL; as `open_store` chooses where None.
        phase: train, validation, backtest or live.
        tags: the user's own, few.
        every: capture every so many steps, or "auto".
        overhead: the budget of "auto".
        clock: seconds, monotonic.
        now: nanoseconds since the epoch.

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
        clock: Callable[[], float] = time.perf_counter,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self.run = check_run(run) if run is not None else _new_run()
        self.named = run is not None
        self.phase = check_phase(phase)
        self.tags = {"run": self.run, "phase": self.phase, **check_tags(tags)}
        if not isinstance(log_dir, str | os.PathLike | None):
            raise ConfigError(f"log_dir={log_dir!r}: must be a path, or None for no files")
        if not isinstance(store, str | None) and not callable(getattr(store, "write", None)):
            raise ConfigError(f"store={store!r}: must be a URL, such as sqlite:///gatewatch.db, or an open store")
        self.log_dir = None if log_dir is None else Path(log_dir).absolute()
        self.cadence = Cadence(every, overhead, clock)
        self.store = open_store(store) if store is None or isinstance(store, str) else store
        self.step = self.epoch = self.captured = 0
        self.failures: dict[str, int] = {}
        self.replay_error: float | None = None
        self.unreplayed: dict[str, str] = {}
        self._clock, self._now = clock, now
        self._shipper: Shipper | None = None
        self._process = 0
        self._threads = ThreadpoolController()
        self._last_time = 0
        self._last_heartbeat = 0.0
        self._last_capture_step = 0
        self._every = 1
        self._atexit: Callable[[], None] | None = None

    @property
    def started(self) -> bool:
        """Whether the run has begun and not ended."""
        return self._shipper is not None

    def start(self, *, framework: str, model: str, config: Mapping[str, Any]) -> None:
        """Look at the store and the folder, then begin the run.

        Raises:
            ConfigError: the store can never take the points as things are, the folder cannot be written, or the
                name was used before.
        """
        if self.log_dir is not None:
            _check_folder(self.log_dir)
        try:
            self.store.check()
            if self.named and self.step == 0:
                self._check_unused()
        except WriteUnavailable as error:
            log.warning(
                "gatewatch: %s does not answer yet; training goes on and the points wait: %s", self.store.url, error
            )
        self._process = os.getpid()
        self._shipper = Shipper(self.store)
        self.cadence.begin(self.step)
        self._atexit = _at_exit(self)
        about = {
            **config,
            "log_dir": None if self.log_dir is None else str(self.log_dir),
            "every": self.cadence.every,
            "tags": {key: value for key, value in self.tags.items() if key not in ("run", "phase")},
            "versions": _versions(),
        }
        text = json.dumps(about, default=str)
        self.event("started", framework=framework, model=model, config=text)

    def _check_unused(self) -> None:
        try:
            used = self.store.read(RUNS, run=self.run, tags={"phase": self.phase})
        except ConfigError:  # a token that may only write cannot be asked
            return
        if len(used):
            raise ConfigError(
                f"run={self.run!r}: {self.store.url} already holds a run of this name and phase; "
                "choose another, or leave run=None for a new one each time"
            )

    def event(self, event: str, **fields: FieldValue) -> None:
        """Write a point of `runs`."""
        self._put([Point(RUNS, self.tags, {"event": event, **fields, "step": self.step}, self._time())])

    def metrics(self, metrics: Mapping[str, Any] | None, time: int | None = None) -> None:
        """Write what the framework logs, where it logs anything."""
        point = metrics_point(metrics or {}, self.tags, self._time() if time is None else time, self.step, self.epoch)
        if point is not None:
            self._put([point])

    def capture(self, look: Callable[[], Mapping[str, Gates]], time: int | None = None) -> Mapping[str, Gates]:
        """Look at the gates and write their points; the cost is charged to the budget.

        Args:
            look: gives layer → gates; called with native libraries held to one thread, since a capture's matrices are
                too small to gain from more.
            time: nanoseconds since the epoch; now where None.
        """
        with self.charged("capture"), self._threads.limit(limits=1, user_api="blas"):
            layers = look()
            moment = self._time() if time is None else time
            self._put(gate_points(layers, self.tags, moment, self.step, self.epoch))
        self.captured += 1
        self._every = max(1, self.step - self._last_capture_step)
        self._last_capture_step = self.step
        self.health()
        return layers

    def save_epoch(self, layers: Mapping[str, Gates]) -> None:
        """Write the epoch's file, where there is a folder for it and the budget allows."""
        if self.log_dir is not None and self.cadence.affordable(save_seconds(layers)):
            with self.charged("save"):
                save_epoch(self.log_dir, layers, run=self.run, phase=self.phase, epoch=self.epoch, step=self.step)

    def health(self) -> None:
        """Write `collector_health`, and a heartbeat of the run where the last one is old."""
        if self._shipper is None:
            return
        fields: dict[str, FieldValue] = {
            "captured": self.captured,
            "shipped": self._shipper.shipped,
            "rejected": self._shipper.rejected,
            "dropped": self._shipper.dropped,
            "failures": sum(self.failures.values()),
            "capture_ms": self.cadence.capture_seconds * 1e3,
            "overhead_ratio": self.cadence.overhead_ratio,
            "every": self._every if self.cadence.every == "auto" else self.cadence.every,
            "unreplayed_layers": len(self.unreplayed),
        }
        if self.replay_error is not None:
            fields["replay_error"] = self.replay_error
        if self.unreplayed:
            fields["unreplayed"] = "; ".join(f"{path}: {reason}" for path, reason in self.unreplayed.items())[:4096]
        self._put([Point(COLLECTOR_HEALTH, self.tags, fields, self._time())])
        if self._clock() - self._last_heartbeat >= HEARTBEAT_SECONDS:
            if self._last_heartbeat:
                self.event("heartbeat")
            self._last_heartbeat = self._clock()

    def leave_out(self, unreplayed: Mapping[str, str]) -> None:
        """Say once of each layer that it is not recorded, and why."""
        for path, reason in unreplayed.items():
            if path not in self.unreplayed:
                log.warning("gatewatch: layer %r is not recorded: %s", path, reason)
                self.unreplayed[path] = reason

    @contextmanager
    def charged(self, kind: str) -> Iterator[None]:
        """Charge what runs inside to the budget."""
        begin = self._clock()
        try:
            yield
        finally:
            self.cadence.charge(kind, self._clock() - begin)

    @contextmanager
    def guarded(self, doing: str) -> Iterator[None]:
        """Let nothing out into the training: log a failure once and count it."""
        try:
            yield
        except Exception as error:
            if doing not in self.failures:
                text = str(error) if isinstance(error, GatewatchError) else f"{type(error).__name__}: {error}"
                log.warning("gatewatch: %s failed, training goes on: %s", doing, " ".join(text.split()))
            self.failures[doing] = self.failures.get(doing, 0) + 1

    def close(self, status: str = "completed") -> None:
        """End the run: tell how, ship what is left for at most `CLOSE_SECONDS`. Calling it again does nothing."""
        if self._shipper is None or os.getpid() != self._process:  # a fork ends without ending the run
            return
        if status not in ENDINGS:
            raise ConfigError(f"status={status!r}: must be one of {', '.join(ENDINGS)}")
        with self.guarded("the end of the run"):
            self.health()
            self.event(status)
            self._shipper.close(CLOSE_SECONDS)
        self._shipper = None
        if self._atexit is not None:
            atexit.unregister(self._atexit)
            self._atexit = None

    def abandon(self) -> None:
        """End the run as interrupted, without waiting: for a monitor that nobody holds any more."""
        if self._shipper is not None:
            threading.Thread(target=self.close, args=("interrupted",), name="gatewatch-end").start()

    def _put(self, points: list[Point]) -> None:
        if self._shipper is not None:
            self._shipper.put(points)

    def _time(self) -> int:
        """Now, and never the same nanosecond twice: two points of a series must not become one."""
        self._last_time = max(self._now(), self._last_time + 1)
        return self._last_time


def _new_run() -> str:
    return f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def _at_exit(session: Session) -> Callable[[], None]:
    """End the run where the process ends before it did: as failed by an error that nobody caught, else interrupted."""

    def end() -> None:
        session.close("failed" if isinstance(getattr(sys, "last_value", None), Exception) else "interrupted")

    atexit.register(end)
    return end


def _check_folder(folder: Path) -> None:
    probe = folder / f".gatewatch-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"log_dir={str(folder)!r} cannot be written: {error.strerror}; choose another") from error


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("gatewatch", "keras", "tensorflow", "tensorflow-cpu", "torch", "numpy"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions

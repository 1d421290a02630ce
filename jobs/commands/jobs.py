"""`gatewatch jobs`: the service, or one pass with `--once`."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from types import FrameType
from typing import Final

from pydantic import ValidationError

from gatewatch.collector.config import Settings, load_settings
from gatewatch.collector.errors import ConfigError, WriteUnavailable
from gatewatch.collector.log import log
from gatewatch.collector.store import open_store
from gatewatch.collector.user_folders import note_store
from gatewatch.jobs.alerts import evaluate
from gatewatch.jobs.commands.common import NO_RUNS, existing_store, print_list
from gatewatch.jobs.console import fail_each, show_progress
from gatewatch.jobs.scoring.residuals import WARM_UP
from gatewatch.jobs.scoring.scoring_pass import PassResult, run_pass
from gatewatch.jobs.service.scheduler import Service
from gatewatch.jobs.service.state_folder import check_state_folder, state_folder
from gatewatch.jobs.text import first_few, printable

OVERRIDES: Final = {"executor": "executor", "interval": "interval_seconds", "workers": "workers"}
"""Option → what it stands before in `[jobs]`."""
_REPEAT_SECONDS: Final = 3600.0
_ONE_SIGNAL_SECONDS: Final = 0.5
"""`timeout` and other wrappers send a signal to the process and to its group: that is one."""


def run(arguments: argparse.Namespace) -> int:
    """Score once, or run the service, and return the exit status."""
    wrong = [*OVERRIDES, "verbose"] if arguments.once else ["run", "json"]
    for name in wrong:
        if getattr(arguments, name) not in (None, False):
            raise ConfigError(
                f"--{name} is for the service: leave --once out" if arguments.once else f"--{name} needs --once"
            )
    return _once(arguments) if arguments.once else _serve(arguments)


def _once(arguments: argparse.Namespace) -> int:
    store = existing_store(arguments)
    rate = load_settings().jobs.false_alarm_rate
    passes = run_pass(store, arguments.run, show_run, false_alarm_rate=rate)
    if print_passes(arguments, passes, NO_RUNS.format(store.url)) and (short := list(_too_short(passes, WARM_UP))):
        print(f"\nScores begin after {WARM_UP} captures of a phase: {first_few(short)}.", end=" ")
        print("For more of them give GateMonitor a smaller every=.")
    return failures(passes)


def print_passes(arguments: argparse.Namespace, passes: Sequence[PassResult], nothing: str = "") -> bool:
    """Print what was done with each run; see `print_list`."""
    rows = [[done.run, done.captures, *_counts(done)] for done in passes]
    return print_list(arguments, passes, ["run", "captures", "derived", "scored", "above 1"], rows, nothing)


def failures(passes: Sequence[PassResult]) -> int:
    """Print which runs failed, and return the exit status."""
    return fail_each(f"run {printable(done.run)}: {done.failed}" for done in passes if done.failed is not None)


def show_run(run: str, number: int, total: int) -> None:
    """Show on a terminal which run is next."""
    show_progress(f"  scoring {printable(run)} ({number + 1} of {total})\n")


def _too_short(passes: Sequence[PassResult], warm_up: int) -> Iterator[str]:
    """Yield each phase of which there are too few captures for a score."""
    for done in passes:
        for phase, captures in (done.phases or {"": 0}).items():
            learnt = done.phases.get("backtest", 0) if phase == "live" else 0  # live goes on from the backtest
            if max(captures, learnt) <= warm_up and done.failed is None:
                yield f"{printable(' '.join(filter(None, (done.run, phase))))} has {captures}"


def _counts(done: PassResult) -> list[object]:
    if done.failed is not None:
        return ["failed", "", ""]
    return ["no new captures", "", ""] if done.unchanged else [done.derived, done.scored, done.anomalous]


def _serve(arguments: argparse.Namespace) -> int:
    """Run the service until a signal ends it, and return the exit status."""
    settings = _settings(arguments)
    store = open_store(arguments.store)
    if store.exists():  # a file that is missing is made by the first training
        with suppress(WriteUnavailable):  # the first turn says it
            store.check()
    store.close()
    folder = state_folder(settings.jobs.state, store.destination)
    check_state_folder(folder)
    with suppress(OSError):
        note_store(folder, store.destination)
    verbose = arguments.verbose or sys.stderr.isatty()
    service = Service(
        store.destination,
        settings,
        folder,
        evaluate=lambda store: evaluate(store, settings, folder, datetime.now(UTC)),
        tell=_print_line if verbose else lambda line: None,
        warn=_print_line,
    )
    _end_on_signals(service)
    jobs = settings.jobs
    workers = f", {jobs.workers} workers" if jobs.workers > 1 else ""
    runs = f"every {jobs.interval_seconds:g} s, executor {jobs.executor}{workers}"
    print(f"gatewatch jobs: {store.url} {runs}, state in {folder}; Ctrl-C ends it", flush=True)
    log.addHandler(_Log())
    log.propagate = False
    drained = service.run()
    if verbose:
        _print_line("stopped" if drained else "stopped; what was going on is done again by the next who starts")
    if not drained:  # a thread hangs in a call, and nothing that it holds would be lost
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


def _settings(arguments: argparse.Namespace) -> Settings:
    """Load the configuration, and put the options in its place."""
    settings = load_settings()
    given = {key: getattr(arguments, name) for name, key in OVERRIDES.items() if getattr(arguments, name) is not None}
    try:
        jobs = type(settings.jobs).model_validate(settings.jobs.model_dump() | given)
    except ValidationError as error:
        problem = error.errors()[0]
        option = next(name for name, key in OVERRIDES.items() if key == problem["loc"][0])
        raise ConfigError(f"--{option} {problem['input']}: {problem['msg'][0].lower()}{problem['msg'][1:]}") from None
    return settings.model_copy(update={"jobs": jobs})


def _end_on_signals(service: Service) -> None:
    """Let the first signal end the service in order, and a second at once."""
    first: list[float] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if first and time.monotonic() - first[0] > _ONE_SIGNAL_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        first.append(time.monotonic())
        service.stop()

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, handle)


def _print_line(line: str) -> None:
    print(f"{datetime.now(UTC).astimezone():%H:%M:%S} {line}", file=sys.stderr, flush=True)


class _Log(logging.Handler):
    """Print what the alerts warn of, each text once an hour and not again in each turn."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._printed: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record, unless its text was printed lately."""
        text = record.getMessage().removeprefix("gatewatch: ")
        now = time.monotonic()
        self._printed = {line: at for line, at in self._printed.items() if now - at < _REPEAT_SECONDS}
        if text not in self._printed:
            self._printed[text] = now
            _print_line(text)

"""What `gatewatch jobs` does without `--once`: the service, at the edge of its process."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from gatewatch.collector.errors import ConfigError, WriteUnavailable
from gatewatch.jobs.text import printable

if TYPE_CHECKING:
    from types import FrameType

    from gatewatch.collector.config import Settings
    from gatewatch.collector.store import Store
    from gatewatch.jobs.service.scheduler import Service

OVERRIDES: Final = {"executor": "executor", "interval": "interval_seconds", "workers": "workers"}
"""Option → what it stands before in `[jobs]`."""
_SAID_SECONDS: Final = 3600.0
_ONE_SIGNAL_SECONDS: Final = 0.5
"""`timeout` and other wrappers send a signal to the process and to its group: that is one."""


def serve(arguments: argparse.Namespace) -> int:
    """Run the service until a signal ends it; the exit status."""
    from gatewatch.collector.store import open_store  # noqa: PLC0415 - numpy comes with it, and `--help` needs none
    from gatewatch.jobs.alerts import evaluate  # noqa: PLC0415 - as above
    from gatewatch.jobs.service.scheduler import Service  # noqa: PLC0415 - APScheduler is imported only where it is used
    from gatewatch.jobs.service.state_folder import check_state_folder, state_folder  # noqa: PLC0415 - as above

    settings = _settings(arguments)
    store = open_store(arguments.store)
    folder = state_folder(settings.jobs.state, store.destination)
    check_state_folder(folder)
    _check(store)
    store.close()
    told = arguments.verbose or sys.stderr.isatty()
    service = Service(
        store.destination,
        settings,
        folder,
        evaluate=lambda store: evaluate(store, settings, folder, datetime.now(UTC)),
        tell=_say if told else lambda line: None,
        warn=_say,
    )
    _end_on_signals(service)
    jobs = settings.jobs
    workers = f", {jobs.workers} workers" if jobs.workers > 1 else ""
    runs = f"every {jobs.interval_seconds:g} s, executor {jobs.executor}{workers}"
    print(f"gatewatch jobs: {store.url} {runs}, state in {folder}; Ctrl-C ends it", flush=True)
    logger = logging.getLogger("gatewatch")
    logger.addHandler(_Log())
    logger.propagate = False
    drained = service.run()
    if told:
        _say("stopped" if drained else "stopped; what was going on is done again by the next who starts")
    if not drained:  # a thread hangs in a call, and nothing that it holds would be lost
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


def _settings(arguments: argparse.Namespace) -> Settings:
    """The configuration, with what the options say in its place."""
    from pydantic import ValidationError  # noqa: PLC0415 - loads slowly, and `--help` needs none

    from gatewatch.collector.config import load_settings  # noqa: PLC0415 - as above

    settings = load_settings()
    given = {key: getattr(arguments, name) for name, key in OVERRIDES.items() if getattr(arguments, name) is not None}
    try:
        jobs = type(settings.jobs).model_validate(settings.jobs.model_dump() | given)
    except ValidationError as error:
        problem = error.errors()[0]
        option = next(name for name, key in OVERRIDES.items() if key == problem["loc"][0])
        raise ConfigError(f"--{option} {problem['input']}: {problem['msg'][0].lower()}{problem['msg'][1:]}") from None
    return settings.model_copy(update={"jobs": jobs})


def _check(store: Store) -> None:
    """See whether the store can be written; one that is away may come back, a file that is missing may be made."""
    if store.exists():
        with suppress(WriteUnavailable):  # the first turn says it
            store.check()


def _end_on_signals(service: Service) -> None:
    """The first signal ends the service in order, a second at once."""
    first: list[float] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if first and time.monotonic() - first[0] > _ONE_SIGNAL_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        first.append(time.monotonic())
        service.stop()

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, handle)


def _say(line: str) -> None:
    print(f"{datetime.now(UTC).astimezone():%H:%M:%S} {line}", file=sys.stderr, flush=True)


class _Log(logging.Handler):
    """Says what the alerts warn of, each text once in a while and not again in each turn."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Say it, where it was not said lately."""
        text = printable(record.getMessage().removeprefix("gatewatch: "))
        now = time.monotonic()
        self._said = {known: at for known, at in self._said.items() if now - at < _SAID_SECONDS}
        if text not in self._said:
            self._said[text] = now
            _say(text)

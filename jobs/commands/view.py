"""`gatewatch view`: serve the local page until Ctrl-C."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
import webbrowser
from contextlib import ExitStack, closing
from functools import partial
from types import FrameType

from gatewatch.collector.config import load_settings
from gatewatch.collector.log import log
from gatewatch.collector.store import Store, open_store
from gatewatch.jobs.console import fail
from gatewatch.jobs.service.state_folder import state_folder
from gatewatch.jobs.view.scorer import Scorer, Settings
from gatewatch.jobs.view.server import ViewServer
from gatewatch.jobs.view.site import Site
from gatewatch.jobs.view.trend import update_trend
from gatewatch.jobs.view.trends import Trends


def run(arguments: argparse.Namespace) -> None:
    """Serve the page of a store until a signal ends it.

    Raises:
        ConfigError: the address cannot be listened on, or the configuration is wrong.
    """
    # Each thread reads over a connection of its own: none waits for a long read of another.
    store, for_trends, for_scores = (open_store(arguments.store) for _ in range(3))
    trends = Trends(partial(update_trend, for_trends))
    scorer = None if arguments.no_score else _scorer(for_scores)
    scoring = scorer.status if scorer else lambda: "Scores come from gatewatch jobs (--no-score)."
    log.addHandler(_Log())
    log.propagate = False
    with ExitStack() as stack:
        server = stack.enter_context(ViewServer(arguments.host, arguments.port, Site(store, trends, scoring).respond))
        for each in (trends, scorer):
            if each is not None:
                stack.enter_context(closing(each))
                each.start()
        _end_on_signals(server)
        print(f"gatewatch view: {store.url} at {server.url}; Ctrl-C ends it", flush=True)
        if server.token:
            print("The address holds a token: whoever has it can read these runs. Nothing is encrypted.", flush=True)
        if arguments.open:
            threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
        server.serve_forever()
    sys.stdout.flush()


def _scorer(store: Store) -> Scorer:
    jobs = load_settings().jobs
    folder = state_folder(jobs.state, store.destination)
    return Scorer(store, Settings(folder, jobs.captures_per_pass, jobs.false_alarm_rate))


def _end_on_signals(server: ViewServer) -> None:
    """Let the first signal end the server, and a second one the process at once."""

    def handle(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        threading.Thread(target=server.shutdown, daemon=True).start()  # it waits for the loop that this interrupts

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, handle)


class _Log(logging.Handler):
    """Print each warning on standard error, in one line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        fail(record.getMessage().removeprefix("gatewatch: "))

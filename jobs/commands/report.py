"""`gatewatch report`, once or for as long as a run goes on."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gatewatch.collector.errors import WriteUnavailable
from gatewatch.jobs.commands.common import Commands, existing_store, need
from gatewatch.jobs.text import printable

if TYPE_CHECKING:
    from gatewatch.collector.store import Store

_EVERY: Final = 10


def add(commands: Commands[argparse.ArgumentParser], with_store: argparse.ArgumentParser) -> None:
    """Add the command."""
    report = commands.add_parser(
        "report",
        parents=[with_store],
        help="write the report of a run as one HTML file",
        description="Write the report of a run, by default of the newest, as one HTML file that works offline.",
    )
    report.add_argument("run", nargs="?", metavar="RUN", help="name of the run (default: the newest run)")
    report.add_argument("-o", "--output", type=Path, metavar="FILE", help="file to write (default: gatewatch-RUN.html)")
    report.add_argument(
        "--watch",
        nargs="?",
        type=_seconds,
        const=_EVERY,
        metavar="SECONDS",
        help=f"rewrite the report at this interval (default: {_EVERY}) until the run has ended and is scored, or until "
        "Ctrl-C; a browser that shows the page reloads it",
    )
    report.set_defaults(run_command=_run)


def _seconds(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds; name the run before --watch")
    return int(text)


def _run(arguments: argparse.Namespace) -> int:
    need("jobs", "plotly", "jinja2")
    store = existing_store(arguments)
    if arguments.watch is not None:
        return _watch(store, arguments)
    from gatewatch.jobs.report.page import write_report  # noqa: PLC0415 - Plotly is imported only where it is used

    print(write_report(store, arguments.run, arguments.output))
    return 0


def _watch(store: Store, arguments: argparse.Namespace) -> int:
    from gatewatch.jobs.loop import is_scored, run_state  # noqa: PLC0415 - pandas is imported only where it is used
    from gatewatch.jobs.report.page import write_report  # noqa: PLC0415 - Plotly is imported only where it is used

    run, said, away = arguments.run, False, False
    with suppress(KeyboardInterrupt):
        while True:
            try:
                names = store.runs()["run"]
                run = names.iloc[0] if run is None and len(names) else run
                done = run is not None and run_state(store, run) != "live" and is_scored(store, run)
                page = write_report(store, run, arguments.output, refresh=None if done else arguments.watch)
            except WriteUnavailable as error:
                if not said:
                    raise
                if not away:
                    print(f"gatewatch: {printable(error)}; trying on", file=sys.stderr)
                away, done = True, False
            else:
                away = False
                if not said:
                    print(page, flush=True)
                said = True
            if done:
                break
            time.sleep(arguments.watch)
    return 0

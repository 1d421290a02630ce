"""The `gatewatch` command.

Exit status: 0 done, 1 the work failed, 2 the arguments or the configuration are wrong. An error is one line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata, util
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from collector.config import load_settings
from collector.errors import ConfigError, GatewatchError
from collector.spool import spool_root
from collector.store import Store, open_store
from collector.waiting import waiting
from jobs.lives import life
from jobs.terminal import printable, table

if TYPE_CHECKING:
    from jobs.once import Pass

_RUN_COLUMNS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "run": "run",
        "state": "state",
        "phases": "phases",
        "started": "started (UTC)",
        "last_seen": "last seen (UTC)",
        "step": "step",
        "framework": "framework",
        "model": "model",
        "error": "ended by",
    }
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parsed = _parser().parse_args(arguments)
    try:
        status: int = parsed.run_command(parsed)
    except ConfigError as error:
        return _fail(str(error), 2)
    except GatewatchError as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(f"{error.filename or 'the output'}: {error.strerror or error}", 1)
    except Exception as error:
        if os.environ.get("GATEWATCH_TRACEBACK"):
            raise
        what = f"{type(error).__name__}: {error}"
        return _fail(f"{what}; this is a bug: please report what GATEWATCH_TRACEBACK=1 makes of it", 1)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gatewatch", description="Watch the inside of recurrent networks while they train."
    )
    parser.add_argument("--version", action="version", version=f"gatewatch {metadata.version('gatewatch')}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    with_store = argparse.ArgumentParser(add_help=False)
    with_store.add_argument(
        "--store",
        metavar="URL",
        help="sqlite:///file.db or http://host:8086 (default: GATEWATCH_STORE, else gatewatch.toml, else "
        "sqlite:///gatewatch.db)",
    )

    demo = commands.add_parser("demo", help="train on real prices with a fault put in, score it, write the report")
    demo.add_argument("--symbol", choices=["GOOG", "EURUSD", "BTCUSD"], default="GOOG", help="whose prices")
    demo.add_argument(
        "--epochs",
        type=_positive,
        help="of each of the two trainings (default: so many that they make about 650 batches)",
    )
    demo.add_argument(
        "--folder", type=Path, default=Path("gatewatch-demo"), help="where all of it goes (default: gatewatch-demo)"
    )
    demo.set_defaults(run_command=_demo)

    jobs = commands.add_parser("jobs", parents=[with_store], help="derive metrics and anomaly scores")
    jobs.add_argument(
        "--once", action="store_true", required=True, help="one pass over what is new, then stop (the only mode so far)"
    )
    jobs.add_argument("--run", help="only this run")
    jobs.add_argument("--json", action="store_true", help="print JSON")
    jobs.set_defaults(run_command=_jobs)

    runs = commands.add_parser("runs", parents=[with_store], help="list the runs")
    runs.add_argument("--json", action="store_true", help="print JSON")
    runs.set_defaults(run_command=_runs)

    spool = commands.add_parser("spool", help="show or ship the points that wait on this machine for a store")
    actions = spool.add_subparsers(title="actions", required=True, metavar="ACTION")
    status = actions.add_parser("status", help="what waits for which store, and what a store has refused")
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(run_command=_spool_status)
    flush = actions.add_parser("flush", help="ship what processes that have ended left behind")
    flush.add_argument("--json", action="store_true", help="print JSON")
    flush.add_argument(
        "--timeout",
        type=_positive,
        default=30,
        metavar="SECONDS",
        help="how long to wait for a store that takes nothing (default: 30)",
    )
    flush.set_defaults(run_command=_spool_flush)

    report = commands.add_parser("report", parents=[with_store], help="write one run as one HTML file")
    report.add_argument("run", nargs="?", metavar="RUN", help="which run (default: the newest)")
    report.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to (default: gatewatch-RUN.html)")
    report.set_defaults(run_command=_report)
    return parser


def _demo(arguments: argparse.Namespace) -> int:
    _need("demo", "keras", "backtesting", "sklearn", "plotly")
    from jobs.demo import run_demo  # noqa: PLC0415 - only this command needs it

    return run_demo(arguments.folder, arguments.symbol, arguments.epochs)


def _jobs(arguments: argparse.Namespace) -> int:
    _need("jobs", "sklearn")
    from jobs.features import WARM_UP  # noqa: PLC0415 - scikit-learn is imported only where it is used
    from jobs.once import run_pass  # noqa: PLC0415 - scikit-learn is imported only where it is used

    store = _open(arguments)
    passes = run_pass(store, arguments.run, _say_run if sys.stderr.isatty() else None)
    if arguments.json:
        print(json.dumps([{name: getattr(done, name) for name in done.__slots__} for done in passes], indent=2))
    elif not passes:
        print(f"{store.url} holds no run yet: train one with GateMonitor, or try `gatewatch demo`")
    else:
        rows = [
            [
                done.run,
                done.captures,
                *_told(done),
            ]
            for done in passes
        ]
        print(table(["run", "captures", "derived", "scored", "above 1"], rows))
        if short := list(_too_short(passes, WARM_UP)):
            which = ", ".join(short[:3]) + (f" and {len(short) - 3} more" if len(short) > 3 else "")
            print(f"\nScores begin after {WARM_UP} captures of a phase: {which}.", end=" ")
            print("For more of them give GateMonitor a smaller every=.")
    failed = [done for done in passes if done.failed is not None]
    for done in failed:
        _fail(f"run {printable(done.run)}: {done.failed}", 1)
    return 1 if failed else 0


def _too_short(passes: Sequence[Pass], warm_up: int) -> Iterator[str]:
    """Each phase of which there are too few captures for a score."""
    for done in passes:
        for phase, captures in (done.phases or {"": 0}).items():
            if captures <= warm_up and done.failed is None:
                yield f"{printable(' '.join(filter(None, (done.run, phase))))} has {captures}"


def _told(done: Pass) -> list[object]:
    if done.failed is not None:
        return ["failed", "", ""]
    return ["no new captures", "", ""] if done.unchanged else [done.derived, done.scored, done.anomalous]


def _runs(arguments: argparse.Namespace) -> int:
    store = _open(arguments)
    frame = store.runs()
    now = datetime.now(UTC)
    frame["state"] = [
        life(state, (now - seen).total_seconds())
        for state, seen in zip(frame["state"], frame["last_seen"], strict=True)
    ]
    if arguments.json:
        print(frame.drop(columns="config").to_json(orient="records", date_format="iso", indent=2))
    elif frame.empty:
        print(f"{store.url} holds no run yet: train one with GateMonitor, or try `gatewatch demo`")
    else:
        for moment in ("started", "last_seen"):
            frame[moment] = frame[moment].dt.strftime("%Y-%m-%d %H:%M:%S")
        shown = frame[list(_RUN_COLUMNS)].astype(object)
        rows = shown.where(shown.notna(), "").to_numpy().tolist()
        print(table(list(_RUN_COLUMNS.values()), rows))
    return 0


def _spool_status(arguments: argparse.Namespace) -> int:
    from jobs.spooled import shown  # noqa: PLC0415 - only this command needs it

    root = spool_root(load_settings().spool.path)
    entries = [entry for entry in waiting(root) if entry.points or entry.rejected or entry.damaged]
    if arguments.json:
        print(json.dumps([shown(entry) for entry in entries], indent=2))
    elif not entries:
        print(f"nothing waits in {root}")
    else:
        rows = [
            [
                entry.destination.get("url", ""),
                entry.destination.get("bucket", ""),
                entry.points,
                entry.bytes / 2**20,
                entry.rejected,
            ]
            for entry in entries
        ]
        print(table(["store", "bucket", "points", "MiB", "refused"], rows))
        for entry in entries:
            if entry.rejected:
                print(f"\nrefused: {entry.rejected:,}, in {printable(entry.rejected_file)}")
                print(f"  the last because: {printable(entry.reason)}")
            if entry.damaged:
                print(f"\ndamaged, and passed over: {entry.damaged:,} records in {printable(entry.folder)}")
    return 0


def _spool_flush(arguments: argparse.Namespace) -> int:
    from jobs.spooled import flush  # noqa: PLC0415 - only this command needs it

    root = spool_root(load_settings().spool.path)
    done = list(flush(root, arguments.timeout, _say_waiting if sys.stderr.isatty() else None))
    if arguments.json:
        print(json.dumps([{name: getattr(one, name) for name in one.__slots__} for one in done], indent=2))
    elif not done:
        print(f"nothing waits in {root}")
    else:
        rows = [[one.url, one.shipped, one.rejected, one.left] for one in done]
        print(table(["store", "shipped", "refused", "still waiting"], rows))
    for one in done:
        if one.problem is not None:
            _fail(printable(one.problem), 1)
    return 1 if any(one.left for one in done) else 0


def _report(arguments: argparse.Namespace) -> int:
    _need("jobs", "plotly", "jinja2")
    from jobs.report.page import write_report  # noqa: PLC0415 - Plotly is imported only where it is used

    print(write_report(_open(arguments), arguments.run, arguments.output))
    return 0


def _open(arguments: argparse.Namespace) -> Store:
    """The store, which must be there already: no reader makes an empty one by a misspelt name."""
    store = open_store(arguments.store)
    path = store.url.removeprefix("sqlite:///")
    if path != store.url and not Path(path).exists():
        raise ConfigError(f"{store.url} does not exist; name the store with --store or GATEWATCH_STORE")
    return store


def _need(extra: str, *packages: str) -> None:
    missing = [package for package in packages if util.find_spec(package) is None]
    if missing:
        raise ConfigError(f"this command needs {', '.join(missing)}: pip install 'gatewatch[{extra}]'")


def _say_waiting(url: str, points: int) -> None:
    print(f"  {points:,} points wait for {printable(url)}", file=sys.stderr)


def _say_run(run: str, number: int, total: int) -> None:
    print(f"  scoring {printable(run)} ({number + 1} of {total})", file=sys.stderr)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a positive number")
    return number


def _fail(text: str, status: int) -> int:
    print(f"gatewatch: {' '.join(text.split())}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())

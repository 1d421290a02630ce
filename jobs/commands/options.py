"""The command line: every command with its options. What a command does is in the module of its name beside this one.

That module is imported only when the command is run, so that `--help` is quick and needs none of the extras.
"""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from datetime import datetime
from importlib import import_module, util
from pathlib import Path
from typing import Any, Final, TypeAlias

from gatewatch.collector.environment import whole_number
from gatewatch.collector.errors import ConfigError

Commands: TypeAlias = "argparse._SubParsersAction[ArgumentParser]"  # what `add_subparsers` gives has no public name
AddCommand: TypeAlias = "Callable[[Commands, ArgumentParser], None]"
"""Add a command to the subparsers; the second argument is a parent parser with the option `--store`."""

_LARGEST: Final = 10**9
"""The largest number that an option takes: of seconds, rows or epochs."""


def _demo(commands: Commands, with_store: ArgumentParser) -> None:
    demo = commands.add_parser(
        "demo", help="train on real prices, healthy and with a fault, score both, write a report"
    )
    demo.add_argument(
        "--symbol", choices=["GOOG", "EURUSD", "BTCUSD"], default="GOOG", help="prices to train on (default: GOOG)"
    )
    demo.add_argument(
        "--epochs", type=_positive, help="epochs of each of the two trainings (default: about 650 batches in all)"
    )
    demo.add_argument(
        "--folder", type=Path, default=Path("gatewatch-demo"), help="folder for all files (default: gatewatch-demo)"
    )
    demo.set_defaults(run_command=_imported("demo.run", "demo", "keras", "backtesting", "sklearn", "plotly"))


def _view(commands: Commands, with_store: ArgumentParser) -> None:
    view = commands.add_parser(
        "view",
        parents=[with_store],
        help="show the runs on a local page while they go on",
        description="Serve a page that shows the runs of a store while they go on, and score them, until Ctrl-C. It"
        " needs no network and is for this machine alone. From another one, forward the port:"
        " ssh -L 6007:localhost:6007 HOST",
    )
    _value(view, "--port", "PORT", "port to listen on (default: 6007; 0: any that is free)", type=_port, default=6007)
    _value(
        view,
        "--host",
        "ADDRESS",
        "address to listen on (default: 127.0.0.1); for one that others can reach the page's address has a token",
        default="127.0.0.1",
    )
    _flag(view, "--open", "open the page in a browser")
    _flag(view, "--no-score", "compute no scores; leave that to gatewatch jobs")
    view.set_defaults(run_command=_imported("view.run", "jobs", "sklearn", "plotly", "jinja2"))


def _jobs(commands: Commands, with_store: ArgumentParser) -> None:
    jobs = commands.add_parser(
        "jobs",
        parents=[with_store],
        help="run the service that computes metrics and anomaly scores and sends alerts",
        description="Score the new captures of all runs and send alerts, every 15 seconds until it is stopped. With"
        " --once, score once and stop; alerts are not evaluated and no mail is sent.",
    )
    _flag(jobs, "--once", "score all new captures once, then stop; evaluate no alerts and send no mail")
    jobs.add_argument("--run", help="score only this run (with --once)")
    _flag(jobs, "--json", "print JSON (with --once)")
    _value(jobs, "--interval", "SECONDS", "time between two passes (default: 15)", type=float)
    jobs.add_argument("--executor", help="local, dask (a cluster of this machine) or dask://host:port (default: local)")
    jobs.add_argument("--workers", type=int, help="number of workers that share the runs (default: 1)")
    _flag(jobs, "--verbose", "print a line for each pass that did something; this is the default on a terminal")
    jobs.set_defaults(run_command=_imported("jobs.run", "jobs", "sklearn"))


def _runs(commands: Commands, with_store: ArgumentParser) -> None:
    runs = commands.add_parser(
        "runs",
        parents=[with_store],
        help="list the runs and their states",
        description="List the runs, newest first: live, completed, failed, interrupted or died.",
    )
    _flag(runs, "--json", "print JSON")
    runs.set_defaults(run_command=_imported("runs.run"))


def _report(commands: Commands, with_store: ArgumentParser) -> None:
    report = commands.add_parser(
        "report",
        parents=[with_store],
        help="write the report of a run, or a comparison of several, as one HTML file",
        description="Write the report of a run, by default of the newest, or a comparison of several, as one HTML file "
        "that works offline.",
    )
    report.add_argument(
        "runs", nargs="*", metavar="RUN", help="name of the run (default: the newest run); two or more are compared"
    )
    report.add_argument("-o", "--output", type=Path, metavar="FILE", help="file to write (default: gatewatch-RUN.html)")
    report.add_argument(
        "--watch",
        nargs="?",
        type=_seconds,
        const=10,
        metavar="SECONDS",
        help="rewrite the report at this interval (default: 10) until the run has ended and is scored, or until "
        "Ctrl-C; a browser that shows the page reloads it",
    )
    report.set_defaults(run_command=_imported("report.run", "jobs", "plotly", "jinja2"))


def _verdict(commands: Commands, with_store: ArgumentParser) -> None:
    verdict = commands.add_parser(
        "verdict",
        parents=[with_store],
        help="say in one sentence whether a run is healthy",
        description="Score what is not scored yet, as `gatewatch jobs --once` does, and say whether the run is healthy:"
        " in one sentence, with what it rests on. Exit status: 0 healthy, 1 not, 2 wrong arguments, 3 undecided: too"
        " little was captured to say, or the store is away.",
    )
    verdict.add_argument("run", metavar="RUN", help="name of the run")
    verdict.add_argument(
        "--fail-on",
        choices=["alarm", "notice"],
        default="alarm",
        help="the least that is not healthy: with notice, a notice gives the exit status 1 too (default: alarm)",
    )
    verdict.add_argument("--no-score", action="store_false", dest="score", help="judge only what is scored already")
    _flag(verdict, "--json", "print JSON")
    verdict.set_defaults(run_command=_imported("verdict.run", "jobs", "sklearn"))


def _query(commands: Commands, with_store: ArgumentParser) -> None:
    query = commands.add_parser(
        "query",
        parents=[with_store],
        help="run a named query on InfluxDB, or one of your own in Flux",
        epilog="Without NAME and --flux it lists the named queries and their parameters; docs/flux.md explains each.",
    )
    query.add_argument("name", nargs="?", metavar="NAME", help="name of the query")
    _value(
        query,
        "--flux",
        "FILE",
        "run the query in this file, - for standard input; `bucket` in it is the store's bucket",
    )
    query.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter of the query; repeat it for more, and for each element of a list; with --flux,"
        " NAME:TYPE=VALUE where the type is not obvious",
    )
    _flag(
        query,
        "--show",
        "print the Flux of the query instead of running it, with the parameters filled in; if a required parameter is"
        " missing, print the file of the query as it is",
    )
    form = query.add_mutually_exclusive_group()
    _flag(form, "--json", "print JSON")
    _flag(form, "--csv", "print CSV")
    _value(query, "--limit", "ROWS", "print at most this many rows (default: all)", type=_positive)
    _timeout(query, 60, "how long to wait for the next rows")
    query.set_defaults(run_command=_imported("query.run"))


def _export(commands: Commands, with_store: ArgumentParser) -> None:
    export = commands.add_parser(
        "export",
        parents=[with_store],
        help="write a run's points as Parquet or CSV",
        description="Write the points of a run as tables for other programs, one file for each measurement: a row for"
        " each point, with its time, its tags and its fields. The files appear whole, all at once, when the last one is"
        " written. In CSV, text that a spreadsheet would run as a formula gets an apostrophe.",
    )
    export.add_argument("run", metavar="RUN", help="name of the run")
    _value(
        export,
        "--to",
        "PATH",
        "folder to write into; with --measurement also a file whose name ends in .parquet or .csv",
        type=Path,
        required=True,
    )
    export.add_argument(
        "--format",
        choices=["parquet", "csv"],
        help="of the files (default: parquet, which needs gatewatch[export]; of a file what its name ends in)",
    )
    _value(export, "--measurement", "NAME", "write only this measurement")
    _flag(export, "--overwrite", "replace files that are there")
    _flag(export, "--json", "print JSON")
    export.set_defaults(run_command=_imported("export.run"))


def _baseline(commands: Commands, with_store: ArgumentParser) -> None:
    baseline = commands.add_parser("baseline", help="choose the healthy runs that later runs are compared with")
    actions = _actions(baseline)
    for name, text in (
        ("add", "mark a healthy run as a baseline for the scores of later runs"),
        ("remove", "stop using a run as a baseline"),
    ):
        action = actions.add_parser(name, parents=[with_store], help=text)
        action.add_argument("run", metavar="RUN", help="name of the run")
        action.set_defaults(run_command=_imported(f"baseline.{name}", "jobs", "sklearn"))
        if name == "add":
            _flag(action, "--anyway", "add the run though something is wrong with it")
    listing = actions.add_parser("list", parents=[with_store], help="list the runs that are baselines")
    _flag(listing, "--json", "print JSON")
    listing.set_defaults(run_command=_imported("baseline.show", "jobs", "sklearn"))


def _backfill(commands: Commands, with_store: ArgumentParser) -> None:
    backfill = commands.add_parser(
        "backfill",
        parents=[with_store],
        help="score a finished run capture by capture, as the service would",
        description="Score a finished run capture by capture, as the service would. A run that is scored already is"
        " left alone, unless --from-scratch is given.",
    )
    backfill.add_argument("run", metavar="RUN", help="name of the run")
    _flag(backfill, "--from-scratch", "score all captures again, for example after the baselines have changed")
    _flag(backfill, "--json", "print JSON")
    backfill.set_defaults(run_command=_imported("backfill.run", "jobs", "sklearn"))


def _grafana(commands: Commands, with_store: ArgumentParser) -> None:
    grafana = commands.add_parser(
        "grafana",
        help="push dashboards and alert rules to your Grafana",
        description="Push Gatewatch's dashboards and alert rules to your Grafana.",
    )
    push = _actions(grafana).add_parser(
        "push",
        parents=[with_store],
        help="create or update the dashboards and alert rules",
        description="Create or update the datasource, dashboards, alert rules, contact point and policy in the Grafana"
        " of GRAFANA_URL, with the token of GRAFANA_TOKEN. All stay editable there. What you change there is"
        " kept. Mails go to GATEWATCH_ALERT_TO, else to `to` in [mail] of gatewatch.toml.",
    )
    _value(push, "--url", "URL", "address of Grafana (default: GRAFANA_URL)")
    _value(push, "--influxdb-url", "URL", "the store's address as Grafana reaches it (default: that of the store)")
    _flag(push, "--dry-run", "show the changes without making them")
    _flag(push, "--overwrite", "also replace what users changed in Grafana")
    _flag(push, "--json", "print JSON")
    push.set_defaults(run_command=_imported("grafana.push", "jobs", "grafana_client"))


def _copy(commands: Commands, with_store: ArgumentParser) -> None:
    copy = commands.add_parser(
        "copy",
        help="copy the points of one store into another",
        description="Copy the points of one store into another. It is safe to interrupt and to run again: points that "
        "the destination has already, by count, are not written again. At the end every value is counted in the "
        "destination. Organisation, bucket and token of an InfluxDB come from INFLUXDB_V2_ORG, _BUCKET and _TOKEN.",
    )
    _value(copy, "--from", "URL", "store to read: sqlite:///file.db or http://host:8086", required=True, dest="source")
    _value(copy, "--to", "URL", "store to write: same forms as --from", required=True, dest="destination")
    _value(copy, "--run", "RUN", "copy only this run; repeatable", action="append", default=[])
    _value(copy, "--measurement", "NAME", "copy only this measurement; repeatable", action="append", default=[])
    _value(copy, "--since", "TIME", "copy only points since, such as 2026-01-31 (UTC)", type=_moment)
    _flag(copy, "--dry-run", "write nothing, and show what would be written")
    how = copy.add_mutually_exclusive_group()
    _flag(how, "--verify", "decide what to copy by comparing every value instead of counting; slower")
    _flag(how, "--again", "rewrite every point, also those that the destination has already")
    _timeout(copy, 60, "how long to retry while a store does not answer")
    _value(copy, "--from-org", "NAME", "organisation of the source (default: INFLUXDB_V2_ORG)")
    _value(copy, "--from-bucket", "NAME", "bucket of the source (default: INFLUXDB_V2_BUCKET)")
    _value(copy, "--from-token-file", "FILE", "file with the token of the source (default: INFLUXDB_V2_TOKEN)")
    _flag(copy, "--json", "print JSON")
    copy.set_defaults(run_command=_imported("copy.run"))


def _check(commands: Commands, with_store: ArgumentParser) -> None:
    check = commands.add_parser(
        "check",
        parents=[with_store],
        help="check the configuration and every service that it names",
        description="Check the configuration, the store and its token, the spool, the state folder, the mail server"
        " and, where GRAFANA_URL is set, Grafana. Print a line for each, and what to do where something does not work."
        " Nothing is changed, and a mail is sent only with --mail.",
    )
    _flag(check, "--mail", "also send a test mail to the recipients")
    _flag(check, "--json", "print JSON")
    check.set_defaults(run_command=_imported("check.run"))


def _spool(commands: Commands, with_store: ArgumentParser) -> None:
    spool = commands.add_parser("spool", help="show or ship the points that wait on this machine")
    actions = _actions(spool)
    status = actions.add_parser(
        "status",
        help="show waiting and rejected points by store",
        description="Show the points that wait in the spool, a folder on this machine, until a process or `spool flush`"
        " ships them, and the points that a store has rejected.",
    )
    _flag(status, "--json", "print JSON")
    status.set_defaults(run_command=_imported("spool.status"))
    flush = actions.add_parser(
        "flush",
        help="ship the points left behind by processes that have exited",
        description="Ship the points left in the spool, a folder on this machine, by processes that have exited.",
    )
    _flag(flush, "--json", "print JSON")
    _timeout(flush, 30, "how long to wait for a store that does not answer")
    flush.set_defaults(run_command=_imported("spool.flush"))


def _imported(target: str, extra: str = "", *packages: str) -> Callable[[Namespace], int | None]:
    """Return a function that imports a command's module, and runs its function of that name.

    Args:
        target: `module.function`.
        extra, packages: what the command needs: the extra that brings these packages.
    """

    def run_command(arguments: Namespace) -> int | None:
        need(extra, *packages)
        module, function = target.split(".")
        status: int | None = getattr(import_module(f"gatewatch.jobs.commands.{module}"), function)(arguments)
        return status

    return run_command


def need(extra: str, *packages: str, otherwise: str = "") -> None:
    """Check that packages are installed.

    Args:
        extra: the extra that brings them.
        packages: their names, as they are imported.
        otherwise: what else the user can do.

    Raises:
        ConfigError: some are not; names the extra.
    """
    missing = [package for package in packages if util.find_spec(package) is None]
    if missing:
        remedy = f"pip install 'gatewatch[{extra}]'{otherwise and ', or '}{otherwise}"
        raise ConfigError(f"this command needs {', '.join(missing)}: {remedy}")


def _actions(command: ArgumentParser) -> Commands:
    """Return the subparsers of a command that has several actions."""
    return command.add_subparsers(title="actions", required=True, metavar="ACTION")


def _flag(command: argparse._ActionsContainer, name: str, text: str) -> None:
    command.add_argument(name, action="store_true", help=text)


def _value(command: ArgumentParser, name: str, metavar: str, text: str, **options: Any) -> None:
    command.add_argument(name, metavar=metavar, help=text, **options)


def _timeout(command: ArgumentParser, seconds: int, text: str) -> None:
    _value(command, "--timeout", "SECONDS", f"{text} (default: {seconds})", type=_positive, default=seconds)


def _positive(text: str, problem: str = "is not a positive whole number") -> int:
    number = whole_number(text)
    if number is None or not 1 <= number <= _LARGEST:
        raise argparse.ArgumentTypeError(f"{text!r} {problem if number is None or number < 1 else 'is too large'}")
    return number


def _port(text: str) -> int:
    number = whole_number(text)
    if number is None or not 0 <= number < 2**16:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number from 0 to 65535")
    return number


def _seconds(text: str) -> int:
    return _positive(text, "is no number of seconds; name the run before --watch")


def _moment(text: str) -> int:
    from gatewatch.collector.times import nanoseconds  # noqa: PLC0415 - numpy comes with it, and `--help` needs none

    try:
        return nanoseconds(datetime.fromisoformat(text))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time; give one such as 2026-01-31 or 2026-01-31T12:00:00Z"
        ) from None


COMMANDS: Final = (
    _demo,
    _view,
    _jobs,
    _runs,
    _report,
    _verdict,
    _query,
    _export,
    _baseline,
    _backfill,
    _grafana,
    _copy,
    _check,
    _spool,
)
"""The commands, in the order of the help."""

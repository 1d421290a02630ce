"""`gatewatch check`: what is configured, whether it works, and what to do where it does not."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gatewatch.collector.environment import read_variable
from gatewatch.collector.errors import ConfigError, GatewatchError
from gatewatch.jobs.commands.common import Commands, need, print_json
from gatewatch.jobs.text import printable

if TYPE_CHECKING:
    from gatewatch.collector.config import Settings
    from gatewatch.collector.store import Store
    from gatewatch.collector.store.influxdb.client import Client


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one check.

    Attributes:
        what: was looked at.
        ok: whether it works.
        detail: what was found; where it does not work, the problem and its remedy.
        warning: whether it works and should be mended all the same.
    """

    what: str
    ok: bool
    detail: str
    warning: bool = False


class Doubt(GatewatchError):  # noqa: N818 - nothing failed
    """It works, and should be mended all the same."""


def add(commands: Commands[argparse.ArgumentParser], with_store: argparse.ArgumentParser) -> None:
    """Add the command."""
    check = commands.add_parser(
        "check",
        parents=[with_store],
        help="check the configuration and every service that it names",
        description="Check the configuration, the store and its token, the spool, the state folder, the mail server"
        " and, where GRAFANA_URL is set, Grafana. Print a line for each, and what to do where something does not work."
        " Nothing is changed, and a mail is sent only with --mail.",
    )
    check.add_argument("--mail", action="store_true", help="also send a test mail to the recipients")
    check.add_argument("--json", action="store_true", help="print JSON")
    check.set_defaults(run_command=_run)


def _run(arguments: argparse.Namespace) -> int:
    findings = []
    for finding in _findings(arguments):
        findings.append(finding)
        if not arguments.json:
            word = "warning" if finding.warning else "ok" if finding.ok else "problem"
            print(f"{word:<8} {finding.what:<14} {printable(finding.detail)}", flush=True)
    if arguments.json:
        print_json([asdict(finding) for finding in findings])
    return 0 if all(finding.ok for finding in findings) else 1


def _findings(arguments: argparse.Namespace) -> Iterator[Finding]:
    from gatewatch.collector.config import FILE, Settings, load_settings  # noqa: PLC0415 - pydantic loads slowly

    settings = Settings()

    def configuration() -> str:
        nonlocal settings
        settings = load_settings()
        named = read_variable("GATEWATCH_CONFIG") or FILE
        return str(Path(named).absolute()) if Path(named).exists() else f"no {FILE} here: the defaults hold"

    store: Store | None = None

    answering: Client | None = None

    def opened() -> str:
        nonlocal store, answering
        from gatewatch.collector.store import open_store  # noqa: PLC0415 - numpy comes with it

        store = open_store(arguments.store)
        store.ping()
        answering = store.influxdb
        return _store(store)

    yield _found("configuration", configuration)
    yield (stored := _found("store", opened))
    if client := answering:
        token = _found("token", lambda: _token(client))
        if token.ok or stored.ok:  # else it is the same trouble twice
            yield token
    yield _found("spool", lambda: _spool(settings, store))
    yield _found("state folder", lambda: _state(settings, store))
    yield _found("mail", lambda: _mail(settings, arguments.mail))
    if read_variable("GRAFANA_URL"):
        yield _found("grafana", lambda: _grafana(arguments.store))


def _found(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, look())
    except Doubt as doubt:
        return Finding(what, True, str(doubt), warning=True)
    except (GatewatchError, OSError) as error:
        return Finding(what, False, " ".join(str(error).split()))


def _store(store: Store) -> str:
    """What is there; raises where points cannot be written or read."""
    from gatewatch.collector.store.influxdb.permissions import permissions  # noqa: PLC0415 - numpy comes with it

    if store.path is not None and not store.exists():
        folder = store.path.parent
        if not os.access(folder, os.W_OK):
            raise GatewatchError(f"{folder} is missing or cannot be written: make it, or name another with --store")
        return f"{store.url} does not exist yet: the first training makes it"
    store.check()
    try:
        runs = len(store.runs())
    except ConfigError:
        if store.influxdb is None or permissions(store.influxdb).reads:
            raise
        return f"{store.url}, which the token may write and not read"
    return f"{store.url}, {runs:,} run{'' if runs == 1 else 's'}"


def _token(client: Client) -> str:
    from gatewatch.collector.store.influxdb.permissions import permissions  # noqa: PLC0415 - only an InfluxDB needs it

    allowed, bucket = permissions(client), client.bucket
    if excess := allowed.excess():
        raise Doubt(
            f"it {excess}, and needs {bucket!r} alone: give a training one that may write that, the jobs one that may"
            f" read it too (`influx auth create --org {client.org} --write-bucket ID [--read-bucket ID]` or,"
            " where the stack runs, `docker compose cp setup:/tokens/jobs/jobs.token .`)"
        )
    if not (allowed.reads or allowed.writes):
        raise GatewatchError(f"it may neither read nor write {bucket!r}; see INFLUXDB_V2_BUCKET and INFLUXDB_V2_TOKEN")
    if not allowed.reads:
        return (
            f"it writes {bucket!r} and cannot read it: enough for a training; the jobs, `gatewatch runs` and Grafana"
            " need another"
        )
    if not allowed.writes:
        return f"it reads {bucket!r} and cannot write it: enough for Grafana; a training and the jobs need another"
    return f"it reads and writes {bucket!r}, as the jobs need; a training needs to write alone, Grafana to read"


def _grafana(store_url: str | None) -> str:
    need("jobs", "grafana_client")
    from gatewatch.jobs.grafana.artifacts import alert_environment, bucket_for, wanted  # noqa: PLC0415 - only where there is a Grafana
    from gatewatch.jobs.grafana.connection import Grafana, connect, token  # noqa: PLC0415 - as above
    from gatewatch.jobs.grafana.plan import plan  # noqa: PLC0415 - as above
    from gatewatch.jobs.grafana.push import Target, datasource_exists, unreachable  # noqa: PLC0415 - as above

    if not token():
        grafana = Grafana(read_variable("GRAFANA_URL"), "")
        grafana.health()
        return f"{grafana.url} answers; GRAFANA_TOKEN is not set, so what is in it was not looked at"
    grafana = connect()
    there = datasource_exists(grafana)
    resources = wanted(bucket_for(store_url, None, needed=not there), alert_environment(os.environ))
    about = f"{grafana.url}, Grafana {grafana.version}"
    if there and (problem := unreachable(grafana)):
        raise GatewatchError(
            f"{about}: its datasource does not answer ({problem}); see `gatewatch grafana push --help`"
        )
    # Grafana's token is another than that of the jobs, and need not be the one that is set here.
    steps = plan(resources, Target(grafana, compare_token=False).existing(resources))
    counts = {verb: sum(step.verb == verb for step in steps) for verb in ("create", "update", "kept", "blocked")}
    named = {"create": "missing", "update": "out of date", "blocked": "blocked"}
    if late := [f"{counts[verb]} {word}" for verb, word in named.items() if counts[verb]]:
        raise Doubt(f"{about}: {', '.join(late)} of {len(steps)}; `gatewatch grafana push --dry-run` shows them")
    kept = f", {counts['kept']} of them kept as you have them" if counts["kept"] else ""
    return f"{about}: all {len(steps)} are there{kept}"


def _spool(settings: Settings, store: Store | None) -> str:
    from gatewatch.collector.spool.inspect import pending  # noqa: PLC0415 - as above
    from gatewatch.collector.spool.queue import Spool, spool_root  # noqa: PLC0415 - `--help` needs none of it

    root = spool_root(settings.spool.path)
    if store is not None:
        spool = Spool(root, store.destination, settings.spool.max_mb * 2**20)
        spool.check()
        spool.close()
    entries = list(pending(root))
    points, refused, damaged = (sum(getattr(e, name) for e in entries) for name in ("points", "rejected", "damaged"))
    more = [f"{points:,} points wait"] if points else []
    more += [f"{refused:,} were refused"] if refused else []
    more += [f"{damaged:,} records are damaged"] if damaged else []
    return f"{root}{', '.join(['', *more])}{' (see `gatewatch spool status`)' if more else ''}"


def _state(settings: Settings, store: Store | None) -> str:
    from gatewatch.jobs.service.state_folder import check_state_folder, state_folder  # noqa: PLC0415 - `--help` needs none of it

    folder = state_folder(settings.jobs.state, {} if store is None else store.destination)
    folder = folder if store is not None else folder.parent
    check_state_folder(folder)
    return str(folder)


def _mail(settings: Settings, send: bool) -> str:
    mail = settings.mail
    if not mail.to:
        if send:
            raise GatewatchError(
                "nobody is to get mails: name the server in [mail] host and the recipients in [mail] to"
            )
        return "not configured: nobody gets mails (see [mail] of the configuration)"
    about = f"{mail.host} to {', '.join(mail.to)}"
    if not send:
        return f"{about}; `gatewatch check --mail` sends a test"
    from gatewatch.jobs.alerts import send_test  # noqa: PLC0415 - only where it is asked for

    send_test(settings)
    return f"{about}: a test was sent"

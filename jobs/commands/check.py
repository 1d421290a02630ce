"""`gatewatch check`: what is configured, whether it works, and what to do where it does not."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gatewatch.collector.config import FILE, Settings, load_settings
from gatewatch.collector.environment import read_variable
from gatewatch.collector.errors import ConfigError, GatewatchError
from gatewatch.collector.spool.inspect import pending
from gatewatch.collector.spool.queue import Spool, spool_root
from gatewatch.collector.store import Store, open_store
from gatewatch.collector.store.influxdb.client import Client
from gatewatch.collector.store.influxdb.permissions import Permissions, permissions
from gatewatch.collector.text import one_line
from gatewatch.jobs.commands.common import print_list
from gatewatch.jobs.commands.options import need
from gatewatch.jobs.service.state_folder import check_state_folder, state_folder
from gatewatch.jobs.text import printable


class Doubt(GatewatchError):  # noqa: N818 - nothing failed
    """It works, and should be mended all the same."""


@dataclass(slots=True)
class _Context:
    """What the checks have found so far: each is given it, and later ones build on it."""

    arguments: argparse.Namespace
    settings: Settings
    store: Store | None = None
    token: tuple[Client, Permissions] | None = None


def run(arguments: argparse.Namespace) -> int:
    """Check one thing after another, print what was found, and return the exit status."""
    context = _Context(arguments, Settings())
    findings = []
    for what, check in _CHECKS.items():
        ok, warning = True, False
        try:
            detail = check(context)
        except Doubt as doubt:
            detail, warning = str(doubt), True
        except (GatewatchError, OSError) as error:
            detail, ok = one_line(error), False
        if detail is None:
            continue
        findings.append({"what": what, "ok": ok, "detail": detail, "warning": warning})
        if not arguments.json:
            word = "warning" if warning else "ok" if ok else "problem"
            print(f"{word:<8} {what:<14} {printable(detail)}", flush=True)
    if arguments.json:
        print_list(arguments, findings, [], [])
    return 0 if all(finding["ok"] for finding in findings) else 1


def _configuration(context: _Context) -> str:
    context.settings = load_settings()
    file = Path(read_variable("GATEWATCH_CONFIG") or FILE)
    return str(file.absolute()) if file.exists() else f"no {FILE} here: the defaults hold"


def _store(context: _Context) -> str:
    store = context.store = open_store(context.arguments.store)
    if store.path is not None and not store.exists():
        folder = store.path.parent
        if not os.access(folder, os.W_OK):
            raise GatewatchError(f"{folder} is missing or cannot be written: make it, or name another with --store")
        return f"{store.url} does not exist yet: the first training makes it"
    if store.influxdb is not None:
        context.token = store.influxdb, permissions(store.influxdb)
    store.check()
    try:
        runs = len(store.runs())
    except ConfigError:
        if context.token is None or context.token[1].reads:
            raise
        return f"{store.url}, which the token may write and not read"
    return f"{store.url}, {runs:,} run{'' if runs == 1 else 's'}"


def _token(context: _Context) -> str | None:
    if context.token is None:
        return None
    (client, allowed), bucket = context.token, context.token[0].bucket
    if excess := allowed.excess():
        raise Doubt(
            f"it {excess}, and needs {bucket!r} alone: give trainings and the jobs one that may read and write that"
            f" (`influx auth create --org {client.org} --read-bucket ID --write-bucket ID` or, where the stack runs,"
            " `docker compose cp setup:/tokens/jobs/jobs.token .`)"
        )
    if allowed.reads and allowed.writes:
        return f"it reads and writes {bucket!r}, as trainings and the jobs need; Grafana needs to read"
    if allowed.reads:
        return f"it reads {bucket!r} and cannot write it: enough for Grafana; a training and the jobs need another"
    if allowed.writes:
        others = "the jobs, `gatewatch runs` and Grafana need another"
        return (
            f"it writes {bucket!r} and cannot read it: a training cannot see whether its run's name is taken; {others}"
        )
    return None  # which is what the check of the store says


def _spool(context: _Context) -> str:
    root = spool_root(context.settings.spool.path)
    if context.store is not None:
        spool = Spool(root, context.store.destination, context.settings.spool.max_mb * 2**20)
        spool.check()
        spool.close()
    entries = list(pending(root))
    words = {"points": "points wait", "rejected": "were refused", "damaged": "records are damaged"}
    counts = {name: sum(getattr(entry, name) for entry in entries) for name in words}
    more = [f"{counts[name]:,} {text}" for name, text in words.items() if counts[name]]
    return f"{root}{', '.join(['', *more])}{' (see `gatewatch spool status`)' if more else ''}"


def _state(context: _Context) -> str:
    store, state = context.store, context.settings.jobs.state
    folder = state_folder(state, {}).parent if store is None else state_folder(state, store.destination)
    check_state_folder(folder)
    return str(folder)


def _mail(context: _Context) -> str:
    mail, send = context.settings.mail, context.arguments.mail
    if not mail.to and not send:
        return "not configured: nobody gets mails (see [mail] of the configuration)"
    about = f"{mail.host} to {', '.join(mail.to)}"
    if not send:
        return f"{about}; `gatewatch check --mail` sends a test"
    from gatewatch.jobs.alerts import send_test  # noqa: PLC0415 - only where it is asked for

    send_test(context.settings)
    return f"{about}: a test was sent"


def _grafana(context: _Context) -> str | None:
    if not read_variable("GRAFANA_URL"):
        return None
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
    bucket = bucket_for(context.arguments.store, None, needed=not there)
    resources = wanted(bucket, alert_environment(os.environ), grafana.pages)
    about = f"{grafana.url}, Grafana {grafana.version}"
    if there and (problem := unreachable(grafana)):
        raise GatewatchError(
            f"{about}: its datasource does not answer ({problem}); see `gatewatch grafana push --help`"
        )
    # Grafana's token is another than that of the jobs, and need not be the one that is set here.
    steps = plan(resources, Target(grafana, compare_token=False).existing(resources))
    counts = Counter[str](step.verb for step in steps)
    words = {"create": "missing", "update": "out of date", "blocked": "blocked"}
    if late := [f"{counts[verb]} {word}" for verb, word in words.items() if counts[verb]]:
        raise Doubt(f"{about}: {', '.join(late)} of {len(steps)}; `gatewatch grafana push --dry-run` shows them")
    kept = f", {counts['kept']} of them kept as you have them" if counts["kept"] else ""
    return f"{about}: all {len(steps)} are there{kept}"


_CHECKS: Final[Mapping[str, Callable[[_Context], str | None]]] = {
    "configuration": _configuration,
    "store": _store,
    "token": _token,
    "spool": _spool,
    "state folder": _state,
    "mail": _mail,
    "grafana": _grafana,
}
"""What is checked, in this order. A check returns what it found, or None where there is nothing to look at. Where
something does not work it raises an error with the problem and its remedy."""

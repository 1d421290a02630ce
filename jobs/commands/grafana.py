"""`gatewatch grafana push`: dashboards and alert rules into a Grafana."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gatewatch.collector.errors import ConfigError
from gatewatch.jobs.commands.common import Commands, need, print_json
from gatewatch.jobs.console import fail
from gatewatch.jobs.text import printable, table

if TYPE_CHECKING:
    from gatewatch.jobs.grafana.artifacts import Bucket
    from gatewatch.jobs.grafana.connection import Grafana
    from gatewatch.jobs.grafana.plan import Step
    from gatewatch.jobs.grafana.push import Target


def add(commands: Commands[argparse.ArgumentParser], with_store: argparse.ArgumentParser) -> None:
    """Add the command."""
    grafana = commands.add_parser(
        "grafana",
        help="push dashboards and alert rules to your Grafana",
        description="Push Gatewatch's dashboards and alert rules to your Grafana.",
    )
    actions = grafana.add_subparsers(title="actions", required=True, metavar="ACTION")
    push = actions.add_parser(
        "push",
        parents=[with_store],
        help="create or update the dashboards and alert rules",
        description="Makes the datasource, dashboards, alert rules, contact point and policy in the Grafana of"
        " GRAFANA_URL, with the token of GRAFANA_TOKEN. All stay editable there. What you change is left as you made"
        " it. Mails go to GATEWATCH_ALERT_TO, else to `to` in [mail] of gatewatch.toml.",
    )
    push.add_argument("--url", metavar="URL", help="address of Grafana (default: GRAFANA_URL)")
    push.add_argument(
        "--influxdb-url", metavar="URL", help="the store's address as Grafana reaches it (default: that of the store)"
    )
    push.add_argument("--dry-run", action="store_true", help="show the changes without making them")
    push.add_argument("--overwrite", action="store_true", help="also replace what users changed in Grafana")
    push.add_argument("--json", action="store_true", help="print JSON")
    push.set_defaults(run_command=_push)


def _push(arguments: argparse.Namespace) -> int:
    need("jobs", "grafana_client")
    from gatewatch.jobs.grafana.artifacts import alert_environment, bucket_for, wanted  # noqa: PLC0415 - `--help` needs none of it
    from gatewatch.jobs.grafana.connection import connect  # noqa: PLC0415 - as above
    from gatewatch.jobs.grafana.plan import plan  # noqa: PLC0415 - as above
    from gatewatch.jobs.grafana.push import Target, datasource_exists  # noqa: PLC0415 - as above

    grafana = connect(arguments.url)
    environment = alert_environment(os.environ)
    bucket = bucket_for(arguments.store, arguments.influxdb_url, needed=not datasource_exists(grafana))
    for warning in _warnings(bucket, environment):
        print(f"gatewatch: warning: {printable(warning)}", file=sys.stderr)
    target, resources = Target(grafana), wanted(bucket, environment)
    steps = plan(resources, target.existing(resources), overwrite=arguments.overwrite)
    problems = {} if arguments.dry_run else _carry_out(target, steps)
    rows = [[step.resource.kind, step.resource.name, *_result(step, problems)] for step in steps]
    if arguments.json:
        print_json([dict(zip(("kind", "name", "result", "why"), row, strict=True)) for row in rows])
    else:
        results = [row[2] for row in rows]
        counts = ", ".join(f"{results.count(result)} {result}" for result in dict.fromkeys(results))
        print(table(["what", "name", "result", "why"], rows), f"\n{grafana.url}: {counts}", sep="\n")
    for step in steps:
        if problem := problems.get(step.resource.key):
            fail(printable(f"{step.resource.kind} {step.resource.name}: {problem}"))
    unreachable = not arguments.dry_run and _unreachable(grafana, steps)
    return 1 if unreachable or any(row[2] in ("failed", "blocked") for row in rows) else 0


def _carry_out(target: Target, steps: Sequence[Step]) -> dict[tuple[str, str], str]:
    """Do the steps that write; return why each failed, empty where it did not, by the resource's key."""
    total = sum(step.writes for step in steps)
    problems: dict[tuple[str, str], str] = {}
    try:
        for step, problem in target.carry_out(steps):
            problems[step.resource.key] = problem
            if sys.stderr.isatty():
                print(f"\r  {len(problems)} of {total}", end="", file=sys.stderr, flush=True)
    except BaseException:
        fail(f"stopped after {len(problems)} of {total}: what is done stays, and another push goes on from there")
        raise
    if sys.stderr.isatty() and problems:
        print("\r\033[K", end="", file=sys.stderr)
    return problems


def _result(step: Step, problems: Mapping[tuple[str, str], str]) -> tuple[str, str]:
    """Return what became of a resource, and why."""
    problem = problems.get(step.resource.key)
    if problem is None:
        return step.verb, step.why
    return ("failed", problem) if problem else (f"{step.verb}d", step.why)


def _unreachable(grafana: Grafana, steps: Sequence[Step]) -> bool:
    """Return whether the store does not answer Grafana; print why."""
    from gatewatch.jobs.grafana import push  # noqa: PLC0415 - `--help` needs none of it

    if any(step.resource.kind == "datasource" and step.verb == "update" for step in steps):
        time.sleep(push.CACHE_S)
    problem = push.unreachable(grafana)
    if problem:
        fail(
            f"Grafana cannot read the store: {printable(problem)}; give the address under which Grafana reaches it with"
            " --influxdb-url, and see INFLUXDB_V2_TOKEN"
        )
    return bool(problem)


def _warnings(bucket: Bucket | None, environment: Mapping[str, str]) -> list[str]:
    """Return what is doubtful about the recipients and about the token that Grafana is to read the store with.

    Raises:
        ConfigError: the token cannot read the bucket.
        WriteUnavailable: the store does not answer.
    """
    from gatewatch.collector.store.influxdb.permissions import permissions  # noqa: PLC0415 - `--help` needs none of it
    from gatewatch.jobs.grafana.artifacts import RECIPIENTS  # noqa: PLC0415 - as above

    warnings = []
    if not environment[RECIPIENTS]:
        warnings.append(
            f"nobody gets mails: contact point and policy are left out until {RECIPIENTS} names the recipients"
        )
    if bucket is None:
        return warnings
    client, allowed = bucket.client, permissions(bucket.client)
    if not allowed.reads:
        raise ConfigError(
            f"{client.url}: this token cannot read the bucket {client.bucket!r} of {client.org!r}; see"
            " INFLUXDB_V2_BUCKET and INFLUXDB_V2_ORG, and give a token that may read it as INFLUXDB_V2_TOKEN of this"
            " command"
        )
    if more := ", ".join(filter(None, ["writes it" if allowed.writes else "", allowed.excess()])):
        warnings.append(
            f"Grafana needs to read the bucket {client.bucket!r} and no more, and this token {more}: give it one of"
            f" its own, `influx auth create --org {client.org} --read-bucket ID` or, where the stack runs, `docker"
            " compose cp setup:/tokens/grafana/grafana.token .`, as INFLUXDB_V2_TOKEN or INFLUXDB_V2_TOKEN_FILE of this"
            " command"
        )
    return warnings

"""`gatewatch grafana push`: dashboards and alert rules into a Grafana."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.store.influxdb.permissions import permissions
from gatewatch.jobs.commands.common import print_list
from gatewatch.jobs.console import fail, fail_each, show_progress
from gatewatch.jobs.grafana import push as grafana_push
from gatewatch.jobs.grafana.artifacts import RECIPIENTS, Bucket, alert_environment, bucket_for, wanted
from gatewatch.jobs.grafana.connection import connect
from gatewatch.jobs.grafana.plan import Step, plan
from gatewatch.jobs.grafana.push import Target, datasource_exists, unreachable
from gatewatch.jobs.text import printable


def push(arguments: argparse.Namespace) -> int:
    """Push the dashboards and alert rules, and return the exit status."""
    grafana = connect(arguments.url)
    variables = alert_environment(os.environ)
    bucket = bucket_for(arguments.store, arguments.influxdb_url, needed=not datasource_exists(grafana))
    for warning in _warnings(bucket, variables):
        print(f"gatewatch: warning: {printable(warning)}", file=sys.stderr)
    target, resources = Target(grafana), wanted(bucket, variables, grafana.pages)
    steps = plan(resources, target.existing(resources), overwrite=arguments.overwrite)
    results = {} if arguments.dry_run else _carry_out(target, steps)
    rows = [
        [step.resource.kind, step.resource.name, *results.get(step.resource.key, (step.verb, step.why))]
        for step in steps
    ]
    entries = [dict(zip(("kind", "name", "result", "why"), row, strict=True)) for row in rows]
    counts = Counter(row[2] for row in rows)
    if print_list(arguments, entries, ["what", "name", "result", "why"], rows):
        print(f"\n{grafana.url}: {', '.join(f'{count} {result}' for result, count in counts.items())}")
    status = fail_each(printable(f"{kind} {name}: {why}") for kind, name, result, why in rows if result == "failed")
    if not arguments.dry_run:
        if any(step.resource.kind == "datasource" and step.verb == "update" for step in steps):
            time.sleep(grafana_push.CACHE_S)
        if problem := unreachable(grafana):
            status = fail(
                f"Grafana cannot read the store: {printable(problem)}; give the address under which Grafana reaches it"
                " with --influxdb-url, and see INFLUXDB_V2_TOKEN"
            )
    return 1 if counts["blocked"] else status


def _carry_out(target: Target, steps: Sequence[Step]) -> dict[tuple[str, str], tuple[str, str]]:
    """Do the steps that write; return key of the resource → what became of it, and why."""
    total = sum(step.writes for step in steps)
    results: dict[tuple[str, str], tuple[str, str]] = {}
    try:
        for step, problem in target.carry_out(steps):
            results[step.resource.key] = ("failed", problem) if problem else (f"{step.verb}d", step.why)
            show_progress(f"  {len(results)} of {total}")
    except BaseException:
        fail(f"stopped after {len(results)} of {total}: what is done stays, and another push goes on from there")
        raise
    show_progress("")
    return results


def _warnings(bucket: Bucket | None, environment: Mapping[str, str]) -> list[str]:
    """Return what is doubtful about the recipients and about the token that Grafana is to read the store with.

    Raises:
        ConfigError: the token cannot read the bucket.
        WriteUnavailable: the store does not answer.
    """
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

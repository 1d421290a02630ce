"""Look up the wanted resources in a Grafana, and carry out a plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from gatewatch.jobs.grafana.artifacts import ALERT_FOLDER, DASHBOARD_FOLDER, Bucket
from gatewatch.jobs.grafana.connection import Grafana, Refused
from gatewatch.jobs.grafana.dashboards import Dashboards, Folders
from gatewatch.jobs.grafana.datasource import Datasource
from gatewatch.jobs.grafana.notifications import ContactPoints, Policy, Templates
from gatewatch.jobs.grafana.plan import Step
from gatewatch.jobs.grafana.resources import (
    CONTACT_POINT,
    DASHBOARD,
    DATASOURCE,
    FOLDER,
    POLICY,
    RULE,
    TEMPLATE,
    Existing,
    Resource,
)
from gatewatch.jobs.grafana.rules import Rules


class Kind(Protocol):
    """How one kind of resource is read from a Grafana and written to it."""

    def find(self, resource: Resource) -> Existing | None:
        """Return the resource as it is there; None where it is not."""

    def write(self, resource: Resource, existing: Existing | None) -> None:
        """Make the resource, or replace the one that was read.

        Raises:
            Refused: Grafana does not take it.
        """


class Target:
    """A Grafana that resources are pushed to. It is read when this is made.

    Args:
        grafana: the connection.
        bucket: the bucket for the datasource to read; None: the datasource is left as it is, with its token.

    Raises:
        ConfigError: a name of ours is taken by something else; names it.
    """

    def __init__(self, grafana: Grafana, bucket: Bucket | None = None) -> None:
        source, folders = Datasource(grafana, bucket), Folders(grafana)
        self._rules = Rules(grafana, folders.uids[ALERT_FOLDER])
        self._kinds: Mapping[str, Kind] = {
            DATASOURCE: source,
            FOLDER: folders,
            DASHBOARD: Dashboards(grafana, folders.uids[DASHBOARD_FOLDER]),
            TEMPLATE: Templates(grafana),
            CONTACT_POINT: ContactPoints(grafana),
            POLICY: Policy(grafana),
            RULE: self._rules,
        }

    def existing(self, wanted: Sequence[Resource]) -> dict[tuple[str, str], Existing]:
        """Return what there is of what is wanted, by `Resource.key`."""
        found = ((resource.key, self._kinds[resource.kind].find(resource)) for resource in wanted)
        return {key: existing for key, existing in found if existing is not None}

    def carry_out(self, steps: Sequence[Step]) -> Iterator[tuple[Step, str]]:
        """Do what a plan says.

        Yields:
            each step that writes, and why it failed; empty where it did not.

        Raises:
            ConfigError: the token may not do it.
            GatewatchError: Grafana is gone, or a folder cannot be made: nobody would see a rule without its folder.
        """
        writing = [step for step in steps if step.writes]
        for step in writing:
            problem = ""
            try:
                self._kinds[step.resource.kind].write(step.resource, step.existing)
            except Refused as refused:
                if step.resource.kind == FOLDER:
                    raise
                problem = str(refused)
            yield step, problem
        self._rules.settle([step.resource for step in writing if step.resource.kind == RULE])

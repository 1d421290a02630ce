"""The series of a run, in groups that are scored together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gatewatch.collector.names import PHASES
from gatewatch.collector.schema import GATE_STATS
from gatewatch.collector.store import Store
from gatewatch.jobs.scoring.captures import Pair

NEVER: Final = -(2**63)
"""Before any time."""
_SERIES: Final = ("layer", "gate")


@dataclass(slots=True)
class SeriesGroup:
    """The series of a run that share phase and the user's tags.

    Attributes:
        tags: that they share.
        only: the same, and an empty value for each tag that only other series of the run have.
        series: tags and number of points of each.
        points: of all of them together.
        newest: time of the newest point.
    """

    tags: Mapping[str, str]
    only: dict[str, str]
    series: list[tuple[Mapping[str, str], int]] = field(default_factory=list)
    points: int = 0
    newest: int = NEVER

    @property
    def phase(self) -> str:
        """The phase, empty for none."""
        return self.tags.get("phase", "")

    @property
    def gates(self) -> tuple[Pair, ...]:
        """The layers and gates of the network."""
        return tuple(sorted({(tags.get("layer", ""), tags.get("gate", "")) for tags, _ in self.series}))

    def in_phase(self, phase: str) -> str:
        """Return the name of the group that differs from this one only in its phase."""
        return repr(sorted((self.only | {"phase": phase}).items()))


def series_groups(store: Store, run: str) -> list[SeriesGroup]:
    """Return the groups of a run, in the order of their phases."""
    tallies = store.series(GATE_STATS, "step", run)
    names = {name for tally in tallies for name in tally.tags if name not in _SERIES}
    groups: dict[tuple[str, ...], SeriesGroup] = {}
    for tally in tallies:
        shared = {name: value for name, value in tally.tags.items() if name not in _SERIES}
        key = tuple(shared.get(name, "") for name in sorted(names))
        group = groups.setdefault(key, SeriesGroup(shared, {name: shared.get(name, "") for name in names}))
        group.series.append((tally.tags, tally.points))
        group.points += tally.points
        group.newest = max(group.newest, tally.newest)
    return sorted(
        groups.values(),
        key=lambda group: (
            PHASES.index(group.phase) if group.phase in PHASES else len(PHASES),
            sorted(group.only.items()),
        ),
    )

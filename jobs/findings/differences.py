"""Compare what was set in several runs: their settings, networks and versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gatewatch.collector.names import OWN_TAGS
from gatewatch.collector.store.columns import tag_columns
from gatewatch.jobs.findings.run_points import as_text
from gatewatch.jobs.findings.series import is_loss
from gatewatch.jobs.frames import metric_columns, numbers
from gatewatch.jobs.text import number

if TYPE_CHECKING:
    import pandas as pd

    from gatewatch.jobs.findings.run_points import RunPoints

USER: Final = "config"
"""The key of a user's own settings in the configuration of a run."""
_LEFT_OUT: Final = frozenset({USER, "host", "pid", "log_dir", "summary", "tags", "versions"})
"""What says nothing about a training, or is listed under a name of its own."""
_DEEPEST: Final = 4
_SET: Final = ("own", "logged", "model")
"""Kinds of settings that a training follows from; the others are of its recording and its libraries."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting that is not the same in all runs.

    Attributes:
        name: of the setting.
        kind: `own`: from `config=`. `logged`: a metric that never changes. `model`, `tag`, `monitor`, `version`.
        values: a text for each run, in their order; empty where a run does not have it.
    """

    name: str
    kind: str
    values: Sequence[str]

    @property
    def is_set(self) -> bool:
        """Whether the training follows from it."""
        return self.kind in _SET


def differences(runs: Sequence[tuple[Mapping[str, Any], RunPoints]]) -> list[Difference]:
    """Return what differs between runs: what was set first, then tags, the monitor's own settings and versions.

    Args:
        runs: for each its row of `store.runs()`, and its points.
    """
    every = [dict(_settings(about, points)) for about, points in runs]
    names = dict.fromkeys(name for settings in every for name in settings)
    found = [
        Difference(name, kind, [settings.get((kind, name), "") for settings in every])
        for kind, name in names
        if len({settings.get((kind, name), "") for settings in every}) > 1
    ]
    order = (*_SET, "tag", "monitor", "version")
    return sorted(found, key=lambda each: order.index(each.kind))


def _settings(about: Mapping[str, Any], points: RunPoints) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield kind, name and value of each setting of a run."""
    config = points.configs[0] if points.configs else {}
    own, versions = config.get(USER), config.get("versions")
    for name, value in _flat(own) if isinstance(own, dict) else ():
        yield ("own", name), value
    for name, value in _constant(points.metrics):
        yield ("logged", name), value
    for name in ("model", "framework"):
        yield ("model", name), str(about.get(name) or "")
    for name, value in _flat({name: value for name, value in config.items() if name not in _LEFT_OUT}):
        kind = "model" if name.split(".")[0] in ("layers", "parameters", "optimizer", "loss") else "monitor"
        yield (kind, name), value
    for column, name in tag_columns(points.events.columns).items():
        if name not in OWN_TAGS:
            yield ("tag", name), ", ".join(map(str, points.events[column].dropna().unique()))
    for name, value in _flat(versions) if isinstance(versions, dict) else ():
        yield ("version", name), value


def _flat(settings: Mapping[str, Any], depth: int = 1) -> Iterator[tuple[str, str]]:
    """Yield name and value of nested settings, such as `layers.lstm.units`; a None has no value."""
    for name, value in settings.items():
        if isinstance(value, dict) and value and depth < _DEEPEST:
            yield from ((f"{name}.{below}", text) for below, text in _flat(value, depth + 1))
        elif value is not None:
            yield str(name), number(value) if isinstance(value, float) else as_text(value)


def _constant(metrics: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Yield the metrics that never change, such as a learning rate: somebody has set them."""
    for column, name in metric_columns(metrics).items():
        values = numbers(metrics, column)
        values = values[np.isfinite(values)]
        if len(values) > 1 and not is_loss(name) and (values == values[0]).all():
            yield name, number(float(values[0]))

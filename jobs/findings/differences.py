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
    from numpy.typing import NDArray

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
        kind: `own`: from `config=`. `logged`: a metric that never changes in some run. Others: `model`, `tag`,
            `monitor`, `version`.
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
    logged = _logged([points.metrics for _, points in runs])
    every = [dict(_settings(*run)) | of_run for run, of_run in zip(runs, logged, strict=True)]
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


def _logged(every: Sequence[pd.DataFrame]) -> list[dict[tuple[str, str], str]]:
    """Return for each run the metrics that somebody has set, as a learning rate: in at least one run they never change.

    Args:
        every: points of `train_metrics` of each run.
    """
    values = [
        {
            name: own[np.isfinite(own)]
            for column, name in metric_columns(frame).items()
            for own in [numbers(frame, column)]
        }
        for frame in every
    ]
    still = {name for of_run in values for name, own in of_run.items() if _is_still(own) and not is_loss(name)}
    return [
        {("logged", name): _course(own) for name, own in of_run.items() if name in still and len(own)}
        for of_run in values
    ]


def _is_still(values: NDArray[np.float64]) -> bool:
    return len(values) > 1 and bool((values == values[0]).all())


def _course(values: NDArray[np.float64]) -> str:
    """Return the value of a metric, or how it went from the first to the last."""
    first, last = number(float(values[0])), number(float(values[-1]))
    return first if (values == values[0]).all() else f"from {first} to {last}"

"""Say where values that are not finite appeared first."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

from gatewatch.jobs.findings.axis import Axis, moments
from gatewatch.jobs.findings.finding import Finding
from gatewatch.jobs.findings.series import Key, broken_values, first_broken, is_loss, name_of, step_at
from gatewatch.jobs.frames import by_phase, metric_columns
from gatewatch.jobs.frames import not_finite as count
from gatewatch.jobs.scoring.detectors.rules import PHRASES
from gatewatch.jobs.text import first_few, join_words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

WHAT: Final = PHRASES["not_finite"]


def not_finite(
    stats: Mapping[Key, pd.DataFrame],
    metrics: pd.DataFrame,
    updates: Mapping[Key, pd.DataFrame] = MappingProxyType({}),
    axes: Mapping[str, Axis] = MappingProxyType({}),
    layers: Sequence[str] = (),
) -> list[Finding]:
    """Say where values that are not finite appeared, in gates, parameters and metrics, in order of time.

    What broke in the same capture as the gates, or after them, is not said again.
    """
    gates = not_finite_gates(stats, axes, updates, layers)
    others = [*_not_finite_updates(updates, axes), *not_finite_metrics(metrics, axes)]
    first = gates[0].time if gates else None
    return gates + [each for each in others if first is None or each.time is None or each.time < first]


def not_finite_gates(
    stats: Mapping[Key, pd.DataFrame],
    axes: Mapping[str, Axis] = MappingProxyType({}),
    updates: Mapping[Key, pd.DataFrame] = MappingProxyType({}),
    layers: Sequence[str] = (),
) -> list[Finding]:
    """Say in which gates values that are not finite appeared, and where first; empty where all are finite.

    Of gates that broke in one capture, those of the layer next to the inputs are named.

    Args:
        stats: series → points of `gate_stats`, the layers in the network's order where that is known.
        axes: phase → its axis; a phase without one counts steps.
        updates: series → points of `layer_updates`; parameters that broke are in the finding's series.
        layers: names of the network's layers, in its order; empty where that is not known.
    """
    at = {key: i for key, frame in stats.items() if (i := first_broken(frame)) is not None}
    if not at:
        return []
    when = {key: moments(stats[key])[i] for key, i in at.items()}
    first = min(when.values())
    where = [key for key in at if when[key] == first]
    key = where[0]
    axis = axes.get(key.phase) or Axis((key.phase,))
    place = axis.describe(stats[key], at[key])
    gates = f"{len(at)} gate{'s'[: len(at) > 1]}"
    together = _together(where, stats, layers)
    return [
        Finding(
            sentence=f"Values that are not finite appeared in {gates}, first at {place} in {together}.",
            level="alarm",
            what=WHAT,
            source="network",
            key=key,
            step=step_at(stats[key], at[key]),
            time=first,
            evidence={"phase": key.phase, "values": float(count(stats[key])[at[key]]), "series": len(at)},
            series=frozenset(at) | {key for key, frame in updates.items() if first_broken(frame) is not None},
            rule="gate_not_finite",
        )
    ]


def not_finite_metrics(metrics: pd.DataFrame, axes: Mapping[str, Axis] = MappingProxyType({})) -> list[Finding]:
    """Say from where on metrics are not finite, by phase: a loss is an alarm; of any other it may be meant."""
    columns = metric_columns(metrics)
    found = []
    for phase, rows in by_phase(metrics):
        own = rows.reset_index(drop=True)
        if first_broken(own) is None:
            continue
        at = {name: np.flatnonzero(broken_values(own, column)) for column, name in columns.items()}
        broken = {name: int(places[0]) for name, places in at.items() if len(places)}
        losses = [name for name in broken if is_loss(name)]
        names = losses or [*broken]
        if not names:
            continue
        i, axis = min(broken[name] for name in names), axes.get(phase) or Axis((phase,))
        what = f"NaN or infinite values in the metric{'s'[: len(names) > 1]} {first_few(sorted(names))}"
        found.append(
            Finding(
                sentence=f"{what}, first at {axis.describe(own, i)}.",
                level="alarm" if losses else "notice",
                what=what,
                source="network" if losses else None,
                step=step_at(own, i),
                time=moments(own)[i],
                evidence={"phase": phase, "values": float(count(own)[i])},
                rule="update_not_finite" if losses else "",
            )
        )
    return found


def broken_now(captures: pd.DataFrame, metrics: pd.DataFrame) -> dict[str, str]:
    """Return run → what of it is not finite now, in words; runs of which all is finite are left out.

    Args:
        captures: the newest points of `gate_stats` of some gates of many runs.
        metrics: the newest points of `train_metrics` of many runs.
    """
    found: dict[str, list[str]] = {}
    for frame, what in ((captures, "layer"), (metrics, "metrics")):
        if frame.empty or "run" not in frame:
            continue
        broken = frame[count(frame) > 0]
        for run, rows in broken.groupby("run"):
            number_of = rows["layer"].nunique() if what == "layer" else 0
            text = f"{number_of} layer{'s'[: number_of != 1]}" if number_of else what
            found.setdefault(str(run), []).append(text)
    return {run: f"NaN in {join_words(parts)}" for run, parts in found.items()}


def _not_finite_updates(updates: Mapping[Key, pd.DataFrame], axes: Mapping[str, Axis]) -> list[Finding]:
    """Say in which layer's parameters values that are not finite appeared first; empty where all are finite."""
    at = {key: i for key, frame in updates.items() if (i := first_broken(frame)) is not None}
    if not at:
        return []
    when = {key: moments(updates[key])[i] for key, i in at.items()}
    key = min(when, key=lambda each: when[each])
    names = [each.gate for each in at if each[:2] == key[:2]]
    axis = axes.get(key.phase) or Axis((key.phase,))
    place = axis.describe(updates[key], at[key])
    return [
        Finding(
            sentence=f"Learning went wrong in {key.layer}: Values that are not finite in the {join_words(names)}, "
            f"first at {place}.",
            level="alarm",
            what=WHAT,
            source="network",
            key=key,
            step=step_at(updates[key], at[key]),
            time=when[key],
            evidence={"phase": key.phase, "values": float(count(updates[key])[at[key]]), "series": len(at)},
            series=frozenset(at),
            rule="update_not_finite",
        )
    ]


def _together(where: Sequence[Key], stats: Mapping[Key, pd.DataFrame], order: Sequence[str]) -> str:
    """Say which gates broke in one capture, and where to begin.

    Args:
        where: the gates, in the network's order.
        stats: series → points.
        order: names of the network's layers, in its order; empty where that is not known.
    """
    key, layers = where[0], dict.fromkeys(each.layer for each in where)
    if len(where) == 1:
        return f"{name_of(key, {key.phase})}: begin there"
    there_are = sum(each.phase == key.phase and each.layer in layers for each in stats)
    which = f"all {there_are}" if len(where) == there_are else f"{len(where)} of {there_are}"
    if len(layers) == 1:
        return f"{which} gates of {key.layer} at once: begin there"
    next_to = ", of these next to the inputs" if key.layer in order else ""
    return f"{which} gates of {len(layers)} layers at once: begin with {key.layer}{next_to}"

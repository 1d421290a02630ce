"""Summarise a run: the facts that the report lists first."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from gatewatch.collector.names import OWN_TAGS
from gatewatch.collector.store.columns import tag_columns
from gatewatch.jobs.findings.run_state import current_state
from gatewatch.jobs.findings.series import Row
from gatewatch.jobs.frames import numbers
from gatewatch.jobs.text import duration, moment, number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import pandas as pd

_STATES: Final = {"live": "running when this was written", "died": "died, or cut off from the store"}


class Fact(NamedTuple):
    """Hold a fact; `long` ones take a whole line."""

    name: str
    value: str
    long: bool = False


def state_of(about: Mapping[str, Any], now: datetime) -> str:
    """Return the state of a run: live, died, completed, failed or interrupted.

    Args:
        about: the run's row of `store.runs()`.
        now: with a zone.
    """
    seen = about.get("last_seen")
    return current_state(str(about.get("state")), (now - seen).total_seconds() if seen else math.inf)


def ending(about: Mapping[str, Any], state: str) -> str | None:
    """Explain in a sentence why a run died or failed; None for any other state."""
    if state == "died":
        return (
            f"The run has sent nothing since {_moment(about.get('last_seen'))}, and no event says how it ended: "
            "its process was killed, or cannot reach the store."
        )
    error = _text(about.get("error"))
    return f"The run failed: {error}" if error else None


def newest_steps(*frames: pd.DataFrame) -> dict[str, float]:
    """Return phase → its newest step in any of the frames."""
    newest: dict[str, float] = {}
    for frame in frames:
        phases = frame["phase"].fillna("") if "phase" in frame else [""] * len(frame)
        for phase, step in zip(phases, numbers(frame, "step"), strict=True):
            if np.isfinite(step):
                newest[phase] = max(newest.get(phase, 0.0), float(step))
    return newest


def tags_of(events: pd.DataFrame) -> list[str]:
    """List the user's own tags, as `name=value`.

    Args:
        events: points of `runs`, read with `prefix_tags`.
    """
    return [
        f"{name}={value}"
        for column, name in tag_columns(events.columns).items()
        if name not in OWN_TAGS
        for value in events[column].dropna().unique()
    ]


def run_summary(
    about: Mapping[str, Any],
    state: str,
    steps: Mapping[str, float],
    *,
    rows: Sequence[Row],
    tags: Sequence[str],
    config: Mapping[str, Any],
    market: Mapping[str, tuple[Any, Any]],
) -> list[Fact]:
    """List the facts of a run, in reading order; facts without a value are left out.

    Args:
        about: the run's row of `store.runs()`.
        state: from `state_of`.
        steps: from `newest_steps`.
        rows: the table of gates.
        tags: from `tags_of`.
        config: the configuration of the run.
        market: phase → its first and last moment, for the phases in market time.
    """
    started, seen = about.get("started"), about.get("last_seen")
    took = duration((seen - started).total_seconds()) if started and seen else ""
    layers = len({row.key.layer for row in rows})
    gates = len({(row.key.layer, row.key.gate) for row in rows})
    facts = [
        Fact("State", _STATES.get(state, state)),
        Fact("Started", _moment(started)),
        Fact("Last event", _moment(seen)),
        Fact("Duration", f"{took} by the clock" if market and took else took),
        Fact("Steps", _steps(steps)),
        Fact("Phases", _phases(about, rows)),
        Fact("Recorded", f"{_count(layers, 'layer')}, {_count(gates, 'gate')}" if rows else "no gates yet"),
        Fact("Framework", _text(about.get("framework"))),
        Fact("Model", _text(about.get("model"))),
        Fact("Tags", ", ".join(tags)),
        Fact("Market time", _market(market), long=True),
        Fact("Libraries", _versions(config), long=True),
    ]
    return [fact for fact in facts if fact.value]


def _market(market: Mapping[str, tuple[Any, Any]]) -> str:
    """Describe the span of market time, by phase where there are several."""
    spans = [f"{phase} from {moment(first)} to {moment(last)}" for phase, (first, last) in market.items()]
    if not spans:
        return ""
    first, last = min(first for first, _ in market.values()), max(last for _, last in market.values())
    whole = f"from {moment(first)} to {moment(last)} ({duration((last - first) / np.timedelta64(1, 's'))})"
    return f"{whole}; {', '.join(spans)}" if len(spans) > 1 else whole


def _phases(about: Mapping[str, Any], rows: Sequence[Row]) -> str:
    named = _text(about.get("phases")).split(",")
    return ", ".join(dict.fromkeys(phase for phase in (*named, *(row.key.phase for row in rows)) if phase))


def _steps(newest: Mapping[str, float]) -> str:
    """Return the newest step, by phase where phases differ."""
    if len(set(newest.values())) > 1:
        return ", ".join(f"{phase} {number(step)}" for phase, step in newest.items() if phase)
    return number(next(iter(newest.values()))) if newest else ""


def _count(number_of: int, what: str) -> str:
    return f"{number_of} {what}{'s'[: number_of != 1]}"


def _versions(config: Mapping[str, Any]) -> str:
    """List the libraries of a configuration: a mapping of name to version under `versions` or `libraries`."""
    versions: dict[str, Any] = next(
        (config[k] for k in ("versions", "libraries") if isinstance(config.get(k), dict)), {}
    )
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _moment(value: datetime | None) -> str:
    return f"{value:%Y-%m-%d %H:%M:%S UTC}" if value else ""

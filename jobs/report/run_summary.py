"""Summarise a run: the facts that the report lists first."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import numpy as np
import pandas as pd

from gatewatch.collector.names import OWN_TAGS
from gatewatch.collector.store.columns import tag_columns
from gatewatch.jobs.findings.series import Row
from gatewatch.jobs.frames import numbers
from gatewatch.jobs.text import duration, join_words, moment, number

_STATES: Final = {"live": "running when this was written", "died": "died, or cut off from the store"}


def ending(about: Mapping[str, Any], state: str) -> str | None:
    """Explain in a sentence why a run died or failed; None for any other state."""
    if state == "died":
        return (
            f"The run has sent nothing since {_moment(about.get('last_seen'))}, and no event says how it ended: "
            "its process was killed, or cannot reach the store."
        )
    return f"The run failed: {about['error']}" if about.get("error") else None


def run_summary(
    about: Mapping[str, Any],
    state: str,
    *frames: pd.DataFrame,
    rows: Sequence[Row],
    config: Mapping[str, Any],
    market: Mapping[str, tuple[Any, Any]],
    again: Collection[str],
    drawn: Mapping[str, tuple[int, int]],
) -> dict[str, str]:
    """List the facts of a run, name → value, in reading order; facts without a value are left out.

    Args:
        about: the run's row of `store.runs()`.
        state: from `state_of`.
        frames: the events of the run, then other points that have its steps; all read with `prefix_tags`.
        rows: the table of gates.
        config: the configuration of the run.
        market: phase → its first and last moment, for the phases in market time.
        again: those of them in which market time went back.
        drawn: as of `RunPoints`.
    """
    started, seen = about.get("started"), about.get("last_seen")
    took = duration((seen - started).total_seconds()) if started and seen else ""
    recorded = {(row.key.layer, row.key.gate) for row in rows if row.is_gate}
    layers, gates = len({layer for layer, _ in recorded}), len(recorded)
    phases = [*str(about.get("phases") or "").split(","), *(row.key.phase for row in rows)]
    versions = config.get("versions")
    libraries = versions.items() if isinstance(versions, dict) else ()
    facts = {
        "State": _STATES.get(state, state),
        "Started": _moment(started),
        "Last event": _moment(seen),
        "Duration": f"{took} by the clock" if market and took else took,
        "Steps": _steps(frames),
        "Phases": ", ".join(filter(None, dict.fromkeys(phases))),
        "Recorded": f"{_count(layers, 'layer')}, {_count(gates, 'gate')}" if gates else "no gates yet",
        "Framework": str(about.get("framework") or ""),
        "Model": str(about.get("model") or ""),
        "Tags": ", ".join(_tags(frames[0])),
        "Market time": _market(market, again),
        "Charts": _drawn(drawn),
        "Libraries": ", ".join(f"{name} {version}" for name, version in libraries),
    }
    return {name: value for name, value in facts.items() if value}


def _market(market: Mapping[str, tuple[Any, Any]], again: Collection[str]) -> str:
    """Describe the span of market time, by phase where there are several, and say where time went back."""
    if not market:
        return ""
    first, last = min(first for first, _ in market.values()), max(last for _, last in market.values())
    whole = f"from {moment(first)} to {moment(last)} ({duration((last - first) / np.timedelta64(1, 's'))})"
    spans = [f"{phase} from {moment(first)} to {moment(last)}" for phase, (first, last) in market.items()]
    text = f"{whole}; {', '.join(spans)}" if len(spans) > 1 else whole
    return f"{text}; time goes back, so what is drawn of {join_words(sorted(again))} is by step" if again else text


def _drawn(drawn: Mapping[str, tuple[int, int]]) -> str:
    """Say what a chart shows of a run that has too many captures to show each."""
    shown, of = max(drawn.values(), key=lambda counts: counts[1], default=(0, 0))
    if shown >= of:
        return ""
    return (
        f"{number(of)} captures are drawn as {number(shown)} spans, each with its extremes, and heatmaps of some of "
        "them; the answer rests on every capture"
    )


def _steps(frames: Iterable[pd.DataFrame]) -> str:
    """Return the newest step in any of the frames, by phase where phases differ."""
    newest: dict[str, float] = {}
    for frame in frames:
        phases = frame["phase"].fillna("") if "phase" in frame else [""] * len(frame)
        for phase, step in zip(phases, numbers(frame, "step"), strict=True):
            if np.isfinite(step):
                newest[phase] = max(newest.get(phase, 0.0), float(step))
    if len(set(newest.values())) > 1:
        return ", ".join(f"{phase} {number(step)}" for phase, step in newest.items() if phase)
    return number(next(iter(newest.values()))) if newest else ""


def _tags(events: pd.DataFrame) -> list[str]:
    """List the user's own tags, as `name=value`."""
    return [
        f"{name}={value}"
        for column, name in tag_columns(events.columns).items()
        if name not in OWN_TAGS
        for value in events[column].dropna().unique()
    ]


def _count(number_of: int, what: str) -> str:
    return f"{number_of} {what}{'s'[: number_of != 1]}"


def _moment(value: datetime | None) -> str:
    return f"{value:%Y-%m-%d %H:%M:%S UTC}" if value else ""

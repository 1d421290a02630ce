"""The facts of a run, as the report lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from jobs.report.series import Row, column
from jobs.report.text import duration, number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

_NOT_TAGS: Final = frozenset({"time", "run", "phase", "event", "framework", "model", "config", "step", "epoch"})
_STATES: Final = {
    "started": "running when last heard of",
    "heartbeat": "running when last heard of",
    "completed": "completed",
    "failed": "failed",
    "interrupted": "interrupted",
}


def facts_of(
    about: Mapping[str, Any], events: pd.DataFrame, rows: Sequence[Row], config: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Name and value of each fact that is known, in reading order."""
    started, seen = about.get("started"), about.get("last_seen")
    tags = [
        f"{name}={value}"
        for name in events.columns
        if name not in _NOT_TAGS
        for value in events[name].dropna().unique()
        if isinstance(value, str)
    ]
    known = [
        ("State", _STATES.get(str(about.get("state")), _text(about.get("state")))),
        ("Started", _moment(started)),
        ("Last heard of", _moment(seen)),
        ("Duration", _span(started, seen)),
        ("Steps", _steps(about, events)),
        ("Framework", _text(about.get("framework"))),
        ("Model", _text(about.get("model"))),
        ("Phases", ", ".join(dict.fromkeys(row.key.phase for row in rows if row.key.phase))),
        ("Recorded", f"{len({row.key.layer for row in rows})} layers, {len(rows)} gates" if rows else "no gates yet"),
        ("Tags", ", ".join(tags)),
        ("Libraries", _versions(config)),
    ]
    return [(name, value) for name, value in known if value]


def _steps(about: Mapping[str, Any], events: pd.DataFrame) -> str:
    found = [float(value) for value in (about.get("step"), *column(events, "step")) if isinstance(value, float | int)]
    finite = [value for value in found if np.isfinite(value)]
    return number(max(finite)) if finite else ""


def _versions(config: Mapping[str, Any]) -> str:
    """The libraries of a configuration: a mapping of name to version under `versions` or `libraries`."""
    found: dict[str, Any] = next((config[k] for k in ("versions", "libraries") if isinstance(config.get(k), dict)), {})
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _text(value: Any) -> str:
    import pandas as pd  # noqa: PLC0415 - the frames come from it, so it is loaded already

    return value if isinstance(value, str) else "" if pd.isna(value) else str(value)


def _moment(value: Any) -> str:
    import pandas as pd  # noqa: PLC0415 - as above

    return "" if pd.isna(value) else str(value.strftime("%Y-%m-%d %H:%M:%S UTC"))


def _span(start: Any, end: Any) -> str:
    import pandas as pd  # noqa: PLC0415 - as above

    return "" if pd.isna(start) or pd.isna(end) else duration((end - start).total_seconds())

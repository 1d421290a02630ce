"""Points as the frames that every store gives alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd

    from collector.schema import FieldValue


@dataclass(frozen=True, slots=True)
class Series:
    """Points that share their tags.

    Attributes:
        tags: tag name → value.
        times: nanoseconds since the Unix epoch, one a point.
        fields: field name → one value a point, None where the point has none.
    """

    tags: Mapping[str, str]
    times: Sequence[int]
    fields: Mapping[str, Sequence[FieldValue | None]]


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One point of the measurement `runs`: its run and phase (empty for none), its time in nanoseconds, its fields."""

    run: str
    phase: str
    time: int
    fields: Mapping[str, FieldValue | None]


def frame(series: Iterable[Series], types: Mapping[str, type]) -> pd.DataFrame:
    """The frame that `Store.read` promises, from the points of one measurement.

    A field of the same name as a tag becomes the column `<name>_field`.

    Args:
        series: the points; the same tags may come in several pieces.
        types: field name → float, int, bool or str.
    """
    import pandas as pd  # noqa: PLC0415 - only who asks for a frame waits for it

    pieces = [piece for piece in series if piece.times]
    sizes = [len(piece.times) for piece in pieces]
    tag_names = sorted({name for piece in pieces for name, value in piece.tags.items() if value})
    keys = [tuple(piece.tags.get(name) or "" for name in tag_names) for piece in pieces]
    rank = {key: position for position, key in enumerate(sorted(set(keys)))}
    times = np.fromiter((time for piece in pieces for time in piece.times), np.int64, sum(sizes))
    order = np.lexsort((np.repeat([rank[key] for key in keys], sizes), times)) if pieces else np.arange(0)

    columns: dict[str, Any] = {"time": _moments(times[order])}
    for position, name in enumerate(tag_names):
        texts = np.empty(len(pieces), dtype=object)
        texts[:] = [key[position] or None for key in keys]
        columns[name] = pd.Series(np.repeat(texts, sizes)[order], dtype=object)
    for name in sorted({name for piece in pieces for name in piece.fields}):
        values: list[FieldValue | None] = []
        for piece, size in zip(pieces, sizes, strict=True):
            values.extend(piece.fields.get(name) or [None] * size)
        if any(value is not None for value in values):
            label = name
            while label in columns:
                label += "_field"
            columns[label] = _column(values, types[name], order)
    return pd.DataFrame(columns)


def runs_frame(started: Iterable[RunEvent], last: Iterable[RunEvent]) -> pd.DataFrame:
    """The frame that `Store.runs` promises.

    Args:
        started: the first event `started` of every phase of a run that has one.
        last: the last event of every phase of a run.
    """
    import pandas as pd  # noqa: PLC0415 - only who asks for a frame waits for it

    begun = {(event.run, event.phase): event for event in started}
    runs: dict[str, list[RunEvent]] = {}
    for event in last:
        if event.run:
            runs.setdefault(event.run, []).append(event)
    rows = [_run_row(run, ends, begun) for run, ends in runs.items()]
    rows.sort(key=lambda row: (-row["last_seen"], row["run"]))

    columns: dict[str, Any] = {name: pd.Series([row[name] for row in rows], dtype=object) for name in _RUN_COLUMNS}
    for name in ("started", "last_seen"):
        columns[name] = _moments(np.array([row[name] for row in rows], dtype=np.int64))
    columns["step"] = pd.array([None if row["step"] is None else int(row["step"]) for row in rows], dtype="Int64")
    return pd.DataFrame(columns)


def _run_row(run: str, ends: list[RunEvent], begun: Mapping[tuple[str, str], RunEvent]) -> dict[str, Any]:
    ends = sorted(ends, key=lambda end: (-end.time, end.phase))
    starts = sorted(
        (begun[run, end.phase] for end in ends if (run, end.phase) in begun),
        key=lambda start: (start.time, start.phase),
    )
    events = [end.fields.get("event") for end in ends]
    state = next((event for event in events if event in ("started", "heartbeat")), None)
    failures = [end.fields.get("error") for end, event in zip(ends, events, strict=True) if event == "failed"]
    about = [event.fields for event in (*starts, *ends)]
    return {
        "run": run,
        "state": state or min(events, key=lambda event: _WORST.index(event) if event in _WORST else len(_WORST)),
        "phases": ",".join(dict.fromkeys(event.phase for event in (*starts, *reversed(ends)) if event.phase)),
        "started": starts[0].time if starts else _NO_TIME,
        "last_seen": ends[0].time,
        "step": ends[0].fields.get("step"),
        "error": next(filter(None, failures), None),
        **{name: next(filter(None, (fields.get(name) for fields in about)), None) for name in _ABOUT},
    }


_WORST: Final = ("failed", "interrupted", "completed")
_ABOUT: Final = ("framework", "model", "config")
_RUN_COLUMNS: Final = ("run", "state", "phases", "started", "last_seen", "step", "error", *_ABOUT)
_NO_TIME: Final = -(2**63)  # numpy's NaT


def _moments(times: np.ndarray[Any, np.dtype[np.int64]]) -> pd.DatetimeIndex:
    import pandas as pd  # noqa: PLC0415 - only who asks for a frame waits for it

    return pd.DatetimeIndex(times.view("M8[ns]")).tz_localize("UTC")


def _column(values: list[FieldValue | None], kind: type, order: np.ndarray[Any, Any]) -> Any:
    import pandas as pd  # noqa: PLC0415 - only who asks for a frame waits for it

    if kind is float:
        return np.array(values, dtype=np.float64)[order]
    boxed = np.empty(len(values), dtype=object)
    boxed[:] = values
    if kind is str:
        return pd.Series(boxed[order], dtype=object)
    if any(value is None for value in values):
        return pd.array(boxed[order], dtype="Int64" if kind is int else "boolean")
    return boxed[order].astype(np.int64 if kind is int else np.bool_)

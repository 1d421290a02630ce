"""The frame of runs, alike for every store, from the events of the measurement `runs`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from unicodedata import normalize

import numpy as np

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.schema import GOING_EVENTS, RUNS, SCHEMA
from gatewatch.collector.store.frame import moments
from gatewatch.collector.text import safe_repr

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

    from gatewatch.collector.schema import FieldValue


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One point of the measurement `runs`: its run and phase (empty for none), its time in nanoseconds, its fields."""

    run: str
    phase: str
    time: int
    fields: Mapping[str, FieldValue | None]

    def __post_init__(self) -> None:
        """Check the types, which come from a file or a server.

        Raises:
            TypeError: one is another than the schema has.
        """
        own = isinstance(self.run, str) and isinstance(self.phase, str) and type(self.time) is int
        if not own or not isinstance(self.fields, Mapping):
            raise TypeError("an event of no run")
        for field in SCHEMA[RUNS]:
            value = self.fields.get(field.name)
            fits = isinstance(value, field.type | None)
            if field.type is int and isinstance(value, int | float):
                fits = -(2**63) <= value < 2**63 and value == int(value)
            if not fits:
                raise TypeError(f"an event of a run whose {field.name} is no {field.type.__name__}")


def find_run(run: str, names: Sequence[str], url: str) -> str:
    """Return the name of a run as the store has it, which may have another Unicode normal form than what was typed.

    Args:
        run: the name that was given.
        names: of the runs that there are.
        url: of the store, for the error.

    Raises:
        ConfigError: there is no such run; names those that are alike, else some that there are.
    """
    same = [name for name in names if normalize("NFC", name) == normalize("NFC", run)]
    if run in names or len(same) == 1:
        return run if run in names else same[0]
    near = difflib.get_close_matches(run, names, n=3, cutoff=0.5)
    listed = ", ".join(safe_repr(name) for name in near or names[:5])
    more = "" if near or len(names) <= 5 else f" and {len(names) - 5} more (`gatewatch runs` lists them)"
    there = f"did you mean {listed}?" if near else f"there is {listed}{more}" if names else "it holds no run"
    raise ConfigError(f"no run {safe_repr(run)} in {url}: {there}")


def runs_frame(started: Iterable[RunEvent], last: Iterable[RunEvent]) -> pd.DataFrame:
    """Return the frame that `Store.runs` promises.

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
        columns[name] = moments(np.array([row[name] for row in rows], dtype=np.int64))
    columns["step"] = pd.array([None if row["step"] is None else int(row["step"]) for row in rows], dtype="Int64")
    return pd.DataFrame(columns)


def _run_row(run: str, ends: list[RunEvent], begun: Mapping[tuple[str, str], RunEvent]) -> dict[str, Any]:
    ends = sorted(ends, key=lambda end: (-end.time, end.phase))
    starts = sorted(
        (begun[run, end.phase] for end in ends if (run, end.phase) in begun),
        key=lambda start: (start.time, start.phase),
    )
    events = [end.fields.get("event") for end in ends]
    state = next((event for event in events if event in GOING_EVENTS), None)
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

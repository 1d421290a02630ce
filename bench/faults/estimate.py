"""What a split holds, and how long it takes to record and to judge."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bench.faults.cases import Case
from bench.faults.recorder import load
from bench.faults.shapes import CAPTURES, SHAPES

_USUAL_SECONDS: Final = {
    ("torch", "training"): 5.0,
    ("torch", "backtest"): 4.0,
    ("keras", "training"): 10.0,
    ("keras", "backtest"): 9.0,
    ("sb3", "training"): 16.0,
}
"""Of CPU, to record a run of `CAPTURES` captures; measured on one core of a small machine."""
SCORING_SECONDS: Final = 1.0
"""Of CPU, to score and judge one."""


def listing(folder: Path, split: str, wanted: Sequence[Case], processes: int) -> Iterator[str]:
    """What is in a split: a line for each fault and control, and the time that it takes.

    Args:
        folder: where runs are kept.
        split: its name.
        wanted: its cases.
        processes: that record and judge.
    """
    held = {record.case for record in load(folder, wanted)}
    healthy = [case for case in wanted if case.fault is None]
    yield f"{split}: {len(wanted) - len(healthy)} faulty runs, {len(healthy)} healthy runs"
    for of, name in (("fault", "fault"), ("healthy", "control")):
        counts = Counter((getattr(case, name), case.kind) for case in wanted if getattr(case, name))
        recorded = Counter((getattr(case, name), case.kind) for case in held if getattr(case, name))
        for what, kind in counts:
            yield f"  {of:<8} {what:<26} {kind:<9} {counts[what, kind]:>4} runs, {recorded[what, kind]:>4} recorded"
    by_data = Counter(case.data for case in healthy)
    yield "  healthy by what their data do: " + ", ".join(f"{data} {count}" for data, count in by_data.items())
    typical = _seconds(folder, wanted)
    missing = sum(typical[_sort(case)] * _size(case) for case in wanted if case not in held)
    scoring = sum(SCORING_SECONDS * _size(case) for case in wanted)
    yield (
        f"  {len(held)} of {len(wanted)} recorded; the rest takes about {missing / 60 / processes:.0f} minutes, "
        f"and judging all of them {scoring / 60 / processes:.0f}, in {processes} processes"
    )


def _sort(case: Case) -> tuple[str, str]:
    return case.framework, case.kind


def _size(case: Case) -> float:
    """How much more than the usual there is to do: captures, and units."""
    shape = SHAPES[case.shape]
    return 1.0 if case.kind == "backtest" else shape.captures / CAPTURES * max(1.0, max(shape.units) / 32)


def _seconds(folder: Path, wanted: Sequence[Case]) -> dict[tuple[str, str], float]:
    """How long a usual run took, where some are recorded, and what one took elsewhere."""
    took: dict[tuple[str, str], list[float]] = {}
    for record in load(folder, wanted):
        label = json.loads(record.path.with_suffix(".json").read_text())
        took.setdefault(_sort(record.case), []).append(label["seconds"] / _size(record.case))
    return _USUAL_SECONDS | {sort: statistics.median(seconds) for sort, seconds in took.items()}

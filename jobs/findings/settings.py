"""Find what was set in a training and jumped, such as its learning rate: it comes before what followed from it.

A setting moves smoothly or not at all from one value to the next, and then jumps; what follows from a training, such as
its loss, is never still. So any metric may be a setting, whatever its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

from gatewatch.jobs.findings.axis import Axis, moments
from gatewatch.jobs.findings.finding import Finding
from gatewatch.jobs.findings.series import step_at
from gatewatch.jobs.frames import by_phase, metric_columns, numbers
from gatewatch.jobs.scoring.sources import Source
from gatewatch.jobs.text import number

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

SOON: Final = 12
"""What begins within so many values of a setting after its jump may follow from it: scores compare medians of a few
captures with those before."""
_SIDE: Final = 8
"""The most values on either side of a jump that must be smooth."""
_FEWEST: Final = 4
"""The fewest values before a jump: from fewer nobody knows what was usual."""
_JUMP: Final = 1.2
"""The least factor of a jump."""
_SMOOTH: Final = 0.02
"""The largest second difference of a setting beside its jump, as a share of the jump."""
_STILL: Final = 1e-3
"""The largest second difference of a setting beside its jump, as a share of its size. A cosine over 70 values has this
much; the noise of a loss is ten times that and more."""
_MOST_JUMPS: Final = 3
"""A metric that jumps as far more often counts something, such as epochs."""
_NOT_SET: Final = frozenset({"loss", "val_loss", "probe_loss"})
_RATE: Final = re.compile(r"(^|[/_.-])(lr|learning_rate)($|[/_.-])", re.IGNORECASE)
_BATCH: Final = re.compile(r"(^|[/_.-])batch_?size($|[/_.-])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Jump:
    """A setting that jumped.

    Attributes:
        name, phase: of the metric.
        before, after: its values.
        since, until: the time of its last value before the jump, and of the `SOON`-th after it: what begins between the
            two may follow from the jump.
        time, step: of its first value after the jump.
        place: the step or the market's time, in words.
    """

    name: str
    phase: str
    before: float
    after: float
    since: np.datetime64
    until: np.datetime64
    time: np.datetime64
    step: int | None
    place: str

    @property
    def words(self) -> str:
        """What happened, such as `learning_rate went from 0.001 to 0.3, 300 times as large`."""
        text = f"{self.name} went from {number(self.before)} to {number(self.after)}"
        times = self.after / self.before if self.before else 0.0
        if times > 1:
            return f"{text}, {number(times)} times as large"
        return f"{text}, to 1/{number(1 / times)} of it" if 0 < times < 1 else text

    @property
    def source(self) -> Source | None:
        """Where a cause of this kind lies; None where its name does not say it."""
        return "optimizer" if _RATE.search(self.name) else "data" if _BATCH.search(self.name) else None

    def finding(self) -> Finding:
        """Return what is said of it."""
        return Finding(
            sentence=f"First at {self.place}, {self.words}: what follows began then.",
            level="alarm",
            what=self.words,
            source=self.source,
            step=self.step,
            time=self.time,
            rule="anomaly",
            evidence={"phase": self.phase, "setting": self.name, "before": self.before, "after": self.after},
        )


def jumps(metrics: pd.DataFrame, axes: Mapping[str, Axis] = MappingProxyType({})) -> list[Jump]:
    """Return what was set and jumped, in order of time.

    Args:
        metrics: points of `train_metrics`, in order of time, read with `prefix_tags`.
        axes: phase → its axis; a phase without one counts steps.
    """
    names = {column: name for column, name in metric_columns(metrics).items() if name not in _NOT_SET}
    found: list[Jump] = []
    for phase, rows in by_phase(metrics):
        own = rows.reset_index(drop=True)
        axis = axes.get(phase) or Axis((phase,))
        for column, name in names.items():
            values = numbers(own, column)
            at = np.flatnonzero(np.isfinite(values))
            found += _jumps_of(name, phase, own.iloc[at].reset_index(drop=True), values[at], axis)
    return sorted(found, key=lambda jump: jump.time)


def set_before(all_jumps: Sequence[Jump], since: Sequence[np.datetime64]) -> list[Jump]:
    """Return the jumps just after which something began.

    Args:
        all_jumps: from `jumps`.
        since: when things began.
    """
    return [jump for jump in all_jumps if any(jump.since < time <= jump.until for time in since)]


def jump_places(values: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the indices at which a setting jumped: of the first value after each jump.

    Args:
        values: (n,), finite.
    """
    if len(values) <= _FEWEST:
        return np.array([], dtype=np.intp)
    moves = np.abs(np.diff(values))
    sizes = np.maximum(np.abs(values[:-1]), np.abs(values[1:]))
    smaller = np.minimum(np.abs(values[:-1]), np.abs(values[1:]))
    far = (moves > 0) & (sizes > _JUMP * smaller) | (np.sign(values[:-1]) * np.sign(values[1:]) < 0)
    places = np.flatnonzero(far) + 1
    return np.array([i for i in places if _is_set(values, int(i)) and _is_rare(moves, int(i))], dtype=np.intp)


def _is_set(values: NDArray[np.float64], i: int) -> bool:
    """Return whether a metric moves smoothly on both sides of index i."""
    before, after = values[max(0, i - _SIDE) : i], values[i : i + _SIDE]
    if len(before) < _FEWEST:
        return False
    jump = abs(values[i] - values[i - 1])
    again = np.flatnonzero(np.abs(np.diff(after)) >= jump / 2)  # it is set back, or set once more
    after = after[: int(again[0]) + 1] if len(again) else after
    for side in (before, after):
        rough = float(np.abs(np.diff(side, 2)).max()) if len(side) > 2 else float(np.abs(np.diff(side)).max(initial=0))
        if rough > _SMOOTH * jump or rough > _STILL * float(np.abs(side).max()):
            return False
    return True


def _is_rare(moves: NDArray[np.float64], i: int) -> bool:
    return int((moves >= moves[i - 1] / 2).sum()) <= _MOST_JUMPS


def _jumps_of(name: str, phase: str, frame: pd.DataFrame, values: NDArray[np.float64], axis: Axis) -> Iterator[Jump]:
    times = moments(frame)
    for i in map(int, jump_places(values)):
        until = times[min(i + SOON, len(times) - 1)]
        until = until if i + SOON < len(times) else until + (until - times[0])  # it may be the newest value
        yield Jump(
            name,
            phase,
            before=float(values[i - 1]),
            after=float(values[i]),
            since=times[i - 1],
            until=until,
            time=times[i],
            step=step_at(frame, i),
            place=axis.describe(frame, i),
        )

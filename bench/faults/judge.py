"""When a fault counts as found, and what a false alarm is: pure functions over the captures of a run.

An alarm is counted a capture of a run, over all its layers and gates. Alarms of which each is among the five captures
that begin with the one before it are one stretch. A fault is found by a stretch of at least two alarms that begins with
the fault or up to fifteen captures after the first one it touched; of a failed check one is enough, as in the alert
rules. A stretch that was on before finds nothing: who always alarms would find everything. A healthy run whose data
change at one step is judged alike: a detector of changed data is to find the change, and every other one is to stay
silent.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

TOGETHER: Final = 5
"""Captures, the first alarm's included, within which a second one confirms it."""
LATEST: Final = 15
"""Captures after the first one that the fault touched."""
CONFIRMED: Final = 2
"""Alarms of a stretch that finds something."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Outcome:
    """What one detector made of one run.

    Attributes:
        faulty: whether there was a fault.
        delay: captures from the first that the fault or the other regime touched to the first alarm of those that found
            it; None where it was not found, or there was neither.
        judged: captures that the detector gave a verdict on.
        alarms: how many of them alarmed.
    """

    faulty: bool
    delay: int | None
    judged: int
    alarms: int


@dataclass(frozen=True)
class Summary:
    """What one detector made of many runs; a share or a median is None where there is nothing to divide by.

    Attributes:
        faulty, found: runs with a fault, and those whose fault was found.
        healthy, alarmed: healthy runs, and those with any alarm.
        judged, alarms: captures of healthy runs, and those that alarmed.
        delay: median over the faults found, captures.
    """

    faulty: int
    found: int
    healthy: int
    alarmed: int
    judged: int
    alarms: int
    delay: float | None

    @property
    def recall(self) -> float | None:
        """Share of the faulty runs whose fault was found."""
        return self.found / self.faulty if self.faulty else None

    @property
    def healthy_alarmed(self) -> float | None:
        """Share of the healthy runs with any alarm."""
        return self.alarmed / self.healthy if self.healthy else None

    @property
    def false_per_thousand(self) -> float | None:
        """Alarms per 1,000 captures judged of healthy runs."""
        return 1_000 * self.alarms / self.judged if self.judged else None


def stretches(alarms: Mask) -> list[tuple[int, int]]:
    """First capture and number of alarms of every stretch, in order.

    Args:
        alarms: (captures,).
    """
    found: list[tuple[int, int]] = []
    last = None
    for at in np.flatnonzero(alarms):
        if last is not None and at - last < TOGETHER:
            found[-1] = found[-1][0], found[-1][1] + 1
        else:
            found.append((int(at), 1))
        last = at
    return found


def delay(alarms: Mask, strike: int, least: int = CONFIRMED) -> int | None:
    """Captures from a fault to the first of the alarms that found it; None where it was not found.

    Args:
        alarms: (captures,).
        strike: the first capture that the fault touched.
        least: alarms of a stretch that finds something.
    """
    found = (at - strike for at, n in stretches(alarms) if n >= least and strike <= at <= strike + LATEST)
    return next(found, None)


def judge(
    captures: NDArray[Any],
    strike: int | None,
    times: NDArray[Any],
    alarms: Mask,
    *,
    faulty: bool | None = None,
    least: int = CONFIRMED,
) -> Outcome:
    """What a detector made of a run.

    Args:
        captures: (captures,), their times, ascending.
        strike: the first capture that the fault or the other regime touched; None where there is neither.
        times: (judged,), the captures that the detector gave a verdict on, by their times.
        alarms: (judged,).
        faulty: whether it is a fault that strikes; None for yes, where anything does.
        least: alarms of a stretch that finds something.

    Raises:
        ValueError: a verdict is on no capture.
    """
    if not np.isin(times, captures).all():
        raise ValueError("a verdict is on no capture of the run")
    mask = np.isin(captures, times[alarms])
    found = None if strike is None else delay(mask, strike, least)
    return Outcome(strike is not None if faulty is None else faulty, found, len(np.unique(times)), int(mask.sum()))


def summarise(outcomes: Iterable[Outcome]) -> Summary:
    """Sum up what one detector made of many runs."""
    all_ = list(outcomes)
    faulty, healthy = [one for one in all_ if one.faulty], [one for one in all_ if not one.faulty]
    delays = [one.delay for one in faulty if one.delay is not None]
    return Summary(
        faulty=len(faulty),
        found=len(delays),
        healthy=len(healthy),
        alarmed=sum(one.alarms > 0 for one in healthy),
        judged=sum(one.judged for one in healthy),
        alarms=sum(one.alarms for one in healthy),
        delay=statistics.median(delays) if delays else None,
    )

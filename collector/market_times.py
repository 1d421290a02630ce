"""Keep the bars of a backtest apart where several have one market time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import gcd
from typing import TYPE_CHECKING, Final, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MICROSECOND: Final = 1_000


@dataclass
class MarketTimes:
    """Give each step of one run and phase a time of its own: its market time, or some nanoseconds later.

    Points of one series and time are one point, so two bars of one market time would be mixed. A time later than all
    before it is kept. One that comes again is moved to the next free nanosecond, so that times are in the order of the
    steps. When market time goes back, a new pass begins: its times are moved by more than any before, where no earlier
    bar can be, as long as the move is smaller than the distance of neighbouring bars. Where it is not (times that
    differ by nanoseconds), the bar is put after the newest one.

    It is a few numbers, however many bars there are; all are nanoseconds.

    Attributes:
        front: the newest market time given; None before the first one.
        front_step: the latest step that had it.
        given, placed: of the latest step: the market time, and where it was put.
        newest: the newest time at which anything was put.
        spacing: what all differences between market times are multiples of; 0 while there are none.
        most: the largest move.
        least: the smallest move in this pass.
    """

    front: int | None = None
    front_step: int = 0
    given: int = 0
    placed: int = 0
    newest: int = 0
    spacing: int = 0
    most: int = 0
    least: int = 0

    @classmethod
    def from_dict(cls, content: object) -> Self:
        """Return what `dataclasses.asdict` gave; one that has seen no time where it is something else."""
        names = asdict(cls())
        kept = content if isinstance(content, dict) else {}
        return cls(**{name: value for name, value in kept.items() if name in names and isinstance(value, int)})

    @classmethod
    def from_stored(cls, times: NDArray[np.int64], steps: NDArray[np.int64]) -> Self:
        """Return what can be told from the times at which steps are stored.

        Args:
            times: (n,), in any order.
            steps: (n,), their numbers.
        """
        if not len(times):
            return cls()
        given = times // _MICROSECOND * _MICROSECOND  # or finer, which a larger move allows for
        front, newest, most = int(given.max()), int(times.max()), int((times - given).max())
        latest = int(steps[times == newest].max())
        return cls(front, latest, front, newest, newest, int(np.gcd.reduce(front - given)), most)

    def problem(self, time: int, step: int) -> tuple[str, str] | None:
        """Return what is to be said of a time that does not come after all before it, and the topic of that.

        Args:
            time: the market time of the step that comes next.
            step: its number.
        """
        if self.front is None or time > self.front or (time == self.front and self.least):  # which was said before
            return None
        earlier, later = f"step {self.front_step}", f"step {step}"
        if time == self.front:
            topic = "market time repeats"
            what = f"{earlier} and {later} are both at {_shown(time)}. Such steps are stored nanoseconds apart"
            remedy = "give each symbol a run of its own, and bars their time of day"
        else:
            topic = "market time goes back"
            what = (
                f"{earlier} is at {_shown(self.front)}, {later} at {_shown(time)}. Such steps are stored, and scored, "
                "between those of the same market time"
            )
            remedy = "give each symbol and each episode a run of its own, and local times their zone"
        return f"{topic}: {what}, and counted in moved_times of collector_health; {remedy}", topic

    def place(self, time: int, step: int) -> int:
        """Return the time for the points of a step, later than its market time by as little as possible.

        Args:
            time: the market time.
            step: its number.
        """
        if self.front is None:
            self.front, self.given, self.newest = time, time, time - 1
        self.spacing = gcd(self.spacing, time - self.front)
        if time < self.given:
            self.least, self.placed = self.most + 1, time
        origin = time
        if time >= self.front:
            self.front, self.front_step = time, step
            placed = max(time, self.newest + 1)
        else:
            placed = max(time + self.least, self.placed + 1)
            if placed - time >= self.spacing:
                origin, placed = self.front, self.newest + 1
        self.given, self.placed, self.newest = time, placed, max(self.newest, placed)
        self.most = max(self.most, placed - origin)
        return placed


def _shown(time: int) -> str:
    return str(np.datetime_as_string(np.datetime64(time, "ns"), unit="auto"))

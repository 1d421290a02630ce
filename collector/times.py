"""Moments as nanoseconds since the Unix epoch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Final

import numpy as np

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.text import safe_repr

Time = int | date | datetime | np.datetime64
"""Nanoseconds since the Unix epoch, or a moment (without a zone: UTC, whatever its fold); a day is its beginning."""

_DAY: Final = 86_400 * 10**9
_FINE: Final = ("ns", "ps", "fs", "as")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def nanoseconds(time: Time) -> int:
    """A time as nanoseconds since the Unix epoch.

    Raises:
        ConfigError: it is no time, none that is known (NaT), or beyond what 64 bits hold: the years 1678 to 2262.
    """
    if isinstance(time, np.datetime64) and not np.isnat(time):
        if np.datetime_data(time.dtype)[0] not in _FINE:  # those that seconds are coarse enough for
            _within(int(time.astype("datetime64[D]").astype(np.int64)) * _DAY)
        return int(time.astype("datetime64[ns]").astype(np.int64))
    if hasattr(time, "to_timestamp"):  # pandas' Period: its beginning
        time = time.to_timestamp()
    if isinstance(time, date) and not isinstance(time, datetime):
        time = datetime(time.year, time.month, time.day, tzinfo=UTC)
    if isinstance(time, datetime) and time == time:  # noqa: PLR0124 - pandas' NaT is a datetime, and not itself
        exact = getattr(time, "nanosecond", 0)  # pandas' own datetime has them
        moment = time if time.tzinfo else time.replace(tzinfo=UTC)
        return _within((moment - _EPOCH) // timedelta(microseconds=1) * 1000 + exact)
    if isinstance(time, int | np.integer) and not isinstance(time, bool):
        return _within(int(time))
    raise ConfigError(
        f"{safe_repr(time)} is no time: give a datetime, a numpy.datetime64 or nanoseconds since the Unix epoch"
    )


class SteadyTime:
    """Now, in nanoseconds since the Unix epoch, and never the same nanosecond twice. For any number of threads.

    Where the system's clock jumps back, time goes on from where it was until the clock has caught up.

    Args:
        now: the system's clock, in nanoseconds.
        clock: seconds, monotonic.
    """

    def __init__(self, now: Callable[[], int], clock: Callable[[], float]) -> None:
        self._now, self._clock = now, clock
        self._time, self._at = 0, 0.0
        self.after_fork_in_child()

    def __call__(self) -> int:
        """The time, later than at any call before."""
        with self._lock:
            time, at = self._now(), self._clock()
            if time <= self._time:
                time = self._time + max(1, int((at - self._at) * 1e9))
            self._time, self._at = time, at
            return time

    def after_fork_in_child(self) -> None:
        """Replace the lock in a forked child, where another thread's hold on it would never end."""
        self._lock = threading.RLock()  # a finalizer that interrupts a call may write points too


def _within(time: int) -> int:
    if not -(2**63) <= time < 2**63:
        raise ConfigError(f"{time} is no time in nanoseconds that 64 bits hold: the years 1678 to 2262")
    return time

"""Moments as nanoseconds since the Unix epoch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np

Time = int | datetime | np.datetime64
"""Nanoseconds since the Unix epoch, or a moment (one without a zone is taken as UTC)."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def nanoseconds(time: Time) -> int:
    """A time as nanoseconds since the Unix epoch, no further than 64 bits reach.

    Raises:
        ValueError: it is no time, or none that is known (NaT).
    """
    if isinstance(time, np.datetime64) and not np.isnat(time):
        return int(time.astype("datetime64[ns]").astype(np.int64))
    if isinstance(time, datetime) and time == time:  # noqa: PLR0124 - pandas' NaT is a datetime, and not itself
        exact = getattr(time, "nanosecond", 0)  # pandas' own datetime has them
        moment = time if time.tzinfo else time.replace(tzinfo=UTC)
        return _within((moment - _EPOCH) // timedelta(microseconds=1) * 1000 + exact)
    if isinstance(time, int | np.integer) and not isinstance(time, bool):
        return _within(int(time))
    raise ValueError(f"{time!r} is no time: give nanoseconds since the Unix epoch or a moment")


def _within(time: int) -> int:
    return max(-(2**63), min(time, 2**63 - 1))

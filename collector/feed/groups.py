"""Groups of the sequences that are fed: by symbol, by environment, or whatever the user names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from gatewatch.collector.arrays import Array
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.names import clean_name
from gatewatch.collector.schema import FEED_GROUPS, Point
from gatewatch.collector.text import safe_repr

MOST_GROUPS: Final = 16
"""Each group is a series of the store, and costs its part of the budget."""
RECENT: Final = 8
"""A distance is taken of so many sequences of a group at least: of fewer in a batch, the latest ones together."""


def read_labels(groups: Any) -> list[str]:
    """Return the label of each sequence of a batch, as a name that every store can hold: see `clean_name`.

    Args:
        groups: a list, an array or a tensor of any framework, of texts or whole numbers; 1 and "1" are one group.

    Raises:
        ConfigError: it is something else.
    """
    try:
        values = groups.detach().cpu() if hasattr(groups, "detach") else groups
        is_one = isinstance(values, str | bytes | Mapping | set | frozenset)
        listed = None if is_one else values.tolist() if hasattr(values, "tolist") else list(values)
    except Exception as error:  # of whatever library it is
        raise _no_labels(groups) from error
    if not isinstance(listed, list) or not all(
        isinstance(label, str) or (isinstance(label, int | np.integer) and not isinstance(label, bool))
        for label in listed
    ):
        raise _no_labels(groups)
    return [clean_name(str(label)) for label in listed]


def _no_labels(groups: Any) -> ConfigError:
    return ConfigError(
        f"groups={safe_repr(groups)}: must be one label for each sequence of the batch, texts or whole numbers, such "
        "as ['GOOG', 'AAPL']"
    )


class GroupDistances:
    """How far the sequences of each group are from what was fed before, whatever the group.

    Args:
        warn_once: logs what is left out, once.
    """

    def __init__(self, warn_once: Callable[..., None]) -> None:
        self._warn_once = warn_once
        self._recent: dict[str, Array] = {}

    def measure(
        self, labels: Sequence[str], sequences: Array, distance_of: Callable[[Array], float] | None
    ) -> dict[str, dict[str, float | int]]:
        """Return group → its fields in `feed_groups`. Of a run the first 16 groups are recorded.

        Args:
            labels: of the batch's sequences, N.
            sequences: their descriptors, (N, D).
            distance_of: returns how far descriptors are from those fed before; None where too little was.
        """
        by_group: dict[str, dict[str, float | int]] = {}
        rows = np.array(labels, object)
        for group in dict.fromkeys(labels):
            if group not in self._recent and len(self._recent) >= MOST_GROUPS:
                self._warn_once(
                    f"a run records {MOST_GROUPS} groups of sequences, the feed has more: {safe_repr(group)} and those "
                    "that follow are left out; give groups= fewer labels, such as sectors instead of symbols",
                    "more groups",
                )
                continue
            new = sequences[rows == group]
            earlier = self._recent.get(group)
            if earlier is None or earlier.shape[1] != new.shape[1]:
                earlier = new[:0]
            recent = np.concatenate([earlier, new])[-max(RECENT, len(new)) :]
            self._recent[group] = recent[-RECENT:]
            by_group[group] = {"sequences": len(new)}
            if distance_of is not None and len(recent) >= RECENT:
                by_group[group]["distance"] = distance_of(recent)
        return by_group


def group_points(
    by_group: Mapping[str, Mapping[str, float | int]], tags: Mapping[str, str], time: int, step: int
) -> list[Point]:
    """Return the `feed_groups` points of one capture; see `GroupDistances.measure`."""
    return [
        Point(FEED_GROUPS, {**tags, "group": group}, {**fields, "step": step}, time)
        for group, fields in by_group.items()
    ]

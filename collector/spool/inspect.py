"""Read from the disk what waits for each store, for `gatewatch spool status`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from gatewatch.collector.spool.queue import ABOUT, DESTINATION, REJECTED, list_paths
from gatewatch.collector.spool.segment import SUFFIX, Segment, read_segment


class Pending:
    """What waits for one store.

    Attributes:
        destination: `url`, and `org` and `bucket` of an InfluxDB.
        folder: where it waits.
        points: that wait.
        bytes: that they take.
        damaged: records that cannot be read.
        rejected: lines that the store refused.
        reason: why it refused the last of them.
        rejected_file: where the refused lines are.
    """

    def __init__(self, folder: Path, destination: Mapping[str, str]) -> None:
        segments = list(_segments(folder))
        self.folder, self.destination = folder, dict(destination)
        self.points = sum(segment.points for segment in segments)
        self.bytes = sum(segment.size - segment.shipped for segment in segments)
        self.damaged = sum(segment.damaged for segment in segments)
        self.rejected_file = folder / REJECTED
        self.rejected, self.reason = _rejections(self.rejected_file)

    def as_json(self) -> dict[str, object]:
        """Return it as JSON can hold it."""
        return {
            **self.destination,
            "points": self.points,
            "bytes": self.bytes,
            "damaged": self.damaged,
            "rejected": self.rejected,
            "reason": self.reason,
            "rejected_file": str(self.rejected_file) if self.rejected else None,
            "folder": str(self.folder),
        }


def pending(root: Path) -> Iterator[Pending]:
    """Read what waits for each store that has a folder below `root`."""
    for file in list_paths(root, f"*/{DESTINATION}"):
        try:
            destination = json.loads(file.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(destination, dict) and all(isinstance(value, str) for value in destination.values()):
            yield Pending(file.parent, destination)


def _segments(folder: Path) -> Iterator[Segment]:
    for path in list_paths(folder, f"[0-9]*/*{SUFFIX}"):
        with suppress(OSError):  # shipped in this moment
            yield read_segment(path)


def _rejections(file: Path) -> tuple[int, str | None]:
    count, reason = 0, None
    with suppress(OSError), file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith(ABOUT):
                count, reason = count + 1, line.removeprefix(ABOUT).partition(" ")[2].strip()
    return count, reason

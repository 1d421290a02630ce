"""Read from the disk what waits for each store, for `gatewatch spool status`, and whether anything of a run does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gatewatch.collector.files import read_json_object
from gatewatch.collector.line_protocol import encode, parse, split_lines
from gatewatch.collector.schema import RUNS, Point
from gatewatch.collector.spool.queue import ABOUT, REJECTED, list_paths
from gatewatch.collector.spool.segment import MOST_BYTES, SUFFIX, read_segment
from gatewatch.collector.user_folders import DESTINATION


class Pending:
    """What waits for one store.

    Attributes:
        destination: see `Store.destination`.
        folder: where it waits.
        points: that wait.
        bytes: that they take.
        damaged: records that cannot be read.
        rejected: lines that the store refused.
        reason: why it refused the last of them.
        rejected_file: where the refused lines are.
    """

    def __init__(self, folder: Path, destination: Mapping[str, str]) -> None:
        self.destination = dict(destination)
        self.points = self.bytes = self.damaged = self.rejected = 0
        self.reason: str | None = None
        self.rejected_file = folder / REJECTED
        self.folder = folder
        for path in list_paths(folder, f"[0-9]*/*{SUFFIX}"):
            with suppress(OSError):  # shipped in this moment
                segment, _ = read_segment(path)
                self.points += segment.points
                self.bytes += segment.size
                self.damaged += segment.damaged
        with suppress(OSError), self.rejected_file.open("rb") as file:
            for line in file.read(MOST_BYTES).decode(errors="replace").split("\n"):
                if line.startswith(ABOUT):
                    self.rejected += 1
                    self.reason = line.removeprefix(ABOUT).partition(" ")[2].strip()

    def as_json(self) -> dict[str, object]:
        """Return it as JSON can hold it."""
        own = {name: value for name, value in vars(self).items() if name != "destination"}
        rejected_file = str(self.rejected_file) if self.rejected else None
        return {**self.destination, **own, "rejected_file": rejected_file, "folder": str(self.folder)}


def pending(root: Path) -> Iterator[Pending]:
    """Read what waits for each store that has a folder below `root`."""
    for file in list_paths(root, f"*/{DESTINATION}"):
        destination: dict[str, Any] = {}
        with suppress(OSError), file.open("rb") as stream:
            destination = read_json_object(stream)
        if destination and all(isinstance(value, str) for value in destination.values()):
            yield Pending(file.parent, destination)


def points_wait(folder: Path, run: str, phase: str) -> bool:
    """Return whether points of a run and phase wait in the folder of a store, whoever is to ship them."""
    tags = {"run": run, "phase": phase}
    head = encode([Point(RUNS, {"run": run}, {"step": 0}, 0)]).rpartition(b" step=")[0].removeprefix(RUNS.encode())
    for path in list_paths(folder, f"[0-9]*/*{SUFFIX}"):
        with suppress(OSError):  # shipped in this moment
            _, lines = read_segment(path)
            # Most lines are passed over unread; text in a field may look like the tag.
            if head in lines and any(_has(line, tags) for line in split_lines(lines) if head in line):
                return True
    return False


def _has(line: bytes, tags: Mapping[str, str]) -> bool:
    with suppress(ValueError):
        return tags.items() <= parse(line).tags.items()
    return False

"""The spool of processes that were killed: segments, notes and rejected lines, damaged."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from random import Random

from gatewatch import open_store
from gatewatch.collector.line_protocol import encode, split_lines
from gatewatch.collector.spool.inspect import points_wait
from gatewatch.collector.spool.queue import Spool
from gatewatch.collector.spool.segment import MAGIC, as_record, read_segment
from gatewatch.collector.store import reopen_store
from tests.fuzz import odd
from tests.fuzz.target import Target
from tests.fuzz.two_runs import MINE, OTHER
from tests.recorded import recorded

_ROOT = "spool"
_DB = "points.db"


@dataclass
class Case:
    """One file of the spool is replaced.

    Attributes:
        file: its path; empty: none.
        content: what it holds.
        flush: whether it is shipped by the command, or by the next process that records.
    """

    file: str = ""
    content: bytes = b""
    flush: bool = True


class SpoolFiles(Target):
    """Two processes were killed, and left two segments each; somebody looks at them and ships them."""

    name = "spool"
    seconds = 40.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        root = folder / _ROOT
        spool = Spool(root, {"url": "sqlite:////FOLDER/points.db"}, 2**30)
        spool.append(b"m,run=x f=1 1\n", 1)
        store_folder = spool.folder
        spool.close()
        self._lines: dict[str, list[bytes]] = {}
        files: dict[str, bytes] = {}
        for run in (MINE, OTHER):
            records = [encode(points) for points in recorded(4, run=run)]
            self._lines[run] = [line for record in records for line in split_lines(record)]
            for number in range(2):
                content = MAGIC + b"".join(
                    as_record(one, len(split_lines(one))) for one in records[2 * number : 2 * number + 2]
                )
                files[f"{run}/{number:020d}.spool"] = content
            files[f"{run}/lock"] = b""
        names = {MINE: "1700000000000000000-1-aa", OTHER: "1700000000000000001-2-bb"}
        base = f"{_ROOT}/{store_folder.name}"
        self._base = base
        self._files = {
            f"{base}/{names[path.split('/')[0]]}/{path.split('/')[1]}": content for path, content in files.items()
        }
        self._files[f"{base}/rejected.lp"] = b"# 2026-01-01T00:00:00Z a reason\nm f=1 1\n"
        self._files[f"{base}/runs/abc.json"] = b'{"pid": 1, "step": 3}'
        self._own = [name for name in self._files if names[OTHER] not in name]
        self._note = f"{base}/destination.json"

    def sound(self) -> Case:
        return Case()

    def make(self, random: Random) -> Case:
        name = random.choice([*self._own, *[name for name in self._own if name.endswith(".spool")] * 3, self._note])
        content = self._files.get(name, b'{"url": "sqlite:////tmp/nowhere/points.db"}')
        if name.endswith(".spool") and random.random() < 0.5:
            content = _segment(random, self._lines[MINE])
        else:
            content = odd.damaged(random, content)
        return Case(name, content, flush=random.random() < 0.6)

    def place(self, case: Case, folder: Path) -> None:
        files = {**self._files, self._note: b'{"url": "sqlite:///%s"}' % str(folder / _DB).encode()}
        odd.put(folder, files | ({case.file: case.content} if case.file else {}))

    def run(self, case: Case, folder: Path) -> None:
        root = folder / _ROOT
        (folder / "gatewatch.toml").write_text(f'[spool]\npath = "{root}"\n[store]\nurl = "sqlite:///{folder / _DB}"\n')
        self.command("spool", "status")
        self.command("spool", "status", "--json")
        points_wait(folder / self._base, MINE, "train")
        if case.flush:
            self.command("spool", "flush", "--timeout", "1")
        else:
            with self.allowed():
                store = reopen_store({"url": f"sqlite:///{folder / _DB}"})
                spool = Spool(root, store.destination, 2**30)
                spool.adopt()
                for _ in range(100):
                    batch = spool.next_batch()
                    if batch is None:
                        break
                    with self.allowed():
                        store.write_lines(batch.lines)
                    spool.done(batch)
                spool.close()
                store.close()
        self.command("check")
        self.command("spool", "status")

    def others(self, folder: Path) -> dict[str, object]:
        """What is in the store or waits is the same, wherever it is."""
        return {"points": _points(folder)}


def _points(folder: Path) -> set[tuple[bytes, bytes]]:
    """Return series and time of each point of the other run."""
    lines: list[bytes] = []
    for file in (folder / _ROOT).rglob("*.spool"):
        lines += split_lines(read_segment(file)[1])
    store = open_store(f"sqlite:///{folder / _DB}")
    history = store.history()
    try:
        for measurement in history.measurements():
            for points in history.points(measurement, OTHER):
                lines += split_lines(encode(points))
    finally:
        history.close()
        store.close()
    of_other = f",run={OTHER}".encode()
    parts = [(line.partition(b" ")[0], line.rpartition(b" ")[2]) for line in lines]
    return {(series, time) for series, time in parts if series.endswith(of_other) or of_other + b"," in series}


def _segment(random: Random, lines: list[bytes]) -> bytes:
    """Return a segment with sound checksums, that says odd things."""
    content = random.choice(
        (MAGIC, MAGIC, MAGIC, b"GWSPOOL1" + struct.pack("<Q", random.choice((0, 16, 20, 2**63, 2**64 - 1))))
    )
    for _ in range(random.randint(1, 4)):
        some = random.sample(lines, random.randint(1, 8))
        for _ in range(random.choice((0, 1, 1, 3))):
            some.insert(random.randrange(len(some)), _line(random, some[0]))
        record = b"\n".join(some) + random.choice((b"\n", b"\n", b"", b"\n\n\0"))
        points = random.choice((len(some), len(some), 0, 1, 2**32 - 1, 10**6))
        content += as_record(record, points)
    if random.random() < 0.3:
        content += struct.pack("<III", random.choice((0, 5, 2**31, 2**32 - 1)), 1, 0) + b"x" * random.choice(
            (0, 3, 100)
        )
    return content


def _line(random: Random, line: bytes) -> bytes:
    if random.random() < 0.4:
        return odd.damaged(random, line)
    text = odd.text(random).encode(errors="replace")
    return random.choice(
        (
            text,
            b"m,run=%s f=1 1" % text,
            b"m,run=mine %s=1 1" % text,
            b'm,run=mine f="%s" 1' % text,
            b"m,run=mine f=1 %s" % random.choice((b"99999999999999999999", b"-1", b"", b"x")),
            b"gate_stats,run=mine step=1 1",
            b"m f=%s 1" % random.choice((b"1e999", b"NaN", b"1i", b"99999999999999999999i", b"t", b"u1", b"0x1")),
        )
    )

"""SQLite files that are damaged, cut off, of another program or of another schema, read and written by everything."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from gatewatch import open_store
from gatewatch.collector.schema import GATE_STATS, RUNS, TRAIN_METRICS, Point
from gatewatch.collector.store.sqlite.file import APPLICATION_ID
from tests.fuzz import odd
from tests.fuzz.target import Target
from tests.fuzz.two_runs import FILE, MINE, URL, rows, write_two_runs

_OPERATIONS = ("runs", "report", "jobs", "copy", "check", "baseline", "read", "write", "begin", "history", "twice")
_WRITING = {"jobs", "check", "baseline", "write", "begin", "twice"}


@dataclass
class Case:
    """A file, and what is done with it.

    Attributes:
        content: of the file; None: the sound one.
        beside: more files.
        statements: of SQL that are executed on it.
        special: what lies there in place of a file.
        operations: in their order.
    """

    content: bytes | None = None
    beside: dict[str, bytes] = field(default_factory=dict)
    statements: list[tuple[str, tuple[object, ...]]] = field(default_factory=list)
    special: str = ""
    operations: tuple[str, ...] = _OPERATIONS

    def __repr__(self) -> str:
        size = None if self.content is None else len(self.content)
        return f"{self.operations} {self.special} {size} bytes, {[*self.beside]}, {self.statements}"


class SqliteFiles(Target):
    """A store's file."""

    name = "sqlite"
    seconds = 60.0  # a file that is locked is waited for, 10 s at a time

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        write_two_runs(folder / FILE)
        self._sound = (folder / FILE).read_bytes()
        self._rows = rows(folder / FILE)

    def sound(self) -> Case:
        return Case()

    def make(self, random: Random) -> Case:
        case = Case(operations=tuple(random.sample(_OPERATIONS, random.randint(1, 4))))
        what = random.random()
        if what < 0.35:
            case.content = self._damaged(random)
        elif what < 0.45:
            case.content = odd.damaged(random, self._sound)
        elif what < 0.5:
            case.beside = {
                f"{FILE}{end}": odd.damaged(random, self._sound[:40_000])
                for end in random.sample(("-wal", "-shm", "-journal"), random.randint(1, 3))
            }
        elif what < 0.6:
            case.content, case.statements = b"", _foreign(random)
        elif what < 0.63:
            case.special = random.choice(("folder", "loop", "dangling", "null", "missing"))
        else:
            case.statements = [_statement(random) for _ in range(random.randint(1, 4))]
        return case

    def _damaged(self, random: Random) -> bytes:
        """Damage some pages, but not the first; the structure of the tables survives."""
        changed = bytearray(self._sound)
        for _ in range(random.choice((1, 3, 10))):
            begin = 4096 * random.randrange(1, len(changed) // 4096)
            for _ in range(random.choice((1, 8, 100))):
                changed[begin + random.randrange(4096)] = random.choice((0, 255, 34, 123, random.randrange(256)))
        return bytes(changed)

    def place(self, case: Case, folder: Path) -> None:
        path = folder / FILE
        makers: dict[str, Callable[[], object]] = {
            "folder": path.mkdir,
            "loop": lambda: path.symlink_to(path),
            "dangling": lambda: path.symlink_to(folder / "nowhere"),
            "null": lambda: path.symlink_to("/dev/null"),
            "missing": lambda: None,
        }
        if case.special:
            makers[case.special]()
            return
        odd.put(folder, {FILE: self._sound if case.content is None else case.content, **case.beside})
        if case.statements:
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                for statement, values in case.statements:
                    with suppress(sqlite3.Error, UnicodeError, OverflowError):
                        connection.execute(statement, values)

    def run(self, case: Case, folder: Path) -> None:
        for operation in case.operations:
            getattr(self, f"_{operation}")()
        if not _WRITING & {*case.operations} and not case.special:
            assert (folder / FILE).exists(), "the file is gone"

    def others(self, folder: Path) -> dict[str, object]:
        found = rows(folder / FILE)
        return {} if found is None else {"points": found}

    def _runs(self) -> None:
        self.command("runs", "--store", URL)
        self.command("runs", "--store", URL, "--json")

    def _report(self) -> None:
        self.command("report", MINE, "--store", URL, "-o", "report.html")

    def _jobs(self) -> None:
        self.command("jobs", "--once", "--run", MINE, "--store", URL)

    def _copy(self) -> None:
        self.command("copy", "--from", URL, "--to", "sqlite:///copy.db", "--timeout", "1")

    def _check(self) -> None:
        self.command("check", "--store", URL)

    def _baseline(self) -> None:
        self.command("baseline", "add", MINE, "--store", URL)
        self.command("baseline", "list", "--store", URL)

    def _read(self) -> None:
        store = open_store(URL)
        for read in (
            lambda: store.read(GATE_STATS, run=MINE),
            lambda: store.read(RUNS, prefix_tags=True),
            lambda: store.read(TRAIN_METRICS, fields=["loss"], start=0),
            lambda: store.count(GATE_STATS, "step"),
            lambda: store.tallies(GATE_STATS, "step"),
            lambda: store.series(GATE_STATS, "step", MINE),
            store.runs,
        ):
            with self.allowed():
                read()
        store.close()

    def _write(self) -> None:
        store = open_store(URL)
        with self.allowed():
            store.check()
        with self.allowed():
            store.write(
                [Point(TRAIN_METRICS, {"run": MINE, "phase": "train"}, {"loss": 1.0, "step": 5}, time.time_ns())]
            )
        with self.allowed():
            store.write_lines(
                b"gate_stats,run=mine,layer=x,gate=forget mean=0.5,step=1i 1\ngate_stats,run=mine new=1 2\n"
            )
        store.close()

    def _begin(self) -> None:
        store = open_store(URL)
        with self.allowed():
            store.begin_run(
                "new", "train", lambda frame: Point(RUNS, {"run": "new", "phase": "train"}, {"event": "started"}, 1)
            )
        store.close()

    def _history(self) -> None:
        history = open_store(URL).history()
        with self.allowed():
            for measurement in history.measurements():
                for run in history.runs(measurement):
                    list(history.points(measurement, run))
                    history.counts(measurement, run)
        history.close()

    def _twice(self) -> None:
        """Write with two stores that are open at once."""
        self._write()
        with self.allowed():
            first, second = open_store(URL), open_store(URL)
            try:
                for store in (first, second, first):
                    store.write([Point("m", {"run": MINE}, {"f": 1.0}, os.getpid())])
            finally:
                first.close()
                second.close()


_FIELDS = (
    *("{}", "[]", "null", "1", "", "{", "[" * 2000 + "]" * 2000, '{"unheard_of": 1}', '{"mean": true}', '{"event": 1}'),
    *('{"step": {}}', '{"step": "x"}', '{"step": null}', '{"step": 1e999}', '{"step": 99999999999999999999}'),
    *('{"step": [1]}', '{"event": "started", "config": "{"}', '{"event": "started", "config": "[]"}'),
)
_TAGS = (
    *("{}", "[]", "null", "", "{", '"x"', '{"run": "mine"}', '{"run": 1}', '{"run": null}', '{"run": "other"}'),
    *('{"run": "mine", "phase": 1}', '{"run": "mine", "phase": {}}'),
)
_SERIES = (
    "CREATE TABLE series (id INTEGER PRIMARY KEY, measurement TEXT, run TEXT, tags TEXT)",
    "CREATE TABLE series (id)",
    "CREATE TABLE series (id TEXT, measurement, run, tags, written)",
    "CREATE VIEW series AS SELECT 1 AS id, 'runs' AS measurement, 'mine' AS run, '{}' AS tags, 1 AS written",
    "CREATE TABLE other (x)",
)
_POINTS = (
    "CREATE TABLE points (series_id, time, fields)",
    "CREATE TABLE points (x)",
    "CREATE VIEW points AS SELECT 1 AS series_id, 'x' AS time, '{}' AS fields",
    "CREATE VIEW points AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000)"
    " SELECT 1 AS series_id, i AS time, '{}' AS fields FROM n",
)
_TYPES = ("CREATE TABLE fields (measurement, name, type)", "CREATE TABLE fields (name)", "")
_MORE = (
    "CREATE TRIGGER t AFTER INSERT ON points BEGIN SELECT RAISE(ABORT, 'no' || char(10) || 'way'); END",
    "INSERT INTO series VALUES (1, 'runs', 'mine', 'x', 1)",
    "INSERT INTO series (id) VALUES (NULL)",
    "INSERT INTO fields VALUES ('runs', 'event', 'str')",
    "",
)


def _value(random: Random) -> object:
    value = random.choice((odd.text, odd.number, lambda r: r.randbytes(8), lambda r: odd.json_value(r, 2)))(random)
    if isinstance(value, list | dict):
        return json.dumps(value)
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    return value if value is None or isinstance(value, float | bytes) else int(value) % 2**63  # type: ignore[call-overload]


def _statement(random: Random) -> tuple[str, tuple[object, ...]]:
    """Return a statement that leaves a sound SQLite file of our format with odd content in the first run's points."""
    mine = "(SELECT id FROM series WHERE run = 'mine' ORDER BY id LIMIT 1 OFFSET ?)"
    which = random.randrange(12)
    value = _value(random)
    fields, tags = random.choice(_FIELDS), random.choice(_TAGS)
    return random.choice(
        (
            (f"UPDATE points SET fields = ? WHERE series_id = {mine}", (fields, which)),
            (f"UPDATE points SET fields = ? WHERE series_id = {mine}", (value, which)),
            (
                f"UPDATE points SET time = ? WHERE series_id = {mine} AND time = (SELECT min(time) FROM points)",
                (value, which),
            ),
            (f"UPDATE OR IGNORE series SET tags = ? WHERE id = {mine}", (tags, which)),
            (f"UPDATE OR IGNORE series SET tags = ? WHERE id = {mine}", (value, which)),
            (f"UPDATE series SET run = ? WHERE id = {mine}", (value, which)),
            (f"UPDATE OR IGNORE series SET measurement = ? WHERE id = {mine}", (value, which)),
            (f"DELETE FROM series WHERE id = {mine}", (which,)),
            (f"UPDATE series SET written = ? WHERE id = {mine}", (value, which)),
            ("UPDATE fields SET type = ? WHERE name = 'step'", (random.choice((value, "complex", "", "str", "bool")),)),
            ("UPDATE OR IGNORE fields SET name = ? WHERE name = 'step'", (value,)),
            ("DELETE FROM fields WHERE name = ?", (random.choice(("step", "mean", "event", "config")),)),
            (
                "INSERT OR IGNORE INTO series (measurement, run, tags) VALUES (?, 'mine', ?)",
                (random.choice((GATE_STATS, RUNS, "m")), tags),
            ),
            (f"INSERT OR IGNORE INTO points VALUES ({mine}, ?, ?)", (which, value, fields)),
        )
    )


def _foreign(random: Random) -> list[tuple[str, tuple[object, ...]]]:
    """Return statements that make a file of another program, or of another schema of ours."""
    identity = random.choice((0, APPLICATION_ID, APPLICATION_ID, APPLICATION_ID, 1))
    version = random.choice((0, 1, 1, 2, -1, 2**31 - 1))
    series, points = random.choice(_SERIES), random.choice(_POINTS)
    fields, more = random.choice(_TYPES), random.choice(_MORE)
    statements = [
        series,
        points,
        fields,
        more,
        f"PRAGMA application_id = {identity}",
        f"PRAGMA user_version = {version}",
    ]
    return [(statement, ()) for statement in statements if statement]

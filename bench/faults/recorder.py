"""Record the runs of cases: a sqlite store and a label each, kept outside the checkout until their sources change.

A run is kept under the hash of what made it: its case, the source of all that takes part in recording it, and
`RECORDED`. What else the collector becomes does not count; delete the folder to record anew.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import inspect
import json
import multiprocessing
import os
import random
import sqlite3
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from bench.faults import market, program, walk
from bench.faults.cases import Case
from bench.faults.controls import CONTROLS
from bench.faults.fault import Fault
from bench.faults.faults import FAULTS
from bench.faults.setups import Setup
from bench.faults.shapes import RISK_AVERSION, SHAPES
from bench.rounds import place
from gatewatch.collector.schema import RUNS
from gatewatch.collector.store import open_store

RECORDED: Final = {"training": 2, "backtest": 2, "rollouts": 2}
"""Raised where the collector records points that a detector needs and that older recordings lack."""
CHUNK: Final = 12
"""Cases that one process records, all of one framework, before another takes over."""
TRIES: Final = 3
"""A monitor waits ten seconds for its store at its end, and leaves the rest in the spool: on a busy machine too few."""
_ONE_THREAD: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")


@dataclass(frozen=True)
class Record:
    """A recorded run.

    Attributes:
        case: what was run.
        path: its sqlite store; the run is called as the case is.
        strike_step: the first step that the fault touches, or that is fed data of another regime; None where there is
            neither.
    """

    case: Case
    path: Path
    strike_step: int | None

    @property
    def fault(self) -> type[Fault] | None:
        """What is wrong with it; None where it is healthy."""
        return FAULTS[self.case.fault] if self.case.fault else None


def default_folder() -> Path:
    """Where runs are kept: `gatewatch/faults` in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "gatewatch" / "faults"


def load(folder: Path, wanted: Sequence[Case]) -> list[Record]:
    """The records of these cases that the folder holds and that are not out of date."""
    found = []
    for case in wanted:
        label = _read_label(folder, case)
        if label is not None and label["key"] == key(case):
            path = folder / case.split / f"{case.name}.db"
            found.append(Record(case, path, label["strike_step"]))
    return found


def record(folder: Path, wanted: Sequence[Case], processes: int = 2) -> list[Record]:
    """Record what the folder does not hold yet, in processes of one thread each; then all of them.

    Raises:
        RuntimeError: a case could not be recorded.
    """
    have = {held.case for held in load(folder, wanted)}
    missing = [case for case in wanted if case not in have]
    random.Random(0).shuffle(missing)  # so that what is there after a while is of every kind
    missing.sort(key=lambda case: case.framework, reverse=True)
    by_framework = [list(group) for _, group in groupby(missing, key=lambda case: case.framework)]
    chunks = [group[i : i + CHUNK] for group in by_framework for i in range(0, len(group), CHUNK)]
    if chunks:
        for case in missing:
            (folder / case.split).mkdir(parents=True, exist_ok=True)
        labels, begin = [folder / case.split / f"{case.name}.json" for case in missing], time.time()
        held = {name: os.environ.get(name) for name in _ONE_THREAD}
        os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))  # the processes read it before they load NumPy
        try:
            with multiprocessing.get_context("spawn").Pool(processes, maxtasksperchild=1) as pool:
                result = pool.starmap_async(_record_chunk, [(folder, chunk) for chunk in chunks], chunksize=1)
                while not result.ready():
                    result.wait(1.0)
                    _tell(sum(_changed_since(begin, label) for label in labels), len(missing))
                result.get()
        finally:
            for name, value in held.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
    records = load(folder, wanted)
    if len(records) < len(wanted):
        raise RuntimeError(f"{len(wanted) - len(records)} of {len(wanted)} cases are not recorded")
    return records


def key(case: Case) -> str:
    """Hash a case and the sources that record it; comments, docstrings, layout and imports do not count."""
    shape = SHAPES[case.shape]
    its_own = f"{shape.framework}_runs.py", f"{'keras' if shape.framework == 'keras' else 'torch'}_network.py"
    setup = CONTROLS[case.control].setup if case.control else Setup()
    recorded = RECORDED["rollouts" if shape.framework == "sb3" else case.kind]
    steps = program if case.kind == "training" else walk
    used = [market, steps, *_ours(FAULTS[case.fault] if case.fault else Fault)]
    if setup.schedule is not None:
        used.append(setup.schedule)
    sources = [*(Path(__file__).with_name(name).read_text() for name in its_own), *map(inspect.getsource, used)]
    described = [
        json.dumps(asdict(case)),
        repr(shape),
        repr(replace(setup, schedule=None)),
        f"{RISK_AVERSION} {recorded}",
    ]
    return hashlib.sha256("\0".join([*described, *map(meaning, sources)]).encode()).hexdigest()[:16]


def _ours(fault: type[Fault]) -> list[Any]:
    """The classes that make a fault, its own first."""
    return [part for part in fault.__mro__ if issubclass(part, Fault)]


@functools.cache
def meaning(source: str) -> str:
    """Give what a source does, as text that is the same for sources that do the same."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not _is_import_or_docstring(line)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_import_or_docstring(line: object) -> bool:
    docstring = isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)
    return docstring or isinstance(line, ast.Import | ast.ImportFrom)


def _record_chunk(folder: Path, chunk: Sequence[Case]) -> None:
    os.nice(5)
    runner = importlib.import_module(f"bench.faults.{chunk[0].framework}_runs")
    for case in chunk:
        _record_one(folder / case.split, case, runner)


def _record_one(folder: Path, case: Case, runner: Any) -> None:
    path, begin = folder / f"{case.name}.db", time.perf_counter()
    for _ in range(TRIES):
        for stale in folder.glob(f"{case.name}.*"):
            stale.unlink()
        with place():
            strike = runner.run(case, case.name, f"sqlite:///{path}")
        with closing(open_store(f"sqlite:///{path}")) as store:
            if "completed" in set(store.read(RUNS, run=case.name)["event"]):
                break
    else:
        raise RuntimeError(
            f"{case.name}: its end did not reach the store in time, {TRIES} times; the machine is too busy"
        )
    with closing(sqlite3.connect(path)) as connection:  # one file, that can be copied
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    label = {
        "key": key(case),
        **asdict(case),
        "name": case.name,
        "strike_step": strike if case.fault or case.data == "changing" else None,
        "seconds": round(time.perf_counter() - begin, 1),
    }
    path.with_suffix(".json").write_text(json.dumps(label, indent=1) + "\n")


def _read_label(folder: Path, case: Case) -> dict[str, Any] | None:
    try:
        label: dict[str, Any] = json.loads((folder / case.split / f"{case.name}.json").read_text())
    except (OSError, ValueError):
        return None
    return label


def _changed_since(begin: float, path: Path) -> bool:
    try:
        return path.stat().st_mtime >= begin
    except FileNotFoundError:
        return False


def _tell(done: int, of: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done == of else ""
        print(f"\r\033[K  recording: {done} of {of}", end=end, file=sys.stderr, flush=True)

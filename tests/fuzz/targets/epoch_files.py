"""`gate_epoch_<n>.npz` files that are damaged, or made by somebody who wishes harm."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np

from gatewatch import open_store
from gatewatch.collector.epoch_files import epoch_owner, save_epoch
from gatewatch.collector.schema import RUNS, Point
from gatewatch.jobs.report.epoch_files import read_epochs
from tests.fuzz import odd
from tests.fuzz.target import Target
from tests.fuzz.two_runs import FILE, MINE, OTHER, URL, write_two_runs
from tests.recorded import Captured, moment

_LOGS = "gate_logs"


@dataclass
class Case:
    """Files of the first run that are replaced.

    Attributes:
        files: path in the folder → what it holds.
        report: whether the whole report is written.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    report: bool = True

    def __repr__(self) -> str:
        return f"report={self.report}, { {name: len(content) for name, content in self.files.items()} }"


class EpochFiles(Target):
    """A folder with epochs of two runs, as the report reads it and a training adds to it."""

    name = "epochs"
    seconds = 40.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        write_two_runs(folder / FILE, scored=False)
        store = open_store(f"sqlite:///{folder / FILE}")
        tags = {"run": MINE, "phase": "train", "symbol": "GOOG"}
        store.write([Point(RUNS, tags, {"config": json.dumps({"log_dir": _LOGS})}, moment(0))])
        store.close()
        layers = {
            "memory": Captured(
                {
                    gate: np.random.default_rng(0).uniform(0, 1, (2, 5, 4)).astype("f4")
                    for gate in ("forget", "input", "output")
                }
            )
        }
        for run in (OTHER, MINE):
            for epoch in range(2):
                save_epoch(folder / _LOGS, layers, run=run, phase="train", epoch=epoch, step=epoch)
        self._layers = layers
        self._files = {
            name: odd.steady(content) if name.endswith((".npz", ".skops")) else content
            for name, content in odd.taken(folder).items()
        }
        self._own = [name for name in self._files if name.endswith(".npz") and OTHER not in name]

    def sound(self) -> Case:
        return Case()

    def make(self, random: Random) -> Case:
        names = random.sample(self._own, random.choice((1, 1, 2)))
        files = {name: odd.damaged_zip(random, self._files[name]) for name in names}
        if random.random() < 0.1:
            files[f"{_LOGS}/gate_epoch_{random.choice(('9' * 30, '007', '-1', '2.npz', '٣'))}.npz"] = self._files[
                self._own[0]
            ]
        return Case(files, report=random.random() < 0.15)

    def place(self, case: Case, folder: Path) -> None:
        odd.put(folder, self._files | case.files)

    def run(self, case: Case, folder: Path) -> None:
        _, notes = read_epochs([str(folder / _LOGS)], MINE, frames=30, layers=1)
        self.said += notes if case.files else []
        for name in self._own:
            epoch_owner(folder / name)
        if case.report:
            self.command("report", MINE, "--store", URL, "-o", "report.html")
        with self.allowed():
            save_epoch(folder / _LOGS, self._layers, run=MINE, phase="train", epoch=0, step=9)
            save_epoch(folder / _LOGS, self._layers, run="third", phase="live", epoch=1, step=9)

    def others(self, folder: Path) -> dict[str, object]:
        shelf = folder / _LOGS / OTHER
        return {"epochs": odd.taken(shelf) if shelf.exists() else {}}

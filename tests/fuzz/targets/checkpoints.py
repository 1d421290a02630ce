"""What the jobs keep between passes: checkpoints, forests and the state of alerts, damaged."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from random import Random

from gatewatch import open_store
from gatewatch.collector.config import Settings
from gatewatch.collector.schema import GATE_SCORES
from gatewatch.jobs import checkpoint as checkpoints
from gatewatch.jobs.alerts import evaluate
from gatewatch.jobs.scoring.scoring_pass import run_pass
from tests.fuzz import odd
from tests.fuzz.model_files import damaged_model
from tests.fuzz.target import Target
from tests.fuzz.two_runs import CAPTURES, FILE, MINE, OTHER, URL, rows, write_two_runs
from tests.recorded import fill, moment, recorded


@dataclass
class Case:
    """One file of the state is replaced.

    Attributes:
        file: its path in the folder of state; empty: none.
        content: what it holds.
    """

    file: str = ""
    content: bytes = b""


class Checkpoints(Target):
    """A pass over a store whose first run has new captures, with a state folder in which a file is damaged."""

    name = "checkpoints"
    seconds = 30.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        write_two_runs(folder / FILE, folder / "state")
        store = open_store(f"sqlite:///{folder / FILE}")
        evaluate(store, Settings(), folder / "state", moment(CAPTURES + 10))
        store.close()
        self._files = {
            name: odd.steady(content) if name.endswith((".npz", ".skops")) else content
            for name, content in odd.taken(folder).items()
        }
        self._own = [
            name
            for name in self._files
            if name.startswith("state/") and f"/{OTHER}" not in name and not name.endswith("lock")
        ]
        assert any(name.endswith(".skops") for name in self._own), self._own

    def sound(self) -> Case:
        return Case()

    def make(self, random: Random) -> Case:
        file = random.choice(self._own)
        content = self._files[file]
        if file.endswith(".json"):
            change = random.choice((odd.damaged, _other_json))
        else:
            change = damaged_model if file.endswith(".skops") else odd.damaged_zip
        return Case(file, change(random, content))

    def place(self, case: Case, folder: Path) -> None:
        odd.put(folder, {**self._files, **({case.file: case.content} if case.file else {})})
        checkpoints._loaded.cache_clear()

    def run(self, case: Case, folder: Path) -> None:
        store = open_store(URL)
        try:
            fill(store, recorded(3, CAPTURES, run=MINE, tags={"symbol": "GOOG"}))
            with self.allowed():
                for done in run_pass(store, MINE, state=folder / "state"):
                    assert done.failed is None, done.failed
                scored = store.read(GATE_SCORES, run=MINE)["step"].max()
                assert scored == CAPTURES + 2, f"scores end with step {scored}"
                evaluate(store, Settings(), folder / "state", moment(CAPTURES + 10))
        finally:
            store.close()

    def others(self, folder: Path) -> dict[str, object]:
        kept = {
            name: content for name, content in odd.taken(folder / "state" / "runs").items() if name.startswith(OTHER)
        }
        return {"points": rows(folder / FILE), "checkpoint": kept}


def _other_json(random: Random, content: bytes) -> bytes:
    return json.dumps(odd.other_json(random, json.loads(content))).encode(errors="replace")

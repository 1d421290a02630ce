"""Names of runs, tags, layers and metrics that are hostile to somebody, from the training to the report."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from gatewatch import open_store
from gatewatch.collector.schema import GATE_STATS, RUNS, TRAIN_METRICS, Point
from tests.fuzz import odd
from tests.fuzz.target import Target
from tests.fuzz.two_runs import FILE, MINE, OTHER, URL, rows, write_two_runs


@dataclass
class Case:
    """Names.

    Attributes:
        run: of the run.
        layers, metrics, tags: of a module, of what is logged, and the user's own.
        log_dir: whether epochs are saved.
        report: whether the report is written.
        jobs: whether the run is scored.
    """

    run: object = "a run"
    layers: list[str] = field(default_factory=lambda: ["lstm"])
    metrics: dict[str, object] = field(default_factory=lambda: {"loss": 1.0})
    tags: dict[object, object] | None = None
    log_dir: bool = True
    report: bool = True
    jobs: bool = True


class Names(Target):
    """A training records two steps, and everything that prints names is called."""

    name = "names"
    seconds = 60.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        write_two_runs(folder / FILE)
        self._files = odd.taken(folder)
        import torch  # here, since it takes seconds that other targets do not need

        torch.set_num_threads(1)

    def sound(self) -> Case:
        return Case()

    def make(self, random: Random) -> Case:
        case = Case(report=random.random() < 0.25, jobs=random.random() < 0.25, log_dir=random.random() < 0.5)
        if random.random() < 0.6:
            case.run = odd.text(random) if random.random() < 0.9 else odd.number(random)
        if random.random() < 0.5:
            case.layers = [odd.text(random) for _ in range(random.randint(1, 2))]
        if random.random() < 0.5:
            case.metrics = {
                odd.text(random): odd.number(random) if random.random() < 0.3 else 1.0
                for _ in range(random.randint(1, 4))
            }
        if random.random() < 0.5:
            case.tags = {odd.text(random, 2): odd.text(random) for _ in range(random.choice((1, 2, 8, 9)))}
            if random.random() < 0.1:
                case.tags[random.choice(("", 1, None, "symbol"))] = odd.number(random)
        return case

    def place(self, case: Case, folder: Path) -> None:
        odd.put(folder, self._files)
        os.environ |= {
            "GATEWATCH_SPOOL": str(folder / "spool"),
            **{f"INFLUXDB_V2_{name}": "x" for name in ("ORG", "BUCKET", "TOKEN")},
        }

    def run(self, case: Case, folder: Path) -> None:
        import torch

        from gatewatch.torch import GateMonitor

        module = torch.nn.Module()
        for name in case.layers:
            if name and "." not in name and name not in ("forward", "training"):  # which torch refuses itself
                try:
                    module.add_module(name, torch.nn.LSTM(2, 2, batch_first=True))
                except (KeyError, UnicodeError):
                    continue
        layers = list(module.children()) or [torch.nn.LSTM(2, 2, batch_first=True)]
        module.add_module("last", layers[-1])
        module.forward = lambda x: [layer(x) for layer in layers]
        with self.allowed():
            options = {"run": case.run, "store": URL, "tags": case.tags, "every": 1, "overhead": 0.5}
            monitor = GateMonitor(module, "logs" if case.log_dir else None, probe=torch.zeros(2, 3, 2), **options)
            with monitor:
                for _ in range(2):
                    monitor.step(metrics=case.metrics)
                monitor.end_epoch()
            store = open_store(URL)
            names = [name for name in store.runs()["run"] if name not in (OTHER, MINE)]
            assert case.run is None or names == [case.run], f"the run is called {names}"
            assert len(store.read(GATE_STATS, run=names[0])), "nothing was recorded"
            store.close()
        with self.allowed():
            self._write_points(case)
        self.command("runs", "--store", URL)
        self.command("runs", "--store", URL, "--json")
        if not isinstance(case.run, str) or "\0" in case.run:
            return
        named = ["--", case.run]
        self.command("query", "gates", "--show", "--store", "http://127.0.0.1:9", "--param", f"run={case.run}")
        if case.report:
            self.command("report", "--store", URL, "-o", "report.html", *named)
            report = folder / "report.html"
            if report.exists():
                assert odd.MARKUP not in report.read_text(), "a name is markup in the report"
        if case.jobs:
            self.command("jobs", "--once", "--store", URL, f"--run={case.run}")
        self.command("baseline", "add", "--store", URL, *named)
        self.command("baseline", "list", "--store", URL)
        self.command("spool", "status")

    def _write_points(self, case: Case) -> None:
        """Write points with these names past the monitor."""
        store = open_store(URL)
        try:
            tags = {
                "run": str(case.run),
                "phase": "train",
                **{str(key): str(value) for key, value in (case.tags or {}).items()},
            }
            store.write(
                [
                    Point(RUNS, tags, {"event": "started", "error": str(case.run), "model": case.layers[0]}, 1),
                    Point(GATE_STATS, {**tags, "layer": case.layers[0], "gate": "forget"}, {"mean": 0.5, "step": 1}, 2),
                    Point(TRAIN_METRICS, tags, dict(case.metrics), 3),  # type: ignore[arg-type]
                ]
            )
        finally:
            store.close()

    def others(self, folder: Path) -> dict[str, object]:
        return {"points": rows(folder / FILE)}

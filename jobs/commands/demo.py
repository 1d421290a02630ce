"""`gatewatch demo`: the whole path on real prices, with a fault put in on purpose."""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from gatewatch.collector.errors import ConfigError, GatewatchError
from gatewatch.collector.schema import GATE_DERIVED, GATE_SCORES, GATE_STATS
from gatewatch.collector.store import Store, open_store
from gatewatch.jobs.report.page import write_report
from gatewatch.jobs.scoring.scoring_pass import run_pass
from gatewatch.jobs.text import table

_THIRDS: Final = ("first third", "second third", "last third")
_LAYER: Final = "memory"
"""The layer of the script whose forget gates the fault drives shut."""
_HEADER: Final = (
    "run",
    "part",
    "forget gate",
    "remembers (steps)",
    "anomalous (all)",
    "worst gate",
    "anomalous (worst)",
    "median score",
)
_SCRIPT: Final = "keras_market_lstm.py"


def run(arguments: argparse.Namespace) -> None:
    """Train twice, healthy and with a fault, score both, write the report, and say what to look at.

    Raises:
        ConfigError: the folder cannot be written.
        GatewatchError: the training failed.
    """
    folder, symbol = arguments.folder, arguments.symbol
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--folder {folder}: {error.strerror}; choose another") from error
    url = f"sqlite:///{folder / 'gatewatch.db'}"
    store = open_store(url)
    store.check()
    name = _unused(store)
    print(f"1/3  Training an LSTM policy on {symbol} twice: healthy, and with its forget gates driven shut at the end")
    command = [sys.executable, str(_script()), "--fault", "both", "--run", name, "--symbol", symbol]
    command += ["--store", url, "--log-dir", str(folder / "gate_logs")]
    command += [] if arguments.epochs is None else ["--epochs", str(arguments.epochs)]
    status = subprocess.run(command, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}, check=False).returncode  # noqa: S603 - our own script
    if status:
        raise GatewatchError(f"the training ended with status {status}; its own message is above")
    print("2/3  Scoring both runs, without being told which one is faulty or when")
    for part in ("healthy", "fault"):
        run_pass(store, f"{name}-{part}")
    print("3/3  Writing the report")
    report = write_report(store, f"{name}-fault", folder / f"{name}-fault.html").resolve()
    rows = [row for part in ("healthy", "fault") for row in _by_third(store, f"{name}-{part}")]
    print()
    print(table(_HEADER, rows))
    print(
        f"\nforget gate, remembers: median of the layer {_LAYER!r}. A score above 1 is anomalous; scores begin after 32"
        "\ncaptures. anomalous (all): share of anomalous scores among all gates. worst gate: the gate that is anomalous"
        "\nmost often. anomalous (worst), median score: of the worst gate.\n"
    )
    print(f"Open   {report.as_uri()}\n")
    gatewatch, python = _as_typed("gatewatch"), _as_typed("python")
    print(f"Next   {gatewatch} view --open --store {url}")
    print(f"       {gatewatch} verdict {name}-fault --store {url}")
    print(f"       {python} {os.path.relpath(_script())} --help")


def _unused(store: Store) -> str:
    """Return a name of which the store has neither run."""
    runs = set(store.runs()["run"])
    names = (f"demo-{number}" for number in itertools.count(1))
    return next(name for name in names if runs.isdisjoint({f"{name}-healthy", f"{name}-fault"}))


def _by_third(store: Store, run: str) -> Iterator[list[object]]:
    """Yield a row of the table for each third of a training."""
    stats, derived, scores = (store.find(name, run=run) for name in (GATE_STATS, GATE_DERIVED, GATE_SCORES))
    scores = scores[scores["detector"] == "consensus"] if len(scores) else scores
    edges = np.linspace(stats["step"].min(), stats["step"].max() + 1, len(_THIRDS) + 1)
    forget = derived[(derived["layer"] == _LAYER) & (derived["gate"] == "forget")].merge(
        stats[["time", "layer", "gate", "step", "mean"]], on=["time", "layer", "gate"]
    )
    for part, low, high in zip(_THIRDS, edges[:-1], edges[1:], strict=True):
        memory = forget[forget["step"].between(low, high, inclusive="left")]
        row: list[object] = [run, part, float(memory["mean"].median()), float(memory["memory_timescale"].median())]
        if scores.empty or (scored := scores[scores["step"].between(low, high, inclusive="left")]).empty:
            yield [*row, "", "", "", ""]
            continue
        above = (scored["anomaly_score"] > 1).rename("above")
        by_gate = pd.concat([scored, above], axis=1).groupby(["layer", "gate"])
        gates = by_gate.agg({"above": "mean", "anomaly_score": "median"}).sort_values(["above", "anomaly_score"])
        (layer, gate), worst = gates.index[-1], gates.iloc[-1]
        yield [*row, f"{above.mean():.0%}", f"{layer}/{gate}", f"{worst['above']:.0%}", float(worst["anomaly_score"])]


def _as_typed(command: str) -> str:
    """Return what to type for a command of this environment: its name, or its path where the name means another."""
    ours = Path(sys.executable).parent / command
    named = shutil.which(command)
    if not ours.exists() or (named is not None and Path(named).parent == ours.parent):
        return command
    return os.path.relpath(ours)


def _script() -> Path:
    """Return the path of the example, in the wheel or in the checkout."""
    packaged, checkout = (folder / "examples" / _SCRIPT for folder in Path(__file__).resolve().parents[1:3])
    return packaged if packaged.exists() else checkout

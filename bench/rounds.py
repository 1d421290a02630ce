"""Variants that take turns, each printed as a ratio to the first of the same round."""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

_WIDTH = 58


@dataclass(frozen=True)
class Extent:
    """How much is measured.

    Attributes:
        rounds: how often each variant takes its turn.
        quick: whether to measure as little as still runs everything: the numbers then say nothing.
    """

    rounds: int
    quick: bool


def extent(what: str | None) -> Extent:
    """What the command line asks for; `what` describes the measurement in its help."""
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each variant takes its turn (default: 5)")
    parser.add_argument("--quick", action="store_true", help="only see that everything runs: the numbers say nothing")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"--rounds {arguments.rounds}: must be 1 or more")
    return Extent(1 if arguments.quick else arguments.rounds, arguments.quick)


def in_turn(what: str | None, package: str, parts: Sequence[str]) -> int:
    """Run the parts of a measurement one after the other, each in a process of its own; 1 where one has failed.

    Args:
        what: describes the measurement in its help.
        package: where the parts' modules are.
        parts: their names.
    """
    asked = extent(what)
    options = ["--rounds", str(asked.rounds), *(["--quick"] if asked.quick else [])]
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}

    def run(part: str) -> int:
        command = [sys.executable, "-m", f"{package}.{part}", *options]
        return subprocess.run(command, env=environment, check=False).returncode

    failed = [part for part in parts if run(part)]
    if failed:
        print(f"bench: {', '.join(failed)} failed", file=sys.stderr)
    return 1 if failed else 0


def measure(variants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each variant gives, round by round.

    In every second round they take turns from the last to the first, so that a machine that slows down, or one that
    still does the work of the variant before, favours none.
    """
    found: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds):
        for name in list(variants) if number % 2 == 0 else reversed(list(variants)):
            if sys.stderr.isatty():
                print(f"\r\033[K  round {number + 1} of {rounds}: {name}", end="", file=sys.stderr, flush=True)
            found[name].append(variants[name]())
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return found


def cpu_rounds(variants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """The CPU time of each variant, round by round."""
    return measure({name: partial(cpu_seconds, work) for name, work in variants.items()}, rounds)


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of this process and all its threads while it works."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def show(title: str, unit: str, found: Mapping[str, list[float]]) -> None:
    """Print a line for each variant: its median, and median, lowest and highest of its ratios to the first."""
    first = next(iter(found.values()))
    places = 0 if max(first) >= 1_000 else 1
    print(f"{title}; rounds: {len(first)}")
    print(f"{'':<{_WIDTH}}{unit:>12}{'ratio':>8}{'lowest':>8}{'highest':>8}")
    for name, values in found.items():
        ratios = [value / base for value, base in zip(values, first, strict=True)]
        print(
            f"{name:<{_WIDTH}}{statistics.median(values):>12,.{places}f}{statistics.median(ratios):>8.3f}"
            f"{min(ratios):>8.3f}{max(ratios):>8.3f}"
        )
    print(flush=True)


class Place:
    """A temporary folder in which each training finds a name of its own.

    The environment's own store, configuration and spool are left out of it.
    """

    def __init__(self, folder: Path) -> None:
        self._names = (folder / f"{number:04d}" for number in itertools.count())

    def fresh(self) -> Path:
        """A path that was not given before."""
        return next(self._names)

    def options(self) -> dict[str, Any]:
        """Arguments of a monitor: its folder and its store."""
        path = self.fresh()
        return {"log_dir": path, "store": f"sqlite:///{path}.db"}


@contextmanager
def place() -> Iterator[Place]:
    """The place, as long as it is needed."""
    for name in [name for name in os.environ if name.startswith(("INFLUXDB_V2_", "GATEWATCH_"))]:
        del os.environ[name]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GATEWATCH_SPOOL"] = f"{folder}/spool"
        yield Place(Path(folder))

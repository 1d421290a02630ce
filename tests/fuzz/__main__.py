"""Runs the loops of the fuzzer, each in a process of its own, and prints what was found. See `tests.fuzz`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gatewatch.jobs.text import table
from tests.conftest import ROOT
from tests.fuzz.loop import GRACE_S, SOUND
from tests.fuzz.targets import TARGETS

KEPT = Path(__file__).with_name("seeds.txt")
CASES_A_PROCESS = 250
STARTING_S = 300.0
KEPT_OF_A_KIND = 3
"""Seeds of one finding that are kept."""


@dataclass
class Tally:
    """What was counted of one target."""

    cases: int = 0
    failed: list[int] = field(default_factory=list)
    slowest: tuple[float, int] = (0.0, SOUND)
    peak: tuple[int, int] = (0, SOUND)
    kinds: dict[str, list[int]] = field(default_factory=dict)

    def row(self, name: str) -> list[object]:
        """Return the cells of the table at the end."""
        slow, big = self.slowest, self.peak
        counts = [self.cases, len(self.failed), len(self.kinds)]
        return [name, *counts, slow[0], slow[1], max(0, big[0]) // 2**20, big[1]]


def kept_seeds(file: Path, target: str) -> list[int]:
    """Return the seeds of a target that failed once."""
    lines = file.read_text().splitlines() if file.exists() else []
    return [int(seed) for name, seed in (line.split() for line in lines if line and line[0] != "#") if name == target]


def answers(target: str, seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Run cases in a process of its own, and yield what was found in each; where it dies, that is found."""
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "stderr").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.loop", str(Path(folder) / "loop"), target, *map(str, seeds)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=err, text=True,
            env=os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        begun, began = SOUND, time.monotonic()
        while True:
            timer = threading.Timer(
                STARTING_S if begun == SOUND else TARGETS[target].seconds + 2 * GRACE_S, process.kill
            )
            timer.start()
            assert process.stdout is not None
            line = process.stdout.readline()
            timer.cancel()
            if not line:
                break
            answer = json.loads(line)
            if "begun" in answer:
                begun, began = answer["begun"], time.monotonic()
            else:
                yield answer
        if process.wait():
            said = (Path(folder) / "stderr").read_text(errors="replace")
            problem = f"the process ended with status {process.returncode}"
            found = {"seed": begun, "seconds": time.monotonic() - began, "peak": 0, "problems": [problem]}
            yield found | {"case": said[-3_000:], "ended": True}


def run(target: str, seeds: Sequence[int], tally: Tally) -> None:
    """Run cases, process by process, and count what was found."""
    left = list(dict.fromkeys(seeds))
    while left:
        part, left = left[:CASES_A_PROCESS], left[CASES_A_PROCESS:]
        for answer in answers(target, part):
            seed = answer["seed"]
            tally.cases += seed != SOUND
            tally.slowest = max(tally.slowest, (answer["seconds"] if seed != SOUND else 0.0, seed))
            tally.peak = max(tally.peak, (answer["peak"], seed))
            if answer["problems"]:
                report(target, answer, tally)
            if sys.stderr.isatty():
                print(f"\r{target} {tally.cases} cases, {len(tally.failed)} failed ", end="", file=sys.stderr)
            if answer.get("ended"):
                done = part.index(seed) + 1 if seed != SOUND else len(part)
                left = part[done:] + left


def report(target: str, answer: dict[str, Any], tally: Tally) -> None:
    """Print a case that failed, and count it. Of many of a kind the first few are printed."""
    seed = answer["seed"]
    tally.failed.append(seed)
    kind = answer["problems"][0].partition(": ")[0][:160]
    alike = tally.kinds.setdefault(kind, [])
    alike.append(seed)
    if len(alike) <= KEPT_OF_A_KIND:
        print(f"\n{target} {seed}: python -m tests.fuzz --target {target} --seed {seed}")
        for problem in answer["problems"][:5]:
            print(f"  {problem}")
        print(f"  case: {answer['case']}", flush=True)


def keep(file: Path, target: str, tally: Tally) -> None:
    """Add the first seeds of each kind of failure to the file."""
    known = kept_seeds(file, target)
    new = [seed for seeds in tally.kinds.values() for seed in seeds[:KEPT_OF_A_KIND] if seed not in (SOUND, *known)]
    with file.open("a") as lines:
        lines.writelines(f"{target} {seed}\n" for seed in dict.fromkeys(new))


def main() -> int:
    """Run them, and return the exit status: 1 where a case failed."""
    parser = argparse.ArgumentParser(
        description=sys.modules["tests.fuzz"].__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=500, help="of all targets together, besides the kept seeds")
    parser.add_argument("--target", choices=[*TARGETS], action="append", help="only this one; repeatable")
    parser.add_argument("--seed", type=int, help="only the case of this seed")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument("--kept", type=Path, default=KEPT, help="file of the seeds that failed once")
    arguments = parser.parse_args()
    names = arguments.target or [name for name, target in TARGETS.items() if target.is_available()]
    each = -(-arguments.cases // len(names))
    tallies, began = {name: Tally() for name in names}, time.monotonic()
    for name, tally in tallies.items():
        new = range(arguments.first, arguments.first + each)
        run(name, [arguments.seed] if arguments.seed is not None else [*kept_seeds(arguments.kept, name), *new], tally)
        keep(arguments.kept, name, tally)
        print(f"{name}: {tally.cases} cases, {len(tally.failed)} failed", file=sys.stderr)
    header = ["target", "cases", "failed", "kinds", "slowest s", "(seed)", "peak MB over start", "(seed)"]
    print("\n" + table(header, [tally.row(name) for name, tally in tallies.items()]))
    print(f"cases {sum(t.cases for t in tallies.values()):,}, failed {sum(len(t.failed) for t in tallies.values()):,}")
    print(f"seconds {time.monotonic() - began:,.0f}")
    for name, tally in tallies.items():
        for kind, seeds in tally.kinds.items():
            print(f"{name}: {len(seeds)} × {kind} (seeds {', '.join(map(str, seeds[:5]))})")
    return 1 if any(tally.failed for tally in tallies.values()) else 0


if __name__ == "__main__":
    sys.exit(main())

"""Where a pass spends its time: in the store, in NumPy, in scikit-learn, in pandas, and in what is left, Python.

    python -m bench.jobs.shares

Stacks are sampled from outside by py-spy, 100 a second, down to the frames of the libraries written in C, idle ones
too: waiting for a server is time spent in the store. A sample counts for the outermost of these that is at work in it,
so what NumPy does for the store is the store's. cProfile would not do: it does not see NumPy's operators.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from bench.jobs.captures import SERIES
from bench.jobs.scoring import CAPTURES, kinds
from bench.rounds import extent, place
from gatewatch.collector.store import Store

SERIES_LOOKED_AT: Final = 1_000
_RATE: Final = 100
_PASS: Final = "run_pass ("
_OWNERS: Final[Mapping[str, str]] = {
    "/collector/store/": "the store",
    "/numpy/": "NumPy",
    "/sklearn/": "scikit-learn",
    "/pandas/": "pandas",
}
_REST: Final = "Python of the jobs"
_OUTSIDE: Final = ("the store", "NumPy", "scikit-learn")


def shares(stacks: Iterable[str]) -> dict[str, float]:
    """Owner → share of the samples of a pass.

    Args:
        stacks: lines of py-spy's raw format: frames from the outermost, separated by semicolons, and a count.
    """
    found: Counter[str] = Counter()
    for line in stacks:
        frames, _, count = line.rpartition(" ")
        each = frames.split(";")
        begin = next((i for i, frame in enumerate(each) if frame.startswith(_PASS)), None)
        if begin is not None:
            found[next(filter(None, map(_owner, each[begin:])), _REST)] += int(count)
    return {owner: found[owner] / (found.total() or 1) for owner in (*_OWNERS.values(), _REST)}


def _owner(frame: str) -> str | None:
    return next((owner for part, owner in _OWNERS.items() if part in frame), None)


def sampled(store: Store, sampler: str) -> dict[str, float]:
    """The shares of a pass over a store."""
    with tempfile.NamedTemporaryFile("r", suffix=".raw") as file:
        options = ["--native", "--idle", "--full-filenames", "--format", "raw", "--rate", str(_RATE)]
        command = [sampler, "record", *options, "--output", file.name, "--"]
        command += [sys.executable, "-m", "bench.jobs.one_pass", store.destination["url"]]
        subprocess.run(command, check=True, capture_output=True)
        return shares(file)


def main() -> int:
    """Measure and print."""
    asked = extent(__doc__)
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if (sampler := shutil.which("py-spy", path=search)) is None:
        print("Shares are not measured: py-spy is not installed; pip install py-spy")
        return 0
    size = SERIES if asked.quick else SERIES_LOOKED_AT
    with place() as here, kinds(here) as found:
        for name, filled in found.items():
            store, _ = filled(size)
            for key in ("org", "bucket"):
                os.environ[f"INFLUXDB_V2_{key.upper()}"] = store.destination.get(key, "")
            table = sampled(store, sampler)
            print(f"Where a pass over {size:,} series of {CAPTURES} captures spends its time, {name}")
            for owner, share in table.items():
                print(f"{owner:<58}{share:>12.1%}")
            print(f"{', '.join(_OUTSIDE):<58}{sum(table[owner] for owner in _OUTSIDE):>12.1%}\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What a training starts beside itself, at full length: children, pools of workers, other ranks.

    python -m tests.processes --forks 300 --pools 100 --jobs 20

Prints what it counted; the exit status is 1 where a child was left or a job hung. The tests run all three at small
sizes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import joblib
import torch
from torch.utils.data import DataLoader, TensorDataset

from gatewatch.torch import GateMonitor
from tests.endurance import Policy
from tests.zoo.two_ranks import two_ranks

HUNG_S = 60


def forks(monitor: GateMonitor, count: int) -> bool:
    """Start children and terminate them at once; whether each ended by the signal."""
    codes: Counter[int | None] = Counter()
    for _ in range(count // 10):
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=time.sleep, args=(HUNG_S,)) for _ in range(10)]
        for child in children:
            child.start()
            child.terminate()
            monitor.step()
        for child in children:
            child.join(10)
            codes[child.exitcode] += 1
            child.kill()
    print(f"children terminated at once              {codes.total():8,}")
    print(f"  ended by the signal                    {codes[-signal.SIGTERM]:8,}")
    return codes[-signal.SIGTERM] == codes.total()


def pools(monitor: GateMonitor, count: int) -> bool:
    """Use pools of joblib and workers of a DataLoader in turns; whether no worker is left."""
    data = TensorDataset(torch.arange(64.0))
    for number in range(count):
        if number % 2:
            with joblib.parallel_config("multiprocessing", n_jobs=2):
                assert joblib.Parallel()(joblib.delayed(abs)(-n) for n in range(4)) == [0, 1, 2, 3]
        else:
            batches = iter(DataLoader(data, 16, num_workers=2))
            next(batches)  # and the rest is dropped
            del batches
        monitor.step()
    left = multiprocessing.active_children()
    print(f"pools of joblib and DataLoader           {count:8,}")
    print(f"  workers that are left                  {len(left):8,}")
    return not left


def ranks(folder: Path, jobs: int, moments: random.Random) -> bool:
    """Train on two processes, captures at random steps; whether every job ended with equal weights on both."""
    ended = 0
    for number in range(jobs):
        place = folder / f"job-{number}"
        place.mkdir()
        steps = sorted(moments.sample(range(1, 20), 5))
        try:
            _, ((first, _), (second, _)) = two_ranks(place, "plain", every=steps[0], both=number % 2 == 1)
            ended += first == second
        except subprocess.TimeoutExpired:
            print(f"job {number} hung")
    print(f"jobs of two ranks                        {jobs:8,}")
    print(f"  ended, both with the same weights      {ended:8,}")
    return ended == jobs


def main() -> int:
    """Run all three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forks", type=int, default=300)
    parser.add_argument("--pools", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["GATEWATCH_SPOOL"] = f"{folder}/spool"
        store = f"sqlite:///{folder}/g.db"
        with GateMonitor(Policy(), None, store=store, probe=torch.randn(8, 16, 4), every=1, phase="live") as monitor:
            sound = [forks(monitor, arguments.forks), pools(monitor, arguments.pools)]
        sound.append(ranks(folder, arguments.jobs, random.Random(arguments.seed)))
    return 0 if all(sound) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Faults put into real trainings and backtests on real prices, and what finds them.

    python -m bench.faults            # the published table: the judge split; the first time records for over an hour
    python -m bench.faults --list     # what is in it, how much of that is recorded, and how long the rest takes
    python -m bench.faults --quick    # a few runs: that everything works

Thresholds are chosen on the develop split alone; the judge split has other networks, prices, optimizers and seeds, and
faults of its own. Runs are recorded once and kept until what records them changes. An alarm is counted a capture of a
run, over all its layers and gates; a fault is found by two alarms within five captures that begin at most fifteen
captures after it, and were not on before, or by one check that fails. In a healthy run no alarm is right, whatever its
data do; where they change from one regime to another, a notice of the detector `data` is. The first three columns are
what people use otherwise, on the same captures: fixed thresholds (norm of the gradient above 0.8, saturation above
0.6), an isolation forest trained on the first 30 % of its run, and a test against each series' own trend whose limit
gave 10 false alarms per 1,000 on an earlier develop split. The others are Gatewatch's, as `gatewatch jobs --once`
writes them. Intervals are Wilson's, 95 %.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from bench.faults.cases import cases
from bench.faults.controls import Split
from bench.faults.estimate import listing
from bench.faults.evaluate import evaluate
from bench.faults.recorder import default_folder, record
from bench.faults.table import aims, lines, missed


def main() -> int:
    """Record what is missing, judge, and print."""
    parser = argparse.ArgumentParser(
        "python -m bench.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--split", choices=["judge", "develop", "all"], default="judge", help="(default: judge)")
    parser.add_argument("--quick", action="store_true", help="only a few runs: the numbers say nothing")
    parser.add_argument(
        "--cache", type=Path, default=default_folder(), help="where runs are kept (default: %(default)s)"
    )
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="of one thread (default: %(default)s)"
    )
    parser.add_argument("--only", metavar="NAME", help="only this fault, or this healthy control")
    parser.add_argument("--list", action="store_true", help="only say what there is, and how long it takes")
    parser.add_argument("--record", action="store_true", help="only record, and judge nothing")
    parser.add_argument("--missed", action="store_true", help="also list what was not found, and who alarmed falsely")
    arguments = parser.parse_args()
    if arguments.processes < 1:
        parser.error(f"--processes {arguments.processes}: must be 1 or more")
    cache = arguments.cache.absolute()
    splits: list[Split] = ["develop", "judge"] if arguments.split == "all" else [arguments.split]
    for split in splits:
        wanted = [c for c in cases(split, arguments.quick) if arguments.only in (None, c.fault, c.control)]
        if not wanted:
            known = sorted({name for c in cases(split) for name in (c.fault, c.control) if name})
            parser.error(f"--only {arguments.only}: the {split} split has {', '.join(known)}")
        if arguments.list:
            print("\n".join(listing(cache, split, wanted, arguments.processes)))
            continue
        records = record(cache, wanted, arguments.processes)
        if arguments.record:
            continue
        outcomes = evaluate(records, processes=arguments.processes)
        print(f"{split}: ", end="")
        print(
            "\n".join([*lines(outcomes), *aims(outcomes), *(missed(outcomes) if arguments.missed else ())]), flush=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What the jobs reach, beside what people use otherwise and beside themselves at other sizes: ratios within one run.

    python -m bench.jobs            # about three quarters of an hour; the machine should do nothing else
    python -m bench.jobs --quick    # a minute: that everything runs

The parts take their turns one after the other, each in a process of its own: reading points into frames beside
influxdb-client; windows scored a second at 100, 1,000 and 10,000 series in SQLite and in a real InfluxDB; the share of
a pass that is spent in the store, NumPy and scikit-learn; one Dask worker against two.
"""

from __future__ import annotations

import os
import subprocess
import sys

from bench.rounds import extent

PARTS = ("reading", "scoring", "shares", "workers")


def main() -> int:
    """Measure and print; 1 where a part has failed."""
    asked = extent(__doc__)
    options = ["--rounds", str(asked.rounds), *(["--quick"] if asked.quick else [])]
    failed = [part for part in PARTS if _run(part, options) != 0]
    if failed:
        print(f"bench: {', '.join(failed)} failed", file=sys.stderr)
    return 1 if failed else 0


def _run(part: str, options: list[str]) -> int:
    command = [sys.executable, "-m", f"bench.jobs.{part}", *options]
    return subprocess.run(command, env=os.environ | {"PYTHONWARNINGS": "ignore"}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

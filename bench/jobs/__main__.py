"""What the jobs reach, beside what people use otherwise and beside themselves at other sizes: ratios within one run.

    python -m bench.jobs            # about three quarters of an hour; the machine should do nothing else
    python -m bench.jobs --quick    # a minute: that everything runs

The parts take their turns one after the other, each in a process of its own: reading points into frames beside
influxdb-client; windows scored a second at 100, 1,000 and 10,000 series in SQLite and in a real InfluxDB; the share of
a pass that is spent in the store, NumPy and scikit-learn; one Dask worker against two.
"""

from __future__ import annotations

import sys

from bench.rounds import in_turn

PARTS = ("reading", "scoring", "shares", "workers")

if __name__ == "__main__":
    sys.exit(in_turn(__doc__, "bench.jobs", PARTS))

"""One pass over the store at a URL, in a process that is looked at from outside.

python -m bench.jobs.one_pass URL
"""

from __future__ import annotations

import sys

from gatewatch.collector.runtime.native_threads import single_threaded_blas
from gatewatch.collector.store import open_store
from gatewatch.jobs.scoring.scoring_pass import run_pass

if __name__ == "__main__":
    with single_threaded_blas():
        run_pass(open_store(sys.argv[1]))

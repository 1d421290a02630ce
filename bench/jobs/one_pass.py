"""One pass over the store at a URL, in a process that is looked at from outside.

python -m bench.jobs.one_pass URL
"""

from __future__ import annotations

import sys

from collector.one_thread import one_thread
from collector.store import open_store
from jobs.once import run_pass

if __name__ == "__main__":
    with one_thread():
        run_pass(open_store(sys.argv[1]))

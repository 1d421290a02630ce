"""`python -m gatewatch.jobs.stack.health_check`: whether a service works, by what it last wrote about itself.

Exit status: 0 it does, 1 it has written nothing of late or the store does not answer, 2 the configuration is wrong.
"""

from __future__ import annotations

import sys
import time
from typing import Final

from gatewatch.collector.schema import JOBS_HEALTH
from gatewatch.collector.store import open_store
from gatewatch.jobs.console import exit_status, fail, legible_output
from gatewatch.jobs.service.health import REPORT_SECONDS

SILENT_SECONDS: Final = 3 * REPORT_SECONDS


@legible_output()
def main() -> int:
    """Look for recent points of the service, and return the exit status."""
    return exit_status(_check)


def _check() -> int:
    since = time.time_ns() - int(SILENT_SECONDS * 1e9)
    store = open_store()
    if store.count(JOBS_HEALTH, "duration_s", start=since):
        return 0
    return fail(f"no service has written {JOBS_HEALTH} into {store.url} for {SILENT_SECONDS:.0f} s; see its log")


if __name__ == "__main__":
    sys.exit(main())

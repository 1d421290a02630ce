"""Windows scored a second by one Dask worker and by two, each a process of one thread, as the service has them.

    python -m bench.jobs.workers

Every worker takes its shard of the runs, all new to it. Two cannot be twice as fast where they share two cores with
the server that they read from, or one file that one of them may write at a time.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from bench.jobs.captures import SERIES
from bench.jobs.scoring import CAPTURES, Forget, kinds, windows
from bench.rounds import Place, extent, measure, place, show
from gatewatch.collector.store import Store
from gatewatch.jobs.service.tasks import Turn, score

if TYPE_CHECKING:
    from distributed import Client

SERIES_SCORED = 1_000
WORKERS = (1, 2)


@contextmanager
def cluster(workers: int) -> Iterator[Client]:
    """Workers on this machine that have loaded what they need."""
    from distributed import Client, LocalCluster  # noqa: PLC0415 - an extra

    options: dict[str, Any] = {"threads_per_worker": 1, "processes": True, "memory_limit": 0, "host": "127.0.0.1"}
    options |= {"dashboard_address": ":0", "silence_logs": logging.CRITICAL}
    with LocalCluster(workers, **options) as local, Client(local) as client:
        client.run(_load)
        yield client


def rate(client: Client, workers: int, store: Store, forget: Forget, here: Place) -> float:
    """Windows scored a second in one turn of all workers."""
    forget()
    store.close()
    state = str(here.fresh())  # what a turn before remembers is no help
    begin = time.perf_counter()
    shards = [(number, workers) for number in range(workers)]
    turns: list[Turn] = client.gather(
        [client.submit(score, dict(store.destination), shard, state, CAPTURES, pure=False) for shard in shards]
    )
    seconds = time.perf_counter() - begin
    if problem := next((turn.problem for turn in turns if turn.problem), None):
        raise AssertionError(problem)
    return windows(store) / seconds


def main() -> int:
    """Measure and print."""
    asked = extent(__doc__)
    if importlib.util.find_spec("distributed") is None:
        print("Workers are not measured: distributed is not installed; pip install 'gatewatch[dask]'")
        return 0
    size = 4 * SERIES if asked.quick else SERIES_SCORED
    with place() as here, kinds(here) as found:
        for name, filled in found.items():
            store, forget = filled(size)
            with cluster(WORKERS[0]) as one, cluster(WORKERS[1]) as two:
                variants = {
                    f"{workers} worker{'s' if workers > 1 else ''}": partial(rate, client, workers, store, forget, here)
                    for workers, client in zip(WORKERS, (one, two), strict=True)
                }
                title = f"Windows of {size:,} series scored by Dask workers, {name}"
                show(title, "windows/s", measure(variants, asked.rounds))
    return 0


def _load() -> None:
    importlib.import_module("gatewatch.jobs.scoring.scoring_pass")


if __name__ == "__main__":
    sys.exit(main())

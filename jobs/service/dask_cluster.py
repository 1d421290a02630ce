"""Run calls on the workers of a Dask cluster."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from importlib import util
from typing import Any, Final, TypeVar

from gatewatch.collector.errors import ConfigError, GatewatchError

CONNECT_SECONDS: Final = 5.0
_ADDRESS: Final = "dask://"

T = TypeVar("T")


class DaskCluster:
    """The workers of a Dask cluster; a call whose worker dies is begun again on another.

    Args:
        name: of the executor, `dask` for a cluster of this machine, in processes of one thread each, or
            `dask://host:port` of a scheduler.
        workers: how many, where the cluster is this machine's.

    Raises:
        ConfigError: distributed is not installed; no scheduler answers at the address.
    """

    def __init__(self, name: str, workers: int) -> None:
        self._name = f"executor {name}"
        if util.find_spec("distributed") is None:
            raise ConfigError(f"{self._name}: it needs distributed: pip install 'gatewatch[dask]'")
        self._connecting = threading.Lock()
        self._refused: tuple[float, ConfigError] | None = None
        self._cluster = None if name.startswith(_ADDRESS) else _local_cluster(workers)
        self._target = self._cluster or f"tcp://{name.removeprefix(_ADDRESS)}"
        self._client = self._connected()

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function of a module that the workers can import, with arguments that can be pickled, on a worker.

        Raises:
            GatewatchError: the scheduler went away, or each worker that began the call died.
        """
        from distributed import KilledWorker  # noqa: PLC0415 - an extra, and slow to load

        with self._connecting:
            if self._client.status != "running":
                self._client = self._connected()
            future = self._client.submit(function, *args, pure=False)
        try:
            value: T = future.result()
        except CancelledError:
            raise GatewatchError(f"{self._name}: the connection to the Dask scheduler was lost") from None
        except KilledWorker:
            raise GatewatchError(
                f"{self._name}: every worker that began the turn died: has it enough memory?"
            ) from None
        return value

    def close(self) -> None:
        """Leave the cluster; one of this machine ends."""
        self._client.close(timeout=1)
        if self._cluster is not None:
            self._cluster.close(timeout=5)

    def _connected(self) -> Any:
        from distributed import Client  # noqa: PLC0415 - an extra, and slow to load

        _silence()
        if self._refused is not None and time.monotonic() - self._refused[0] < CONNECT_SECONDS:
            raise self._refused[1]  # of several turns that find it gone only one waits for it
        try:
            return Client(self._target, timeout=CONNECT_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]  # Dask is typed in part
        except (OSError, ValueError) as error:
            problem = ConfigError(
                f"{self._name}: no Dask scheduler answers ({' '.join(str(error).split())}); start one with `dask "
                "scheduler`, or name another in [jobs] executor or --executor"
            )
            self._refused = time.monotonic(), problem
            raise problem from None


def _silence() -> None:
    """Dask's logs stay quiet: what matters comes back as an exception, and is said once."""
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] == "distributed":
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def dask_setup(worker: Any) -> None:
    """Called by Dask in each new worker of this machine's cluster: a Ctrl-C in the terminal, and what a supervisor
    sends to all processes of the service, is for the service to heed, which ends its workers itself."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _local_cluster(workers: int) -> Any:
    from distributed import LocalCluster  # noqa: PLC0415 - an extra, and slow to load

    options: Mapping[str, Any] = {"threads_per_worker": 1, "processes": True, "memory_limit": 0, "preload": [__name__]}
    return LocalCluster(  # type: ignore[no-untyped-call]  # as above
        n_workers=workers, host="127.0.0.1", dashboard_address=None, silence_logs=logging.CRITICAL, **options
    )

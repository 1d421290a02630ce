"""Run calls on the workers of a Dask cluster."""

from __future__ import annotations

import logging
import signal
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from importlib import util
from typing import Any, Final, TypeVar

from gatewatch.collector.errors import ConfigError, GatewatchError
from gatewatch.jobs.service.problem_log import ProblemLog
from gatewatch.jobs.service.versions import GATEWATCH, call_with, versions

CONNECT_SECONDS: Final = 5.0
_ADDRESS: Final = "dask://"
_VERSIONS: Final = f"__import__({versions.__module__!r}, fromlist=['']).versions()"
_VERSION: Final = f"__import__('importlib.metadata', fromlist=['']).version({GATEWATCH!r})"

T = TypeVar("T")


class DaskCluster:
    """The workers of a Dask cluster; a call whose worker dies is begun again on another.

    A worker whose Gatewatch, NumPy or scikit-learn is not that of this process is refused: its scores would be others.

    Args:
        name: of the executor, `dask` for a cluster of this machine, in processes of one thread each, or
            `dask://host:port` of a scheduler.
        workers: how many, where the cluster is this machine's.
        problems: told of each worker that is refused.

    Raises:
        ConfigError: distributed is not installed; no scheduler answers at the address.
    """

    def __init__(self, name: str, workers: int, problems: ProblemLog) -> None:
        self._name = f"executor {name}"
        if util.find_spec("distributed") is None:
            raise ConfigError(f"{self._name}: it needs distributed: pip install 'gatewatch[dask]'")
        self._problems = problems
        self._refused_workers: dict[str, str] = {}
        self._connecting = threading.Lock()
        self._refused: tuple[float, ConfigError] | None = None
        self._cluster = None if name.startswith(_ADDRESS) else _local_cluster(workers)
        self._target = self._cluster or f"tcp://{name.removeprefix(_ADDRESS)}"
        self._client = self._connected()

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function of a module that the workers can import, with arguments that can be pickled, on a worker.

        Raises:
            GatewatchError: the scheduler went away, each worker that began the call died, or none has the versions of
                this process.
        """
        from distributed import KilledWorker  # noqa: PLC0415 - an extra, and slow to load

        while True:
            with self._connecting:
                if self._client.status != "running":
                    self._client = self._connected()
                client = self._client
            fit, refused = self._compare_versions(client), set(self._refused_workers)
            try:
                future = client.submit(call_with, versions(), function, *args, pure=False, workers=fit)
                self._wait(client, future, fit)
                value: T = future.result()
            except CancelledError:
                raise GatewatchError(f"{self._name}: the connection to the Dask scheduler was lost") from None
            except KilledWorker:
                raise GatewatchError(
                    f"{self._name}: every worker that began the turn died: has it enough memory?"
                ) from None
            except _WorkersGone:
                continue
            except Exception:
                self._compare_versions(client)
                if self._refused_workers.keys() <= refused:  # no worker has joined that would explain it
                    raise
            else:
                return value

    def close(self) -> None:
        """Leave the cluster; one of this machine ends."""
        with suppress(Exception):  # at the end of the interpreter nothing new begins, which closing may need
            self._client.close(timeout=1)
        if self._cluster is not None:
            with suppress(Exception):
                self._cluster.close(timeout=5)

    def _compare_versions(self, client: Any) -> list[str] | None:
        """Refuse the workers that have other versions, each in a line.

        Returns:
            The addresses of the others; None where none is refused.

        Raises:
            GatewatchError: all are refused.
        """
        found = self._evaluate(client, _VERSIONS)
        if not found:  # nobody is there now, or answers
            return None
        others = {address: value for address, value in found.items() if value != versions()}
        without = [address for address, value in others.items() if isinstance(value, Exception)]
        bare = self._evaluate(client, _VERSION, without) if without else {}
        refused = {address: _describe(others[address], bare.get(address)) for address in others}
        with self._connecting:
            for address in self._refused_workers.keys() - refused.keys():
                self._problems.clear(f"worker {address}")
            for address, has in refused.items():
                self._problems.raise_problem(
                    f"worker {address}",
                    f"{self._name}: worker {address} is refused: it has {has}; install there what this machine has",
                    f"{self._name}: worker {address} is no longer refused",
                    lasting=True,
                )
            self._refused_workers = refused
        if refused and len(refused) == len(found):
            raise GatewatchError(f"{self._name}: no worker has the versions of this machine: {', '.join(refused)}")
        return [address for address in found if address not in refused] if refused else None

    def _evaluate(self, client: Any, expression: str, workers: list[str] | None = None) -> dict[str, Any]:
        """Evaluate an expression on each worker, also on one that is busy. It is sent as text: a worker of another
        version need not be able to import what this one can.

        Returns:
            Address → value, or the exception; nothing of workers that do not answer.
        """
        options = {"workers": workers, "on_error": "return", "callback_timeout": CONNECT_SECONDS}
        try:
            answers: dict[str, Any] = client.sync(client._run, eval, expression, **options)
        except (OSError, ValueError):  # a timeout is an OSError; a worker has just gone
            return {}
        return {address: value for address, value in answers.items() if not isinstance(value, OSError)}

    def _wait(self, client: Any, future: Any, fit: list[str] | None) -> None:
        """Wait for the end of a call, for which these workers were chosen.

        Raises:
            _WorkersGone: all of them have gone; Dask would wait for them for ever.
        """
        while fit is not None and not future.done():
            with suppress(TimeoutError):
                future.exception(CONNECT_SECONDS)
            if not future.done() and client.status == "running" and not client.nthreads().keys() & set(fit):
                future.cancel()
                raise _WorkersGone

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


class _WorkersGone(Exception):  # noqa: N818 - no error: the call begins again
    pass


def _describe(found: object, bare: object) -> str:
    """Return what a worker has, by its answers to `_VERSIONS` and, where that failed, `_VERSION`."""
    if isinstance(found, Mapping):
        ours = versions()
        differing = [name for name in ours if found.get(name) != ours[name]]
        return ", ".join(f"{name} {found.get(name, 'none')} (here {ours[name]})" for name in differing)
    return f"{GATEWATCH} {bare if isinstance(bare, str) else 'none'} (here {versions()[GATEWATCH]})"


def _silence() -> None:
    """Dask's logs and warnings stay quiet: what matters comes back as an exception, and is said once."""
    warnings.filterwarnings("ignore", module=r"distributed\.")
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

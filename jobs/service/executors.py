"""Where jobs run: in threads of this process, or on the workers of a Dask cluster."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from datetime import UTC, datetime
from importlib import util
from typing import TYPE_CHECKING, Any, Final

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, EVENT_JOB_MISSED, JobExecutionEvent
from apscheduler.executors.base import BaseExecutor

from gatewatch.collector.errors import ConfigError, GatewatchError

if TYPE_CHECKING:
    from apscheduler.job import Job

CONNECT_SECONDS: Final = 5.0
_DASK: Final = "dask"
_ADDRESS: Final = "dask://"


class ThreadExecutor(BaseExecutor):  # type: ignore[misc]  # APScheduler ships without types
    """A thread for each turn of a job.

    The threads are daemons: one that hangs in a call keeps no process alive.

    Args:
        begun: called with the job before each turn.
    """

    def __init__(self, begun: Callable[[str], None]) -> None:
        super().__init__()
        self._begun = begun

    def call(self, job: Job) -> Any:
        """What the job gives."""
        return job.func(*job.args, **job.kwargs)

    def _do_submit_job(self, job: Job, run_times: list[datetime]) -> None:
        threading.Thread(target=self._work, args=(job, run_times[-1]), name=job.id, daemon=True).start()

    def _work(self, job: Job, due: datetime) -> None:
        late = (datetime.now(UTC) - due).total_seconds()
        about = {"job_id": job.id, "jobstore": job._jobstore_alias, "scheduled_run_time": due}
        if job.misfire_grace_time is not None and late > job.misfire_grace_time:
            self._run_job_success(job.id, [JobExecutionEvent(EVENT_JOB_MISSED, **about)])
            return
        self._begun(job.id)
        try:
            event = JobExecutionEvent(EVENT_JOB_EXECUTED, **about, retval=self.call(job))
        except BaseException as error:
            event = JobExecutionEvent(EVENT_JOB_ERROR, **about, exception=error)
        # Not _run_job_error, which tells the log and no listener.
        self._run_job_success(job.id, [event])


class DaskExecutor(ThreadExecutor):
    """The workers of a Dask cluster; a turn whose worker dies is begun again on another.

    Jobs are functions of a module that the workers can import, their arguments can be pickled.

    Args:
        begun: called with the job before each turn.
        address: of the scheduler, `host:port`; None: a cluster of this machine, in processes of one thread each.
        workers: how many, where the cluster is this machine's.

    Raises:
        ConfigError: no scheduler answers at the address.
    """

    def __init__(self, begun: Callable[[str], None], address: str | None, workers: int) -> None:
        super().__init__(begun)
        self._connecting = threading.Lock()
        self._refused: tuple[float, ConfigError] | None = None
        self._cluster = None if address is not None else _local_cluster(workers)
        self._address = address
        self._client = self._connected()

    def call(self, job: Job) -> Any:
        """What the job gives, on a worker.

        Raises:
            GatewatchError: the scheduler went away, or each worker that began the turn died.
        """
        from distributed import KilledWorker  # noqa: PLC0415 - an extra, and slow to load

        with self._connecting:
            if self._client.status != "running":
                self._client = self._connected()
            future = self._client.submit(job.func, *job.args, **job.kwargs, pure=False)
        try:
            return future.result()
        except CancelledError:
            raise GatewatchError(f"{self._named}: the connection to the Dask scheduler was lost") from None
        except KilledWorker:
            raise GatewatchError(
                f"{self._named}: every worker that began the turn died: has it enough memory?"
            ) from None

    def shutdown(self, wait: bool = True) -> None:
        """Leave the cluster; one of this machine ends."""
        self._client.close(timeout=1)
        if self._cluster is not None:
            self._cluster.close(timeout=5)

    @property
    def _named(self) -> str:
        return f"executor {_DASK if self._address is None else f'{_ADDRESS}{self._address}'}"

    def _connected(self) -> Any:
        from distributed import Client  # noqa: PLC0415 - an extra, and slow to load

        _silence()
        if self._refused is not None and time.monotonic() - self._refused[0] < CONNECT_SECONDS:
            raise self._refused[1]  # of several turns that find it gone only one waits for it
        target = self._cluster if self._address is None else f"tcp://{self._address}"
        try:
            return Client(target, timeout=CONNECT_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]  # Dask is typed in part
        except (OSError, ValueError) as error:
            problem = ConfigError(
                f"{self._named}: no Dask scheduler answers ({' '.join(str(error).split())}); start one with `dask "
                "scheduler`, or name another in [jobs] executor or --executor"
            )
            self._refused = time.monotonic(), problem
            raise problem from None


def executor(named: str, workers: int, begun: Callable[[str], None]) -> ThreadExecutor:
    """The executor of a name: `local`, `dask` or `dask://host:port`.

    Raises:
        ConfigError: distributed is not installed; no scheduler answers at the address.
    """
    if named == "local":
        return ThreadExecutor(begun)
    if util.find_spec("distributed") is None:
        raise ConfigError(f"executor {named}: it needs distributed: pip install 'gatewatch[dask]'")
    return DaskExecutor(begun, named.removeprefix(_ADDRESS) if named != _DASK else None, workers)


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

"""What all monitors share: their arguments, the session behind them, and the first look at a model."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final, Self

from gatewatch.collector.cells import CELLS, Cells
from gatewatch.collector.checks import explain_mismatch
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.run_session import RunSession
from gatewatch.collector.runtime.native_threads import single_threaded_blas
from gatewatch.collector.statistics import STATISTICS, Statistic
from gatewatch.collector.text import safe_repr
from gatewatch.collector.trace import Look, Trace
from gatewatch.collector.verdict import Verdict, undecided
from gatewatch.collector.verdict_reader import SECONDS, VerdictReader

_OF_THE_SESSION: Final = (
    *("log_dir", "run", "store", "phase", "tags", "every", "overhead", "resume", "all_ranks"),
    *("reference", "feature_names", "config"),
)


class BaseMonitor:
    """A run, the arguments that all monitors share, and the first look at a model.

    A subclass that records more than the built-in cells and statistics has longer lists of them.

    Attributes:
        cells: what can be replayed.
        statistics: what is taken of each gate.
    """

    cells: ClassVar[Cells] = CELLS
    statistics: ClassVar[Sequence[Statistic]] = STATISTICS
    _session: RunSession
    _arguments: Mapping[str, Any]
    _chosen: Sequence[str] | None
    _verdicts: VerdictReader

    def _set_up(self, arguments: Mapping[str, Any]) -> None:
        """Check the arguments that all monitors share, and make the session from them.

        Args:
            arguments: of the constructor, `locals()` at its beginning.

        Raises:
            ConfigError: one of them is wrong.
        """
        self._arguments = {name: value for name, value in arguments.items() if name not in ("self", "__class__")}
        options = {name: arguments[name] for name in _OF_THE_SESSION}
        self._session = RunSession(**options, cells=self.cells, statistics=self.statistics)
        self._session.has_probe_targets = arguments.get("probe_targets") is not None
        layers = arguments["layers"]
        if layers is not None and (isinstance(layers, str) or not isinstance(layers, Sequence) or not layers):
            raise ConfigError(f"layers={safe_repr(layers)}: must be a list of names, such as ['lstm'], or None for all")
        self._chosen = None if layers is None else list(layers)
        self._verdicts = VerdictReader()
        weakref.finalize(self, self._session.abandon).atexit = False  # at exit the session ends itself

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a monitor of another run with the same arguments: tuners copy their callbacks for each trial."""
        return type(self)(**self._arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        """Do the same for a monitor that is sent to another process."""
        return partial(type(self), **self._arguments), ()

    @property
    def run(self) -> str:
        """The run's id."""
        return self._session.run

    def verdict(self, *, timeout: float = SECONDS) -> Verdict:
        """Return what is said of the run so far, so that your own code may end the training.

        ```python
        if monitor.verdict().verdict == "alarm":
            break
        ```

        It reads the scores in the store, in a thread of its own, and computes none: `gatewatch jobs` does, while the
        training runs. It needs the extra `jobs`. Nothing is raised, and the training does not change. Where the verdict
        cannot be read it is `undecided`, and its sentence says why: nobody scores, too little is captured, the token
        may only write, the store is away. Of a long run the newest 5,000 captures are judged, since they are read into
        the training's memory. In a distributed training only the process that records has a verdict.

        Args:
            timeout: seconds to wait at most.
        """
        if not self._session.has_begun:
            return undecided(self.run, "this process has not begun to record a run")
        return self._verdicts.read(self._session.store, self.run, timeout, self._session.verdict_start)

    def _first_look(
        self, look: Callable[[], Trace], explain: Callable[[Exception], ConfigError | None] = lambda error: None
    ) -> Trace | None:
        """Look at the model before the run begins; None where that fails for a reason that is not the user's.

        Args:
            look: calls the model.
            explain: an error of that call → what is wrong with the probe; None where it is not the reason.

        Raises:
            ConfigError: the probe does not fit the model, its targets do not fit the loss, or no layer can be recorded.
        """
        try:
            with single_threaded_blas(), explain_mismatch(explain):
                traced = look()
        except ConfigError:
            raise
        except Exception as error:
            self._session.record_failure("a capture", error)
            return None
        traced.require_layers()
        if isinstance(traced.loss_error, ConfigError):
            raise traced.loss_error
        return traced

    def _report(self, traced: Trace, *, verified: bool = True) -> Look:
        """Report what is not replayed, and how exact the rest is where that was verified; return the rest."""
        self._session.report_unreplayed(traced.unreplayed, traced.layers)
        for attribute, reason in traced.shared.items():
            self._session.warn_once(
                f"{attribute} cannot be copied for captures: {reason}. What the model's call does to it, they do too"
            )
        if verified:
            self._session.replay_error = traced.error
        return Look(traced.layers, self._loss_of(traced))

    def _loss_of(self, traced: Trace) -> float | None:
        if traced.loss_error is not None:
            self._session.record_failure("the loss of the probe", traced.loss_error)
        return traced.loss

"""The contract of a detector: its input, its state, and the meaning of its scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Final, Protocol

from gatewatch.jobs.scoring.captures import Array, Captures, Pair
from gatewatch.jobs.scoring.residuals import Residuals
from gatewatch.jobs.scoring.run_limit import RunLimit
from gatewatch.jobs.scoring.signals import SignalKey
from gatewatch.jobs.scoring.sources import Sources

WHOLE_FACTS: Final = frozenset({"baselines", "reached_by"})
"""The facts of a score that are stored as whole numbers."""


class Model(Protocol):
    """A trained model, which a checkpoint stores with skops."""

    model_id: str

    @property
    def content(self) -> dict[str, Any]:
        """All of it: arrays, numbers and texts, in lists and in dicts with names as keys."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of one detector for a batch of n captures.

    Attributes:
        by_series: (layer, gate or parameter) → (n,): 0 to 1 is normal, above 1 anomalous, NaN is no score.
        causes: series → cause → (n,), a size above 1 where the cause applies. Stored as `why_<cause>` with every
            score above 1 of that series.
        model_id: the model that the scores come from.
        sources: series → the source of each score; a series without one has `network`.
        facts: series → field → (n,), what else is stored with a score above 1; NaN: nothing. `WHOLE_FACTS` are whole
            numbers.
    """

    by_series: Mapping[Pair, Array] = field(default_factory=dict)
    causes: Mapping[Pair, Mapping[str, Array]] = field(default_factory=dict)
    model_id: str | None = None
    sources: Mapping[Pair, Sources] = field(default_factory=dict)
    facts: Mapping[Pair, Mapping[str, Array]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Batch:
    """The input of a detector: n new captures of one run, phase and combination of the user's tags.

    Attributes:
        captures: the new captures, after at least `look_back` earlier ones, or all if there are fewer.
        first: index of the first new capture in `captures`.
        before: how many captures came before the new ones.
        keys: the C signals, one for each column of the residuals.
        columns: (layer, gate or parameter) → the columns of its signals.
        residuals: of the new captures, (n, C) each.
        observed: the signals that had a value in an earlier capture.
        warm_up: how many of the new captures, from the first on, belong to the first `WARM_UP` of the run.
        unsettled: how many of them belong to the warm-up, which lasts while the network has not settled; more than n:
            all of them, and more may follow.
        normal_rows: (rows, F), residuals of baselines; None where there are no baselines.
        scores: detector → its scores, of the detectors that come earlier in the list.
        run_limit: returns the limit of the run, from the baselines that there are now. It reads and scores them, so it
            is called once in a run.
    """

    captures: Captures
    first: int
    before: int
    keys: Sequence[SignalKey]
    columns: Mapping[Pair, Sequence[int]]
    residuals: Residuals
    observed: set[SignalKey]
    warm_up: int
    unsettled: int
    normal_rows: Array | None
    scores: Mapping[str, Scores]
    run_limit: Callable[[], RunLimit] = RunLimit


class Detector(ABC):
    """Scores every capture of every series: 0 to 1 is normal, above 1 anomalous.

    NaN in, no score out. A score depends on its capture and on earlier ones alone, however these are divided into
    batches. Captures of the warm-up get no score, unless `scores_warm_up` says that the detector needs none.

    One object scores one run, phase and combination of the user's tags. What it must remember from one batch to the
    next is in `state` and `model`, which checkpoints store.
    """

    name: ClassVar[str]
    """The tag `detector` of its scores."""
    scores_warm_up: ClassVar[bool] = False
    scores_alone: ClassVar[bool] = False
    """Whether each of its scores is written. If not, a series that is no gate has none where it has no signal, unless
    the score is above 1."""
    waits_for_learning: ClassVar[bool] = False
    """Whether it gives no score while a learning that is under way has not settled; see `residuals`."""
    look_back: ClassVar[int] = 0
    """How many earlier captures it needs in `Batch.captures` to score one."""
    phrases: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Cause → what it means, for people."""
    model: Model | None = None
    state: Mapping[str, Array] = MappingProxyType({})
    """The arrays that it must remember from one batch to the next, besides its model."""

    def learn(self, batch: Batch) -> None:  # noqa: B027 - most detectors learn and keep nothing
        """Learn from the captures of the warm-up in a batch; called for every batch, before `score`."""

    @classmethod
    def read_model(cls, content: Any) -> Model:
        """Return the model whose `content` a file holds, which may be damaged or crafted.

        Raises:
            ValueError: it is none of this detector.
        """
        raise ValueError(f"the detector {cls.name} has no model")

    def check_state(self, signals: int) -> None:  # noqa: B027 - as above
        """Check `state`, as a checkpoint with so many signals holds it.

        Raises:
            ValueError: it is not as this detector leaves it.
        """

    @abstractmethod
    def score(self, batch: Batch) -> Scores:
        """Return the scores of the new captures; called once for each batch, in order."""

"""How far a run is recorded, so that another process can go on with it after a crash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from gatewatch.collector.market_times import MarketTimes
from gatewatch.collector.schema import DIED_SECONDS, GATE_STATS, RUNS, TRAIN_METRICS
from gatewatch.collector.store import Store

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


@dataclass
class Progress:
    """How far a run is recorded.

    Attributes:
        step: the last step of which anything is recorded; -1 for none.
        epochs: how many epochs have ended, which is the number of the next one.
        epoch_step: the step at which the last of them ended.
        market: the market times that its points have.
    """

    step: int = -1
    epochs: int = 0
    epoch_step: int = 0
    market: MarketTimes = field(default_factory=MarketTimes)

    def step_of_epoch(self, epoch: int) -> int:
        """Return the step at which an epoch begins: exact for the next one, and for all where they are equally long."""
        if self.epochs:
            return self.epoch_step * epoch // self.epochs
        return max(0, self.step) if epoch else 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as `from_dict` takes it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Return what a run's file says; nothing recorded where it says nothing."""
        names = ("step", "epochs", "epoch_step")
        counted = {name: value for name in names if isinstance(value := content.get(name), int)}
        return cls(**counted, market=MarketTimes.from_dict(content.get("market")))

    @classmethod
    def from_store(cls, store: Store, run: str, phase: str) -> Self:
        """Return what can be told from the points of a run and phase.

        An epoch counts as ended where its last step has metrics beside those of a capture.

        Raises:
            WriteUnavailable: the store does not answer.
            ConfigError: reading is not allowed.
        """
        tags = {"phase": phase}
        read = partial(store.find, run=run, prefix_tags=True)
        series = [tally for tally in store.series(GATE_STATS, "step", run) if tally.tags.get("phase") == phase]
        step = -1
        captured = set[int]()
        recorded = []
        if series:
            last = read(GATE_STATS, start=max(tally.newest for tally in series), tags=tags, fields=["step"])
            captured = {int(value) for value in last["step"]}
            step = max(captured)
            longest = max(series, key=lambda tally: tally.points)
            recorded.append(read(GATE_STATS, tags=longest.tags, fields=["step"]))
        metrics = read(TRAIN_METRICS, tags=tags, fields=["step", "epoch"])
        if len(metrics):
            step = max(step, int(metrics["step"].max()))
            recorded.append(metrics)
        market = _market_times(read(RUNS, tags=tags, fields=["event"]), recorded)
        if not len(metrics):
            return cls(step, market=market)
        epoch = int(metrics["epoch"].max())
        of_last = metrics[metrics["epoch"] == epoch]["step"]
        ended = int((of_last == of_last.max()).sum()) > (int(of_last.max()) in captured)
        before = of_last if ended else metrics[metrics["epoch"] < epoch]["step"]
        return cls(step, epoch + ended, int(before.max()) if len(before) else 0, market)


def _market_times(events: pd.DataFrame, recorded: Sequence[pd.DataFrame]) -> MarketTimes:
    """Return what is known of market times: those at which the run was not being recorded.

    Args:
        events: of the run.
        recorded: points with steps.
    """
    if not recorded:
        return MarketTimes()
    recorded = [frame.dropna(subset="step") for frame in recorded]
    times = np.concatenate([_nanoseconds(frame) for frame in recorded])
    steps = np.concatenate([frame["step"].to_numpy(np.int64) for frame in recorded])
    if len(events):
        clock, slack = _nanoseconds(events), int(DIED_SECONDS * 1e9)
        market = (times < clock.min() - slack) | (times > clock.max() + slack)
        times, steps = times[market], steps[market]
    return MarketTimes.from_stored(times, steps)


def _nanoseconds(frame: pd.DataFrame) -> NDArray[np.int64]:
    return np.asarray(frame["time"].to_numpy(dtype="datetime64[ns]").astype(np.int64))

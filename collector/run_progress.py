"""How far a run is recorded, so that another process can go on with it after a crash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from gatewatch.collector.schema import GATE_STATS, TRAIN_METRICS
from gatewatch.collector.store import Store


@dataclass
class Progress:
    """How far a run is recorded.

    Attributes:
        step: the last step of which anything is recorded; -1 for none.
        epochs: how many epochs have ended, which is the number of the next one.
        epoch_step: the step at which the last of them ended.
    """

    step: int = -1
    epochs: int = 0
    epoch_step: int = 0

    def step_of_epoch(self, epoch: int) -> int:
        """Return the step at which an epoch begins: exact for the next one, and for all where they are equally long."""
        if self.epochs:
            return self.epoch_step * epoch // self.epochs
        return max(0, self.step) if epoch else 0

    def as_dict(self) -> dict[str, int]:
        """Return it as `from_dict` takes it."""
        return {name: int(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Return what a run's file says; nothing recorded where it says nothing."""
        names = asdict(cls())
        return cls(**{name: value for name in names if isinstance(value := content.get(name), int)})

    @classmethod
    def from_store(cls, store: Store, run: str, phase: str) -> Self:
        """Return what can be told from the points of a run and phase.

        An epoch counts as ended where its last step has metrics beside those of a capture.

        Raises:
            WriteUnavailable: the store does not answer.
            ConfigError: reading is not allowed.
        """
        tags = {"phase": phase}
        newest = [tally.newest for tally in store.series(GATE_STATS, "step", run) if tally.tags.get("phase") == phase]
        step = -1
        captured = set[int]()
        if newest:
            last = store.read(GATE_STATS, run=run, start=max(newest), tags=tags, fields=["step"], prefix_tags=True)
            captured = {int(value) for value in last["step"]}
            step = max(captured)
        metrics = store.read(TRAIN_METRICS, run=run, tags=tags, fields=["step", "epoch"], prefix_tags=True)
        if not len(metrics):
            return cls(step)
        step = max(step, int(metrics["step"].max()))
        epoch = int(metrics["epoch"].max())
        of_last = metrics[metrics["epoch"] == epoch]["step"]
        ended = int((of_last == of_last.max()).sum()) > (int(of_last.max()) in captured)
        before = of_last if ended else metrics[metrics["epoch"] < epoch]["step"]
        return cls(step, epoch + ended, int(before.max()) if len(before) else 0)

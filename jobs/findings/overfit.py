"""Say whether a network overfits, from its losses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from gatewatch.collector.names import MARKET_PHASES
from gatewatch.jobs.findings.finding import Finding
from gatewatch.jobs.findings.onset import MIN_SIDE
from gatewatch.jobs.frames import numbers
from gatewatch.jobs.text import number

if TYPE_CHECKING:
    import pandas as pd

_FEWEST_LOSSES: Final = 5


def overfit(metrics: pd.DataFrame) -> list[Finding]:
    """Say whether a network overfits, where training and validation loss show it.

    A run overfits if its training loss fell while its validation loss rose for good from its lowest value: by more than
    a tenth of the range of both losses, and by more than twice its usual change from one value to the next. Medians of
    three values in a row are compared, since a single value may be chance. Losses may be negative, as those of a policy
    that earns are. At least five validation losses are needed.
    """
    phases = metrics["phase"].fillna("") if "phase" in metrics else np.full(len(metrics), "")
    seen = np.asarray(phases != "validation")
    loss, own, held_out = numbers(metrics, "loss"), numbers(metrics, "val_loss"), numbers(metrics, "loss")
    loss = loss[np.isfinite(loss) & seen & np.asarray(~np.isin(phases, MARKET_PHASES))]
    validation = own[np.isfinite(own)] if np.isfinite(own).any() else held_out[np.isfinite(held_out) & ~seen]
    if len(loss) < 2 * MIN_SIDE or len(validation) < _FEWEST_LOSSES:
        return []
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(validation, 3), axis=1)
    trained = np.median(np.lib.stride_tricks.sliding_window_view(loss, 3), axis=1)
    spread = max(smooth.max(), trained.max()) - min(smooth.min(), trained.min())
    rise = float(smooth[-1] - smooth.min())
    usual = float(np.median(np.abs(np.diff(validation))))
    part = max(1, len(trained) // 4)
    fell = np.median(trained[-part:]) < np.median(trained[:part])
    if not (fell and rise > 0.1 * spread and rise > 2 * usual):
        return []
    lowest, last = float(smooth.min()), float(smooth[-1])
    sentence = (
        f"Validation loss ended at {number(last)}, up from {number(lowest)} at its lowest, while training loss fell: "
        "the network overfits, whatever its gates look like."
    )
    return [
        Finding(
            sentence=sentence,
            level="notice",
            what="the network overfits",
            source="network",
            rule="generalisation_gap",
            evidence={"validation_loss": last, "lowest_validation_loss": lowest},
        )
    ]

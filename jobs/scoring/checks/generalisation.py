"""The check of generalisation: what the probe with its targets says while the batch loss falls."""

from __future__ import annotations

from typing import Final

import numpy as np

from gatewatch.jobs.scoring.captures import Array, Captures, Pair
from gatewatch.jobs.scoring.checks.base import MODEL, VIOLATED, WINDOW, Check, last_median
from gatewatch.jobs.scoring.signals import LOSSES, PROBE_LOSS, first_logged

SMOOTHED: Final = 9
"""Captures whose median counts as the loss."""
SINCE: Final = 16
"""Captures since the lowest loss of the probe."""
RISE: Final = 0.2
"""Share of the range that both losses have had, by which that of the probe must have risen."""


def probe_loss_rises(captures: Captures) -> dict[Pair, Array]:
    """Judge whether the loss of the probe rises while that of the batches falls: the network learns by heart.

    Medians of nine captures are compared: now, and where that of the probe was lowest within the last 56, at least 16
    captures ago. It has risen by a fifth of the range of both losses, and by twice its usual change from one capture to
    the next, while the loss of the batches has fallen. A network that is large for its data does so in any sound
    training that is long enough, so this is a warning and no alarm.
    """
    probe = captures.metrics.get(PROBE_LOSS)
    loss = first_logged(captures, LOSSES)
    if probe is None or loss is None:
        return {}
    held_out, trained = last_median(probe, SMOOTHED), last_median(loss, SMOOTHED)
    values = np.full(len(probe), np.nan)
    for k in range(SINCE + SMOOTHED, len(probe)):
        window = slice(max(0, k - (WINDOW - SMOOTHED)), k + 1)
        own, other = held_out[window], trained[window]
        both = np.isfinite(own) & np.isfinite(other)
        if both[-1] and both.sum() > SINCE:
            values[k] = _judge(own[both], other[both])
    return {(MODEL, PROBE_LOSS): values} if np.isfinite(values).any() else {}


def _judge(held_out: Array, trained: Array) -> float:
    lowest = int(np.argmin(held_out))
    if len(held_out) - 1 - lowest < SINCE:
        return 0.0
    rise = held_out[-1] - held_out[lowest]
    spread = max(held_out.max(), trained.max()) - min(held_out.min(), trained.min())
    usual = float(np.median(np.abs(np.diff(held_out))))
    overfits = rise > RISE * spread and rise > 2 * usual and trained[-1] < trained[lowest]
    return VIOLATED if overfits else 0.0


CHECKS: Final = (
    Check(
        name="probe_loss_rises",
        sentence="the loss of the probe rises while that of the batches falls: the network learns by heart",
        source="network",
        errors="a warning: sound trainings that go on for long do so too",
        needs=f"probe_loss, and {SINCE + SMOOTHED} captures",
        judge=probe_loss_rises,
        look_back=WINDOW,
        alarms=False,
    ),
)

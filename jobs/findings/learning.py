"""Say where the learning of a layer is plainly wrong, from the points of `layer_updates`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from gatewatch.jobs.findings.series import first_broken
from gatewatch.jobs.frames import numbers
from gatewatch.jobs.text import join_words, number, percent
from gatewatch.jobs.thresholds import GRADIENT_EXPLODED_RUN, GRADIENT_VANISHED

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from gatewatch.jobs.findings.axis import Axis

RECENT: Final = 5
"""A state holds now where it holds in this many newest captures."""


def learning_problems(params: Mapping[str, pd.DataFrame], axis: Axis) -> list[str]:
    """Write a sentence for each thing that is plainly wrong with a layer, the worst first.

    Args:
        params: parameter → points of `layer_updates` of one phase and layer.
        axis: names the place of a capture.
    """
    sentences = []
    if broken := {name: i for name, frame in params.items() if (i := first_broken(frame)) is not None}:
        first = min(broken, key=lambda name: broken[name])
        place = axis.describe(params[first], broken[first])
        sentences.append(f"Values that are not finite in the {join_words([*broken])}, first at {place}.")
    if still := [name for name, frame in params.items() if (_newest(frame, "update_frequency") == 0).all()]:
        sentences.append(f"The {join_words(still)} did not move at all in the last {RECENT} captures.")
    if gone := [name for name, frame in params.items() if (_newest(frame, "gradient_norm") < GRADIENT_VANISHED).all()]:
        sentences.append(
            f"The gradient of the {join_words(gone)} has vanished: "
            f"below {GRADIENT_VANISHED:g} in the last {RECENT} captures."
        )
    if grown := {name: size for name, frame in params.items() if (size := _growth(frame)) > GRADIENT_EXPLODED_RUN}:
        times = number(max(grown.values()), 2)
        sentences.append(f"The gradient of the {join_words([*grown])} has exploded, to {times} times its median.")
    return sentences


def clipping(params: Mapping[str, pd.DataFrame]) -> list[str]:
    """Write a sentence where every gradient was clipped: no fault, but then the limit is the size of the step."""
    kept = {name: part for name, frame in params.items() if (part := _share_kept(frame)) is not None}
    if not kept:
        return []
    share = percent(float(np.median(list(kept.values()))))
    return [f"Every gradient of the {join_words([*kept])} was clipped, at the median to {share} of its norm."]


def positive(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keep what a logarithmic axis can show; the rest becomes NaN."""
    return np.where(values > 0, values, np.nan)


def _newest(frame: pd.DataFrame, field: str) -> NDArray[np.float64]:
    """Return the `RECENT` newest finite values of a field; NaN where there are fewer."""
    values = numbers(frame, field)
    newest = values[np.isfinite(values)][-RECENT:]
    return newest if len(newest) == RECENT else np.full(RECENT, np.nan)


def _growth(frame: pd.DataFrame) -> float:
    """Return the newest gradients over the median of all; 0 where there are too few."""
    norms = positive(numbers(frame, "gradient_norm"))
    norms = norms[np.isfinite(norms)]
    return float(np.median(norms[-RECENT:]) / np.median(norms)) if len(norms) > 3 * RECENT else 0.0


def _share_kept(frame: pd.DataFrame) -> float | None:
    """Return the median share of the norm that clipping keeps; None where not every gradient was clipped."""
    before, after = positive(numbers(frame, "gradient_norm")), numbers(frame, "gradient_norm_clipped")
    both = np.isfinite(before) & np.isfinite(after)
    kept = after[both] / before[both]
    return float(np.median(kept)) if len(kept) >= RECENT and (kept < 0.99).all() else None

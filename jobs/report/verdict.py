"""What the data says, in a paragraph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from jobs.features import WARM_UP
from jobs.report.series import Key, Row, column, steps
from jobs.report.text import number, percent, words

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray

FEW: Final = 0.05
"""A share of captures above 1 that is still ordinary: the contamination that an isolation forest is trained with."""
MIN_SIDE: Final = 3
"""The fewest captures before and after a change: fewer are an outlier."""


def verdict(
    rows: list[Row], stats: Mapping[Key, pd.DataFrame], scores: Mapping[Key, pd.DataFrame], metrics: pd.DataFrame
) -> list[str]:
    """Sentences, the most important first: broken numbers, the worst gate, when it changed and why, overfitting."""
    said = [*broken(stats)]
    scored = [row for row in rows if np.isfinite(row.share)]
    phases = {row.key.phase for row in rows}
    if not scored:
        said.append(no_scores(stats))
    else:
        worst = max(scored, key=lambda row: (row.share, row.worst))
        calm = sum(row.share == 0 for row in scored)
        if worst.share == 0:
            said.append(
                f"All {len(scored)} gates stayed in their normal range: no score is above 1 "
                f"(the largest is {number(worst.worst)}, of {_name(worst.key, phases)})."
            )
        elif worst.share <= FEW:
            said.append(
                f"No gate stands out: at most {percent(worst.share)} of a gate's captures are above 1 "
                f"({_name(worst.key, phases)}, up to {number(worst.worst)})."
            )
        else:
            said.append(
                f"The gate that stands out is {_name(worst.key, phases)}: {percent(worst.share)} of its scored "
                f"captures are above 1, up to {number(worst.worst)}; {calm} of {len(scored)} gates never went above 1."
            )
            said += _change(scores[worst.key])
            if 2 * sum(row.share > 0.5 for row in scored) > len(scored):
                said.append(
                    "Most gates are above 1 most of the time, as the drift of ordinary training does too: "
                    "look for the jump rather than for the level."
                )
    return said + overfit(metrics)


def no_scores(stats: Mapping[Key, pd.DataFrame]) -> str:
    """Why there are no scores, or what to do about it."""
    captures = max((len(frame) for frame in stats.values()), default=0)
    return (
        f"There are no anomaly scores: they begin after {WARM_UP} captures of a phase, of which there are {captures} "
        "here, and are made by gatewatch jobs --once."
    )


def broken(stats: Mapping[Key, pd.DataFrame]) -> list[str]:
    """A sentence on values that were not finite, where there were any."""
    first: tuple[float, Key] | None = None
    gates = 0
    for key, frame in stats.items():
        bad = np.nan_to_num(column(frame, "nan_count")) + np.nan_to_num(column(frame, "inf_count")) > 0
        if bad.any():
            gates += 1
            step = float(steps(frame)[int(np.argmax(bad))])
            first = min(first or (step, key), (step, key))
    if first is None:
        return []
    step, key = first
    return [
        f"Values that are not finite appeared in {gates} gate{'s'[: gates > 1]}, first at step {number(step)} in "
        f"{_name(key, {key.phase})}: begin there."
    ]


def onset(scores: NDArray[np.float64]) -> int | None:
    """Where a series rose for good: the index of its first capture on the higher side; None where it did not.

    The split is the one that maximises the standardised difference of the means before and after, the statistic of
    a cumulative sum (Page 1954, "Continuous inspection schemes"); it counts where the median after is above 1 and
    above the median before. From there it goes back to where the scores first passed 1 without falling below again,
    since a slow rise is split in its middle.

    Args:
        scores: (captures,), all finite.
    """
    n = len(scores)
    if n < 2 * MIN_SIDE:
        return None
    before = np.arange(1, n)
    total = np.cumsum(scores)
    rise = (total[-1] - total[:-1]) / (n - before) - total[:-1] / before
    weight = rise * np.sqrt(before * (n - before) / n)
    weight[: MIN_SIDE - 1] = weight[n - MIN_SIDE :] = -np.inf
    split = int(np.argmax(weight)) + 1
    low, high = float(np.median(scores[:split])), float(np.median(scores[split:]))
    if not (high > 1 and high > low):
        return None
    while split > 1 and scores[split - 1] > 1:
        split -= 1
    return split


def causes(frame: pd.DataFrame, most: int = 3) -> list[str]:
    """The features that contributed most over the captures above 1, and which way they went; fewer where fewer did."""
    bad = frame[column(frame, "anomaly_score") > 1]
    why = {str(name)[4:]: np.nan_to_num(column(bad, name)) for name in frame.columns if str(name).startswith("why_")}
    weight = {name: float(np.abs(values).sum()) for name, values in why.items()}
    kept = sorted((name for name in weight if weight[name] > 0), key=lambda name: (-weight[name], name))
    return [f"{name.replace('_', ' ')} {'rose' if why[name].sum() > 0 else 'fell'}" for name in kept[:most]]


def overfit(metrics: pd.DataFrame) -> list[str]:
    """A sentence on the gap between training and validation, where both losses are known.

    A validation loss that has risen by a tenth from its lowest, while the training loss kept falling, is called
    overfitting.
    """
    loss, validation = (values[np.isfinite(values)] for values in (column(metrics, n) for n in ("loss", "val_loss")))
    if len(loss) < 2 or len(validation) < 2:
        return []
    lowest = float(validation.min())
    last = float(validation[-1])
    if last > 1.1 * lowest > 0 and loss[-1] < loss[0]:
        return [
            f"Validation loss ended at {number(last)}, {percent(last / lowest - 1)} above its lowest, while training "
            "loss fell: the network overfits, whatever its gates look like."
        ]
    return []


def _change(frame: pd.DataFrame) -> list[str]:
    values = column(frame, "anomaly_score")
    known = np.isfinite(values)
    at, scores = steps(frame)[known], values[known]
    why = causes(frame)
    because = f"; what contributed most: {words(why)}" if why else ""
    if (split := onset(scores)) is not None:
        before, after = float(np.median(scores[:split])), float(np.median(scores[split:]))
        return [
            f"Its scores rose at step {number(float(at[split]))}, from a median of {number(before)} to "
            f"{number(after)}{because}."
        ]
    first = number(float(at[int(np.argmax(scores > 1))]))
    return [f"It was first above 1 at step {first}, without a lasting change of level{because}."]


def _name(key: Key, phases: set[str]) -> str:
    return f"the {key.gate} gate of {key.layer}" + (f" ({key.phase})" if len(phases) > 1 and key.phase else "")

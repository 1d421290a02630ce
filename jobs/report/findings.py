"""What the data says, in a paragraph."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gatewatch.jobs.findings.explanations import BROKEN, phrase
from gatewatch.jobs.report.axis import Axis, moments
from gatewatch.jobs.report.series import Key, Row, column
from gatewatch.jobs.scoring.residuals import WARM_UP
from gatewatch.jobs.scoring.signals import MODEL
from gatewatch.jobs.text import join_words, number, percent

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray

FEW: Final = 0.02
"""A share of captures above 1 that may still be an accident: one or two of a hundred."""
_PARAMS: Final = ("kernel", "recurrent", "bias")
MIN_SIDE: Final = 3
"""The fewest captures before and after a change: fewer are an outlier."""
_FEWEST_LOSSES: Final = 5


def verdict(
    rows: list[Row],
    stats: Mapping[Key, pd.DataFrame],
    scores: Mapping[Key, pd.DataFrame],
    metrics: pd.DataFrame,
    axes: Mapping[str, Axis] = MappingProxyType({}),
) -> list[str]:
    """Sentences, the most important first: broken numbers, the worst gate, when it changed and why, overfitting.

    Args:
        rows: of the table of gates.
        stats, scores: points by series.
        metrics: points of `train_metrics`.
        axes: phase → what it is drawn over; steps where it has none.
    """
    said = [*broken(stats, axes)]
    scored = [row for row in rows if np.isfinite(row.share)]
    phases = {row.key.phase for row in rows}
    if not scored:
        said.append(no_scores(stats))
    else:
        worst = max(scored, key=lambda row: (row.share, row.worst))
        calm = sum(row.share == 0 for row in scored)
        if worst.share == 0:
            said.append(
                f"All {len(scored)} gates and parameters stayed in their normal range: no score is above 1 "
                f"(the largest is {number(worst.worst)}, of {_name(worst.key, phases)})."
            )
        elif worst.share <= FEW:
            said.append(
                f"Nothing stands out: at most {percent(worst.share)} of the captures are above 1 "
                f"({_name(worst.key, phases)}, up to {number(worst.worst)})."
            )
        else:
            said.append(
                f"What stands out is {_name(worst.key, phases)}: {percent(worst.share)} of its scored captures are "
                f"above 1, up to {number(worst.worst)}; {calm} of {len(scored)} gates and parameters never were."
            )
            said += _change(scores[worst.key], _axis(axes, worst.key))
            if 2 * sum(row.share > 0.5 for row in scored) > len(scored):
                said.append("Most are above 1 most of the time: look for the jump rather than for the level.")
    return said + overfit(metrics)


def no_scores(stats: Mapping[Key, pd.DataFrame]) -> str:
    """Why there are no scores, or what to do about it."""
    captures = _captures(stats)
    there = join_words([f"{phase} has {number(count)}" for phase, count in captures.items()])
    here = there if len(captures) > 1 else f"there are {number(next(iter(captures.values()), 0))} here"
    return (
        f"There are no anomaly scores: they begin after {WARM_UP} captures of a phase, of which {here}, "
        "and are made by gatewatch jobs --once."
    )


def unscored(stats: Mapping[Key, pd.DataFrame], scores: Mapping[Key, pd.DataFrame]) -> list[str]:
    """A sentence for each phase that has no scores where another has."""
    scored = {key.phase for key in scores}
    return [
        f"The phase {phase} has no scores: they begin after {WARM_UP} captures, and it has {number(count)}."
        if count <= WARM_UP
        else f"The phase {phase} is not scored yet: gatewatch jobs --once does it."
        for phase, count in _captures(stats).items()
        if scored and phase not in scored
    ]


def broken(stats: Mapping[Key, pd.DataFrame], axes: Mapping[str, Axis] = MappingProxyType({})) -> list[str]:
    """A sentence on values that were not finite, where there were any."""
    found: list[tuple[Any, Key, str]] = []
    for key, frame in stats.items():
        bad = np.nan_to_num(column(frame, "nan_count")) + np.nan_to_num(column(frame, "inf_count")) > 0
        if bad.any():
            i = int(np.argmax(bad))
            found.append((moments(frame)[i], key, _axis(axes, key).told(frame, i)))
    if not found:
        return []
    _, key, first = min(found)
    return [
        f"Values that are not finite appeared in {len(found)} gate{'s'[: len(found) > 1]}, first at {first} in "
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
    """What contributed most over the captures above 1, in words: broken rules first; fewer where fewer did."""
    bad = frame[column(frame, "anomaly_score") > 1]
    why = {str(name)[4:]: np.nan_to_num(column(bad, name)) for name in frame.columns if str(name).startswith("why_")}
    weight = {name: float(np.abs(values).sum()) for name, values in why.items()}
    known = (name for name in weight if weight[name] > 0)
    kept = sorted(known, key=lambda name: (name not in BROKEN, -weight[name], name))
    return [phrase(name, float(why[name].sum())) for name in kept[:most]]


def overfit(metrics: pd.DataFrame) -> list[str]:
    """A sentence on the gap between training and validation, where both losses are known.

    It is called overfitting where the training loss fell while the validation loss rose from its lowest, for good: by
    more than a tenth of what the two losses ranged over, and by more than twice what it changes from one value to the
    next. Medians of three values in a row are compared, since one alone may be luck. So a loss may be negative, as
    that of a policy that earns is. Fewer than five validation losses say nothing.
    """
    phases = metrics["phase"].fillna("") if "phase" in metrics else np.full(len(metrics), "")
    seen = np.asarray(phases != "validation")
    loss, own, held_out = column(metrics, "loss"), column(metrics, "val_loss"), column(metrics, "loss")
    loss = loss[np.isfinite(loss) & seen & np.asarray(~np.isin(phases, ("backtest", "live")))]
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
    return [
        f"Validation loss ended at {number(float(smooth[-1]))}, up from {number(float(smooth.min()))} at its lowest, "
        "while training loss fell: the network overfits, whatever its gates look like."
    ]


def _change(frame: pd.DataFrame, axis: Axis) -> list[str]:
    values = column(frame, "anomaly_score")
    frame, scores = frame[np.isfinite(values)], values[np.isfinite(values)]
    why = causes(frame)
    because = f"; what contributed most: {join_words(why)}" if why else ""
    if (split := onset(scores)) is not None:
        before, after = float(np.median(scores[:split])), float(np.median(scores[split:]))
        return [
            f"Its scores rose at {axis.told(frame, split)}, from a median of {number(before)} to "
            f"{number(after)}{because}."
        ]
    first = axis.told(frame, int(np.argmax(scores > 1)))
    return [f"It was first above 1 at {first}, without a lasting change of level{because}."]


def _captures(stats: Mapping[Key, pd.DataFrame]) -> dict[str, int]:
    """Phase → how often its gates were captured."""
    found: dict[str, int] = {}
    for key, frame in stats.items():
        found[key.phase] = max(found.get(key.phase, 0), len(frame))
    return found


def _axis(axes: Mapping[str, Axis], key: Key) -> Axis:
    return axes.get(key.phase) or Axis((key.phase,))


def _name(key: Key, phases: set[str]) -> str:
    what = f"the {key.gate} {'weights' if key.gate in _PARAMS else 'gate'} of {key.layer}"
    if key.layer == MODEL:
        what = f"the {key.gate}"
    return what + (f", {key.phase}" if len(phases) > 1 and key.phase else "")

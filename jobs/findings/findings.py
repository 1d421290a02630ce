"""Say in sentences what the points of a run show."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gatewatch.collector.names import MARKET_PHASES
from gatewatch.jobs.findings.axis import Axis, moments
from gatewatch.jobs.findings.explanations import BROKEN, phrase
from gatewatch.jobs.findings.finding import Finding, in_order
from gatewatch.jobs.findings.series import Key, Row, first_broken, name_of, step_at
from gatewatch.jobs.frames import not_finite, numbers
from gatewatch.jobs.scoring.detectors.rules import PHRASES
from gatewatch.jobs.scoring.residuals import LONGEST_WARM_UP, WARM_UP
from gatewatch.jobs.scoring.sources import known_source
from gatewatch.jobs.text import join_words, number, percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

FEW: Final = 0.02
"""Up to this share of captures above 1 may be chance: one or two in a hundred."""
MIN_SIDE: Final = 3
"""The fewest captures before and after a change: fewer are an outlier."""
_FEWEST_LOSSES: Final = 5


def run_findings(
    rows: list[Row],
    stats: Mapping[Key, pd.DataFrame],
    scores: Mapping[Key, pd.DataFrame],
    metrics: pd.DataFrame,
    axes: Mapping[str, Axis] = MappingProxyType({}),
    said: Sequence[Finding] = (),
) -> list[Finding]:
    """Return what is found, the most important first: see `in_order`.

    Of the alarms failed checks and values that are not finite come first, in order of time, then the worst gate, when
    and why.

    Args:
        rows: the table of gates.
        stats, scores: series → points of `gate_stats`, of `gate_scores`.
        metrics: points of `train_metrics`.
        axes: phase → its axis; a phase without one counts steps.
        said: what checks and the detector `data` say.
    """
    stated = sorted([*said, *broken(stats, axes)], key=lambda each: (not each.is_alarm, each.time))
    told = frozenset[Key]().union(*(each.series for each in stated if each.is_alarm))
    scored = [row for row in rows if np.isfinite(row.share) and row.key not in told]
    found = [*stated, *overfit(metrics)]
    if scored:
        phases, calm = {row.key.phase for row in rows}, not any(each.is_alarm for each in stated)
        found.append(_worst(scored, scores, axes, phases, calm=calm))
    elif not told:
        found.append(_undecided(no_scores(stats)))
    return in_order(found)


def _worst(
    scored: list[Row],
    scores: Mapping[Key, pd.DataFrame],
    axes: Mapping[str, Axis],
    phases: set[str],
    *,
    calm: bool,
) -> Finding:
    """Return what the scores of the worst series say.

    Args:
        scored: the rows of the table that have scores.
        scores: series → points of `gate_scores`.
        axes: phase → its axis.
        phases: of the run.
        calm: whether nothing else alarms.
    """
    worst = max(scored, key=lambda row: (row.alarms, row.share, row.worst))
    name = name_of(worst.key, phases)
    if not worst.alarms:
        largest = max(row.worst for row in scored)
        if worst.share == 0:
            sentence = (
                f"All {len(scored)} gates and parameters stayed in their normal range: no score is above 1 "
                f"(the largest is {number(worst.worst)}, of {name})."
            )
        else:
            sentence = (
                f"{'Nothing' if calm else 'Beside that nothing'} stands out: at most {percent(worst.share)} of the "
                f"captures are above 1 ({name}, up to {number(worst.worst)})."
            )
        return Finding(sentence=sentence, level="fact", evidence={"series": len(scored), "largest_score": largest})
    normal = sum(row.share == 0 for row in scored)
    frame, axis = scores[worst.key], _axis(axes, worst.key)
    sentences = [
        f"What stands out is {name}: {percent(worst.share)} of its scored captures are above 1, up to "
        f"{number(worst.worst)}; {normal} of {len(scored)} series never went above 1.",
        *_change(frame, axis),
    ]
    if 2 * sum(row.share > 0.5 for row in scored) > len(scored):
        sentences.append("Most are above 1 most of the time: look for the jump rather than for the level.")
    finite = frame[np.isfinite(numbers(frame, "anomaly_score"))]
    since = _begin(numbers(finite, "anomaly_score"))
    return Finding(
        sentence=" ".join(sentences),
        level="alarm",
        what=next(iter(causes(frame)), "its scores are above 1"),
        source=known_source(worst.source),
        key=worst.key,
        step=step_at(finite, since),
        time=moments(finite)[since],
        series=frozenset(row.key for row in scored if row.alarms),
        evidence={
            "phase": worst.key.phase,
            "share_above_1": worst.share,
            "largest_score": worst.worst,
            "series": sum(row.alarms for row in scored),
        },
    )


def no_scores(stats: Mapping[Key, pd.DataFrame]) -> str:
    """Say why there are no scores, and what to do about it."""
    captures = _captures(stats)
    counts = join_words([f"{phase} has {number(count)}" for phase, count in captures.items()])
    here = counts if len(captures) > 1 else f"there are {number(next(iter(captures.values()), 0))} here"
    return (
        f"There are no anomaly scores: they begin after {WARM_UP} captures of a phase, of which {here}, "
        "and are made by gatewatch jobs --once."
    )


def unscored(stats: Mapping[Key, pd.DataFrame], scores: Mapping[Key, pd.DataFrame]) -> list[Finding]:
    """Write a sentence for each phase without scores in a run in which another phase has scores."""
    scored = {key.phase for key in scores}
    sentences = [
        f"The phase {phase} has no scores: they begin after {WARM_UP} captures, and it has {number(count)}."
        if count <= WARM_UP
        else f"The phase {phase} is not scored yet: gatewatch jobs --once does it."
        for phase, count in _captures(stats).items()
        if scored and phase not in scored
    ]
    return [_undecided(sentence) for sentence in sentences]


def still_learning(stats: Mapping[Key, pd.DataFrame], scores: pd.DataFrame) -> list[Finding]:
    """Write a sentence for each phase that ended in its warm-up because its network had not settled: it is too short.

    In such a phase the rules have scores, and the robust detector has none; see `jobs.scoring.residuals`.

    Args:
        stats: series → points of `gate_stats`.
        scores: points of `gate_scores`, of all detectors.
    """
    if not {"detector", "phase"} <= set(scores.columns):
        return []
    by = {name: set(scores.loc[scores["detector"] == name, "phase"].dropna()) for name in ("rules", "robust")}
    odd = {key.phase for key, frame in stats.items() if first_broken(frame) is not None}
    sentences = [
        f"The phase {phase} is too short to be judged: after {number(count)} captures its network was still learning "
        "fast, so only rules and checks have scored it. Train longer, or capture more often (every=)."
        for phase, count in _captures(stats).items()
        if WARM_UP < count <= LONGEST_WARM_UP and phase in by["rules"] - by["robust"] - odd
    ]
    return [_undecided(sentence) for sentence in sentences]


def broken(stats: Mapping[Key, pd.DataFrame], axes: Mapping[str, Axis] = MappingProxyType({})) -> list[Finding]:
    """Write a sentence about values that are not finite, where there are any."""
    first_of: list[tuple[Any, Key, int]] = []
    for key, frame in stats.items():
        if (i := first_broken(frame)) is not None:
            first_of.append((moments(frame)[i], key, i))
    if not first_of:
        return []
    time, key, i = min(first_of)
    first = _axis(axes, key).describe(stats[key], i)
    sentence = (
        f"Values that are not finite appeared in {len(first_of)} gate{'s'[: len(first_of) > 1]}, first at {first} in "
        f"{name_of(key, {key.phase})}: begin there."
    )
    return [
        Finding(
            sentence=sentence,
            level="alarm",
            what=PHRASES["not_finite"],
            source="network",
            key=key,
            step=step_at(stats[key], i),
            time=time,
            evidence={"phase": key.phase, "values": float(not_finite(stats[key])[i]), "series": len(first_of)},
        )
    ]


def onset(scores: NDArray[np.float64]) -> int | None:
    """Find where a series rose for good: the index of its first capture on the higher side; None where it did not.

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
    """Describe what contributed most to the scores above 1, at most `most` causes: broken rules first."""
    bad = frame[numbers(frame, "anomaly_score") > 1]
    why = {str(name)[4:]: np.nan_to_num(numbers(bad, name)) for name in frame.columns if str(name).startswith("why_")}
    weight = {name: float(np.abs(values).sum()) for name, values in why.items()}
    kept = sorted(
        (name for name in weight if weight[name] > 0), key=lambda name: (name not in BROKEN, -weight[name], name)
    )
    return [phrase(name, float(why[name].sum())) for name in kept[:most]]


def overfit(metrics: pd.DataFrame) -> list[Finding]:
    """Write a sentence about overfitting, where training and validation loss show it.

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
            evidence={"validation_loss": last, "lowest_validation_loss": lowest},
        )
    ]


def _change(frame: pd.DataFrame, axis: Axis) -> list[str]:
    values = numbers(frame, "anomaly_score")
    frame, scores = frame[np.isfinite(values)], values[np.isfinite(values)]
    why = causes(frame)
    because = f"; what contributed most: {join_words(why)}" if why else ""
    if (split := onset(scores)) is not None:
        before, after = float(np.median(scores[:split])), float(np.median(scores[split:]))
        return [
            f"Its scores rose at {axis.describe(frame, split)}, from a median of {number(before)} to "
            f"{number(after)}{because}."
        ]
    first = axis.describe(frame, _begin(scores))
    return [f"It was first above 1 at {first}, without a lasting change of level{because}."]


def _begin(scores: NDArray[np.float64]) -> int:
    """Return the index of the capture since which scores, some of which are above 1, are too high."""
    split = onset(scores)
    return int(np.argmax(scores > 1)) if split is None else split


def _undecided(sentence: str) -> Finding:
    return Finding(sentence=sentence, level="undecided", what="too little was captured to say")


def _captures(stats: Mapping[Key, pd.DataFrame]) -> dict[str, int]:
    """Return phase → number of captures."""
    counts: dict[str, int] = {}
    for key, frame in stats.items():
        counts[key.phase] = max(counts.get(key.phase, 0), len(frame))
    return counts


def _axis(axes: Mapping[str, Axis], key: Key) -> Axis:
    return axes.get(key.phase) or Axis((key.phase,))

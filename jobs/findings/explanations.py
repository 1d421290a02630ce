"""Why, in the words of who trains trading networks."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from gatewatch.jobs.text import number, printable

PHRASES: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "mean_activation": ("the gate opens further than its trend", "the gate closes further than its trend"),
        "spread": ("its units differ more from each other and over time", "its units become alike, or stand still"),
        "entropy": (
            "its activations spread over more of the scale",
            "its activations gather at few values",
        ),
        "zero_crossing_rate": (
            "it flips from bar to bar more often: noise rather than regimes",
            "it hardly changes from bar to bar: the inputs no longer move it",
        ),
        "saturation": (
            "more of it is stuck fully open or shut, where no gradient passes",
            "less of it is fully open or shut",
        ),
        "movement": (
            "its units move further from capture to capture",
            "its units stand still from capture to capture",
        ),
        "unrest": (
            "its state jumps between captures: is it reset where it should be?",
            "its state no longer jumps: is it reset at an episode's beginning?",
        ),
        "response": (
            "its units follow their input more than before",
            "its units follow their input less: the market hardly reaches them",
        ),
        "drift": ("its distribution leaves what it was a few captures ago", "its distribution settles"),
        "memory_timescale": (
            "it remembers for more bars than before",
            "it remembers for fewer bars than before",
        ),
        "effective_rank": (
            "its units move in more independent directions",
            "its units move together: the layer acts smaller than it is",
        ),
        "dead_units": ("more units do nothing at all", "fewer units do nothing at all"),
        "gradient_norm": ("the gradient grew: outliers in the batch?", "the gradient shrank: little is learned"),
        "gradient_level": ("the gradient has been larger lately", "the gradient has been smaller lately"),
        "gradient_noise": ("the gradient jumps from capture to capture", "the gradient hardly changes any more"),
        "var_gradient": ("the gradient varies more between steps", "the gradient varies less between steps"),
        "update_ratio": (
            "the weights move further in a step: is the learning rate too high?",
            "the weights hardly move in a step",
        ),
        "update_per_rate": (
            "the weights move further than the learning rate explains",
            "the weights move less than the learning rate explains",
        ),
        "update_norm": ("the steps of the weights grew", "the steps of the weights shrank"),
        "update_frequency": ("more of the weights move", "fewer of the weights move"),
        "weight_norm": ("the weights grew", "the weights shrank"),
        "learning_rate": ("the learning rate was raised", "the learning rate was lowered"),
        "loss": ("the loss rose", "the loss fell"),
        "loss_level": ("the loss has been higher lately", "the loss has been lower lately"),
        "loss_noise": ("the loss jumps from capture to capture", "the loss hardly changes any more"),
        "val_loss": ("the validation loss rose", "the validation loss fell"),
        "reward": ("the reward rose", "the reward fell"),
        "generalisation_gap": (
            "validation falls behind training: prices are learned by heart",
            "validation catches up with training",
        ),
    }
)
"""Feature → what it means where it goes up, and where it goes down."""


BROKEN: Final[Mapping[str, str]] = MappingProxyType(
    {
        "not_finite": "values are NaN or infinite",
        "collapsed": "the gate went fully open or shut",
        "saturated": "at once a large part of the gate is stuck fully open or shut",
        "leap": "the weights leapt further than ever before in this run",
        "hasty": "all weights move further than the learning rate explains: another optimizer state, other data?",
        "frozen": "the weights stand still while the run goes on",
        "exploded": "the gradient is far larger than it has been",
        "vanished": "the gradient is too small to move the weights",
    }
)
"""Hard rule → what it means that it is broken. Beside it stands its score, which has no direction."""


def phrase(name: str, by: float) -> str:
    """What it means that a feature went up (positive) or down, or that a hard rule is broken; short."""
    if name in BROKEN:
        return BROKEN[name]
    shown = name.replace("_", " ")
    up, down = PHRASES.get(name, (f"{shown} rose", f"{shown} fell"))
    return up if by > 0 else down


def in_words(why: Mapping[str, float]) -> list[str]:
    """The causes of a score, the largest first, each with its size; a feature without a phrase is shown as it is.

    Args:
        why: feature → by how many usual deviations it went up (positive) or down; or a hard rule that is broken.
    """
    largest = sorted(why.items(), key=lambda item: (item[0] not in BROKEN, -abs(item[1]), item[0]))
    return [_told(name, by) for name, by in largest]


def _told(name: str, by: float) -> str:
    if name in BROKEN:
        return f"{BROKEN[name]} ({name})"
    up, down = PHRASES.get(name, ("it rose", "it fell"))
    return f"{up if by > 0 else down} ({printable(name)[:80]}, {number(abs(by), 2)}× its usual)"

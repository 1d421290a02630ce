"""What trainings of a policy log, by whatever name: Stable-Baselines3's, CleanRL's, or those of one's own loop."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.jobs.scoring.captures import Array, Captures
from gatewatch.jobs.scoring.checks.base import any_of_late

NAMES: Final = {
    "entropy": ("entropy",),
    "entropy_loss": ("entropy_loss",),
    "std": ("train/std", "policy/std", "losses/std", "policy_std", "action_std"),
    "approx_kl": ("approx_kl", "kl"),
    "clip_fraction": ("clip_fraction", "clipfrac"),
    "explained_variance": ("explained_variance",),
    "advantage_std": ("advantage_std",),
    "action_share": ("action_share",),
    "position_share": ("position_share",),
    "actions": ("actions",),
    "logprob_difference": ("logprob_difference",),
}
"""What is judged → the last part of the names that it is logged by, or the last two parts."""
_ONLY_OF_POLICIES: Final = frozenset(
    {"approx_kl", "clip_fraction", "clipfrac", "explained_variance", "advantage_std", "action_share"}
    | {"policy_loss", "policy_gradient_loss", "pg_loss"}
)
"""Who logs one of these trains a policy. An entropy or a divergence (`kl`) may be of anything, as of an autoencoder."""
_NOT_OF_A_STEP: Final = "objective"
"""TRL's `objective/kl` is a distance from another model, which grows."""


def logged(captures: Captures, what: str) -> Array:
    """Return (n,), what is logged at each capture; NaN where it is not.

    Where several metrics have the name, the first in the order of their names that has a value counts. The entropy is
    that of `entropy`, or else what `entropy_loss` is the negative of.
    """
    values = np.full(len(captures.time), np.nan)
    for name in sorted(captures.metrics):
        if _is_called(name, NAMES[what]):
            values = np.where(np.isfinite(values), values, captures.metrics[name])
    if what == "entropy":
        values = np.where(np.isfinite(values), values, -logged(captures, "entropy_loss"))
    return values


def trains_a_policy(captures: Captures) -> NDArray[np.bool_]:
    """Return (n,), whether a capture, or one of the `WINDOW` before it, has a metric that only policies have."""
    any_logged = np.zeros(len(captures.time), dtype=bool)
    for name, values in captures.metrics.items():
        if _is_called(name, _ONLY_OF_POLICIES):
            any_logged |= np.isfinite(values)
    return any_of_late(any_logged)


def _is_called(name: str, names: frozenset[str] | tuple[str, ...]) -> bool:
    parts = name.lower().replace(".", "/").replace(" ", "_").split("/")
    return _NOT_OF_A_STEP not in parts and (parts[-1] in names or "/".join(parts[-2:]) in names)

"""The limit of a run: how far healthy runs of the same network and phase went at their worst.

Captures of a run depend on each other, so a limit that one capture in a hundred exceeds says little of how many runs
exceed it. Runs hardly depend on each other. If a new run is healthy, it and its n baselines are exchangeable: its
maximum has any rank among the n + 1 maxima with the same chance, whatever happens within a run. It therefore exceeds
the ⌈(n+1)(1−α)⌉-th smallest maximum of the baselines with a chance of at most α (split conformal prediction: Vovk,
Gammerman and Shafer 2005, "Algorithmic Learning in a Random World"; Papadopoulos et al. 2002). That needs n ≥ 1/α − 1:
19 baselines for 5 %, 99 for 1 %. Fewer hold 1/(n+1), by the largest of their maxima.

The maxima must come from a score that treats the new run and its baselines alike. That of the robust detector does: it
depends on its run alone. That of an isolation forest that was trained on the baselines does not.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.jobs.scoring.captures import Array

FALSE_ALARM_RATE: Final = 0.05
"""The share of healthy runs that may alarm, where the user chose no other."""
BUILT_IN: Final = 1.0
"""The built-in limit of the robust score, which its detector is scaled to. The limit of a run is never smaller: a calm
set of baselines is no reason to alarm more often."""
_ARRAYS: Final = ("maxima", "rate", "captures")


@dataclass(frozen=True)
class RunLimit:
    """The limit of the robust score for one run; `BUILT_IN` without baselines.

    Args:
        maxima: (n,), the largest robust score of each baseline, sorted.
        rate: α, the share of healthy runs that may exceed the limit: above 0, below 1.
        captures: of the shortest baseline. In a longer run the limit may be exceeded more often.
    """

    maxima: Array = field(default_factory=lambda: np.empty(0))
    rate: float = FALSE_ALARM_RATE
    captures: int = 0

    @property
    def baselines(self) -> int:
        """n, how many healthy runs the limit comes from."""
        return len(self.maxima)

    @cached_property
    def limit(self) -> float:
        """The robust score from which a run alarms."""
        if not self.baselines:
            return BUILT_IN
        return max(BUILT_IN, float(self.maxima[self.baselines - self._above]))

    @property
    def held_rate(self) -> float:
        """The share of healthy runs that may exceed the limit: the largest that n baselines hold up to `rate`, or the
        smallest that so few hold."""
        return self._above / (self.baselines + 1)

    @property
    def model_id(self) -> str:
        """The same for the same maxima and rate."""
        digest = hashlib.sha256(np.ascontiguousarray(self.maxima).tobytes() + f" {self.rate}".encode())
        return f"run_limit-{digest.hexdigest()[:12]}"

    @property
    def arrays(self) -> dict[str, Array]:
        """What `from_arrays` makes the limit of."""
        return {"maxima": self.maxima, "rate": np.array([self.rate]), "captures": np.array([float(self.captures)])}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> RunLimit:
        """Return the limit whose arrays a file holds, which may be damaged or crafted.

        Raises:
            ValueError: they are those of no limit.
        """
        if set(arrays) != set(_ARRAYS) or any(each.dtype != np.float64 or each.ndim != 1 for each in arrays.values()):
            raise ValueError("the arrays are not those of the limit of a run")
        maxima, rate, captures = (np.asarray(arrays[name], dtype=np.float64) for name in _ARRAYS)
        if len(rate) != 1 or not 0 < rate[0] < 1 or len(captures) != 1 or not 0 <= captures[0] < 2**53:
            raise ValueError("the rate of the limit, or how many captures it holds for, is none")
        if not (np.isfinite(maxima).all() and (maxima >= 0).all() and (np.diff(maxima) >= 0).all()):
            raise ValueError("the maxima of the baselines are no sorted scores")
        return cls(maxima, float(rate[0]), int(captures[0]))

    def reached_by(self, scores: Array) -> Array:
        """Return (n,), how many of the baselines had a score at least as large as each of these; NaN counts none."""
        reached = self.baselines - np.searchsorted(self.maxima, scores, side="left")
        return np.asarray(reached, dtype=np.float64)

    @property
    def _above(self) -> int:
        """How many of the n + 1 maxima may lie above the limit: ⌊(n+1)α⌋, at least 1.

        The rounding of a product such as 100 · 0.29 must not take one away.
        """
        return max(1, math.floor((self.baselines + 1) * self.rate + 1e-9))

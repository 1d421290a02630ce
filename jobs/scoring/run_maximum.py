"""How far a whole run went at its worst: the largest robust score that counts in the consensus."""

from __future__ import annotations

import numpy as np

from gatewatch.jobs.scoring.captures import Captures
from gatewatch.jobs.scoring.detectors.consensus import unexplained
from gatewatch.jobs.scoring.detectors.robust import Robust
from gatewatch.jobs.scoring.scoring_state import ScoringState


def run_maximum(whole: Captures) -> float | None:
    """Return the largest robust score of a run and phase, as the consensus takes it; None where it has none.

    Args:
        whole: all captures.
    """
    batch = ScoringState((Robust,)).judge(whole, len(whole.time))
    (robust,) = unexplained(batch, "robust")
    largest = [np.nanmax(each) for each in robust.values() if np.isfinite(each).any()]
    return float(max(largest)) if largest else None

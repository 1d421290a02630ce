"""Where the cause of a score lies, as far as a detector can tell."""

from __future__ import annotations

from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Source = Literal["network", "data", "optimizer", "state", "policy"]
NETWORK: Final[Source] = "network"
DATA_CHANGED: Final[Source] = "data"
Sources = NDArray[np.str_]
"""(n,), the source of each score."""


def known_source(text: str) -> Source | None:
    """Return a source that was read from a store; None for any other text."""
    known: tuple[Source, ...] = get_args(Source)
    return next((source for source in known if source == text), None)

"""Where the cause of a score lies, as far as a detector can tell."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Source = Literal["network", "data", "optimizer", "state", "policy"]
NETWORK: Final[Source] = "network"
Sources = NDArray[np.str_]
"""(n,), the source of each score."""

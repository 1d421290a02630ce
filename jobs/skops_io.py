"""Import skops, which keeps trained models in files, in a third of the time."""

from __future__ import annotations

import sys
from typing import Any, Final

_FOR_TORCH: Final = "sklearn.externals.array_api_compat.torch"


def skops_io() -> Any:
    """Return the module skops.io. It imports all of scikit-learn, one module of which loads torch: not that."""
    left_out = "skops.io" not in sys.modules and _FOR_TORCH not in sys.modules
    if left_out:
        sys.modules[_FOR_TORCH] = None  # type: ignore[assignment]  # which makes its import fail, this once
    try:
        import skops.io  # noqa: PLC0415 - still slow: only where a model is read or written
    finally:
        if left_out:
            sys.modules.pop(_FOR_TORCH, None)
    return skops.io

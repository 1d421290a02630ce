"""What torch's gradient scalers do: the gradients of a loss that one has scaled contain the scaler's factor."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from itertools import islice
from traceback import walk_stack
from typing import Any, Final

from torch.amp import GradScaler

_FRAMES: Final = 16
_SCALER: Final = "grad_scaler"


class ScaledLosses:
    """Counts in `GradScaler.scale`, while somebody watches.

    A scaler leaves no other sign of it where the script unscales the gradients and calls the optimizer itself.

    Attributes:
        count: how many losses were scaled.
    """

    def __init__(self) -> None:
        self.count = 0
        self._watching = 0
        self._before = self._ours = GradScaler.scale

    def watch(self) -> None:
        """Count from now on, until as many calls of `release`."""
        self._watching += 1
        if self._watching == 1:
            self._before = GradScaler.scale
            self._ours = GradScaler.scale = self._counted(self._before)  # type: ignore[method-assign]  # put back below

    def release(self) -> None:
        """End what `watch` has begun. Where somebody has replaced the method since, theirs stays."""
        self._watching -= 1
        if not self._watching and GradScaler.scale is self._ours:
            GradScaler.scale = self._before  # type: ignore[method-assign]  # as above

    def _counted(self, scale: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(scale)
        def counted(scaler: GradScaler, *arguments: Any, **options: Any) -> Any:
            self.count += scaler.is_enabled()
            return scale(scaler, *arguments, **options)

        return counted


scaled_losses: Final = ScaledLosses()


def is_scaled_step() -> bool:
    """Return whether a gradient scaler that is enabled has called the optimizer's step that calls this."""
    frames = islice(walk_stack(sys._getframe(1)), _FRAMES)
    scalers = [frame.f_locals.get("self") for frame, _ in frames if _SCALER in frame.f_code.co_filename]
    return any(getattr(scaler, "_enabled", True) for scaler in scalers)

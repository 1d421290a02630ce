"""The loss of a torch module's outputs for the probe, by the user's function, without a trace of its call."""

from __future__ import annotations

import contextvars
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.probe_loss import check_probe_targets, loss_error, mean_loss
from gatewatch.collector.text import safe_repr
from gatewatch.collector.torch.inputs import arrays, as_targets, shapes, tensors
from gatewatch.collector.torch.twin import Twin

_REMEDY: Final = "loss is called with what the module returns for the probe, and with probe_targets"

Scored = tuple[float | None, Exception | None]
"""The loss; or why there is none, a ConfigError where the user's arguments are what is wrong."""


@dataclass(frozen=True, slots=True)
class ProbeLoss:
    """A loss function and the targets of the probe.

    Attributes:
        function: takes the module's outputs and the targets.
        targets: copies of our own.
        method: that is called in the module's place: then arrays stay arrays.
        sizes: of the probe's dimensions.
    """

    function: Callable[[Any, Any], Any]
    targets: Any
    method: str | None
    sizes: frozenset[int]

    @classmethod
    def of(cls, probe: Any, targets: Any, loss: Any, method: str | None) -> ProbeLoss | None:
        """Return the loss for these arguments of a monitor; None where no targets are given.

        Raises:
            ConfigError: one of them is missing or wrong.
        """
        check_probe_targets(probe, targets, loss)
        if targets is None:
            return None
        if not callable(loss):
            what = "probe_targets without a loss" if loss is None else f"loss={safe_repr(loss)}: must be a function"
            raise ConfigError(f"{what}; {_REMEDY}: loss=torch.nn.functional.mse_loss")
        sizes = {size for array in arrays(probe) for size in array.shape}
        return cls(loss, as_targets(targets, method), method, frozenset(sizes))

    @contextmanager
    def copied(self, twin: Twin) -> Iterator[Callable[[Any], Scored]]:
        """Copy the function beside a module's copy, with all that it holds: it may be a method of the module.

        Yields:
            Outputs of the copy → their loss.
        """
        failed, function = None, self.function
        try:
            function = twin.copy_also(self.function)
        except Exception as error:
            failed = error
        yield lambda outputs: (None, failed) if failed is not None else self._score(function, outputs)

    def _score(self, function: Callable[[Any, Any], Any], outputs: Any) -> Scored:
        try:
            device = next((tensor.device for tensor in tensors(outputs)), None)
            targets = as_targets(self.targets, self.method, device)
            self._check_length(targets, outputs)
            return mean_loss(contextvars.copy_context().run(function, outputs, targets)), None
        except Exception as error:
            return None, loss_error(error, shapes(outputs), shapes(self.targets), _REMEDY)

    def _check_length(self, targets: Any, outputs: Any) -> None:
        """See that one array of targets is as long as something that it can belong to: a loss may broadcast it.

        Raises:
            ValueError: it is not.
        """
        sizes = {size for array in tensors(outputs) for size in (*array.shape, math.prod(array.shape[:2]))}
        if isinstance(targets, Tensor) and targets.dim() and sizes and len(targets) not in sizes | self.sizes:
            raise ValueError(f"there are {len(targets)} targets, and neither probe nor outputs are so long")

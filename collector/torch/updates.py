"""What a step of an optimizer did to the parameters of a torch module, seen through torch's own hooks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

import numpy as np
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from collector.torch.layers import trainable_parameters
from collector.updates import Array, Update, update_fields

_FRAMES: Final = 16
_SCALER: Final = "grad_scaler"

Name = tuple[str, str]


class TorchUpdates:
    """`Updates` of a torch module: the first step that any optimizer makes with its parameters after `keep()`.

    The gradient before clipping is the one that the backward passes have left, the clipped one that which the optimizer
    is given. Under a gradient scaler the former is scaled by a factor that is not told, and is left out. Between
    `measure()` and the next `keep()` no hook is there.

    Args:
        module: whose parameters.
        charged: the context in which the hooks do their work, so that its cost is accounted for.
    """

    def __init__(self, module: nn.Module, charged: Callable[[str], AbstractContextManager[None]]) -> None:
        self._module = module
        self._charged = charged
        self._handles: list[RemovableHandle] = []
        self._found: dict[Name, list[nn.Parameter]] = {}
        self._whole: dict[int, torch.Tensor] = {}
        self._steps: dict[Name, _Step] = {}

    def keep(self) -> None:
        """Watch the next step."""
        self.release()
        self._found = trainable_parameters(self._module)
        for parameters in self._found.values():
            for parameter in parameters:
                if parameter.is_leaf:
                    handle = parameter.register_post_accumulate_grad_hook(self._backward)  # type: ignore[no-untyped-call]  # torch is typed in part
                    self._handles.append(handle)
        self._handles.append(register_optimizer_step_pre_hook(self._before))
        self._handles.append(register_optimizer_step_post_hook(self._after))

    def measure(self) -> Sequence[Update]:
        """What the step did, a parameter each; nothing where there was none."""
        steps = {name: step for name, step in self._steps.items() if step.after is not None}
        self.release()
        return [
            Update(
                layer,
                param,
                {
                    **update_fields(step.before, step.after or (), gradient=step.whole, clipped=step.clipped),
                    "optimizer_steps": 1,
                },
            )
            for (layer, param), step in steps.items()
        ]

    def release(self) -> None:
        """Remove the hooks and forget what they saw."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._found, self._whole, self._steps = [], {}, {}, {}

    def _backward(self, parameter: torch.Tensor) -> None:
        """The last of several backward passes before a step leaves the sum of all."""
        if parameter.grad is not None:
            with self._charged("hooks"):
                self._whole[id(parameter)] = parameter.grad.detach().clone()

    def _before(self, optimizer: torch.optim.Optimizer, arguments: Any, options: Any) -> None:
        mine = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        with self._charged("hooks"):
            scaled = _is_scaled()
            for name, parameters in self._found.items():
                if name in self._steps or not all(id(parameter) in mine for parameter in parameters):
                    continue
                known = not isinstance(optimizer, torch.optim.LBFGS)  # its closure has yet to find the gradient
                clipped = _arrays([parameter.grad for parameter in parameters]) if known else None
                whole = None if scaled or not known else _arrays([self._whole.get(id(one)) for one in parameters])
                self._steps[name] = _Step(_arrays(parameters) or [], clipped, whole)

    def _after(self, optimizer: torch.optim.Optimizer, arguments: Any, options: Any) -> None:
        mine = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        with self._charged("hooks"):
            for name, parameters in self._found.items():
                step = self._steps.get(name)
                if step is not None and step.after is None and all(id(parameter) in mine for parameter in parameters):
                    step.after = _arrays(parameters)


class _Step:
    __slots__ = ("after", "before", "clipped", "whole")

    def __init__(self, before: list[Array], clipped: list[Array] | None, whole: list[Array] | None) -> None:
        self.before, self.clipped, self.whole = before, clipped, whole
        self.after: list[Array] | None = None


def _arrays(tensors: Sequence[torch.Tensor | None]) -> list[Array] | None:
    """Copies as NumPy has them; None where one is not there."""
    arrays = []
    for tensor in tensors:
        if tensor is None:
            return None
        dense = tensor.detach().to_dense() if tensor.layout is not torch.strided else tensor.detach()
        wide = dense.to(torch.float32) if dense.dtype in (torch.float16, torch.bfloat16) else dense
        arrays.append(np.array(wide.cpu().numpy(), copy=True))
    return arrays


def _is_scaled() -> bool:
    """Whether the optimizer's step is called by a gradient scaler."""
    frame = sys._getframe(1)
    for _ in range(_FRAMES):
        if _SCALER in frame.f_code.co_filename:
            return True
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return False

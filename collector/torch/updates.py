"""What a step of an optimizer did to the parameters of a torch module, seen through torch's own hooks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from traceback import walk_stack
from typing import Any, Final

import numpy as np
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from gatewatch.collector.arrays import Array
from gatewatch.collector.runtime.signals import defer_sigint
from gatewatch.collector.torch.layers import as_array, trainable_parameters
from gatewatch.collector.updates import Measured, Name, largest, steady, update_fields

_FRAMES: Final = 16
_SCALER: Final = "grad_scaler"


class TorchUpdates:
    """`Updates` of a torch module: the first step that any optimizer makes with its parameters after `keep()`.

    The unclipped gradient is what the backward passes left in `.grad`. The clipped gradient is `.grad` as the step of
    the optimizer sees it. What cannot be known is left out:

    - the unclipped and the clipped gradient, where a closure computes the gradient within the step;
    - the unclipped gradient, under a gradient scaler, because it contains the scaler's factor;
    - the unclipped gradient, in one of several processes, because it is that of this process alone;
    - the clipped gradient, where the optimizer itself divides by the scaler's factor (fused optimizers);
    - the whole update, for a parameter that is sharded over devices (a DTensor), and for a step that torch.compile
      runs, that is captured as a CUDA graph, or that a scaler skips.

    The learning rate is that of the parameter group when the step begins and ends. What a scheduler sets after the step
    applies to the next one.

    If a script scales the loss itself and unscales the gradients itself, that looks like clipping: the unclipped
    gradient is then the scaled one. Between `measure()` and the next `keep()` no hook is registered.

    Args:
        module: the module whose parameters are watched.
        guarded_and_charged: the context in which the hooks work. No error leaves it, and it counts the time against
            the budget.
    """

    def __init__(self, module: nn.Module, guarded_and_charged: Callable[[str], AbstractContextManager[None]]) -> None:
        self._module = module
        self._guarded_and_charged = guarded_and_charged
        self._handles: list[RemovableHandle] = []
        self._watched: dict[Name, list[nn.Parameter]] = {}
        self._whole: dict[int, torch.Tensor] = {}
        self._steps: dict[Name, _Step] = {}

    def keep(self) -> None:
        """Watch the next step."""
        with defer_sigint():
            self.release()
            by_name = trainable_parameters(self._module)
            self._watched = {name: some for name, some in by_name.items() if all(map(_has_values, some))}
            for parameters in self._watched.values():
                for parameter in parameters:
                    if parameter.is_leaf:
                        handle = parameter.register_post_accumulate_grad_hook(self._backward)  # type: ignore[no-untyped-call]  # torch is typed in part
                        self._handles.append(handle)
            self._handles.append(register_optimizer_step_pre_hook(self._before))
            self._handles.append(register_optimizer_step_post_hook(self._after))

    def rate(self) -> float | None:
        """Return the learning rate of the step, exact to 1 %: of the recurrent parameters, or of all if there are none.

        If they have several rates, it is the largest. None where one of them jumped within the step, or is not known.
        """
        rates = {name: step.rate for name, step in self._steps.items() if step.after is not None}
        return largest([rate for (_, param), rate in rates.items() if param == "recurrent"] or rates.values())

    def measure(self) -> Measured:
        """Return what the step did: parameter → fields of its update; empty where there was no step."""
        steps = {name: step for name, step in self._steps.items() if step.after is not None}
        self.release()
        return {
            name: {
                **update_fields(step.before, step.after or (), gradient=step.whole, clipped=step.clipped),
                "optimizer_steps": 1,
            }
            for name, step in steps.items()
        }

    def release(self) -> None:
        """Remove the hooks and forget what they saw."""
        with defer_sigint():
            for handle in self._handles:
                handle.remove()
            self._handles, self._watched, self._whole, self._steps = [], {}, {}, {}

    def _backward(self, parameter: torch.Tensor) -> None:
        """Copy the gradient: the last of several backward passes before a step leaves the sum of all."""
        if _recorded():
            return
        with self._guarded_and_charged("hooks"):
            if parameter.grad is not None:
                self._whole[id(parameter)] = parameter.grad.detach().clone()

    def _before(self, optimizer: torch.optim.Optimizer, arguments: Any, options: Any) -> None:
        if _recorded():
            return
        with self._guarded_and_charged("hooks"):
            skipped = getattr(optimizer, "found_inf", None)
            if skipped is not None and bool(skipped):  # a scaler has marked a gradient as not finite
                return
            has_closure = any(callable(one) for one in (*arguments[1:], options.get("closure")))
            unscales = getattr(optimizer, "grad_scale", None) is not None or options.get("grad_scaler") is not None
            scaled = unscales or _is_scaled()
            for name, parameters, rate in self._of(optimizer):
                if name in self._steps:
                    continue
                clipped = None if has_closure else _copies([parameter.grad for parameter in parameters])
                whole = None
                if clipped is not None and not scaled and not _is_one_of_several():
                    whole = _copies([self._whole.get(id(parameter)) for parameter in parameters])
                if whole is not None and _is_zero(clipped) and not _is_zero(whole):
                    whole = None  # zero_grad(set_to_none=False) was called since that backward pass
                self._steps[name] = _Step(_copies(parameters) or [], None if unscales else clipped, whole, rate)

    def _after(self, optimizer: torch.optim.Optimizer, arguments: Any, options: Any) -> None:
        if _recorded():
            return
        with self._guarded_and_charged("hooks"):
            for name, parameters, rate in self._of(optimizer):
                step = self._steps.get(name)
                if step is not None and step.after is None:
                    step.after, step.rate = _copies(parameters), steady(step.rate, rate)

    def _of(self, optimizer: torch.optim.Optimizer) -> Iterator[tuple[Name, list[nn.Parameter], float | None]]:
        """Yield name, parameters and learning rate of the watched parameters that the optimizer updates."""
        groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
        for name, parameters in self._watched.items():
            if all(id(parameter) in groups for parameter in parameters):
                yield name, parameters, largest(_rate(groups[id(parameter)]) for parameter in parameters)


@dataclass(slots=True)
class _Step:
    before: list[Array]
    clipped: list[Array] | None
    whole: list[Array] | None
    rate: float | None
    after: list[Array] | None = None


def _rate(group: Mapping[str, Any]) -> float | None:
    """Return the learning rate of a group of parameters, which may be a tensor; None where there is none."""
    rate = group.get("lr")
    if isinstance(rate, torch.Tensor) and rate.numel() == 1:
        rate = rate.item()
    return float(rate) if isinstance(rate, int | float | np.number) else None


def _copies(tensors: Sequence[torch.Tensor | None]) -> list[Array] | None:
    """Return copies of the values of tensors; None where a tensor is missing."""
    if any(tensor is None for tensor in tensors):
        return None
    return [np.array(as_array(tensor)) for tensor in tensors]


def _recorded() -> bool:
    """Return whether torch.compile or a CUDA graph records calls to run them later: then no value may be copied."""
    return torch.compiler.is_compiling() or (
        torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()  # type: ignore[no-untyped-call]  # torch is typed in part
    )


def _is_zero(arrays: Sequence[Array] | None) -> bool:
    return arrays is not None and not any(array.any() for array in arrays)


def _has_values(parameter: torch.Tensor) -> bool:
    """Return whether NumPy can read the values. A DTensor, or any class with its own dispatch, holds none itself."""
    own = getattr(type(parameter), "__torch_dispatch__", None)
    return own is torch.Tensor.__torch_dispatch__ and not parameter.is_meta


def _is_one_of_several() -> bool:
    """Return whether other processes train with this one: gradients are averaged after the backward pass."""
    several = torch.distributed
    return several.is_available() and several.is_initialized() and several.get_world_size() > 1


def _is_scaled() -> bool:
    """Return whether the optimizer's step is called by a gradient scaler."""
    frames = islice(walk_stack(sys._getframe(1)), _FRAMES)
    return any(_SCALER in frame.f_code.co_filename for frame, _ in frames)

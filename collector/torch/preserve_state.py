"""What a look at a module must not leave behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from gatewatch.collector.torch.members import buffers, modules

_LARGEST_STATE: Final = 65_536


@contextmanager
def preserve_state(module: nn.Module) -> Iterator[None]:
    """Inference without gradients for as long as it lasts; what a call moves on is put back afterwards.

    That is the mode of every submodule, the random state of CPU and CUDA, attributes that were set anew (a hidden
    state that a policy keeps), and buffers of up to 65,536 values that were changed in place. What torch.compile has
    made is not used meanwhile: it would be compiled once more for inference.
    """
    parts = modules(module)
    modes = [(one, one.training) for one in parts]
    members = [
        (present, dict(present))
        for one in parts
        if not isinstance(one, torch.jit.ScriptModule)  # it has no attributes of Python's
        for present in (vars(one), one._parameters, one._buffers, one._modules)
    ]
    counters = [
        (buffer, buffer._version, buffer.clone())
        for buffer in buffers(module)
        if not is_lazy(buffer) and buffer.numel() <= _LARGEST_STATE and not buffer.is_inference()
    ]
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch is typed in part
    devices = range(torch.cuda.device_count()) if started else ()
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices))
        stack.enter_context(torch.no_grad())
        if any(_is_compiled(one) for one in parts):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            for one in parts:
                _set_mode(one, False)  # not eval(), which a module may have made do more
            yield
        finally:
            for one, training in modes:
                _set_mode(one, training)
            for present, before in members:
                _put_back(present, before)
            for buffer, version, value in counters:
                if buffer._version != version:
                    buffer.copy_(value)


def _is_compiled(module: nn.Module) -> bool:
    return "_orig_mod" in module._modules or vars(module).get("_compiled_call_impl") is not None


def _set_mode(module: nn.Module, training: bool) -> None:
    """Past a `__setattr__` of the user's own, which may do anything."""
    if "training" in vars(module):
        vars(module)["training"] = training
    else:
        module.training = training


def _put_back(present: dict[str, Any], before: dict[str, Any]) -> None:
    """Without a moment at which something is missing: another thread may be at work."""
    present.update(before)
    for name in present.keys() - before.keys():
        del present[name]

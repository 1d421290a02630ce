"""Where a look at a torch module could leave a trace: all of it is the same after a training with a monitor."""

from __future__ import annotations

import random
import signal
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves


def traces(module: nn.Module, *optimizers: torch.optim.Optimizer) -> dict[str, Any]:
    """Return values, attributes, modes and hooks of a module, moments of optimizers, and the state of the process."""
    moments = tree_leaves([one.state_dict() for one in optimizers])
    parts = list(module.modules())
    return {
        **{name: value.clone() for name, value in module.state_dict().items()},
        **{f"moments {number}": value for number, value in enumerate(moments)},
        "gradients": [parameter.grad is None for parameter in module.parameters()],
        "attributes": [sorted(vars(part)) for part in parts],
        "modes": [part.training for part in parts],
        "hooks": [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in parts],
        "random states": (random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist()),
        "grad mode": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "handlers": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
    }


def seed_all(seed: int = 3) -> None:
    """Let all random numbers begin at a seed."""
    for begin in (random.seed, np.random.seed, torch.manual_seed):
        begin(seed)


def assert_equal(bare: dict[str, Any], monitored: dict[str, Any]) -> None:
    """Compare what two trainings have left, bit for bit."""
    assert bare.keys() == monitored.keys()
    for name, value in bare.items():
        equal = torch.equal(value, monitored[name]) if isinstance(value, torch.Tensor) else value == monitored[name]
        assert equal, name

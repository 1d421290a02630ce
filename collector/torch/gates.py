"""`gates(module, *inputs)`: the gates of an unmodified torch module."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from gatewatch.collector.arrays import Array
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.mismatch import explain_mismatch
from gatewatch.collector.text import safe_repr
from gatewatch.collector.torch.layers import require_recurrent_layers
from gatewatch.collector.torch.mismatch import input_mismatch_error
from gatewatch.collector.torch.trace import trace


def gates(module: nn.Module, *inputs: Any) -> dict[str, dict[str, Array]]:
    """The gates of a torch module's recurrent layers for a batch, without training.

    The module is called once, in inference mode, and left as it was: its mode, its buffers, torch's random state.

    Args:
        module: any module with `nn.LSTM`, `nn.GRU` or cells of them in it, or one of these itself.
        inputs: as the module takes them: packed sequences and initial states too.

    Returns:
        Layer name → gate → array (batch, time, units), whatever `batch_first` says, float32 or as the module computes.
        LSTM gates: input, forget, candidate, cell, output, hidden; GRU gates: update (which keeps the old state),
        reset, candidate, hidden. The hidden state of a projected LSTM has its `proj_size` units. Position t is the
        t-th element of the input, whichever way the cell ran; what is past the end of a packed sequence is NaN.

        A layer is named by the path of its module and torch's own suffix: `policy.lstm/l0`, `policy.lstm/l0_reverse`;
        `l0` where the module is an LSTM itself. A cell is named by its path. The steps of a loop over time are side
        by side in time; a module that is called again otherwise has `path/l0#2`, and so on.

    Raises:
        ConfigError: no layer of the module is recurrent, the inputs do not fit the module, or no recurrent layer can
            be replayed exactly. Where only some cannot, a warning names them.
        Exception: whatever else the module's forward raises.
    """
    if not isinstance(module, nn.Module):
        raise ConfigError(f"module={safe_repr(module)}: must be a torch.nn.Module")
    layers = require_recurrent_layers(module)
    with explain_mismatch(partial(input_mismatch_error, "input", inputs, module)):
        traced = trace(module, lambda: module(*inputs), layers)
    return traced.gates()

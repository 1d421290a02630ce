"""The loss of the probe, whatever the framework: the arguments it takes, and how it becomes one number.

The probe and its targets never change, so their loss moves with the weights alone. A batch's loss that jumps while the
probe's stays calm comes from the data; one that jumps with it comes from the network.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from gatewatch.collector.arrays import as_array
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.text import describe_exception

PROBE_LOSS: Final = "probe_loss"
"""The metric's name."""


def check_probe_targets(probe: Any, targets: Any, loss: Any) -> None:
    """Check that there is a probe for the targets, and that a loss has targets.

    Raises:
        ConfigError: the argument that is missing.
    """
    if targets is not None and probe is None:
        raise ConfigError("probe_targets without a probe: give the inputs that they belong to, such as probe=x[:32]")
    if loss is not None and targets is None:
        raise ConfigError(
            "loss without probe_targets: it is for the loss of the probe alone; give probe_targets=y[:32], or neither"
        )


def mean_loss(value: Any) -> float:
    """Return what a loss function has returned as one number: the mean, where it has one for each sample.

    Args:
        value: a number, or a tensor or an array of whatever library and shape. It may be NaN or infinite.

    Raises:
        TypeError: it is something else, such as a dict.
        ValueError: it has no values.
    """
    array = as_array(value, "what the loss returns")
    if not array.size:
        raise ValueError(f"the loss returned an array of shape {array.shape}, which has no values")
    return float(array.mean(dtype=np.float64))


def loss_error(error: Exception, outputs: str, targets: str, remedy: str) -> Exception:
    """Return the error that says why a model's outputs and the targets have no loss.

    Args:
        error: what computing it has raised. A lack of memory is returned as it is: nobody's arguments are wrong.
        outputs: their shapes.
        targets: their shapes.
        remedy: what to give instead.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return error
    return ConfigError(
        f"probe_targets of shape {targets} do not fit the outputs of shape {outputs} or the loss, which failed: "
        f"{describe_exception(error)}; {remedy}"
    )

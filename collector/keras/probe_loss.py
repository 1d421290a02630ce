"""The loss of a Keras model's outputs for the probe, as `compile` has it, without a trace in the compiled loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import keras
from keras.src.losses import loss as loss_module
from keras.src.trainers.compile_utils import CompileLoss

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.keras.inputs import arrays, shapes
from gatewatch.collector.keras.layers import name_of
from gatewatch.collector.probe_loss import check_probe_targets, loss_error, mean_loss
from gatewatch.collector.text import first_line

_REMEDY: Final = "give probe_targets as fit takes them, for the outputs that the model has for the probe"


@dataclass(frozen=True, slots=True)
class ProbeLoss:
    """The targets of the probe, and their loss.

    Attributes:
        targets: tensors of our own, nested as they are given.
        own: what `compile(loss=...)` would be given; None for what the model is compiled with.
    """

    targets: Any
    own: Any

    @classmethod
    def of(cls, probe: Any, targets: Any, loss: Any) -> ProbeLoss | None:
        """Return the loss for these arguments of a monitor; None where no targets are given.

        Raises:
            ConfigError: one of them is missing or wrong.
        """
        check_probe_targets(probe, targets, loss)
        if targets is None:
            return None
        try:
            tensors = keras.tree.map_structure(_as_tensor, targets)
        except Exception as error:
            raise ConfigError(
                f"probe_targets are no targets: {first_line(error).rstrip('.')}; give an array, such as y[:32]"
            ) from error
        lengths = {array.shape[:1] for array in arrays(tensors)} - {()}
        wanted = {array.shape[:1] for array in arrays(probe)}
        if not lengths or not lengths <= wanted:
            raise ConfigError(
                f"probe_targets of shape {shapes(tensors)} are not as many as the sequences of the probe of shape "
                f"{shapes(probe)}; give a target for each"
            )
        return cls(tensors, loss)

    def check(self, model: Any) -> None:
        """See that there is a loss.

        Raises:
            ConfigError: the model is compiled with none, and none was given.
        """
        if self.own is None and getattr(model, "_compile_loss", None) is None:
            raise ConfigError(
                f"probe_targets without a loss: the model {name_of(model)!r} is not compiled with one; give "
                "GateMonitor loss='mse', or what else compile(loss=...) takes"
            )

    def called(self, model: Any) -> Mapping[str, Any]:
        """Return what is called of the user's, by name, for `isolated`."""
        return {"loss": self._parts(model)[0]}

    def score(self, model: Any, outputs: Any) -> tuple[float | None, Exception | None]:
        """Return the loss of the model's outputs; or why there is none. Call it inside `isolated`.

        It is made anew from what `compile` was given: the model's own keeps a mean of each output's loss.
        """
        try:
            loss, weights, names = self._parts(model)
            value = CompileLoss(loss, weights, output_names=names)(self.targets, outputs)
            return mean_loss(keras.ops.convert_to_numpy(_of_all_replicas(value))), None
        except Exception as error:
            return None, loss_error(error, shapes(outputs), shapes(self.targets), _REMEDY)

    def _parts(self, model: Any) -> tuple[Any, Any, Any]:
        """Return what `compile` was given: the loss and the weights of the outputs; and the names of these."""
        names = getattr(model, "output_names", None)
        if self.own is not None:
            return self.own, None, names
        compiled = model._compile_loss
        return compiled._user_loss, compiled._user_loss_weights, compiled.output_names


def _as_tensor(part: Any) -> Any:
    return None if part is None else keras.ops.copy(keras.ops.convert_to_tensor(part))


def _of_all_replicas(value: Any) -> Any:
    """Undo that in a strategy of TensorFlow's a loss is one replica's share, as Keras does for what it logs."""
    unscale = getattr(loss_module, "unscale_loss_for_distribution", None)  # Keras 3.6 has none
    return value if unscale is None else unscale(value)

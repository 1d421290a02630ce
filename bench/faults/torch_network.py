"""What a fault can do to a torch module."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.faults.fault import Weights


class TorchNetwork:
    """The `Network` of a torch module.

    Args:
        module: whose `nn.LSTM` and `nn.GRU` are its layers.
        head: its output layer.
        optimizer: that trains it, if any.
        train_another: gives the module of another run.
    """

    def __init__(
        self,
        module: nn.Module,
        head: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        train_another: Callable[[], nn.Module] | None = None,
    ) -> None:
        assert isinstance(head, nn.Linear)
        self._module, self._head, self._optimizer, self._train_another = module, head, optimizer, train_another
        recurrent = [child for child in module.modules() if isinstance(child, nn.LSTM | nn.GRU)]
        self._layers = [(child, k) for child in recurrent for k in range(child.num_layers)]

    def __len__(self) -> int:
        return len(self._layers)

    def _of(self, layer: int, name: str) -> Tensor:
        module, k = self._layers[layer]
        found: Tensor = getattr(module, f"{name}_l{k}").data
        return found

    def units(self, layer: int) -> int:
        """How many units the layer has."""
        return int(self._layers[layer][0].hidden_size)

    def set_memory_bias(self, layer: int, bias: float) -> None:
        """Gates of an LSTM are in the order i f g o, of a GRU r z n; there are two biases, which are added."""
        n = self.units(layer)
        self._of(layer, "bias_ih")[n : 2 * n] = bias
        self._of(layer, "bias_hh")[n : 2 * n] = 0.0

    def scale_recurrent(self, layer: int, factor: float) -> None:
        """Multiply the recurrent weights."""
        self._of(layer, "weight_hh").mul_(factor)

    def silence_units(self, layer: int, units: slice) -> None:
        """Zero all weights into and out of these units, biases too."""
        n = self.units(layer)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            weights = self._of(layer, name)
            weights.view(-1, n, *weights.shape[1:])[:, units] = 0.0
        self._of(layer, "weight_hh")[:, units] = 0.0
        module, k = self._layers[layer]
        if k + 1 < module.num_layers:
            self._of(layer + 1, "weight_ih")[:, units] = 0.0
        elif self._head.in_features == n:
            self._head.weight.data[:, units] = 0.0

    def copy_units(self, layer: int) -> None:
        """Give the second half of the units the incoming weights, recurrent ones too, and biases of the first."""
        n = self.units(layer)
        half = n // 2
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            weights = self._of(layer, name)
            gates = weights.view(-1, n, *weights.shape[1:])
            gates[:, n - half :] = gates[:, :half].clone()

    def reset_layer(self, layer: int, seed: int) -> None:
        """Initialise the layer anew, as torch does: evenly, up to the root of its units, inverted."""
        bound, random = self.units(layer) ** -0.5, torch.Generator().manual_seed(seed)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            self._of(layer, name).uniform_(-bound, bound, generator=random)

    def break_weight(self, layer: int) -> None:
        """Make one recurrent weight NaN."""
        self._of(layer, "weight_hh")[0, 0] = float("nan")

    def freeze(self, layer: int) -> None:
        """Exclude the layer from training."""
        module, k = self._layers[layer]
        for name, parameter in module.named_parameters():
            if name.endswith(f"_l{k}"):
                parameter.requires_grad_(False)
                parameter.grad = None

    def scale_head(self, factor: float) -> None:
        """Multiply the weights of the output layer."""
        self._head.weight.data.mul_(factor)

    def forget_moments(self, count: bool = False) -> None:
        """Zero the optimizer's averages, and its step count where that is asked for."""
        for state in self._optimizer.state.values() if self._optimizer else ():
            for name, held in state.items():
                if isinstance(held, Tensor) and (count or name != "step"):
                    held.zero_()

    def weights(self) -> Weights:
        """Copies of all that is trained."""
        return {name: held.detach().numpy().copy() for name, held in self._module.named_parameters()}

    def set_weights(self, weights: Weights) -> None:
        """Assign them."""
        for name, held in self._module.named_parameters():
            held.data.copy_(torch.from_numpy(weights[name]))

    def weights_of_another_run(self) -> Weights:
        """Those of the same network, trained as long from another seed."""
        assert self._train_another is not None
        return {name: held.detach().numpy().copy() for name, held in self._train_another().named_parameters()}

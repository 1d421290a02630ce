"""What a fault can do to a Keras model."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from bench.faults.fault import Weights
from gatewatch.collector.keras.layers import recurrent_layers


class KerasNetwork:
    """The `Network` of a Keras model whose last layer is its output.

    Args:
        model: the model.
        train_another: gives the model of another run.
    """

    def __init__(self, model: keras.Model, train_another: Callable[[], keras.Model] | None = None) -> None:
        self._model, self._train_another = model, train_another
        self._layers = list(recurrent_layers(model).values())
        self._cells = [layer.cell for layer in self._layers]

    def __len__(self) -> int:
        return len(self._cells)

    def units(self, layer: int) -> int:
        """How many units the layer has."""
        return int(self._cells[layer].units)

    def set_memory_bias(self, layer: int, bias: float) -> None:
        """Gates of an LSTM are in the order i f c o, of a GRU z r h; a GRU has two biases, which are added."""
        cell, n = self._cells[layer], self.units(layer)
        values = keras.ops.convert_to_numpy(cell.bias).copy()
        if values.ndim == 1:
            values[n : 2 * n] = bias
        else:
            values[:, :n] = np.array([[bias], [0.0]])
        cell.bias.assign(values)

    def scale_recurrent(self, layer: int, factor: float) -> None:
        """Multiply the recurrent weights."""
        weights = self._cells[layer].recurrent_kernel
        weights.assign(weights * factor)

    def silence_units(self, layer: int, units: slice) -> None:
        """Zero all weights into and out of these units, biases too."""
        cell, n = self._cells[layer], self.units(layer)
        for variable in (cell.kernel, cell.recurrent_kernel, cell.bias):
            values = keras.ops.convert_to_numpy(variable).copy()
            values.reshape(*values.shape[:-1], -1, n)[..., units] = 0.0
            if variable is cell.recurrent_kernel:
                values[units] = 0.0
            variable.assign(values)
        follows = next((c.kernel for c in self._cells[layer + 1 :]), self._model.layers[-1].kernel)
        if follows.shape[0] == n:
            values = keras.ops.convert_to_numpy(follows).copy()
            values[units] = 0.0
            follows.assign(values)

    def copy_units(self, layer: int) -> None:
        """Give the second half of the units the incoming weights, recurrent ones too, and biases of the first."""
        cell, n = self._cells[layer], self.units(layer)
        half = n // 2
        for variable in (cell.kernel, cell.recurrent_kernel, cell.bias):
            values = keras.ops.convert_to_numpy(variable).copy()
            gates = values.reshape(*values.shape[:-1], -1, n)
            gates[..., n - half :] = gates[..., :half].copy()
            variable.assign(values)

    def reset_layer(self, layer: int, seed: int) -> None:
        """Initialise the layer anew, as Keras does."""
        cell = self._cells[layer]
        cell.kernel.assign(keras.initializers.GlorotUniform(seed)(cell.kernel.shape))
        cell.recurrent_kernel.assign(keras.initializers.Orthogonal(seed=seed)(cell.recurrent_kernel.shape))
        bias = np.zeros(cell.bias.shape, "float32")
        if bias.ndim == 1:  # an LSTM: the forget gate begins open
            bias[self.units(layer) : 2 * self.units(layer)] = 1.0
        cell.bias.assign(bias)

    def break_weight(self, layer: int) -> None:
        """Make one recurrent weight NaN."""
        weights = self._cells[layer].recurrent_kernel
        values = keras.ops.convert_to_numpy(weights).copy()
        values[0, 0] = np.nan
        weights.assign(values)

    def freeze(self, layer: int) -> None:
        """Exclude the layer from training; the step is made anew, without it."""
        self._layers[layer].trainable = False
        self._model.make_train_function(force=True)

    def scale_head(self, factor: float) -> None:
        """Multiply the weights of the output layer."""
        weights = self._model.layers[-1].kernel
        weights.assign(weights * factor)

    def forget_moments(self, count: bool = False) -> None:
        """Zero the optimizer's averages, and its step count where that is asked for."""
        optimizer = self._model.optimizer
        for variable in optimizer.variables:
            if variable is not optimizer._learning_rate and (count or variable is not optimizer.iterations):
                variable.assign(keras.ops.zeros_like(variable))

    def weights(self) -> Weights:
        """Copies of all that is trained."""
        return {held.path: keras.ops.convert_to_numpy(held).copy() for held in self._model.trainable_variables}

    def set_weights(self, weights: Weights) -> None:
        """Assign them, in their order: another model's have other paths."""
        for held, values in zip(self._model.trainable_variables, weights.values(), strict=True):
            held.assign(values)

    def weights_of_another_run(self) -> Weights:
        """Those of the same network, trained as long from another seed."""
        assert self._train_another is not None
        return KerasNetwork(self._train_another()).weights()

"""What a fault can do to a Keras model."""

from __future__ import annotations

import keras
import numpy as np

from gatewatch.collector.keras.layers import recurrent_layers


class KerasNetwork:
    """The `Network` of a Keras model whose last layer is its output."""

    def __init__(self, model: keras.Model) -> None:
        self._model = model
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

    def forget_moments(self) -> None:
        """Zero the optimizer's averages, and leave its step count."""
        optimizer = self._model.optimizer
        for variable in optimizer.variables:
            if variable is not optimizer.iterations and variable is not optimizer._learning_rate:
                variable.assign(keras.ops.zeros_like(variable))

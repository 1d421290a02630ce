"""What tests of Keras models share."""

from __future__ import annotations

import keras


def build_optimizer(model: keras.Model) -> None:
    """Make the optimizer's variables now: made within the first step, they have TensorFlow trace that step twice."""
    model.optimizer.build(model.trainable_variables)

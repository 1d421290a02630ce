"""Whether a layer refused a model's input for its shape: what the layer declares, beside what it was given."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from types import FrameType

Shape = Sequence[int | None]


def frames(error: BaseException) -> Iterator[FrameType]:
    """The frames through which an error came, the one that raised it first."""
    found = []
    trace = error.__traceback__
    while trace is not None:
        found.append(trace.tb_frame)
        trace = trace.tb_next
    return reversed(found)


def wrong_shape(
    got: Sequence[int], ranks: Collection[int], features: int | None, inputs: Iterable[Shape], produced: Collection[int]
) -> str | None:
    """Say what is wrong with the shape of a layer's input, where it is the model's own input that is wrong.

    None where the layer declares nothing else, or where the size may come from another layer of the model, so that the
    model does not fit itself.

    Args:
        got: the shape that the layer was given.
        ranks: how many dimensions it takes.
        features: how many features it takes, the last dimension; None where it has not decided yet.
        inputs: the shapes of the model's inputs.
        produced: the numbers of features that the layers before it give.
    """
    shapes = [tuple(size or 0 for size in shape) for shape in inputs]
    if len(got) not in ranks:
        if any(sorted(shape) == sorted(got) for shape in shapes):
            return f"takes {' or '.join(map(str, sorted(ranks)))} dimensions, not {len(got)}"
        return None
    if features is None or not got or got[-1] == features or got[-1] in produced:
        return None
    # The last dimensions of an input, or several of them made one.
    sizes = {math.prod(shape[k:]) for shape in shapes for k in range(min(1, len(shape) - 1), len(shape))}
    return f"takes {features} features, not {got[-1]}" if got[-1] in sizes else None

"""The data of heatmaps: reduce gate data of any accepted form to arrays of at most 64 × 64 cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gatewatch.collector.cells import CELLS, Cells, gate_scale, gates_by_name
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.schema import MAX_PROFILE

GateArrays = Mapping[str, "ArrayLike"]
METRICS: Final = ("activation", "saturation", "variability")


@dataclass(frozen=True)
class Picture:
    """The cells that one panel shows in one frame.

    Attributes:
        z: (rows, columns) float32, rounded to three decimals, NaN where nothing was recorded. Rows are units or
            groups of neighbouring units, columns are positions or bins of them.
        units, times: how many units and positions the array had.
        infinite: how many values were infinite; they are left out, as masked values are.
    """

    z: NDArray[np.float32]
    units: int
    times: int
    infinite: int


def panels_of(frames: Sequence[Mapping[str, Any]], where: str, cells: Cells = CELLS) -> dict[str, str]:
    """Return gate → title of its panel, for the gates of the first cell type of which the frames have a gate.

    A gate that a single cell type has decides before a gate that several types have.

    Args:
        frames: mappings of gate to array.
        where: what to call the frames in an error.
        cells: the cell types to choose from.

    Raises:
        ConfigError: no frame has a gate of any of these cell types.
    """
    names = {name for frame in frames for name in frame}
    shared = Counter(gate for cell in cells for gate in cell.gate_names)
    own = {name for name in names if shared[name] == 1}
    for present in (own, names):
        for cell in cells:
            if present & set(cell.pictured):
                return {gate: gates_by_name(cells)[gate].title for gate in cell.pictured}
    held = f"it has {', '.join(map(repr, sorted(map(str, names))))}" if names else "it is empty"
    of_cells = " or ".join(f"of {cell.name} ({', '.join(cell.pictured)})" for cell in cells)
    raise ConfigError(f"{where}: no gate to show, {held}; give a mapping of gate to array with gates {of_cells}")


def labelled_frames(gate_data: Any, where: str) -> tuple[list[str] | None, list[GateArrays]]:
    """Split gate data into labels and frames; a single mapping of gate to array has no labels.

    Raises:
        ConfigError: it is neither a mapping of gates, nor labelled frames, nor a sequence of frames.
    """
    frames: list[tuple[str, Any]]
    if isinstance(gate_data, Mapping):
        if not any(isinstance(value, Mapping) for value in gate_data.values()):
            return None, [gate_data]
        frames = [(str(label), frame) for label, frame in gate_data.items()]
    elif isinstance(gate_data, Sequence) and not isinstance(gate_data, str | bytes) and len(gate_data):
        frames = [
            (str(item[0]), item[1]) if isinstance(item, tuple) and len(item) == 2 else (str(i), item)
            for i, item in enumerate(gate_data)
        ]
    else:
        kind = "an empty sequence" if isinstance(gate_data, list | tuple) else type(gate_data).__name__
        raise ConfigError(f"{where} is {kind}: give a mapping of gate to array, or frames of such mappings")
    for label, frame in frames:
        if not isinstance(frame, Mapping):
            raise ConfigError(f"{where}: frame {label!r} is {type(frame).__name__}, not a mapping of gate to array")
    return [label for label, _ in frames], [frame for _, frame in frames]


def picture(values: ArrayLike, gate: str, metric: str, where: str) -> Picture:
    """Reduce one gate to the picture of a metric.

    Args:
        values: (time, units) or (batch, time, units); NaN where masked.
        gate: its name, for the limits of saturation (`cells.gate_scale`).
        metric: `activation`, the mean over the batch; `saturation`, the share of the batch beyond the limits;
            `variability`, the standard deviation over the batch.
        where: what to call the array in an error.

    Raises:
        ConfigError: the array is of another shape, is empty, does not hold numbers, or is no batch where the
            metric needs one.
    """
    array = _numbers(values, where)
    infinite = int(np.isinf(array).sum())
    finite = np.isfinite(array)
    if metric == "saturation":
        scale = gate_scale(gate)
        array = np.where((array < scale.saturated_low) | (array > scale.saturated_high), 1.0, 0.0)
    if metric == "variability":
        if len(array) < 2:
            raise ConfigError(
                f"{where}: metric_type='variability' needs a batch of at least two sequences; "
                "give an array of shape (batch, time, units), or use metric_type='activation'"
            )
        cells = np.sqrt(_mean((array - _mean(array, finite)) ** 2, finite))
    else:
        cells = _mean(array, finite)
    binned = np.round(_bin(_bin(cells, 0), 1), 3) + 0.0
    return Picture(binned.T.astype(np.float32), array.shape[2], array.shape[1], infinite)


def batch_mean(array: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean of (batch, time, units) over the batch, shape (time, units); NaN where no value is finite."""
    return _mean(array.astype(np.float64), np.isfinite(array))


def centres(count: int) -> NDArray[np.float64]:
    """Return the middle of each bin that `count` units or positions fall into, counted from zero; shape (bins,)."""
    edges = _edges(count)
    return (edges[:-1] + edges[1:] - 1) / 2


def thin(count: int, most: int) -> list[int]:
    """Return indices of at most `most` of `count` items, evenly spread, the first and the last among them."""
    return list(range(count)) if count <= most else np.linspace(0, count - 1, most).round().astype(int).tolist()


def _numbers(values: ArrayLike, where: str) -> NDArray[np.float64]:
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "fiub":
            raise ValueError(f"values of type {array.dtype}")
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where} does not hold numbers in rows of equal length ({error})") from None
    if array.ndim not in (2, 3):
        raise ConfigError(f"{where} has shape {array.shape}: give (time, units) or (batch, time, units)")
    if array.size == 0:
        raise ConfigError(f"{where} is empty: its shape is {array.shape}")
    return (array if array.ndim == 3 else array[None]).astype(np.float64)


def _mean(array: NDArray[np.float64], finite: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the mean of the finite values over the first axis; NaN where there are none."""
    return _divide(np.where(finite, array, 0.0).sum(axis=0), finite.sum(axis=0))


def _bin(cells: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Average neighbours along an axis into at most 64 bins, without NaN."""
    starts, finite = _edges(cells.shape[axis])[:-1], np.isfinite(cells)
    count = np.add.reduceat(finite, starts, axis=axis, dtype=np.int64)
    return _divide(np.add.reduceat(np.where(finite, cells, 0.0), starts, axis=axis), count)


def _divide(total: NDArray[np.float64], count: NDArray[np.int64]) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean


def _edges(count: int) -> NDArray[np.int64]:
    return np.linspace(0, count, min(count, MAX_PROFILE) + 1).astype(np.int64)

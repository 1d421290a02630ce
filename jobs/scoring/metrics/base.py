"""The contract of a derived metric: what it declares, and what it is computed from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gatewatch.jobs.scoring.captures import Array, Captures, Pair

if TYPE_CHECKING:
    from gatewatch.jobs.baselines import Normal


@dataclass(frozen=True, slots=True)
class Series:
    """The captures of one series from which a metric is computed.

    Attributes:
        pair: layer and gate, or layer and parameter.
        captures: the new captures, after `Metric.look_back` earlier ones; there are fewer where the run begins.
        new: n, the number of captures that are new.
        normal: the baselines; None where there are none.
    """

    pair: Pair
    captures: Captures
    new: int
    normal: Normal | None

    @property
    def units(self) -> Array | None:
        """Mean activations, (captures, units); None where they were not recorded."""
        return self.captures.units.get(self.pair)

    def statistic(self, name: str) -> Array:
        """Return (captures,), a field of `gate_stats`."""
        return self.captures.statistic(self.pair, name)

    def update(self, name: str) -> Array:
        """Return (captures,), a field of `layer_updates`."""
        return self.captures.update(self.pair, name)


@dataclass(frozen=True, slots=True)
class Metric:
    """A field of `gate_derived`.

    Attributes:
        field: its name.
        unit: of its values, as its row in the schema has it.
        of: whether it is computed for each gate or for each parameter.
        compute: returns the values of a series, (n,), NaN where a new capture has no value; None where the metric does
            not apply to the series.
        look_back: number of earlier captures that a value depends on. `compute` gets no more than these, so its
            values do not depend on how the captures of a run are divided into passes.
        whole: whether it is stored as an integer.
    """

    field: str
    unit: str
    of: Literal["gate", "parameter"]
    compute: Callable[[Series], Array | None]
    look_back: int = 0
    whole: bool = False

"""Draw a small graph whose edges change over time, on matplotlib."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Final

from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch
from matplotlib.text import Text

from gatewatch.collector.errors import ConfigError

Weights = Mapping[tuple[Hashable, Hashable], float]
_WIDTHS: Final = (0.4, 6.0)
_UNKNOWN: Final = "#9aa3ab"
_BOX: Final = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": "#1f6f91"}


class TemporalGraph:
    """Draw nodes at fixed places, and directed edges whose width and colour follow a weight that changes over time.

    Each call of `update_edge_weights` adds one time step; `animate_time_step` draws any of them, so that
    `FuncAnimation(figure, graph.animate_time_step, frames=len(graph))` plays them all. Widths and colours are on one
    fixed scale, so steps can be compared: width grows with the size of the weight, colour shows its sign.

    Args:
        ax: where to draw.
        limit: the size of weight that is drawn at full width and colour; larger ones look the same.

    Raises:
        ConfigError: the limit is not a positive number.
    """

    def __init__(self, ax: Axes, *, limit: float = 1.0) -> None:
        if not (math.isfinite(limit) and limit > 0):
            raise ConfigError(f"limit={limit!r}: must be a positive number, the weight that is drawn at full width")
        self.ax = ax
        self.limit = limit
        self._labels: dict[Hashable, Text] = {}
        self._steps: list[dict[tuple[Hashable, Hashable], float]] = []
        self._edges: dict[tuple[Hashable, Hashable], FancyArrowPatch] = {}

    def __len__(self) -> int:
        return len(self._steps)

    def add_node(self, node_id: Hashable, position: tuple[float, float]) -> None:
        """Draw a node, labelled with its id.

        Args:
            node_id: its name in the edges.
            position: x and y, in the units of the axes.

        Raises:
            ConfigError: the node is there already, or its position is not two finite numbers.
        """
        if node_id in self._labels:
            raise ConfigError(f"node {node_id!r} was added already; every node needs an id of its own")
        try:
            x, y = (float(value) for value in position)
        except (TypeError, ValueError):
            x = y = math.nan
        if not (math.isfinite(x) and math.isfinite(y)):
            raise ConfigError(f"node {node_id!r}: position={position!r} must be two finite numbers, x and y")
        self._labels[node_id] = self.ax.text(
            x, y, str(node_id), ha="center", va="center", fontsize=9, zorder=3, parse_math=False, bbox=dict(_BOX)
        )
        self.ax.update_datalim([(x, y)])
        self.ax.margins(0.25)
        self.ax.autoscale_view()

    def update_edge_weights(self, weights: Weights) -> None:
        """Add a time step: these edges take these weights, all others keep theirs.

        Args:
            weights: (from, to) → weight. One that is not finite is unknown and drawn thin, grey and dotted.

        Raises:
            ConfigError: an edge names a node that was not added, or its weight is no number; nothing is changed then.
        """
        checked: dict[tuple[Hashable, Hashable], float] = {}
        for edge, weight in weights.items():
            if not (isinstance(edge, tuple) and len(edge) == 2):
                raise ConfigError(f"edge {edge!r}: must be a pair, (from, to)")
            for node in edge:
                if node not in self._labels:
                    names = ", ".join(map(repr, self._labels)) or "none yet"
                    raise ConfigError(f"edge {edge!r}: there is no node {node!r}; add it first (nodes: {names})")
            try:
                checked[edge] = float(weight)
            except (TypeError, ValueError):
                raise ConfigError(f"edge {edge!r}: its weight {weight!r} is not a number") from None
        self._steps.append((self._steps[-1] if self._steps else {}) | checked)

    def animate_time_step(self, frame: int) -> list[Artist]:
        """Draw the edges as they were at a time step, and return their artists, as `FuncAnimation` wants them.

        Args:
            frame: which step, from 0 to `len(graph) - 1`.

        Raises:
            ConfigError: there is no such step.
        """
        if not 0 <= frame < len(self._steps):
            raise ConfigError(f"frame={frame!r}: there are {len(self)} time steps; update_edge_weights adds one")
        weights = self._steps[frame]
        for edge in weights.keys() - self._edges.keys():
            self._edges[edge] = self._arrow(edge)
        for edge, arrow in self._edges.items():
            arrow.set_visible(edge in weights)
            if edge in weights:
                self._style(arrow, weights[edge])
        return list(self._edges.values())

    def _arrow(self, edge: tuple[Hashable, Hashable]) -> FancyArrowPatch:
        start, end = (self._labels[node].get_position() for node in edge)
        if edge[0] == edge[1]:  # a loop leaves the node on one side and returns on the other, behind its box
            left, right = self.ax.get_xlim()
            reach = 0.04 * abs(right - left)
            start, end = (start[0] - reach, start[1]), (start[0] + reach, start[1])
            arrow = FancyArrowPatch(start, end, connectionstyle="arc3,rad=-2.2", mutation_scale=12, zorder=2)
        else:  # ends at the boxes of its nodes, which have a size once they are drawn: so it is drawn after them
            arrow = FancyArrowPatch(start, end, connectionstyle="arc3,rad=0.15", mutation_scale=12, zorder=4)
            for node, stop_at in zip(edge, (arrow.set_patchA, arrow.set_patchB), strict=True):
                if (box := self._labels[node].get_bbox_patch()) is not None:
                    stop_at(box)
        arrow.set_arrowstyle("-|>")
        self.ax.add_patch(arrow)
        return arrow

    def _style(self, arrow: FancyArrowPatch, weight: float) -> None:
        finite = math.isfinite(weight)
        part = max(-1.0, min(1.0, weight / self.limit)) if finite else 0.0
        arrow.set_linewidth(_WIDTHS[0] + (_WIDTHS[1] - _WIDTHS[0]) * abs(part))
        arrow.set_color(colormaps["RdBu"](0.5 + part / 2) if finite else _UNKNOWN)
        arrow.set_linestyle("-" if finite else ":")

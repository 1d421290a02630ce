"""The temporal graph, drawn without a screen."""

from __future__ import annotations

import matplotlib as mpl
import pytest
from matplotlib.animation import FuncAnimation
from matplotlib.figure import Figure

from gatewatch.collector.errors import ConfigError
from gatewatch.jobs.report.temporal_graph import TemporalGraph

mpl.use("Agg")


@pytest.fixture
def graph():
    graph = TemporalGraph(Figure().subplots())
    for name, position in {"input": (0, 0), "cell": (1, 0.5), "output": (2, 0)}.items():
        graph.add_node(name, position)
    return graph


def drawn(graph, frame):
    artists = graph.animate_time_step(frame)
    graph.ax.figure.canvas.draw()
    return [artist for artist in artists if artist.get_visible()]


def test_nodes_are_labelled_with_their_ids(graph):
    assert [text.get_text() for text in graph.ax.texts] == ["input", "cell", "output"]


def test_width_grows_with_the_size_and_colour_tells_the_sign(graph):
    graph.update_edge_weights({("input", "cell"): 0.2, ("cell", "output"): -0.8})
    weak, strong = sorted(drawn(graph, 0), key=lambda arrow: arrow.get_linewidth())
    assert strong.get_linewidth() > 2 * weak.get_linewidth()
    red, _, blue, _ = strong.get_edgecolor()
    assert red > blue
    red, _, blue, _ = weak.get_edgecolor()
    assert blue > red


def test_each_update_is_a_time_step_and_any_can_be_drawn_again(graph):
    graph.update_edge_weights({("input", "cell"): 1.0})
    graph.update_edge_weights({("cell", "output"): 0.5})
    assert len(graph) == 2
    first = drawn(graph, 0)
    assert len(first) == 1
    assert len(drawn(graph, 1)) == 2
    assert drawn(graph, 0) == first


def test_the_scale_is_fixed_so_steps_can_be_compared(graph):
    graph.update_edge_weights({("input", "cell"): 0.5})
    graph.update_edge_weights({("input", "cell"): 50.0})
    half = drawn(graph, 0)[0].get_linewidth()
    full = drawn(graph, 1)[0].get_linewidth()
    assert full == 6.0
    assert half == pytest.approx(3.2)


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_an_unknown_weight_is_dotted_and_thin(graph, weight):
    graph.update_edge_weights({("input", "cell"): weight})
    graph.update_edge_weights({("input", "cell"): 0.5})
    assert drawn(graph, 0)[0].get_linestyle() in (":", "dotted")
    assert drawn(graph, 0)[0].get_linewidth() == 0.4
    assert drawn(graph, 1)[0].get_linestyle() in ("-", "solid")


def test_a_loop_is_drawn(graph):
    graph.update_edge_weights({("cell", "cell"): 1.0})
    (arrow,) = drawn(graph, 0)
    assert arrow.get_path().get_extents().height > 0.05


def test_it_plays_as_an_animation(graph, tmp_path):
    graph.update_edge_weights({("input", "cell"): 1.0})
    graph.update_edge_weights({("input", "cell"): -1.0})
    FuncAnimation(graph.ax.figure, graph.animate_time_step, frames=len(graph)).save(
        tmp_path / "graph.gif", writer="pillow"
    )
    assert (tmp_path / "graph.gif").read_bytes()[:3] == b"GIF"


def test_an_edge_to_an_unknown_node_is_refused_and_changes_nothing(graph):
    with pytest.raises(ConfigError, match=r"no node 'hidden'; add it first \(nodes: 'input', 'cell', 'output'\)"):
        graph.update_edge_weights({("input", "cell"): 1.0, ("input", "hidden"): 1.0})
    assert len(graph) == 0


@pytest.mark.parametrize("edges", [{"input": 1.0}, {("input", "cell"): "wide"}, {("input", "cell"): None}])
def test_what_is_no_edge_or_no_weight_is_refused(graph, edges):
    with pytest.raises(ConfigError, match=r"must be a pair|is not a number"):
        graph.update_edge_weights(edges)


@pytest.mark.parametrize("position", [(1,), (1, float("nan")), "ab", None])
def test_a_node_needs_a_place(graph, position):
    with pytest.raises(ConfigError, match=r"must be two finite numbers"):
        graph.add_node("hidden", position)


def test_a_node_is_added_once(graph):
    with pytest.raises(ConfigError, match="'cell' was added already"):
        graph.add_node("cell", (3, 3))


@pytest.mark.parametrize("frame", [-1, 1])
def test_a_step_that_does_not_exist_is_refused(graph, frame):
    graph.update_edge_weights({("input", "cell"): 1.0})
    with pytest.raises(ConfigError, match="there are 1 time steps"):
        graph.animate_time_step(frame)


def test_the_limit_must_be_positive():
    with pytest.raises(ConfigError, match="positive"):
        TemporalGraph(Figure().subplots(), limit=0)

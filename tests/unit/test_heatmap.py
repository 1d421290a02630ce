"""The 2×2 heatmap: its panels, its frames, its scales, and what it does with bad input."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from gatewatch.collector.errors import ConfigError
from gatewatch.jobs.report.heatmap import render_gate_heatmap

LSTM = ("input", "forget", "cell", "output")


def gates(shape=(3, 5, 4), names=LSTM, value=0.25):
    return {name: np.full(shape, value) for name in names}


def titles(figure):
    return [note.text for note in figure.layout.annotations]


def panel(figure, gate):
    return next(trace for trace in figure.data if trace.name == gate)


def frame(figure, index, gate):
    place = [trace.name for trace in figure.data].index(gate)
    return figure.frames[index].data[place]


def test_lstm_has_the_four_panels():
    figure = render_gate_heatmap(gates(), "lstm")
    assert titles(figure) == [
        "Input Signal Flow",
        "Forget Gate Activation",
        "Cell State Evolution",
        "Output Gate Response",
    ]
    assert [trace.name for trace in figure.data] == list(LSTM)


def test_gru_has_its_own_four_panels():
    figure = render_gate_heatmap(gates(names=("update", "reset", "candidate", "hidden")), "gru")
    assert titles(figure) == [
        "Update Gate Activation",
        "Reset Gate Activation",
        "Candidate State",
        "Hidden State Evolution",
    ]


def test_a_cell_is_unit_by_time_and_averages_the_batch():
    data = np.zeros((2, 3, 2))
    data[0, 2, 1] = 1.0
    shown = panel(render_gate_heatmap({**gates((2, 3, 2)), "forget": data}, "lstm"), "forget")
    assert shown.z.shape == (2, 3)
    assert shown.z[1, 2] == 0.5
    assert shown.z.sum() == 0.5
    assert shown.z.dtype == np.float32


def test_a_masked_step_is_a_gap_and_left_out_of_the_mean():
    data = np.full((2, 3, 1), 0.8)
    data[0, 0] = np.nan
    data[:, 1] = np.nan
    shown = panel(render_gate_heatmap({"forget": data}, "lstm"), "forget").z[0]
    assert shown[0] == np.float32(0.8)
    assert np.isnan(shown[1])


def test_infinite_values_are_gaps_and_counted_in_the_title():
    data = np.full((3, 2), 0.5)
    data[1, 0] = np.inf
    figure = render_gate_heatmap({"forget": data}, "lstm")
    assert np.isnan(panel(figure, "forget").z[0, 1])
    assert "1 infinite values left out" in figure.layout.title.text


def test_saturation_is_the_share_of_the_batch_beyond_the_gates_limits():
    data = np.array([0.95, 0.05, 0.5, 0.5]).reshape(4, 1, 1)
    cell = np.array([1.4, -1.5, 1.5, 0.95]).reshape(4, 1, 1)
    figure = render_gate_heatmap({"forget": data, "cell": cell}, "lstm", "saturation")
    assert panel(figure, "forget").z[0, 0] == 0.5
    assert panel(figure, "cell").z[0, 0] == 0.5


def test_masked_values_do_not_count_as_unsaturated():
    data = np.array([0.95, np.nan, np.nan, 0.95]).reshape(4, 1, 1)
    assert panel(render_gate_heatmap({"forget": data}, "lstm", "saturation"), "forget").z[0, 0] == 1.0


def test_variability_is_the_deviation_over_the_batch():
    data = np.array([0.2, 0.6]).reshape(2, 1, 1)
    figure = render_gate_heatmap({"forget": data}, "lstm", "variability")
    assert panel(figure, "forget").z[0, 0] == np.float32(0.2)
    with pytest.raises(ConfigError, match="at least two sequences"):
        render_gate_heatmap({"forget": data[0]}, "lstm", "variability")


def test_scales_are_fixed_whatever_the_data():
    figure = render_gate_heatmap(gates(value=0.001), "lstm")
    ends = {trace.name: figure.layout[trace.coloraxis] for trace in figure.data}
    assert (ends["forget"].cmin, ends["forget"].cmax) == (0, 1)
    assert (ends["cell"].cmin, ends["cell"].cmax) == (-3, 3)
    gru = render_gate_heatmap(gates(names=("update", "candidate")), "gru")
    candidate = gru.layout[panel(gru, "candidate").coloraxis]
    assert (candidate.cmin, candidate.cmax) == (-1, 1)


def test_one_mapping_sweeps_along_time():
    figure = render_gate_heatmap(gates((5, 4)), "lstm")
    assert [len(frame(figure, i, "cell").x) for i in range(5)] == [1, 2, 3, 4, 5]
    assert [frame(figure, i, "cell").z.shape for i in range(5)] == [(4, n) for n in range(1, 6)]
    assert panel(figure, "cell").z.shape == (4, 5)


def test_labelled_frames_are_shown_one_after_the_other():
    data = {f"epoch {i}": gates(value=i / 10) for i in range(3)}
    figure = render_gate_heatmap(data, "lstm")
    assert [step.label for step in figure.layout.sliders[0].steps] == list(data)
    assert [float(frame(figure, i, "forget").z[0, 0]) for i in range(3)] == pytest.approx([0, 0.1, 0.2])
    assert panel(figure, "forget").z[0, 0] == np.float32(0.2)
    assert figure.layout.sliders[0].active == 2


def test_a_sequence_of_frames_is_numbered_and_pairs_keep_their_labels():
    assert [s.label for s in render_gate_heatmap([gates(), gates()], "x").layout.sliders[0].steps] == ["0", "1"]
    pairs = [("before", gates()), ("after", gates())]
    assert [s.label for s in render_gate_heatmap(pairs, "x").layout.sliders[0].steps] == ["before", "after"]


def test_there_are_play_and_pause_and_every_step_leads_to_a_frame():
    figure = render_gate_heatmap({"a": gates(), "b": gates()}, "lstm")
    assert [button.label for button in figure.layout.updatemenus[0].buttons] == ["Play", "Pause"]
    assert [step.args[0] for step in figure.layout.sliders[0].steps] == [(frame.name,) for frame in figure.frames]


def test_frames_are_thinned_evenly_with_first_and_last_kept():
    figure = render_gate_heatmap({f"epoch {i}": gates() for i in range(200)}, "lstm")
    labels = [step.label for step in figure.layout.sliders[0].steps]
    assert len(labels) == len(figure.frames) == 40
    assert (labels[0], labels[-1]) == ("epoch 0", "epoch 199")
    assert {int(b.split()[1]) - int(a.split()[1]) for a, b in pairwise(labels)} == {5, 6}
    assert "40 of 200" in figure.layout.title.text


def test_units_and_times_past_64_are_averages_of_neighbours():
    data = np.tile(np.arange(128) / 128, (192, 1))
    shown = panel(render_gate_heatmap({"forget": data}, "lstm"), "forget")
    assert shown.z.shape == (64, 64)
    assert shown.z[0, 0] == pytest.approx(0.5 / 128, abs=6e-4)
    assert (shown.y[0], shown.y[-1]) == (0.5, 126.5)
    assert (shown.x[0], shown.x[-1]) == (1, 190)


def test_binning_leaves_gaps_out_of_the_averages():
    data = np.full((128, 1), 0.6)
    data[0] = data[2] = data[3] = np.nan
    shown = panel(render_gate_heatmap({"forget": data}, "lstm"), "forget").z[0]
    assert shown[0] == np.float32(0.6)
    assert np.isnan(shown[1])


def test_a_missing_gate_says_so():
    figure = render_gate_heatmap({"forget": np.ones((4, 2))}, "lstm")
    assert titles(figure)[2] == "Cell State Evolution: not recorded"
    assert [trace.name for trace in figure.data] == ["forget"]


def test_times_stand_on_the_axis():
    figure = render_gate_heatmap({"forget": np.ones((3, 2))}, "lstm", times=[10, 20, 30], time_label="step")
    assert list(panel(figure, "forget").x) == [10, 20, 30]
    assert [step.label for step in figure.layout.sliders[0].steps] == ["10", "20", "30"]
    with pytest.raises(ConfigError, match="2 given for arrays of 3 positions"):
        render_gate_heatmap({"forget": np.ones((3, 2))}, "lstm", times=[10, 20])


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "<b>bold</b>", "&amp;", "%{x}", "$x^2$", "a\nb"])
def test_a_hostile_name_stays_text(name):
    figure = render_gate_heatmap({name: gates()}, name)
    for text in (figure.layout.title.text, figure.layout.sliders[0].steps[0].label):
        assert not set("<>$\n") & set(text)
        assert "%{" not in text
        assert text.startswith(("&lt;", "&amp;amp;", "&#37;{x}", "&#36;x", "a b"))
    assert {trace.hovertemplate for trace in figure.data} == {
        trace.hovertemplate for trace in render_gate_heatmap(gates(), "lstm").data
    }


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({}, "no gate to show, it is empty"),
        ([], "an empty sequence"),
        (None, "NoneType"),
        ({"kernel": np.ones((2, 2))}, "it has 'kernel'"),
        ({"forget": np.ones(4)}, r"gate 'forget' has shape \(4,\)"),
        ({"forget": np.ones((0, 4))}, "is empty"),
        ({"forget": [[1, 2], [3]]}, "does not hold numbers in rows of equal length"),
        ({"forget": np.array([["a"]])}, "does not hold numbers"),
        ({"a": gates((4, 2)), "b": gates((4, 3))}, "2 units in one frame and 3 in another"),
        ({"a": gates(), "b": 3}, "frame 'b' is int"),
        ({"a": {"forget": np.ones(3)}}, "frame 'a', gate 'forget'"),
    ],
)
def test_bad_data_is_one_line_that_names_the_layer(data, reason):
    with pytest.raises(ConfigError, match=reason) as error:
        render_gate_heatmap(data, "lstm_7")
    assert "lstm_7" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_metric_lists_those_that_are_known():
    with pytest.raises(ConfigError, match="metric_type='entropy': must be one of activation, saturation, variability"):
        render_gate_heatmap(gates(), "lstm", "entropy")


def test_data_that_is_all_masked_is_drawn_as_gaps_and_serialises():
    figure = render_gate_heatmap({"forget": np.full((2, 3, 2), np.nan)}, "lstm")
    assert np.isnan(panel(figure, "forget").z).all()
    assert json.loads(figure.to_json())["data"][0]["type"] == "heatmap"

"""`StateAnalyzer` on arrays, tensors and nests of them, held to plain numpy and to the points' own statistics."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gatewatch import StateAnalyzer
from gatewatch.collector.cells import gate_scale
from gatewatch.collector.statistics import gate_statistics
from gatewatch.collector.updates import update_fields

pytestmark = pytest.mark.filterwarnings("error")

random = np.random.default_rng(0)
analyzer = StateAnalyzer()
arrays = hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=5), elements=st.floats(-1e6, 1e6))


def gates():
    """As `gates()` returns them."""
    sigmoid = random.uniform(size=(3, 7, 4)).astype("float32")
    return {
        "lstm": {"forget": sigmoid, "cell": random.normal(size=(3, 7, 4)) * 2},
        "gru": {"hidden": random.uniform(-1, 1, size=(2, 5, 3)).astype("float32")},
    }


# Gradients.


@given(st.lists(arrays, min_size=1, max_size=4))
def test_magnitude_is_the_norm_of_everything_as_one_vector(found):
    together = np.concatenate([array.ravel() for array in found])
    expected = pytest.approx(np.linalg.norm(together), rel=1e-6)
    assert analyzer.calculate_gradient_magnitude(found) == expected
    assert analyzer.calculate_gradient_magnitude({"a": found[:1], "b": {"c": found[1:], "d": None}}) == expected


def test_magnitude_takes_numbers_lists_and_entries_without_a_gradient():
    assert analyzer.calculate_gradient_magnitude([3, None, [4.0]]) == 5
    assert analyzer.calculate_gradient_magnitude([[3, 0], [0, 4]]) == 5
    assert analyzer.calculate_gradient_magnitude([[3], [0, 4]]) == 5
    assert analyzer.calculate_gradient_magnitude(np.float32(-2)) == 2
    assert analyzer.calculate_gradient_magnitude(np.array([3, 4])) == 5


def test_magnitude_is_over_the_finite_rest():
    assert analyzer.calculate_gradient_magnitude([np.array([3.0, np.nan, np.inf]), 4.0]) == 5
    assert math.isnan(analyzer.calculate_gradient_magnitude(np.array([np.nan])))


@pytest.mark.parametrize("nothing", [None, [], {}, [None, {"a": None}], np.zeros((0, 3))])
def test_no_gradient_at_all_is_no_zero(nothing):
    with pytest.raises(ValueError, match=r"^gradients: there are none$"):
        analyzer.calculate_gradient_magnitude(nothing)


@pytest.mark.parametrize("wrong", ["text", ["a"], object(), np.array([1j]), {"a": b"x"}, np.array([None, "x"])])
def test_what_is_no_array_of_numbers_is_named(wrong):
    with pytest.raises(TypeError, match=r"^gradients: must be arrays of numbers, not \w+$"):
        analyzer.calculate_gradient_magnitude(wrong)


def test_tensors_of_torch():
    torch = pytest.importorskip("torch")
    weight = torch.nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    (weight**2).sum().backward()
    assert analyzer.calculate_gradient_magnitude([weight.grad, None]) == pytest.approx(math.sqrt(4 * 30))
    assert analyzer.calculate_gradient_magnitude(weight) == pytest.approx(math.sqrt(30))  # has a gradient itself
    assert analyzer.calculate_gradient_magnitude(weight.bfloat16()) == pytest.approx(math.sqrt(30))
    assert analyzer.compute_update_frequency(weight, weight + torch.tensor([[0.0, 1.0], [0.0, 0.0]])) == 0.25


def test_a_gradient_of_an_embedding_adds_up_the_rows_that_come_twice():
    tensorflow = pytest.importorskip("tensorflow")
    table = tensorflow.Variable(np.ones((5, 2), "float32"))
    with tensorflow.GradientTape() as tape:
        loss = tensorflow.reduce_sum(tensorflow.gather(table, [1, 3, 1]) ** 2)
    slices = tape.gradient(loss, table)
    assert isinstance(slices, tensorflow.IndexedSlices)
    dense = np.array(tensorflow.convert_to_tensor(slices))
    assert analyzer.calculate_gradient_magnitude([slices]) == pytest.approx(np.linalg.norm(dense))
    metrics = analyzer.calculate_state_metrics({"gradients": slices})
    assert metrics["mean_gradient"] == pytest.approx(dense.mean())
    assert metrics["var_gradient"] == pytest.approx(dense.var())


def test_slices_that_do_not_say_of_what():
    slices = SimpleNamespace(values=np.array([[1.0], [2.0], [3.0]]), indices=np.array([7, 2, 7]), dense_shape=None)
    assert analyzer.calculate_gradient_magnitude(slices) == pytest.approx(math.hypot(4, 2))


# Saturation.


@given(arrays, st.floats(0.01, 10))
def test_saturated_is_beyond_the_threshold_on_either_side(values, threshold):
    expected = (np.abs(values) > threshold).mean()
    assert analyzer.detect_activation_saturation(values, threshold) == pytest.approx(expected)


@pytest.mark.parametrize("gate", ["input", "forget", "output", "update", "reset"])
def test_a_gate_of_the_sigmoid_is_saturated_towards_zero_too(gate):
    values = np.array([0.01, 0.04, 0.06, 0.5, 0.94, 0.96])
    assert analyzer.detect_activation_saturation(values, gate=gate) == pytest.approx(3 / 6)
    assert analyzer.detect_activation_saturation(values) == pytest.approx(1 / 6)


def test_a_cell_state_is_saturated_where_its_tanh_is():
    values = np.array([-4.0, -1.5, 1.0, 1.5, 2.0])
    assert analyzer.detect_activation_saturation(values, 0.9, gate="cell") == np.mean(np.abs(np.tanh(values)) > 0.9)
    for gate in ("hidden", "candidate", "attention"):
        assert analyzer.detect_activation_saturation(values / 4, 0.4, gate=gate) == 2 / 5


@pytest.mark.parametrize("gate", ["forget", "hidden", "cell"])
def test_saturation_agrees_with_the_points(gate):
    values = random.uniform(-0.2, 1.2, size=(4, 6, 5)) * 2
    fields = gate_statistics(values, gate_scale(gate))
    expected = fields["saturated_low"] + fields["saturated_high"]
    assert analyzer.detect_activation_saturation(values, 0.9, gate=gate) == pytest.approx(expected)


def test_values_that_are_none_are_left_out():
    assert analyzer.detect_activation_saturation([np.array([np.nan, 1.0, 0.0, np.inf]), np.array([1.0, 0.0])]) == 0.5


@pytest.mark.parametrize("values", [[], np.zeros((2, 0, 3)), np.array([np.nan])])
def test_saturation_of_nothing_is_an_error(values):
    with pytest.raises(ValueError, match=r"^activations: (there are none|none of them is finite)$"):
        analyzer.detect_activation_saturation(values)


@pytest.mark.parametrize(
    ("threshold", "gate"), [(0, None), (-1, None), (math.nan, None), (0.4, "forget"), (1, "forget"), (1.0, "cell")]
)
def test_a_threshold_that_is_none(threshold, gate):
    with pytest.raises(ValueError, match=r"^threshold=.*: must be a number "):
        analyzer.detect_activation_saturation(np.ones(3), threshold, gate=gate)


# Updates.


@given(arrays, st.floats(0, 2), st.integers(0, 2**32 - 1))
def test_frequency_is_the_share_that_moved(before, tolerance, seed):
    change = np.random.default_rng(seed).choice([0.0, 1.0, -3.0], size=before.shape)
    after = before + change
    expected = (np.abs(after - before) > tolerance).mean()
    assert analyzer.compute_update_frequency(before, after, tolerance=tolerance) == pytest.approx(expected)
    nested = analyzer.compute_update_frequency({"a": [before]}, {"a": [after]}, tolerance=tolerance)
    assert nested == pytest.approx(expected)


def test_frequency_is_over_weights_that_were_and_are_finite():
    assert analyzer.compute_update_frequency([1.0, 1.0, np.nan, 1.0], [1.0, 2.0, 3.0, np.inf]) == 0.5


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (np.zeros((3, 2)), r"\(2, 3\) and \(3, 2\)"),
        ([np.zeros((2, 3)), np.zeros(2)], r"\(2, 3\) and \(2, 3\), \(2,\)"),
        ({"w": np.zeros((2, 3))}, r"\(2, 3\) and w \(2, 3\)"),
        (None, r"\(2, 3\) and nothing"),
    ],
)
def test_shapes_that_differ_are_both_named(after, told):
    with pytest.raises(ValueError, match=rf"^before and after differ in shape: {told}$"):
        analyzer.compute_update_frequency(np.zeros((2, 3)), after)


@pytest.mark.parametrize("arguments", [([], []), (np.array([np.nan]), np.array([1.0]))])
def test_frequency_of_nothing_is_an_error(arguments):
    with pytest.raises(ValueError, match=r"^before and after: "):
        analyzer.compute_update_frequency(*arguments)


@pytest.mark.parametrize("tolerance", [-1, math.nan])
def test_a_tolerance_below_zero(tolerance):
    with pytest.raises(ValueError, match=r"^tolerance=.*: must be a number from 0 up$"):
        analyzer.compute_update_frequency(np.ones(2), np.ones(2), tolerance=tolerance)


# Everything at once.


@pytest.mark.parametrize(("layer", "gate"), [("lstm", "forget"), ("lstm", "cell"), ("gru", "hidden")])
def test_metrics_of_one_gate_are_those_of_its_points(layer, gate):
    values = gates()[layer][gate]
    fields = gate_statistics(values, gate_scale(gate))
    assert analyzer.calculate_state_metrics({"activations": {layer: {gate: values}}}) == pytest.approx(
        {
            "mean_activation": fields["mean"],
            "var_activation": fields["std"] ** 2,
            "saturation": fields["saturated_low"] + fields["saturated_high"],
            "zero_crossing_rate": fields["zero_crossing_rate"],
            "entropy": fields["entropy"],
            "nan_count": 0,
            "inf_count": 0,
        }
    )


def test_metrics_of_several_gates_are_taken_together():
    found = gates()
    every = [(gate, values) for layer in found.values() for gate, values in layer.items()]
    together = np.concatenate([values.ravel().astype(float) for _, values in every])
    sizes = [values.size for _, values in every]
    fields = [gate_statistics(values, gate_scale(gate)) for gate, values in every]
    metrics = analyzer.calculate_state_metrics({"activations": found})
    assert metrics["mean_activation"] == pytest.approx(together.mean())
    assert metrics["var_activation"] == pytest.approx(together.var())
    assert metrics["entropy"] == pytest.approx(np.average([one["entropy"] for one in fields], weights=sizes))


def test_metrics_of_gradients_and_weights():
    gradients = {"a": random.normal(size=(20, 3)), "b": random.normal(size=5) + 3, "c": None}
    together = np.concatenate([gradients["a"].ravel(), gradients["b"]])
    before = [np.ones((2, 2)), np.full(4, 2.0)]
    after = [before[0] + 0.1, before[1]]
    fields = update_fields(before, after)
    assert analyzer.calculate_state_metrics(
        {"gradients": gradients, "before": before, "after": after}
    ) == pytest.approx(
        {
            "gradient_magnitude": np.linalg.norm(together),
            "mean_gradient": together.mean(),
            "var_gradient": together.var(),
            "update_frequency": 0.5,
            "update_ratio": fields["update_ratio"],
            "nan_count": 0,
            "inf_count": 0,
        }
    )


def test_metrics_count_what_is_not_finite_and_say_what_is_left():
    batch = {
        "activations": np.array([[0.5, np.nan], [0.5, 0.5]]),
        "gradients": [np.array([np.inf, 1.0]), np.array([np.nan])],
        "before": np.zeros(3),
        "after": np.array([np.nan, 1.0, 0.0]),
    }
    metrics = analyzer.calculate_state_metrics(batch)
    assert (metrics["nan_count"], metrics["inf_count"]) == (3, 1)
    assert (metrics["mean_activation"], metrics["mean_gradient"], metrics["update_frequency"]) == (0.5, 1, 0.5)
    assert "update_ratio" not in metrics  # of weights that were zero
    assert analyzer.calculate_state_metrics({"activations": np.full((2, 3), np.nan)}) == {
        "nan_count": 6,
        "inf_count": 0,
    }


def test_activations_of_fewer_and_more_dimensions_have_their_time_where_it_is():
    wave = np.array([1.0, -1.0, 1.0, 1.0])
    for activations in (wave, wave.tolist(), wave[:, None], wave[None, :, None], wave.reshape(1, 4, 1, 1)):
        rate = analyzer.calculate_state_metrics({"activations": activations})["zero_crossing_rate"]
        assert rate == pytest.approx(2 / 3)


def test_numbers_beyond_the_squares_of_a_double_raise_nothing():
    metrics = analyzer.calculate_state_metrics({"gradients": np.array([1e300, -1e300])})
    assert metrics["gradient_magnitude"] == pytest.approx(1e300 * math.sqrt(2))
    assert "var_gradient" not in metrics


@pytest.mark.parametrize("batch", [None, [1.0], np.ones(3), "gates"])
def test_a_batch_that_is_no_mapping(batch):
    with pytest.raises(TypeError, match=r"^batch: must be a mapping with any of activations, gradients, before, after"):
        analyzer.calculate_state_metrics(batch)


@pytest.mark.parametrize(
    ("batch", "told"),
    [
        ({}, "batch: is empty; give any of activations, gradients, before, after"),
        ({"gradient": 1.0}, "batch: gradient is not known; give any of activations, gradients, before, after"),
        ({"before": 1.0}, "batch: before and after go together"),
        ({"gradients": None}, "gradients: there are none"),
        ({"activations": []}, "activations: there are none"),
        ({"before": [np.ones(2)], "after": [np.ones(3)]}, r"before and after differ in shape: \(2,\) and \(3,\)"),
    ],
)
def test_a_batch_that_does_not_do(batch, told):
    with pytest.raises(ValueError, match=f"^{told}"):
        analyzer.calculate_state_metrics(batch)


def test_the_analyzer_needs_no_framework():
    code = (
        "import sys; from gatewatch import StateAnalyzer; StateAnalyzer().calculate_gradient_magnitude([1.0]);"
        "print(sorted({'keras', 'tensorflow', 'torch', 'pandas', 'influxdb_client'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=dict(os.environ), capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"

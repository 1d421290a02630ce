"""What is said of a parameter and its step, held to plain numpy in double precision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gatewatch.collector.line_protocol import encode
from gatewatch.collector.precision import rounded_share
from gatewatch.collector.schema import LAYER_UPDATES, LAYER_UPDATES_FIELDS, point_problem
from gatewatch.collector.updates import tally, update_fields, update_points

pytestmark = pytest.mark.filterwarnings("error")

dtypes = st.sampled_from([np.float16, np.float32, np.float64])
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6)
random = np.random.default_rng(0)


def elements(dtype):
    width = np.dtype(dtype).itemsize * 8
    return st.floats(width=width) | st.floats(-1, 1, width=width) | st.sampled_from([0.0, 1.0])


@st.composite
def steps(draw):
    """A parameter before and after a step, and a gradient."""
    dtype = draw(dtypes)
    shape = draw(shapes)
    before = draw(hnp.arrays(dtype, shape, elements=elements(dtype)))
    moved = draw(hnp.arrays(np.bool_, shape))
    after = np.where(moved, draw(hnp.arrays(dtype, shape, elements=elements(dtype))), before)
    return before, after, draw(hnp.arrays(dtype, shape, elements=elements(dtype)))


def norm(values):
    """Through the widest float there is: squares of a double are beyond a double."""
    wide = values[np.isfinite(values)].astype(np.longdouble)
    return float(np.sqrt((wide**2).sum()))


@given(steps())
def test_every_field_is_what_numpy_says(step):
    before, after, gradient = step
    with np.errstate(all="ignore"):
        change = after.astype(np.promote_types(after.dtype, np.float32)) - before
        both = np.isfinite(change)
        expected = {
            "nan_count": np.isnan(after).sum() + np.isnan(gradient).sum(),
            "inf_count": np.isinf(after).sum() + np.isinf(gradient).sum(),
            "zero_count": (gradient == 0).sum(),
        }
        if np.isfinite(after).any():
            expected["weight_norm"] = norm(after)
        if np.isfinite(gradient).any():
            expected["gradient_norm"] = norm(gradient)
        if both.any():
            expected["update_norm"] = norm(change)
            expected["update_frequency"] = (change[both] != 0).mean()
            if norm(before):
                expected["update_ratio"] = float(np.float64(norm(change)) / norm(before))
    expected = {name: value for name, value in expected.items() if np.isfinite(value)}
    found = update_fields(before, after, gradient=gradient)
    assert found.pop("rounded_share", None) == rounded_share(before)
    assert found == pytest.approx(expected, rel=1e-5)


@given(steps())
def test_what_is_unknown_has_no_field(step):
    before, after, gradient = step
    neither = update_fields(before, after)
    clipped = update_fields(before, after, clipped=gradient)
    assert not {"gradient_norm", "gradient_norm_clipped", "zero_count"} & set(neither)
    assert "gradient_norm" not in clipped
    assert clipped["zero_count"] == (gradient == 0).sum()
    both = update_fields(before, after, gradient=gradient, clipped=gradient)
    assert both.get("gradient_norm") == both.get("gradient_norm_clipped") == clipped.get("gradient_norm_clipped")


@given(steps())
def test_fields_fit_into_a_point(step):
    before, after, gradient = step
    fields = update_fields(before, after, gradient=gradient)
    [point] = update_points({("lstm", "kernel"): fields}, {"run": "r"}, 1, 2)
    assert point_problem(point) is None
    assert set(point.fields) <= set(LAYER_UPDATES_FIELDS)


def test_a_gradient_is_counted_once_whether_clipped_or_not():
    weights, gradient = np.ones(3, np.float32), np.array([np.nan, 0, 2], np.float32)
    fields = update_fields(weights, weights, gradient=gradient, clipped=gradient / 2)
    assert fields == {
        "gradient_norm": 2,
        "gradient_norm_clipped": 1,
        "weight_norm": pytest.approx(3**0.5),
        "update_norm": 0,
        "update_ratio": 0,
        "update_frequency": 0,
        "zero_count": 1,
        "nan_count": 1,
        "inf_count": 0,
    }


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e-22, 1e-19, 1e-10, 1, 1e10, 1e19, 1e30, 1e37])
@pytest.mark.parametrize("size", [1, 8191, 8192, 8193, 50_000])
def test_norms_of_single_precision_neither_vanish_nor_overflow(scale, size):
    values = (random.normal(size=size) * scale).astype(np.float32)
    assert tally(values).norm == pytest.approx(norm(values), rel=1e-5)


def test_one_faint_value_among_many_zeros_and_one_loud_part_among_faint_ones():
    values = np.zeros(30_000, np.float32)
    values[12_345] = 1e-30
    assert tally(values, zeros=True).norm == pytest.approx(1e-30)
    assert tally(values, zeros=True).zeros == 29_999
    values[20_000] = 3.0
    assert tally(values).norm == pytest.approx(3.0)


def test_several_arrays_of_one_parameter_are_as_one():
    before = random.normal(size=(2, 20_000)).astype(np.float32)
    after = before + random.normal(size=before.shape).astype(np.float32) * 1e-3
    gradient = random.normal(size=before.shape).astype(np.float32)
    whole = update_fields(before, after, gradient=gradient)
    assert update_fields(list(before), list(after), gradient=list(gradient)) == pytest.approx(whole, rel=1e-6, abs=1e-3)


def test_an_array_that_is_not_contiguous_is_read_as_it_stands():
    before = random.normal(size=(300, 200)).astype(np.float32)
    after = before.T.copy().T
    assert update_fields(before, after)["update_norm"] == 0


def test_weights_of_zero_have_no_ratio_and_weights_that_are_no_numbers_no_norm():
    zero, nan = np.zeros(4), np.full(4, np.nan)
    assert "update_ratio" not in update_fields(zero, zero + 1)
    assert update_fields(zero, nan) == {"nan_count": 4, "inf_count": 0}


def test_a_weight_that_is_lost_is_counted_and_does_not_move():
    before = np.array([1.0, 1.0, 1.0, 1.0])
    fields = update_fields(before, np.array([1.0, 2.0, np.nan, np.inf]))
    assert (fields["update_frequency"], fields["nan_count"], fields["inf_count"]) == (0.5, 1, 1)


@pytest.mark.parametrize("after", [np.zeros(4), np.zeros((3, 2)), [np.zeros((2, 3)), np.zeros(2)]])
def test_shapes_that_differ_are_named(after):
    with pytest.raises(ValueError, match=r"^before and after differ in shape: \(2, 3\) and .*\)$"):
        update_fields(np.zeros((2, 3)), after)


def test_points_carry_layer_and_param_as_tags_and_hostile_names_are_cleaned():
    updates = {("a\nb,c\\", "kernel"): {"weight_norm": 1.0}, ("", "bi as="): {"weight_norm": 2.0}}
    points = update_points(updates, {"run": "r", "phase": "train"}, 5, 7)
    assert [point.tags for point in points] == [
        {"run": "r", "phase": "train", "layer": r"a\nb,c/", "param": "kernel"},
        {"run": "r", "phase": "train", "layer": "_", "param": "bi as="},
    ]
    assert all(point.measurement == LAYER_UPDATES and point.time == 5 for point in points)
    assert points[0].fields == {"weight_norm": 1.0, "step": 7}
    assert encode(points).count(b"\n") == 2

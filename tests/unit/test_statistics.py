"""The statistics of a gate, held to numpy's own functions and to plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gatewatch.collector.cells import GATES, gate_scale
from gatewatch.collector.schema import GATE_STATS_FIELDS, HISTOGRAM_FIELDS, MAX_PROFILE
from gatewatch.collector.statistics import (
    gate_statistics,
    grouped,
    time_profile,
    unit_profile,
    zero_crossing_rate,
)

pytestmark = pytest.mark.filterwarnings("error")

SIGMOID, TANH, CELL = (gate_scale(gate) for gate in ("forget", "hidden", "cell"))
QUANTILES = {"p05": 5, "p50": 50, "p95": 95}
COUNTS = {"dead_units", "nan_count", "inf_count"}
IN_TIME = {"zero_crossing_rate", "dead_units"}
"""What depends on where a value stands; everything else only on which values there are."""

scales = st.sampled_from(sorted({gate.scale for gate in GATES.values()}, key=lambda scale: scale.low))
dtypes = st.sampled_from([np.float32, np.float64])
shapes = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 5))


def elements(dtype, **options):
    width = np.dtype(dtype).itemsize * 8
    telling = [0.0, 0.1, 0.5, 0.9, 1.0, -0.9, -1.0, 3.0, -3.0, math.atanh(0.9)]
    return (
        st.floats(width=width, allow_nan=False, allow_infinity=False, **options)
        | st.floats(-1, 1, width=width)
        | st.sampled_from([float(np.dtype(dtype).type(value)) for value in telling])
    )


@st.composite
def gates(draw, dtype=None, shape=shapes):
    dtype = dtype or draw(dtypes)
    return draw(hnp.arrays(dtype, shape, elements=elements(dtype)))


@st.composite
def moderate(draw):
    """Values whose sums and squares stay far from the ends of a float, for comparisons to the last digits."""
    dtype = draw(dtypes)
    width = np.dtype(dtype).itemsize * 8
    return draw(hnp.arrays(dtype, shapes, elements=st.floats(-8, 8, width=width)))


@st.composite
def with_holes(draw):
    values = draw(moderate())
    holes = draw(hnp.arrays(np.int8, values.shape, elements=st.integers(0, 5)))
    for code, hole in ((3, np.nan), (4, np.inf), (5, -np.inf)):
        values[holes == code] = hole
    return values


def precise(values):
    return values.reshape(-1).astype(np.longdouble)


def rounding(values, units=8):
    """A few units in the last place of the largest value."""
    info = np.finfo(values.dtype)
    return units * (float(info.eps) * float(np.abs(values).max()) + float(info.smallest_subnormal))


@settings(deadline=None)
@given(gates(), scales)
@example(np.full((1, 1, 1), 0.3, np.float32), SIGMOID)
@example(np.full((3, 4, 5), 0.3), SIGMOID)
@example(np.full((3, 4, 5), np.finfo(np.float64).max), CELL)
@example(np.array([1.7e308, -1.7e308, 1.7e308, -1.7e308]).reshape(1, 2, 2), CELL)
@example(np.array([3e38, -3e38, 3e38], np.float32).reshape(1, 3, 1), TANH)
@example(np.array([1e-45, 0, 3e-45], np.float32).reshape(1, 3, 1), SIGMOID)
@example(np.array([5e-324, 0, 1e-323]).reshape(1, 3, 1), TANH)
@example(np.array([1e-30, 3e-30], np.float32).reshape(1, 2, 1), TANH)
@example(np.array([1e-200, 3e-200]).reshape(1, 2, 1), TANH)
def test_moments_and_quantiles_are_those_of_numpy(values, scale):
    found = gate_statistics(values, scale)
    wanted = precise(values)
    assert found["mean"] == pytest.approx(float(wanted.mean()), rel=1e-12, abs=rounding(values))
    assert found["std"] == pytest.approx(float(wanted.std()), rel=1e-6, abs=rounding(values))
    for name, percent in QUANTILES.items():
        assert found[name] == pytest.approx(
            float(np.percentile(wanted, percent)), rel=1e-12, abs=rounding(values.astype(np.float64))
        )


@given(st.integers(1, 3000), scales, dtypes, st.integers(0, 2**32 - 1), st.sampled_from([0.01, 1.0, 100.0]))
def test_quantiles_of_many_values_are_those_of_numpy(count, scale, dtype, seed, spread):
    values = np.random.default_rng(seed).normal(scale=spread, size=(1, count, 1)).round(2).astype(dtype)
    found = gate_statistics(values, scale)
    wanted = np.percentile(values.astype(np.float64), list(QUANTILES.values()))
    np.testing.assert_allclose([found[name] for name in QUANTILES], wanted, rtol=1e-12, atol=1e-13 * spread)


@given(hnp.array_shapes(min_dims=3, max_dims=3, max_side=4), scales, dtypes.flatmap(elements))
def test_a_constant_gate_has_its_value_everywhere_and_no_spread(shape, scale, value):
    values = np.full(shape, value)
    found = gate_statistics(values, scale)
    assert [found[name] for name in QUANTILES] == [value] * 3
    assert [found["mean"], found["std"]] == pytest.approx([value, 0], rel=0, abs=rounding(values))
    assert found["entropy"] == found["zero_crossing_rate"] == 0.0


@settings(deadline=None)
@given(gates(), scales)
def test_what_is_given_is_complete_finite_and_pythons_own(values, scale):
    before = values.copy()
    found = gate_statistics(values, scale)
    assert set(found) == set(GATE_STATS_FIELDS) - {"step", "epoch"}
    assert {name: type(value) for name, value in found.items()} == {
        name: int if name in COUNTS else float for name in found
    }
    assert all(map(math.isfinite, found.values()))
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("scale", [SIGMOID, TANH, CELL])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_histogram_is_numpys_of_the_clipped_values(scale, dtype):
    values = np.random.default_rng(5).normal(scale.centre, scale.high, (16, 20, 30)).astype(dtype)
    found = gate_statistics(values, scale)
    counts, _ = np.histogram(np.clip(values, scale.low, scale.high), bins=20, range=(scale.low, scale.high))
    assert [found[name] for name in HISTOGRAM_FIELDS] == pytest.approx(counts / values.size, abs=1e-12)


@given(gates(), scales)
def test_the_histogram_is_numpys_but_for_rounding_at_the_borders_of_bins(values, scale):
    found = gate_statistics(values, scale)
    histogram = np.array([found[name] for name in HISTOGRAM_FIELDS])
    assert histogram.sum() == pytest.approx(1, abs=1e-12)
    inner = np.linspace(scale.low, scale.high, 21)[1:-1]
    near = 4 * np.finfo(values.dtype).eps * (scale.high - scale.low)
    flat = np.sort(values.reshape(-1).astype(np.float64))
    below = histogram.cumsum()[:-1] * values.size
    assert (np.searchsorted(flat, inner - near) <= below + 1e-6).all()
    assert (below - 1e-6 <= np.searchsorted(flat, inner + near)).all()


@pytest.mark.parametrize("scale", [SIGMOID, TANH, CELL])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_value_on_a_border_is_in_the_bin_above_and_the_last_bin_is_closed(scale, dtype):
    edges = np.linspace(scale.low, scale.high, 21)
    for value, bin_ in [*zip(edges[::5], (0, 5, 10, 15, 19), strict=True), (-1e9, 0), (1e9, 19)]:
        found = gate_statistics(np.full((1, 1, 1), value, dtype), scale)
        assert found[f"hist_{bin_:02d}"] == 1.0, value


def test_entropy_runs_from_one_bin_to_all_bins_alike():
    spread = (np.arange(20) / 20 + 0.025).reshape(1, 20, 1)
    assert gate_statistics(spread, SIGMOID)["entropy"] == pytest.approx(math.log2(20))
    assert gate_statistics(np.where(spread < 0.5, 0.2, 0.7), SIGMOID)["entropy"] == pytest.approx(1)
    nothing = gate_statistics(np.full((2, 3, 4), 0.5), SIGMOID)["entropy"]
    assert (nothing, math.copysign(1, nothing)) == (0.0, 1.0)


@given(gates(), scales)
def test_entropy_is_shannons_of_the_histogram(values, scale):
    found = gate_statistics(values, scale)
    shares = np.array([share for name in HISTOGRAM_FIELDS if (share := found[name])])
    assert found["entropy"] == pytest.approx(-(shares * np.log2(shares)).sum(), abs=1e-9)


@pytest.mark.parametrize("scale", [SIGMOID, TANH, CELL])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_value_at_a_threshold_is_not_saturated_and_the_next_one_is(scale, dtype):
    for name, threshold, beyond in (
        ("saturated_low", dtype(scale.saturated_low), dtype(-np.inf)),
        ("saturated_high", dtype(scale.saturated_high), dtype(np.inf)),
    ):
        at = np.full((1, 3, 1), threshold)
        assert gate_statistics(at, scale)[name] == 0.0
        at[0, 1] = np.nextafter(threshold, beyond)
        assert gate_statistics(at, scale)[name] == pytest.approx(1 / 3)


@given(gates(), scales)
def test_saturation_is_the_share_beyond_the_thresholds(values, scale):
    found = gate_statistics(values, scale)
    low, high = values.dtype.type(scale.saturated_low), values.dtype.type(scale.saturated_high)
    assert found["saturated_low"] == pytest.approx(np.mean(values < low))
    assert found["saturated_high"] == pytest.approx(np.mean(values > high))


def crossings(values, centre, valid):
    crossed = total = 0
    for sequence, known in zip(values, valid, strict=True):
        for t in range(1, len(sequence)):
            for unit in range(sequence.shape[1]):
                if known[t - 1, unit] and known[t, unit]:
                    total += 1
                    crossed += (sequence[t - 1, unit] > centre) != (sequence[t, unit] > centre)
    return crossed / total if total else 0.0


@given(with_holes(), st.sampled_from([0.0, 0.5, -2.0]), st.data())
def test_crossings_are_those_a_plain_loop_counts(values, centre, data):
    everything = np.ones(values.shape, bool)
    assert zero_crossing_rate(values, centre) == pytest.approx(crossings(values, centre, everything))
    valid = data.draw(hnp.arrays(bool, values.shape))
    assert zero_crossing_rate(values, centre, valid) == pytest.approx(crossings(values, centre, valid))


def test_a_value_on_the_centre_counts_as_below():
    assert zero_crossing_rate(np.array([0.5, 0.6, 0.5, 0.4]).reshape(1, 4, 1), 0.5) == pytest.approx(2 / 3)
    assert zero_crossing_rate(np.ones((3, 1, 2))) == 0.0


@settings(deadline=None)
@given(with_holes(), scales, st.data())
def test_masked_steps_and_what_is_not_finite_are_left_out(values, scale, data):
    mask = data.draw(st.none() | hnp.arrays(bool, values.shape[:2]))
    counted = np.ones(values.shape, bool) if mask is None else np.broadcast_to(mask[:, :, None], values.shape)
    valid = counted & np.isfinite(values)
    found = gate_statistics(values, scale, mask)
    assert found["nan_count"] == (np.isnan(values) & counted).sum()
    assert found["inf_count"] == (np.isinf(values) & counted).sum()
    if not valid.any():
        assert set(found) == {"nan_count", "inf_count"}
        return
    rest = gate_statistics(values[valid].reshape(1, -1, 1), scale)
    for name in set(rest) - IN_TIME - {"nan_count", "inf_count"}:
        assert found[name] == pytest.approx(rest[name], rel=1e-12), name
    assert found["zero_crossing_rate"] == pytest.approx(crossings(values, scale.centre, valid))


def test_nothing_is_left_to_say_but_the_counts():
    values = np.full((2, 3, 4), np.nan, np.float32)
    assert gate_statistics(values, SIGMOID) == {"nan_count": 24, "inf_count": 0}
    assert gate_statistics(-values / 0 + np.inf, SIGMOID) == {"nan_count": 24, "inf_count": 0}
    assert gate_statistics(np.full((2, 3, 4), -np.inf), SIGMOID) == {"nan_count": 0, "inf_count": 24}
    nothing = np.zeros((2, 3), bool)
    assert gate_statistics(values, SIGMOID, nothing) == {"nan_count": 0, "inf_count": 0}
    assert unit_profile(values) == time_profile(values) == unit_profile(values, nothing) == {}


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_an_empty_gate_has_no_statistics(shape):
    values = np.zeros(shape, np.float32)
    assert gate_statistics(values, SIGMOID) == {"nan_count": 0, "inf_count": 0}
    assert unit_profile(values) == time_profile(values) == {}


@given(st.integers(0, 2**32 - 1), scales, st.booleans())
def test_how_an_array_lies_in_memory_changes_nothing(seed, scale, hole):
    random = np.random.default_rng(seed)
    values = random.normal(size=(5, 6, 7)).astype(np.float32)
    mask = random.random((5, 6)) < 0.7
    if hole:
        values[1, 2, 3] = np.nan
    padded = np.zeros((5, 6, 14), np.float32)
    padded[:, :, ::2] = values
    by_time = np.ascontiguousarray(values.transpose(1, 0, 2)).transpose(1, 0, 2)
    backwards = np.ascontiguousarray(values[::-1, ::-1])[::-1, ::-1]
    for other in (by_time, padded[:, :, ::2], np.asfortranarray(values), backwards):
        for some in (None, mask):
            assert gate_statistics(other, scale, some) == pytest.approx(gate_statistics(values, scale, some))
            assert unit_profile(other, some) == pytest.approx(unit_profile(values, some), abs=1e-7)
            assert time_profile(other, some) == pytest.approx(time_profile(values, some), abs=1e-7)


@pytest.mark.parametrize("big", [1.0, 1e4])
def test_half_precision_is_counted_as_single(big):
    values = (np.random.default_rng(1).normal(size=(4, 5, 6)) * big).astype(np.float16)
    assert gate_statistics(values, SIGMOID) == pytest.approx(gate_statistics(values.astype(np.float32), SIGMOID))
    assert unit_profile(values) == pytest.approx(unit_profile(values.astype(np.float32)))


def test_a_unit_is_dormant_at_a_fortieth_of_the_mean_activity():
    """Sokar et al. 2023: of the mean over all units of the layer, itself included."""
    for own, dormant in ((0.0249, True), (0.0251, False)):
        activity = np.full((1, 1, 40), (40 - own) / 39)
        activity[:, :, 7] = own
        assert activity.mean() == pytest.approx(1)
        assert gate_statistics(activity, TANH)["dead_units"] == (1 if dormant else 0)
    assert gate_statistics(np.array([[[1.0, 79.0]]]), TANH)["dead_units"] == 1  # 1 is 0.025 of 40


@given(moderate(), scales)
def test_dead_units_are_counted_by_their_mean_absolute_activation(values, scale):
    activity = [np.mean([abs(float(v)) for v in values[:, :, u].flat]) for u in range(values.shape[2])]
    border = 0.025 * np.mean(activity)
    least = sum(a <= border * (1 - 1e-6) or a == 0 for a in activity)
    most = sum(a <= border * (1 + 1e-6) for a in activity)
    assert least <= gate_statistics(values, scale)["dead_units"] <= most


def test_dead_units_of_a_gate_of_nothing_and_of_one_that_is_not_known():
    assert gate_statistics(np.zeros((2, 3, 4)), SIGMOID)["dead_units"] == 4
    values = np.ones((2, 3, 4))
    values[:, :, 0], values[:, :, 1] = np.nan, 0
    assert gate_statistics(values, SIGMOID)["dead_units"] == 1


def test_a_sigmoid_gates_scale_does_not_make_signs_cancel():
    """A gate may have been given another activation: its mean is 0, its activity is not."""
    values = np.ones((2, 4, 3))
    values[:, ::2, 0] = -1
    assert gate_statistics(values, SIGMOID)["dead_units"] == 0


def test_huge_units_are_alive():
    values = np.full((2, 3, 80), 1.7e308)
    values[:, :, 5] = 1
    assert gate_statistics(values, CELL)["dead_units"] == 1
    assert gate_statistics(-values, CELL)["dead_units"] == 1


@given(gates(shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 150))))
@example(np.full((2, 3, 150), np.finfo(np.float64).max))
@settings(deadline=None, max_examples=50)
def test_a_profile_is_the_mean_by_unit_or_by_group_of_neighbours(values):
    before = values.copy()
    units = values.shape[2]
    groups = min(units, MAX_PROFILE)
    bounds = [(i * units // groups, (i + 1) * units // groups) for i in range(groups)]
    profile = unit_profile(values)
    assert list(profile) == [f"u{i:03d}" for i in range(groups)]
    wanted = [float(precise(values[:, :, a:b]).mean()) for a, b in bounds]
    np.testing.assert_allclose(list(profile.values()), wanted, rtol=1e-9, atol=rounding(values, 40))
    by_time = time_profile(values.transpose(0, 2, 1))
    assert list(by_time) == [f"t{i:03d}" for i in range(groups)]
    np.testing.assert_allclose(list(by_time.values()), wanted, rtol=1e-9, atol=rounding(values, 40))
    assert {type(mean) for mean in (profile | by_time).values()} == {float}
    np.testing.assert_array_equal(values, before)


@given(with_holes(), st.data())
def test_a_profile_leaves_out_what_is_masked_or_not_finite(values, data):
    mask = data.draw(st.none() | hnp.arrays(bool, values.shape[:2]))
    kept = np.where(np.isfinite(values) & (True if mask is None else mask[:, :, None]), values, np.nan)
    units = {f"u{u:03d}": np.nanmean(kept[:, :, u]) for u in range(kept.shape[2]) if not np.isnan(kept[:, :, u]).all()}
    steps = {f"t{t:03d}": np.nanmean(kept[:, t]) for t in range(kept.shape[1]) if not np.isnan(kept[:, t]).all()}
    assert unit_profile(values, mask) == pytest.approx(units, rel=1e-6, abs=1e-6)
    assert time_profile(values, mask) == pytest.approx(steps, rel=1e-6, abs=1e-6)
    assert set(unit_profile(values, mask)) == set(units)
    assert set(time_profile(values, mask)) == set(steps)


def test_a_group_is_the_mean_of_its_known_units():
    means = np.arange(128.0)
    means[[0, 10, 11]] = np.nan
    found = grouped(means)
    assert found[:7].tolist() == pytest.approx([1, 2.5, 4.5, 6.5, 8.5, np.nan, 12.5], nan_ok=True)
    assert grouped(means[:64]).tolist() == pytest.approx(means[:64].tolist(), nan_ok=True)
    assert grouped(means, most=128) is means


@given(st.integers(65, 1000), st.integers(1, 64))
def test_groups_cover_every_unit_once_and_differ_by_one_at_most(units, most):
    sizes = np.array([grouped(np.eye(units)[u], most) for u in range(0, units, max(1, units // 7))])
    shares = sizes[sizes > 0]
    assert (np.count_nonzero(sizes, axis=1) == 1).all()
    assert set(np.round(1 / shares).astype(int)) <= {units // most, -(-units // most)}

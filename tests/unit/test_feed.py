"""Statistics of what is fed: literals, and NumPy and SciPy as oracles over any batch."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from gatewatch.collector.feed.measures import FeedSample, lag1_by_feature, measure_feed

Batch = NDArray[np.float64]
SHAPES = hnp.array_shapes(min_dims=3, max_dims=3, max_side=6)
NUMBERS = st.floats(-1e3, 1e3, width=32)
ANY = NUMBERS | st.sampled_from([np.nan, np.inf, -np.inf])


def batches(elements: st.SearchStrategy[float] = NUMBERS) -> st.SearchStrategy[Batch]:
    """Return batches of any shape up to (6, 6, 6)."""
    return hnp.arrays(np.float32, SHAPES, elements=elements)


def test_a_batch_of_two_sequences_by_hand() -> None:
    values = np.array([[[1, 5], [2, 5], [4, 5]], [[1, 5], [2, 5], [4, 5]]], float)

    measured = measure_feed(FeedSample(values))

    assert measured.stats["constant_features"] == 1
    assert measured.stats["distinct_share"] == 0.5
    assert measured.stats["nan_share"] == measured.stats["inf_share"] == 0
    assert (measured.stats["sequences"], measured.stats["positions"], measured.stats["features"]) == (2, 3, 2)
    assert measured.features["mean"].tolist() == pytest.approx([7 / 3, 5])
    # Deviations from the mean 7/3: -4/3, -1/3, 5/3. Products 4/9 - 5/9, squares (16 + 1 + 25)/9.
    assert measured.features["lag1"][0] == pytest.approx(-1 / 42)
    assert np.isnan(measured.features["lag1"][1])
    assert measured.stats["lag1"] == pytest.approx(-1 / 42)


def test_values_at_an_extreme_that_several_have_are_clipped() -> None:
    wild = np.array([3, 3, 3, 1, 0, -1, -2, -3, 2.5, 1.5])  # 3 of 10 at the top, one alone at the bottom
    flag = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1])  # nothing between: no clip
    constant = np.ones(10)
    values = np.stack([wild, flag, constant], axis=1)[None]

    assert measure_feed(FeedSample(values)).stats["clipped_share"] == pytest.approx(3 / 30)


def test_what_is_not_finite_is_counted_and_the_rest_measured() -> None:
    values = np.array([[[1.0], [np.nan], [3.0], [np.inf]]])

    measured = measure_feed(FeedSample(values))

    assert (measured.stats["nan_share"], measured.stats["inf_share"]) == (0.25, 0.25)
    assert measured.features["mean"].tolist() == [2.0]
    assert measured.features["nan_share"].tolist() == [0.25]


def test_targets_that_are_not_finite_are_counted() -> None:
    values, targets = np.ones((4, 2, 1)), np.array([[1.0], [np.nan], [np.inf], [0.0]])

    assert measure_feed(FeedSample(values, targets=targets)).stats["targets_not_finite"] == 0.5
    assert "targets_not_finite" not in measure_feed(FeedSample(values)).stats


def test_a_batch_of_nothing_but_nan_has_no_means() -> None:
    measured = measure_feed(FeedSample(np.full((2, 3, 2), np.nan)))

    assert measured.stats["nan_share"] == 1
    assert "lag1" not in measured.stats
    assert np.isnan(measured.features["mean"]).all()
    assert np.isnan(measured.features["p01"]).all()


def test_padding_counts_for_nothing() -> None:
    short = np.array([[[1.0], [2.0], [4.0], [np.nan]], [[9.0], [1.0], [99.0], [99.0]]])
    mask = np.array([[True, True, True, False], [True, True, False, False]])

    measured = measure_feed(FeedSample(short, mask))

    assert measured.stats["nan_share"] == 0
    assert measured.features["mean"].tolist() == pytest.approx([17 / 5])
    assert measured.features["lag1"].tolist() == pytest.approx([-1 / 42])  # the sequence of two does not count


def test_ids_have_nothing_but_distinct_sequences() -> None:
    ids = np.array([[1, 2], [1, 2], [3, 2], [2, 3]])

    measured = measure_feed(FeedSample(np.empty((4, 2, 0)), others=(ids,)))

    assert measured.stats == {"features": 0, "sequences": 4, "positions": 2, "distinct_share": 0.75}
    assert not measured.features


def test_a_feature_that_tells_the_target_has_a_correlation_of_one() -> None:
    random = np.random.default_rng(1)
    values = random.normal(size=(64, 5, 3))
    targets = -7 * values[:, -1, 2:] + 3

    told = measure_feed(FeedSample(values, targets=targets))
    assert told.stats["target_correlation"] == told.features["target_correlation"][2] == pytest.approx(1)
    assert told.features["target_correlation"][:2].max() < 0.4
    unrelated = FeedSample(values, targets=random.normal(size=(64, 1)))
    assert measure_feed(unrelated).stats["target_correlation"] < 0.4


@pytest.mark.parametrize("targets", [np.ones((64, 1)), np.full((64, 1), np.nan)], ids=["constant", "nan"])
def test_targets_without_variance_have_no_correlation(targets: Batch) -> None:
    values = np.random.default_rng(1).normal(size=(64, 5, 3))

    assert "target_correlation" not in measure_feed(FeedSample(values, targets=targets)).stats


def test_few_sequences_have_no_correlation() -> None:
    values = np.random.default_rng(1).normal(size=(7, 5, 3))

    assert "target_correlation" not in measure_feed(FeedSample(values, targets=values[:, -1, :1])).stats


def test_over_all_orders_of_the_positions_lag1_is_minus_one_over_their_number() -> None:
    sequence = np.array([1.0, 2.0, 5.0, -3.0, 0.25])

    over_all = [lag1_by_feature(np.array(order)[None, :, None])[0] for order in permutations(sequence)]

    assert np.mean(over_all) == pytest.approx(-1 / 5)


def test_a_smooth_feature_keeps_its_lag1_whatever_its_level_and_scale() -> None:
    steps = np.random.default_rng(0).normal(size=(32, 64, 1)).cumsum(axis=1)

    plain, scaled = (lag1_by_feature(values)[0] for values in (steps, 1e-3 * steps + 1e4))

    assert plain > 0.8
    assert scaled == pytest.approx(plain, abs=1e-6)


@pytest.mark.parametrize("level", [0.1, 1e-30, 1e30, 12345.678])
def test_a_feature_that_does_not_move_within_sequences_has_no_lag1(level: float) -> None:
    values = np.repeat(np.array([level, 2 * level, -level])[:, None, None], 7, axis=1)

    assert np.isnan(lag1_by_feature(values)).all()
    assert np.isnan(lag1_by_feature(values.astype(np.float32))).all()


@given(batches(ANY))
def test_means_and_quantiles_are_those_of_numpy(values: Batch) -> None:
    measured = measure_feed(FeedSample(values))
    for feature in range(values.shape[2]):
        column = values[:, :, feature].astype(np.float64)
        finite = column[np.isfinite(column)]
        for name, expected in {
            "mean": finite.mean() if finite.size else np.nan,
            "std": finite.std() if finite.size else np.nan,
            "p01": np.quantile(finite, 0.01) if finite.size else np.nan,
            "p99": np.quantile(finite, 0.99) if finite.size else np.nan,
            "nan_share": np.isnan(column).mean(),
        }.items():
            got = measured.features[name][feature]
            assert got == pytest.approx(expected, rel=1e-6, abs=1e-4 if name == "std" else 1e-9, nan_ok=True)


@given(batches(ANY))
def test_shares_are_those_that_counting_gives(values: Batch) -> None:
    stats = measure_feed(FeedSample(values)).stats
    constant = clipped = counted = 0
    for feature in np.moveaxis(values, 2, 0):
        finite = feature[np.isfinite(feature)].tolist()
        counted += len(finite)
        if len(finite) > 1 and len(set(finite)) == 1:
            constant += 1
        elif len(set(finite)) > 2:
            clipped += sum(n for n in (finite.count(min(finite)), finite.count(max(finite))) if n > 1)

    if values.shape[0] * values.shape[1] > 1:
        assert stats["constant_features"] == constant
        assert stats.get("clipped_share", 0) == pytest.approx(clipped / max(counted, 1))
    assert stats["inf_share"] == pytest.approx(np.isinf(values).mean())


@given(batches())
def test_lag1_is_what_its_formula_says(values: Batch) -> None:
    got = lag1_by_feature(values)
    for feature in range(values.shape[2]):
        products = squares = 0.0
        for sequence in values[:, :, feature].astype(np.float64):
            if len(sequence) >= 3 and len(set(sequence)) > 1:
                apart = sequence - sequence.mean()
                products += float((apart[1:] * apart[:-1]).sum())
                squares += float((apart**2).sum())
        if squares > 1e-9:
            assert got[feature] == pytest.approx(products / squares, abs=1e-6)
        elif not squares:
            assert np.isnan(got[feature])


@given(st.data(), hnp.array_shapes(min_dims=2, max_dims=2, min_side=8, max_side=12))
def test_the_correlation_is_the_largest_of_numpys(data: st.DataObject, shape: tuple[int, int]) -> None:
    last = data.draw(hnp.arrays(np.float64, shape, elements=st.integers(-50, 50)))
    targets = data.draw(hnp.arrays(np.float64, (shape[0], 2), elements=st.integers(-50, 50)))
    moving = [(x, y) for x in last.T for y in targets.T if np.ptp(x) and np.ptp(y)]

    got = measure_feed(FeedSample(last[:, None], targets=targets)).stats.get("target_correlation")

    expected = max((abs(np.corrcoef(x, y)[0, 1]) for x, y in moving), default=None)
    assert got == (expected if expected is None else pytest.approx(expected, abs=1e-9))


@given(batches(st.floats(allow_nan=True, allow_infinity=True, width=32)))
def test_no_number_that_is_not_finite_is_a_stat(values: Batch) -> None:
    measured = measure_feed(FeedSample(values))

    assert all(np.isfinite(value) for value in measured.stats.values())
    assert all(np.isnan(by) or np.isfinite(by) for each in measured.features.values() for by in each)


@given(hnp.arrays(np.float64, (4, 5, 2), elements=st.floats(allow_nan=False, allow_infinity=False)))
def test_numbers_as_large_as_floats_are_do_not_overflow(values: Batch) -> None:
    measured = measure_feed(FeedSample(values))

    assert all(np.isfinite(value) for value in measured.stats.values())
    assert np.isfinite(measured.features["mean"]).all()
    assert np.isfinite(measured.features["std"]).all()

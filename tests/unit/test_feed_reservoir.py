"""How far a batch is from earlier ones: SciPy as the oracle of the distance, and what it tells apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, pdist

from gatewatch.collector.feed.measures import FeedSample
from gatewatch.collector.feed.reservoir import SIZE, FeedReservoir, describe_sequences, energy_distance

Batch = NDArray[np.floating[Any]]


def autoregressive(random: np.random.Generator, memory: float, sequences: int = 32) -> Batch:
    """Return (sequences, 24, 4) of deviation 1 whatever the memory is."""
    noise = random.normal(size=(sequences, 100, 4))
    for at in range(1, 100):
        noise[:, at] = memory * noise[:, at - 1] + np.sqrt(1 - memory**2) * noise[:, at]
    return noise[:, -24:]


def heavy_tailed(random: np.random.Generator, sequences: int = 32) -> Batch:
    """Return (sequences, 24, 4) of mean 0 and deviation 1 whose sizes are mostly small and sometimes large."""
    return random.standard_t(3, size=(sequences, 24, 4)) / np.sqrt(3)


def distances(*batches: Batch) -> list[float | None]:
    """Return the distance of each batch to those before it."""
    reservoir = FeedReservoir()
    return [reservoir.distance(FeedSample(batch)) for batch in batches]


@given(
    hnp.arrays(np.float64, st.tuples(st.integers(2, 9), st.just(3)), elements=st.floats(-100, 100)),
    hnp.arrays(np.float64, st.tuples(st.integers(2, 9), st.just(3)), elements=st.floats(-100, 100)),
)
def test_the_distance_is_that_of_its_definition(x: Batch, y: Batch) -> None:
    between = cdist(x, y).mean()
    expected = 1 - (pdist(x).mean() + pdist(y).mean()) / (2 * between) if between > 1e-3 else None

    if expected is not None:
        assert energy_distance(x, y) == pytest.approx(expected, abs=1e-4)


def test_two_points_apart_from_two_others_by_hand() -> None:
    assert energy_distance(np.array([[0.0], [0.0]]), np.array([[1.0], [1.0]])) == 1
    assert energy_distance(np.zeros((2, 1)), np.zeros((3, 1))) == 0
    # Between 1, 3, 1, 1 on average 1.5; within 2 and 2.
    assert energy_distance(np.array([[0.0], [2.0]]), np.array([[1.0], [3.0]])) == pytest.approx(1 - 4 / 3)


def test_there_is_none_before_there_are_earlier_sequences() -> None:
    random = np.random.default_rng(0)

    found = distances(*(random.normal(size=(20, 5, 2)) for _ in range(4)))

    assert [distance is None for distance in found] == [True, True, False, False]


def test_batches_of_one_sequence_have_one_from_the_latest_sixteen() -> None:
    random = np.random.default_rng(0)

    found = distances(*(random.normal(size=(1, 5, 2)) for _ in range(60)))

    assert [distance is None for distance in found] == [True] * 47 + [False] * 13


@pytest.mark.parametrize(
    "new",
    [
        pytest.param(lambda random: 1 + autoregressive(random, 0.5), id="level"),
        pytest.param(lambda random: 2 * autoregressive(random, 0.5), id="scale"),
        pytest.param(lambda random: 1e4 * autoregressive(random, 0.5), id="a lost normaliser"),
        pytest.param(lambda random: autoregressive(random, 0.0), id="memory"),
        pytest.param(lambda random: autoregressive(random, 0.9), id="more memory"),
        pytest.param(heavy_tailed, id="tails"),
        pytest.param(lambda random: random.permuted(autoregressive(random, 0.5), axis=1), id="order"),
    ],
)
def test_another_regime_is_farther_than_any_batch_of_the_old_one(new: Any) -> None:
    random = np.random.default_rng(3)
    old = [autoregressive(random, 0.5) for _ in range(40)]

    found = distances(*old, new(random))

    usual = [distance for distance in found[4:-1] if distance is not None]
    assert found[-1] is not None
    assert found[-1] > 2 * max(usual)


def test_the_size_of_a_batch_does_not_move_it() -> None:
    random = np.random.default_rng(0)
    sizes = [16, 128] * 30

    found = distances(*(autoregressive(random, 0.5, size) for size in sizes))

    small, large = found[20::2], found[21::2]
    assert abs(np.mean(small)) < 0.005  # type: ignore[arg-type]  # none is None by then
    assert abs(np.mean(large)) < 0.005  # type: ignore[arg-type]


def test_another_number_of_features_begins_anew() -> None:
    random = np.random.default_rng(0)

    found = distances(*(random.normal(size=(64, 5, features)) for features in (2, 2, 3, 3)))

    assert [distance is None for distance in found] == [True, False, True, False]


def test_the_same_feed_gives_the_same_distances() -> None:
    first, again = (
        distances(*(np.random.default_rng(seed).normal(size=(64, 5, 2)) for seed in range(12))) for _ in range(2)
    )

    assert first == again


def test_every_earlier_sequence_has_the_same_chance_to_be_kept() -> None:
    kept = []
    for shift in range(40):
        reservoir = FeedReservoir()
        for number in range(0, 2048, 64):
            reservoir.distance(FeedSample(np.full((64, 1, 1), float(number + shift * 2048))))
        assert reservoir._kept is not None
        assert len(reservoir._kept) == SIZE
        kept += (reservoir._kept[:, 0] % 2048).tolist()
    early = np.mean(np.array(kept) < 1024 - 32)  # the last batch is the recent one

    assert early == pytest.approx(0.5, abs=0.05)


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=3, max_dims=3, max_side=5),
        elements=st.floats(allow_nan=True, allow_infinity=True, width=32),
    )
)
def test_descriptors_are_finite_whatever_is_fed(values: Batch) -> None:
    mask = np.arange(values.shape[1]) < np.arange(1, len(values) + 1)[:, None]

    for found in (describe_sequences(values), describe_sequences(values, mask)):
        assert found.shape == (len(values), 7 * values.shape[2])
        assert np.isfinite(found).all()


def test_a_constant_feed_is_no_distance_and_another_constant_is() -> None:
    same, other = np.full((64, 5, 2), 3.0), np.full((64, 5, 2), 4.0)

    assert distances(same, same, same, other)[1:] == pytest.approx([0, 0, 1])

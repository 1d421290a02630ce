"""How large a pool of sequences is: by drawing from pools of a known size."""

from __future__ import annotations

import numpy as np
import pytest

from gatewatch.jobs.scoring.checks.pools import CHANCE, is_smaller_pool, repeats_of, smallest_pool


def drawn(pool, sizes, seed=0):
    """How many sequences repeat others of their batch, of batches drawn at random."""
    random = np.random.default_rng(seed)
    return sum(size - len(np.unique(random.integers(pool, size=size))) for size in sizes)


def test_two_of_two_sequences_are_the_same_one_time_in_two():
    assert repeats_of(np.array([2.0]), 2) == (pytest.approx(0.5), pytest.approx(0.25))


def test_of_one_sequence_all_but_the_first_are_repeats():
    assert repeats_of(np.array([5.0]), 1) == (4.0, 0.0)


@pytest.mark.parametrize("pool", [24, 500, 100_000])
def test_mean_and_variance_are_those_of_batches_drawn_at_random(pool):
    counts = np.array([drawn(pool, [32], seed) for seed in range(4000)])
    mean, variance = repeats_of(np.array([32.0]), pool)
    assert counts.mean() == pytest.approx(mean, abs=4 * np.sqrt(variance / 4000) + 1e-3)
    assert counts.var() == pytest.approx(variance, rel=0.15, abs=2e-3)


def test_a_pool_is_hardly_ever_called_smaller_than_it_is():
    sizes = [32] * 16
    called = [is_smaller_pool(np.array(sizes, float), drawn(200, sizes, seed), 200) for seed in range(2000)]
    assert sum(called) <= 2000 * CHANCE + 1


@pytest.mark.parametrize("pool", [24, 200, 5000])
def test_the_smallest_pool_is_below_the_true_one_and_not_far(pool):
    sizes = [32] * 61
    found = smallest_pool(np.array(sizes, float), drawn(pool, sizes))
    assert pool / 5 < found < pool


def test_without_any_repeat_a_pool_may_be_as_large_as_one_likes():
    assert smallest_pool(np.full(61, 32.0), 0) == pytest.approx(3270, rel=0.05)  # 61 * 32 * 31 / 2 / -log(CHANCE)

"""The trees of an isolation forest as arrays: scikit-learn's scores, and no trees that are none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest

from gatewatch.jobs.isolation_trees import IsolationTrees


def forest(samples=200, features=5, trees=20):
    rows = np.random.default_rng(0).normal(size=(samples, features))
    rows[:, 0] = rows[:, 0].round()
    return IsolationForest(n_estimators=trees, random_state=0).fit(rows)


@pytest.mark.parametrize("samples", [2, 3, 20, 300, 3000])
@pytest.mark.parametrize("features", [1, 7])
def test_the_scores_are_those_of_scikit_learn_bit_for_bit(samples, features):
    grown = forest(samples, features, trees=100)
    trees = IsolationTrees.from_arrays(IsolationTrees.of(grown).arrays, features)
    rows = np.random.default_rng(1).normal(size=(5000, features)) * 3
    np.testing.assert_array_equal(trees.score_samples(rows), grown.score_samples(rows))
    np.testing.assert_array_equal(trees.score_samples(rows[:1]), trees.score_samples(rows)[:1])
    assert trees.score_samples(rows[:0]).shape == (0,)


def test_constant_samples_make_trees_of_one_leaf():
    grown = IsolationForest(random_state=0).fit(np.zeros((9, 2)))
    trees = IsolationTrees.of(grown)
    np.testing.assert_array_equal(trees.score_samples(np.ones((3, 2))), grown.score_samples(np.ones((3, 2))))


SOUND = IsolationTrees.of(forest())
SECOND = int(SOUND.roots[1])
INNER = int(np.flatnonzero(SOUND.left >= 0)[5])

DAMAGE = {
    "a child beyond the last node": {"left": (0, 10**9)},
    "a child far beyond": {"left": (0, 2**62)},
    "a negative child": {"right": (0, -2)},
    "one child only": {"left": (INNER, -1)},
    "a node that is its own child": {"left": (INNER, INNER)},
    "a circle": {"left": (INNER, 0)},
    "a child of two parents": {"left": (0, SOUND.right[0])},
    "a child in another tree": {"left": (0, SECOND + 1)},
    "a feature too high": {"feature": (INNER, 5)},
    "a feature far too high": {"feature": (INNER, 2**40)},
    "a negative feature": {"feature": (INNER, -2)},
    "a threshold that is NaN": {"threshold": (INNER, np.nan)},
    "a threshold that is infinite": {"threshold": (INNER, np.inf)},
    "a node without samples": {"samples": (INNER, 0)},
    "samples that do not add up": {"samples": (INNER, 10**6)},
    "a root that is no root": {"roots": (1, SECOND + 1)},
    "a root out of range": {"roots": (-1, 10**9)},
    "roots out of order": {"roots": (1, 0)},
    "no root at the beginning": {"roots": (0, 1)},
}


@pytest.mark.parametrize("how", DAMAGE)
def test_trees_that_are_none_are_refused(how):
    arrays = {name: values.copy() for name, values in SOUND.arrays.items()}
    for name, (at, value) in DAMAGE[how].items():
        arrays[name][at] = value
    with pytest.raises(ValueError, match="trees"):
        IsolationTrees.from_arrays(arrays, 5)


@pytest.mark.parametrize("name", SOUND.arrays)
@pytest.mark.parametrize(
    "change",
    [
        lambda values: values[:-1],
        lambda values: values[:0],
        lambda values: values[None],
        lambda values: values.astype(np.float32),
        lambda values: values.astype(np.int32),
        lambda values: values.astype(object),
        lambda values: values.astype(str),
        lambda values: values.tolist(),
        lambda values: None,
    ],
)
def test_arrays_of_another_size_or_type_are_refused(name, change):
    with pytest.raises(ValueError, match="trees"):
        IsolationTrees.from_arrays(SOUND.arrays | {name: change(SOUND.arrays[name])}, 5)


def test_arrays_that_are_missing_or_too_many_are_refused():
    for arrays in ({}, {"roots": SOUND.roots}, SOUND.arrays | {"more": SOUND.roots}, None, [1]):
        with pytest.raises(ValueError, match="its trees are incomplete"):
            IsolationTrees.from_arrays(arrays, 5)


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(sorted(SOUND.arrays)),
    st.lists(
        st.tuples(st.integers(0, len(SOUND.left) - 1), st.integers(-3, len(SOUND.left) + 3)), min_size=1, max_size=4
    ),
)
def test_whatever_is_in_the_arrays_they_are_refused_or_scored(name, changes):
    arrays = {each: values.copy() for each, values in SOUND.arrays.items()}
    for at, value in changes:
        arrays[name][at % len(arrays[name])] = value
    try:
        trees = IsolationTrees.from_arrays(arrays, 5)
    except ValueError:
        return
    scores = trees.score_samples(np.random.default_rng(2).normal(size=(50, 5)))
    assert ((scores >= -1) & (scores < 0)).all()

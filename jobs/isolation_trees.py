"""The trees of an isolation forest as arrays, which can be checked, stored without code, and scored.

scikit-learn grows the trees. It follows the indices in them without checking any, so trees that come from a file are
never given back to it: here they are checked first, and then followed. The scores are scikit-learn's, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sklearn.ensemble import IsolationForest

MOST_NODES: Final = 2**20
"""Of all trees together. A hundred trees of 256 samples have at most 51,100."""
_LEAF: Final = -1
_ROWS: Final = 512
"""How many rows are scored at once: so many fit into a processor's cache, and then it is as fast as scikit-learn."""

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class IsolationTrees:
    """Trees of N nodes together, one tree after the other, each beginning with its root and parents before children.

    Attributes:
        roots: (trees,), the node that each tree begins with, ascending.
        left, right: (N,), the children of a node, -1 for both where it is a leaf.
        feature: (N,), the column that a node compares; of leaves it does not matter.
        threshold: (N,), rows whose value is at most this go to the left; of leaves it does not matter.
        samples: (N,), how many training rows reached a node.

    Raises:
        ValueError: they are no sound trees, as where a file was damaged.
    """

    roots: Integers
    left: Integers
    right: Integers
    feature: Integers
    threshold: Floats
    samples: Integers
    _depth: Integers = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the trees, and measure how deep each node lies."""
        self._check_arrays()
        self._check_structure()

    @classmethod
    def of(cls, forest: IsolationForest) -> Self:
        """Return the trees of a forest that was trained on all features."""
        trees = [each.tree_ for each in forest.estimators_]
        sizes = [each.node_count for each in trees]
        first = np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)

        def joined(name: str, kind: type[Any]) -> NDArray[Any]:
            return np.concatenate([np.asarray(getattr(tree, name), kind) for tree in trees])

        left, right = (joined(name, np.int64) for name in ("children_left", "children_right"))
        return cls(
            np.cumsum([0, *sizes[:-1]], dtype=np.int64),
            np.where(left == _LEAF, _LEAF, left + first),
            np.where(right == _LEAF, _LEAF, right + first),
            joined("feature", np.int64),
            joined("threshold", np.float64),
            joined("n_node_samples", np.int64),
        )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], features: int) -> Self:
        """Return the trees that `arrays` gave.

        Args:
            arrays: name → array.
            features: columns of the rows to score.

        Raises:
            ValueError: they are no sound trees, or compare other columns than those.
        """
        if not isinstance(arrays, Mapping) or set(arrays) != set(_NAMES):
            raise ValueError("its trees are incomplete")
        trees = cls(**arrays)
        compared = trees.feature[trees.left != _LEAF]
        if ((compared < 0) | (compared >= features)).any():
            raise ValueError(f"a node of its trees compares a feature that is none of {features}")
        return trees

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays, by name."""
        return {name: values for name, values in asdict(self).items() if name in _NAMES}

    def score_samples(self, rows: Floats) -> Floats:
        """Return scikit-learn's `score_samples` of (n, F) finite rows: (n,), -1 for the most anomalous to 0."""
        return np.concatenate([np.empty(0), *map(self._score, np.split(rows, range(_ROWS, len(rows), _ROWS)))])

    def _score(self, rows: Floats) -> Floats:
        values = rows.astype(np.float32)  # as scikit-learn compares them
        first = np.arange(0, values.size, values.shape[1])[:, None]
        feature, threshold, children = self._walk
        node = np.tile(self.roots, (len(rows), 1))
        for _ in range(int(self._depth.max())):
            goes_right = values.take(first + feature.take(node)) > threshold.take(node)
            node = children.take(2 * node + goes_right)
        depth = np.cumsum(self._path_length[node], axis=1)[:, -1]  # one tree after the other: the last bit counts
        usual = len(self.roots) * _average_path_length(self.samples[:1])[0]
        return -(2.0 ** -(depth / usual if usual else np.ones(len(rows))))

    @cached_property
    def _walk(self) -> tuple[Integers, Floats, Integers]:
        """Feature and threshold of each node, and its children, left before right; those of a leaf are the leaf."""
        leaf = self.left == _LEAF
        itself = np.arange(len(leaf))
        children = np.stack([np.where(leaf, itself, self.left), np.where(leaf, itself, self.right)], axis=1)
        return np.where(leaf, 0, self.feature), np.where(leaf, np.inf, self.threshold), children.ravel()

    @cached_property
    def _path_length(self) -> Floats:
        """(N,), how many nodes a row passes to a leaf, and would have passed had the leaf been split on."""
        return self._depth + 1.0 + _average_path_length(self.samples) - 1.0

    def _check_arrays(self) -> None:
        for name in _NAMES:
            array = getattr(self, name)
            wanted = np.float64 if name == "threshold" else np.int64
            if not isinstance(array, np.ndarray) or array.dtype != wanted or array.ndim != 1:
                raise ValueError(f"{name} of its trees is no array of {wanted.__name__}")
        size = len(self.left)
        if any(len(getattr(self, name)) != size for name in _NAMES[1:]) or not 0 < size <= MOST_NODES:
            raise ValueError("the arrays of its trees differ in length, or are empty or too long")
        if not len(self.roots) or self.roots[0] != 0 or (np.diff(self.roots) <= 0).any() or self.roots[-1] >= size:
            raise ValueError("the roots of its trees are out of place")

    def _check_structure(self) -> None:
        inner = np.flatnonzero((self.left != _LEAF) | (self.right != _LEAF))
        left, right = self.left[inner], self.right[inner]
        children = np.sort(np.concatenate([left, right]))
        others = np.delete(np.arange(len(self.left)), self.roots)
        if not np.array_equal(children, others) or (np.minimum(left, right) <= inner).any():
            raise ValueError("the nodes of its trees are not reached once each")
        tree = np.searchsorted(self.roots, np.arange(len(self.left)), side="right")
        if (tree[left] != tree[inner]).any() or (tree[right] != tree[inner]).any():
            raise ValueError("a node of its trees leads to another tree")
        if not np.isfinite(self.threshold[inner]).all():
            raise ValueError("a threshold of its trees is not finite")
        sound = (self.samples > 0).all() and np.array_equal(
            self.samples[left] + self.samples[right], self.samples[inner]
        )
        if not sound or (self.samples[self.roots] != self.samples[0]).any():
            raise ValueError("the numbers of samples in its trees do not add up")
        depth = np.zeros(len(self.left), dtype=np.int64)
        reached = inner[np.isin(inner, self.roots)]
        while reached.size:  # a level of all trees at a time
            for child in (self.left[reached], self.right[reached]):
                depth[child] = depth[reached] + 1
            reached = np.concatenate([self.left[reached], self.right[reached]])
            reached = reached[self.left[reached] != _LEAF]
        object.__setattr__(self, "_depth", depth)


_NAMES: Final = ("roots", "left", "right", "feature", "threshold", "samples")


def _average_path_length(samples: Integers) -> Floats:
    """Return the average depth of a tree that is grown until so many samples are apart; Liu, Ting and Zhou 2008."""
    result = np.where(samples == 2, 1.0, 0.0)
    many = samples[samples > 2]
    result[samples > 2] = 2.0 * (np.log(many - 1.0) + np.euler_gamma) - 2.0 * (many - 1.0) / many
    return result

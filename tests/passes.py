"""Passes over a store, and whether two stores hold the same afterwards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from gatewatch.collector.schema import GATE_DERIVED, GATE_SCORES, Point
from gatewatch.collector.store import Store
from gatewatch.jobs.scoring.scoring_pass import PassResult, run_pass
from tests.recorded import end, fill


def scores(store: Store, **tags: str) -> pd.DataFrame:
    """The scores that have these tags."""
    return store.read(GATE_SCORES, tags=tags)


def only(store: Store, **options: Any) -> PassResult:
    """A pass over a store of one run, which does not fail."""
    (done,) = run_pass(store, **options)
    assert done.failed is None
    return done


def until_done(store: Store, **options: Any) -> None:
    """Passes until none does anything."""
    for _ in range(100):
        if all(done.unchanged for done in run_pass(store, **options)):
            return
    raise AssertionError("a hundred passes did not come to an end")


def undisturbed(store: Store, captures: Iterable[list[Point]], *phases: str) -> None:
    """A store in which the captures of run `r` are all there, and have ended, when the one pass comes."""
    fill(store, captures)
    for phase in phases or ["train"]:
        end(store, phase=phase)
    assert all(done.failed is None for done in run_pass(store))


def assert_same(store: Store, other: Store, old_causes: bool = False, but: str | None = None) -> None:
    """The jobs have written the same points with the same fields, to the last bit.

    Args:
        store, other: the second is as it should be.
        old_causes: a cause that was written before, and is none, may be 0.
        but: a detector whose scores are not compared.
    """
    for name in (GATE_SCORES, GATE_DERIVED):
        found, expected = (
            frame if but is None or "detector" not in frame else frame[frame["detector"] != but].reset_index(drop=True)
            for frame in (store.read(name), other.read(name))
        )
        assert old_causes or set(found) == set(expected)
        wanted = expected.reindex(columns=found.columns.union(expected.columns))[found.columns]
        if old_causes:
            for cause in (column for column in found if column.startswith("why_")):
                found.loc[wanted[cause].isna().to_numpy() & (found[cause] == 0).to_numpy(), cause] = np.nan
        pd.testing.assert_frame_equal(found, wanted, check_exact=True, check_dtype=False)

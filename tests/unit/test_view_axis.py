"""The charts of a run over epochs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from gatewatch.jobs.findings.axis import Axis
from gatewatch.jobs.view.run_reader import epoch_scale


def points(steps, epochs, phase="train"):
    return pd.DataFrame({"phase": phase, "step": steps, "epoch": epochs})


def test_a_step_lies_within_its_epoch_by_the_share_that_is_over():
    scale = epoch_scale(Axis(("train",)), points([0, 5, 10, 15, 20, 25], [0, 0, 1, 1, 2, 2]))
    assert scale.place(np.array([0.0, 5.0, 10.0, 12.5, 20.0, 25.0])).tolist() == [0, 0.5, 1, 1.25, 2, 2.5]


def test_what_comes_after_the_last_epoch_goes_on_at_its_pace():
    scale = epoch_scale(Axis(("train",)), points([0, 10], [0, 1]))
    assert scale.place(np.array([15.0, 20.0, 40.0])).tolist() == [1.5, 2.0, 4.0]


def test_epochs_of_other_phases_and_points_without_any_do_not_count():
    train, other = points([0, 10, 20], [0, 1, np.nan]), points([0, 3], [0, 7], "backtest")
    scale = epoch_scale(Axis(("train",)), other, train)
    assert scale.place(np.array([5.0])).tolist() == [0.5]
    assert epoch_scale(Axis(("train",)), other) is None
    assert epoch_scale(Axis(("train",)), pd.DataFrame()) is None


def test_a_run_in_its_first_epoch_has_a_scale():
    scale = epoch_scale(Axis(("train",)), points([0, 3, 9], [0, 0, 0]))
    assert scale.place(np.array([0.0, 5.0])).tolist() == [0.0, 0.5]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(0, 5))
def test_the_place_never_goes_back_and_agrees_with_the_epoch(lengths, first):
    begins = np.cumsum([0, *lengths[:-1]])
    every = np.concatenate([np.arange(b, b + n) for b, n in zip(begins, lengths, strict=True)])
    epoch = np.concatenate([np.full(n, first + i) for i, n in enumerate(lengths)])
    place = epoch_scale(Axis(("train",)), points(every, epoch)).place(every.astype(float))
    assert (np.diff(place) > 0).all()
    known = epoch < epoch[-1]  # how long the last is, nobody knows
    assert (np.floor(place + 1e-9)[known] == epoch[known]).all()

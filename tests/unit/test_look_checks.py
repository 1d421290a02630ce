"""The checks of the reference look, on looks that a person can follow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewatch.collector.schema import GATE_STATS_FIELDS, LAYER_UPDATES_FIELDS
from gatewatch.jobs.scoring.captures import Captures, captures
from gatewatch.jobs.scoring.checks import look
from gatewatch.jobs.scoring.checks.look import GAP, KNOWN, is_same_network, look_moves, network_changed, probe_varies

FORGET, HIDDEN, LOSS = ("memory", "forget"), ("memory", "hidden"), ("_model", "probe_loss")


def looks(*values, updates=(), loss=None, also=None):
    """Captures whose look at the probe has these values, one number each; None for no look."""
    count = len(values)
    table = np.array([[np.nan if value is None else value, 0.25] for value in values], dtype=float)
    table[np.isnan(table[:, 0])] = np.nan
    steps = np.full((count, len(LAYER_UPDATES_FIELDS)), np.nan)
    steps[list(updates), LAYER_UPDATES_FIELDS.index("update_norm")] = 0.1
    gates = {FORGET: np.full((count, len(GATE_STATS_FIELDS)), np.nan)}
    return Captures(
        {"run": "r", "phase": "live"},
        np.arange(count) * 10**9,
        np.arange(count, dtype=float),
        gates,
        {},
        {("memory", "kernel"): steps} if updates else {},
        {} if loss is None else {"probe_loss": np.array(loss, dtype=float)},
        reference_look={FORGET: table} if also is None else {FORGET: table, HIDDEN: np.array(also, float)[:, None]},
    )


def found(judge, given, series=FORGET):
    scores = judge(given).get(series, np.full(len(given.time), np.nan))
    return [None if np.isnan(score) else score > 1 for score in scores]


def test_a_look_that_is_the_same_bit_for_bit_is_the_same_network_from_the_second_capture_on():
    assert found(network_changed, looks(0.5, 0.5, 0.5)) == [None, False, False]
    assert found(probe_varies, looks(0.5, 0.5, 0.5)) == [None, False, False]


def test_a_look_that_moved_once_is_another_network_at_that_capture():
    assert found(network_changed, looks(0.5, 0.5, 0.6, 0.6)) == [None, False, True, False]
    assert found(network_changed, looks(0.5, 0.6, 0.6)) == [None, True, False]
    assert found(probe_varies, looks(0.5, 0.5, 0.6, 0.6)) == [None, False, False, False]


def test_roundings_are_no_other_network():
    assert found(network_changed, looks(0.5, 0.5, 0.5 + 9e-6, 0.5)) == [None, False, False, False]
    assert found(network_changed, looks(0.5, 0.5, 0.5 + 1.1e-5)) == [None, False, True]
    # of large numbers relative to them
    assert found(network_changed, looks(50.0, 50.0, 50.0 + 4e-4)) == [None, False, False]


def test_kernels_that_never_gave_the_same_may_round_further():
    assert found(network_changed, looks(0.5, 0.5 + 9e-5, 0.5)) == [None, False, False]
    assert found(network_changed, looks(0.5, 0.5 + 2e-4)) == [None, True]


def test_a_look_that_differs_each_time_varies_and_is_said_once():
    random = np.random.default_rng(0).random(60)
    assert found(network_changed, looks(*random)) == [None, True] + [False] * 58
    assert found(probe_varies, looks(*random)) == [None, False, False, True] + [False] * 56


def test_a_network_that_is_trained_again_and_again_is_said_once():
    values = np.repeat(np.arange(12) / 10, 10)
    assert [k for k, violated in enumerate(found(network_changed, looks(*values))) if violated] == [10]
    assert not any(found(probe_varies, looks(*values)))


def test_a_phase_that_learns_says_nothing():
    values = np.linspace(0.5, 0.6, 60)
    every_fourth = range(1, 60, 4)
    assert not look_moves(looks(*values, updates=every_fourth))
    # where the last step was long ago a change is one again
    given = looks(0.5, 0.5, *[0.6] * (KNOWN + 1), 0.7, updates=[2])
    assert found(network_changed, given) == [None, False, *[None] * (KNOWN + 1), True]


def test_what_cannot_be_compared_is_not():
    assert found(network_changed, looks(None, 0.5, None, 0.5, None, 0.6)) == [None, None, None, False, None, True]
    assert found(network_changed, looks(0.5, *[None] * GAP, 0.6)) == [None] * (GAP + 2)
    assert look_moves(looks(None, None)) == {}
    assert network_changed(looks(0.5)) == {}


def test_what_is_no_longer_finite_is_another_network():
    given = looks(0.5, 0.5, 0.5)
    given.reference_look[FORGET][2, 1] = np.nan
    assert found(network_changed, given) == [None, False, True]


def test_the_loss_of_the_probe_tells_of_what_comes_after_the_gates():
    given = looks(0.5, 0.5, 0.5, loss=[2.0, 2.0, 2.1])
    assert found(network_changed, given) == [None, False, False]
    assert found(network_changed, given, LOSS) == [None, False, True]
    without = looks(None, None, None, loss=[2.0, 2.0, 2.1])
    assert network_changed(without) == {}


def test_only_what_moved_is_named():
    given = looks(0.5, 0.5, 0.5, also=[0.1, 0.1, 0.2])
    assert found(network_changed, given) == [None, False, False]
    assert found(network_changed, given, HIDDEN) == [None, False, True]


def test_the_network_is_the_same_while_no_look_of_late_has_moved():
    values = [0.5, 0.5, 0.6, *[0.6] * 4]
    assert is_same_network(looks(*values), 2).tolist() == [False, True, False, False, False, True, True]
    assert is_same_network(looks(0.5, 0.5, None, 0.5), 2).tolist() == [False, True, False, True]
    assert not is_same_network(looks(0.5, 0.5, 0.5, also=[0.1, 0.2, 0.2]), 2).any()
    assert not is_same_network(looks(0.5, 0.5, updates=[0]), 2).any()
    assert not is_same_network(captures_without_look(), 2).any()


def captures_without_look():
    return looks(0.5, 0.5).__class__({}, np.arange(2), np.arange(2.0), {}, {}, {}, {})


LEVELS = st.lists(st.sampled_from([None, 0.5, 0.5, 0.5, 0.6, 0.5 + 5e-6]), min_size=1, max_size=90)


@settings(max_examples=60, deadline=None)
@given(LEVELS, st.sets(st.integers(0, 89)), st.data())
def test_pieces_of_a_run_give_the_same(values, updates, data):
    """A capture that is judged after `look_back` earlier ones has the same score as after all."""
    whole = looks(*values, updates=sorted(k for k in updates if k < len(values) and k % 7 == 0))
    first = data.draw(st.integers(0, len(values) - 1))
    for check in look.CHECKS:
        begin = max(0, first - check.look_back)
        of_part, of_whole = (found(check.judge, given) for given in (whole.part(begin), whole))
        assert of_part[first - begin :] == of_whole[first:], check.name


def test_the_points_of_a_look_become_a_table():
    import pandas as pd

    time = pd.to_datetime([0, 1], utc=True)
    shared = {"time": time, "layer": "memory", "gate": "forget", "step": [1, 2]}
    window = pd.DataFrame({**shared, "mean": [0.9, 0.9], "nan_count": 0, "inf_count": 0})
    levels = {"std": 0.1, "p05": 0.2, "p50": 0.5, "p95": 0.8, "nan_count": [0, 3], "inf_count": 0}
    stats = pd.DataFrame({**shared, "mean": [0.5, 0.6], **levels})
    units = pd.DataFrame({**shared, "u000": [0.1, 0.2], "u001": [0.3, np.nan]})
    table = captures({}, window, look=(stats, units)).reference_look[FORGET]
    assert table[0].tolist() == [0.5, 0.1, 0.2, 0.5, 0.8, 0, 0.1, 0.3]
    assert table[1][:7].tolist() == [0.6, 0.1, 0.2, 0.5, 0.8, 1, 0.2]
    assert np.isnan(table[1][7])
    assert captures({}, window).reference_look == {}


@pytest.mark.parametrize("check", look.CHECKS, ids=[check.name for check in look.CHECKS])
def test_both_are_alarms_of_the_network(check):
    assert (check.source, check.alarms) == ("network", True)

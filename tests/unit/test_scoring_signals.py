"""Signals: the numbers of a run that are scored, against the same numbers worked out one by one."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewatch.collector.cells import gate_scale
from gatewatch.collector.schema import GATE_STATS_FIELDS, LAYER_UPDATES_FIELDS
from gatewatch.jobs.scoring.captures import Captures
from gatewatch.jobs.scoring.signals import (
    LEVEL_CAPTURES,
    LEVEL_SIGNALS,
    LOOK_BACK,
    LOSS,
    MAX_STEP_CAPTURES,
    MODEL,
    NOISE_CAPTURES,
    PHRASES,
    RATE_SIGNALS,
    SIGNALS,
    SignalKey,
    extract_signals,
)

N, UNITS = 20, 5
SERIES = ("memory", "forget")
PARAM = ("memory", "kernel")


def table(fields, captures=N, seed=0, low=0.1, high=0.9):
    values = np.random.default_rng(seed).uniform(low, high, (captures, len(fields)))
    values[:, fields.index("step")] = np.arange(captures)
    for name in ("nan_count", "inf_count"):
        values[:, fields.index(name)] = 0
    return values


def some(gates=(SERIES,), units=(SERIES,), updates=(PARAM,), metrics=None, captures=N):
    random = np.random.default_rng(9)
    tables = {series: table(GATE_STATS_FIELDS, captures, seed) for seed, series in enumerate(gates)}
    for values in tables.values():
        values[:, GATE_STATS_FIELDS.index("std")] += 1  # more than there is between the units
    return Captures(
        tags={"run": "r", "phase": "train"},
        time=np.arange(captures) * 10**9,
        step=np.arange(captures, dtype=float),
        gates=tables,
        units={series: random.uniform(0.2, 0.8, (captures, UNITS)) for series in units},
        updates={series: table(LAYER_UPDATES_FIELDS, captures, 7 + seed) for seed, series in enumerate(updates)},
        metrics={"loss": random.uniform(1, 2, captures)} if metrics is None else metrics,
    )


def features(captures):
    found = {}
    for name in extract_signals(captures):
        found.setdefault((name.layer, name.part), []).append(name.signal)
    return found


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_the_kinds_of_signals():
    assert LEVEL_SIGNALS == ("mean_activation", "spread", "entropy", "zero_crossing_rate", "saturation", "response")
    assert RATE_SIGNALS == ("movement", "unrest", "gradient_norm", "gradient_level", "update_ratio")
    assert [name for name, row in SIGNALS.items() if row.relative] == ["loss", "loss_level", "probe_loss"]
    assert LOOK_BACK == 12


def test_every_signal_has_a_floor_and_words_and_is_extracted():
    assert all(row.floor > 0 for row in SIGNALS.values())
    assert set(PHRASES) == set(SIGNALS)
    assert all(rises and falls for rises, falls in PHRASES.values())
    metrics = dict.fromkeys(("loss", "lr", "probe_loss"), np.ones(N))
    told = {name.signal for name in extract_signals(some(metrics=metrics))}
    told |= {name.signal for name in extract_signals(some(updates=()))}
    assert told == set(SIGNALS)


def test_the_signals_of_a_training():
    assert features(some()) == {
        SERIES: list(LEVEL_SIGNALS),
        PARAM: ["gradient_norm", "gradient_level", "gradient_noise", "update_ratio"],
        (MODEL, LOSS): ["loss", "loss_level", "loss_noise"],
    }


@pytest.mark.parametrize("gate", ["forget", "cell", "hidden", "a gate of its own"])
def test_a_gate_is_measured_in_shares_of_its_range(gate):
    captures = some(gates=[("l", gate)], units=[("l", gate)])
    found = extract_signals(captures)
    scale = gate_scale(gate)
    width = scale.high - scale.low

    def field(name):
        return captures.gates["l", gate][:, GATE_STATS_FIELDS.index(name)].tolist()

    means = captures.units["l", gate]
    close(found["l", gate, "mean_activation"], [mean / width for mean in field("mean")])
    close(found["l", gate, "spread"], [std / width for std in field("std")])
    close(found["l", gate, "entropy"], field("entropy"))
    close(found["l", gate, "zero_crossing_rate"], field("zero_crossing_rate"))
    close(
        found["l", gate, "saturation"],
        [low + high for low, high in zip(field("saturated_low"), field("saturated_high"), strict=True)],
    )
    within = [std**2 - statistics.pvariance(row) for std, row in zip(field("std"), means.tolist(), strict=True)]
    close(found["l", gate, "response"], [0.5 * math.log10(variance / width**2) for variance in within])


def test_units_that_differ_more_than_their_gate_answer_to_nothing():
    captures = some()
    captures.gates[SERIES][:, GATE_STATS_FIELDS.index("std")] = 0.0
    close(extract_signals(captures)[*SERIES, "response"], -6)


def test_movement_is_how_far_the_units_went_and_unrest_the_most_of_it_lately():
    captures = some(updates=())
    found, means = extract_signals(captures), captures.units[SERIES].tolist()
    moved = [math.nan] + [
        math.log10(math.sqrt(statistics.fmean((a - b) ** 2 for a, b in zip(means[k], means[k - 1], strict=True))))
        for k in range(1, N)
    ]
    close(found[*SERIES, "movement"], moved)
    unrest = [math.nan] * MAX_STEP_CAPTURES + [max(moved[k - MAX_STEP_CAPTURES + 1 : k + 1]) for k in range(12, N)]
    close(found[*SERIES, "unrest"], unrest)


def test_what_stands_still_moves_as_little_as_can_be_resolved():
    captures = some(updates=())
    captures.units[SERIES][:] = 0.5
    close(extract_signals(captures)[*SERIES, "movement"], [math.nan] + [-6] * (N - 1))


def test_movement_is_extracted_only_where_no_weights_move():
    moving, still = features(some()), features(some(updates=()))
    assert set(still[SERIES]) - set(moving[SERIES]) == {"movement", "unrest"}
    captures = some()
    captures.updates[PARAM][:8] = np.nan  # the optimizer is seen from here on
    found = extract_signals(captures)[*SERIES, "movement"]
    assert np.isfinite(found).tolist() == [False] + [True] * 7 + [False] * (N - 8)


def test_signals_of_a_parameter_are_logarithms():
    captures = some()
    found = extract_signals(captures)

    def field(name):
        return captures.updates[PARAM][:, LAYER_UPDATES_FIELDS.index(name)].tolist()

    gradient = [math.log10(norm) for norm in field("gradient_norm")]
    close(found[*PARAM, "gradient_norm"], gradient)
    close(found[*PARAM, "update_ratio"], [math.log10(ratio) for ratio in field("update_ratio")])
    level = [statistics.fmean(gradient[k - LEVEL_CAPTURES + 1 : k + 1]) for k in range(LEVEL_CAPTURES - 1, N)]
    close(found[*PARAM, "gradient_level"], [math.nan] * (LEVEL_CAPTURES - 1) + level)
    close(found[*PARAM, "gradient_noise"], noise(gradient))


def noise(values):
    steps = [abs(b - a) for a, b in pairwise(values)]
    return [math.nan] * NOISE_CAPTURES + [
        math.log10(statistics.fmean(steps[k - NOISE_CAPTURES : k]) + 1e-9) for k in range(NOISE_CAPTURES, len(values))
    ]


def test_a_gradient_that_only_the_optimizer_saw_is_that_which_it_used():
    captures = some()
    given, used = (LAYER_UPDATES_FIELDS.index(name) for name in ("gradient_norm", "gradient_norm_clipped"))
    captures.updates[PARAM][5:, given] = np.nan
    found = extract_signals(captures)[*PARAM, "gradient_norm"]
    close(found[:5], np.log10(captures.updates[PARAM][:5, given]))
    close(found[5:], np.log10(captures.updates[PARAM][5:, used]))


def test_no_gradient_and_no_update_are_as_little_as_counts():
    captures = some()
    captures.updates[PARAM][4:6, [LAYER_UPDATES_FIELDS.index(name) for name in ("gradient_norm", "update_ratio")]] = 0
    found = extract_signals(captures)
    for feature in ("gradient_norm", "update_ratio"):
        assert found[*PARAM, feature][4:6].tolist() == [-12, -12]


@pytest.mark.parametrize("name", ["learning_rate", "lr", "train/learning_rate"])
def test_an_update_is_also_measured_by_the_learning_rate(name):
    rate = np.full(N, 1e-3)
    rate[3], rate[4], rate[5] = 0, np.nan, -1
    captures = some(metrics={name: rate})
    found = extract_signals(captures)[*PARAM, "update_per_rate"]
    ratio = captures.updates[PARAM][:, LAYER_UPDATES_FIELDS.index("update_ratio")]
    wanted = np.log10(ratio / 1e-3)
    wanted[3:6] = np.nan
    close(found, wanted)


@pytest.mark.parametrize("name", ["loss", "train/loss"])
def test_the_loss_is_extracted_under_either_name(name):
    loss = np.random.default_rng(4).uniform(1, 2, N)
    found = extract_signals(some(metrics={name: loss, "val_loss": loss + 1, "reward": loss}))
    close(found[MODEL, LOSS, "loss"], loss)
    level = [math.nan] * 4 + [statistics.fmean(loss[k - 4 : k + 1].tolist()) for k in range(4, N)]
    close(found[MODEL, LOSS, "loss_level"], level)
    close(found[MODEL, LOSS, "loss_noise"], noise(loss.tolist()))
    assert {name.part for name in found if name.layer == MODEL} == {LOSS}


def test_the_bias_is_left_out():
    assert set(features(some(updates=[PARAM, ("memory", "bias"), ("position", "kernel")]))) == {
        SERIES,
        PARAM,
        ("position", "kernel"),
        (MODEL, LOSS),
    }


@pytest.mark.parametrize(
    ("missing", "left"),
    [
        ({"units": ()}, {SERIES: set(LEVEL_SIGNALS) - {"response"}}),
        ({"updates": (), "metrics": {}}, {SERIES: {*LEVEL_SIGNALS, "movement", "unrest"}}),
        ({"units": (), "updates": (), "metrics": {"reward": np.ones(N)}}, {SERIES: set(LEVEL_SIGNALS) - {"response"}}),
    ],
)
def test_what_a_store_does_not_have_has_no_signal(missing, left):
    found = features(some(**missing))
    assert {series: set(names) for series, names in found.items() if series[1] in ("forget", LOSS)} == left | (
        {} if "metrics" in missing else {(MODEL, LOSS): {"loss", "loss_level", "loss_noise"}}
    )


@pytest.mark.parametrize(
    ("layer", "gate"),
    [(MODEL, LOSS), ("bidirectional/forward_lstm", "forget"), ('a,b=c "d"', "../x"), ("kernel", "kernel"), ("λ", "∅")],
)
def test_names_are_only_names(layer, gate):
    captures = some(gates=[(layer, gate)], units=[(layer, gate)], updates=[(layer, gate)])
    found = features(captures)
    wanted = {(layer, gate): [*LEVEL_SIGNALS, "gradient_norm", "gradient_level", "gradient_noise", "update_ratio"]}
    wanted.setdefault((MODEL, LOSS), [])
    wanted[MODEL, LOSS] = [*wanted[MODEL, LOSS], "loss", "loss_level", "loss_noise"]
    assert found == wanted
    assert set(extract_signals(captures)) == {
        SignalKey(*key, feature) for key, names in wanted.items() for feature in names
    }


def test_a_unit_without_a_value_leaves_the_others_theirs():
    captures = some(updates=())
    whole = extract_signals(captures)
    captures.units[SERIES][10:, 2] = np.nan
    found = extract_signals(captures)
    others = np.delete(captures.units[SERIES], 2, axis=1)
    spread = found[*SERIES, "spread"]
    close(found[*SERIES, "response"][10:], np.log10(np.sqrt(spread[10:] ** 2 - others[10:].var(axis=1))))
    for feature in ("response", "movement"):
        np.testing.assert_array_equal(found[*SERIES, feature][:10], whole[*SERIES, feature][:10])
    moved = np.log10(np.sqrt((np.diff(others, axis=0) ** 2).mean(axis=1)))
    close(found[*SERIES, "movement"][10:], moved[9:])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(0, N - 1), st.booleans())
def test_the_signals_of_a_capture_depend_on_those_before_that_they_declare_and_on_none_after(seed, begin, training):
    random = np.random.default_rng(seed)
    captures = some(updates=[PARAM] if training else (), captures=40)
    for values in (*captures.gates.values(), *captures.units.values(), *captures.updates.values()):
        values[random.uniform(size=values.shape) < 0.02] = np.nan
        values[random.uniform(size=len(values)) < 0.05] = np.nan
    whole = extract_signals(captures)
    part = extract_signals(captures.part(begin, begin + LOOK_BACK + 8))
    for name in whole.keys() | part.keys():
        none = np.full(40, np.nan)
        told = part.get(name, none)[LOOK_BACK : LOOK_BACK + 8]
        expected = whole.get(name, none)[begin + LOOK_BACK : begin + LOOK_BACK + 8]
        np.testing.assert_array_equal(told, expected, str(name))


def test_numbers_at_the_end_of_what_single_precision_holds_are_numbers():
    largest, smallest = np.finfo(np.float32).max.item(), np.finfo(np.float32).smallest_subnormal.item()
    signs = np.where(np.arange(N) % 2, 1.0, -1.0)
    captures = some(metrics={"loss": largest * signs, "lr": np.full(N, smallest)})
    for name in ("mean", "std"):
        captures.gates[SERIES][:, GATE_STATS_FIELDS.index(name)] = largest * signs
    captures.units[SERIES][:] = largest * signs[:, None]
    captures.updates[PARAM][:] = np.where(signs > 0, largest, smallest)[:, None]
    with np.errstate(all="raise", under="ignore"):
        found = extract_signals(captures)
    assert all(np.isfinite(values[MAX_STEP_CAPTURES:]).all() for values in found.values())

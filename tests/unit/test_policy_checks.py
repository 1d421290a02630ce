"""Checks of the policy: what each says of captures that a person can work out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewatch.collector.schema import GATE_STATS_FIELDS
from gatewatch.jobs.scoring.captures import Captures
from gatewatch.jobs.scoring.checks import CHECKS, policy
from gatewatch.jobs.scoring.checks.base import WINDOW
from gatewatch.jobs.scoring.checks.policy_metrics import logged

NONE = np.nan
ENTROPY, STD, KL = ("_model", "entropy"), ("_model", "std"), ("_model", "approx_kl")


def of_metrics(*, epochs=None, steps=None, **metrics):
    """Captures with these metrics, `__` in their names standing for a slash; one a step."""
    named = {name.replace("__", "/"): np.array(values, float) for name, values in metrics.items()}
    count = len(next(iter(named.values())))
    gates = {}
    if epochs is not None:
        table = np.full((count, len(GATE_STATS_FIELDS)), np.nan)
        table[:, GATE_STATS_FIELDS.index("epoch")] = epochs
        gates["memory", "forget"] = table
    step = np.arange(count) if steps is None else np.array(steps)
    return Captures({}, np.arange(count) * 10**9, step.astype(float), gates, {}, {}, named)


def none_or(values):
    """The scores as a list, None for none."""
    return [None if np.isnan(value) else float(value) for value in values]


def first_violation(scores):
    return int(np.flatnonzero(scores > 1)[0]) if (scores > 1).any() else None


@pytest.mark.parametrize("name", ["train/approx_kl", "losses/approx_kl", "approx_kl", "losses/kl", "Policy/Approx KL"])
def test_a_divergence_is_found_by_the_last_part_of_its_name(name):
    captures = of_metrics(**{name.replace("/", "__"): [0.01, 5, 5, 5, 0.01], "losses__clipfrac": [0.1] * 5})
    assert none_or(policy.kl_high(captures)[KL]) == [None, None, 0.0, 2.0, 0.0]


def test_two_rollouts_that_are_out_of_range_are_none():
    captures = of_metrics(approx_kl=[0.01, 5, 5, 0.01, 5, 5, 0.01])
    assert none_or(policy.kl_high(captures)[KL]) == [None, None, 0, 0, 0, 0, 0]


def test_a_capture_without_a_value_is_passed_over():
    captures = of_metrics(approx_kl=[5, NONE, 5, NONE, NONE, 5, NONE])
    assert none_or(policy.kl_high(captures)[KL]) == [None] * 5 + [2.0, None]


@pytest.mark.parametrize(
    "metrics",
    [
        {"loss__kl": [9.0] * 5},  # of an autoencoder
        {"objective__kl": [9.0] * 5, "policy_loss": [0.1] * 5},  # from the model before fine-tuning
        {"entropy": [1.0] * 10 + [0.001] * 5},  # of a classifier's answers
        {"cross_entropy": [1.0] * 10 + [0.001] * 5, "policy_loss": [0.1] * 15},
        {"reward__std": [1.0] * 10 + [0.001] * 5, "policy_loss": [0.1] * 15},
        {"loss": [1.0] * 5},
        {},
    ],
    ids=["autoencoder", "fine-tuning", "classifier", "loss", "reward", "other", "none"],
)
def test_what_is_called_alike_but_is_not_of_a_policy(metrics):
    captures = of_metrics(**metrics) if metrics else of_metrics(loss=[NONE])
    assert [check.name for check in policy.CHECKS if check.judge(captures)] == []


def test_most_of_a_rollout_clipped_in_three_rollouts():
    clipped = policy.clip_high(of_metrics(train__clip_fraction=[0.3, 0.9, 0.9, 0.9, 0.3]))
    assert none_or(clipped["_model", "clip_fraction"]) == [None, None, 0.0, 2.0, 0.0]


def test_entropy_that_falls_to_nothing_within_three_rollouts():
    entropy = [1.0] * 8 + [0.5, 0.01, 0.01, 0.01, 0.01]
    captures = of_metrics(
        train__entropy_loss=-np.array(entropy), train__approx_kl=[0.01] * 13, actions=[64] * 13, epochs=range(13)
    )
    assert none_or(policy.entropy_collapsed(captures)[ENTROPY]) == [None] * 5 + [0.0] * 6 + [2.0, 2.0]


def test_a_policy_that_becomes_sure_as_fast_as_clipping_lets_it_has_not_collapsed():
    entropy = 1.0986 * 0.8 ** np.arange(40)
    captures = of_metrics(entropy=entropy, approx_kl=[0.02] * 40, actions=[64] * 40, epochs=range(40))
    assert set(policy.entropy_collapsed(captures)[ENTROPY][5:]) == {0.0}


def test_a_policy_that_was_sure_before_cannot_collapse():
    entropy = [0.1] * 10 + [0.001] * 5
    captures = of_metrics(entropy=entropy, approx_kl=[0.02] * 15, actions=[64] * 15, epochs=range(15))
    assert set(policy.entropy_collapsed(captures)[ENTROPY][5:]) == {0.0}


@pytest.mark.parametrize(("apart", "expected"), [(1, 11), (3, 11), (20, None)])
def test_rollouts_between_two_captures_count(apart, expected):
    """1.0 and 0.001 are neighbours: 1, 3 or 20 rollouts lie between them."""
    entropy = [1.0] * 9 + [0.001] * 5
    captures = of_metrics(
        entropy=entropy, approx_kl=[0.02] * 14, actions=[64] * 14, epochs=np.arange(14) * apart, steps=np.arange(14)
    )
    assert first_violation(policy.entropy_collapsed(captures)[ENTROPY]) == expected


@pytest.mark.parametrize(("calm", "expected"), [(6, None), (40, 42)])
def test_where_rollouts_are_not_counted_a_fall_is_compared_with_the_training_so_far(calm, expected):
    """It takes one step of 8, and of 42: a collapse only where that is less than a tenth of the training."""
    captures = of_metrics(losses__entropy=[1.0] * calm + [0.001] * 5, losses__approx_kl=[0.02] * (calm + 5))
    assert first_violation(policy.entropy_collapsed(captures)[ENTROPY]) == expected


def test_the_entropy_of_a_density_may_come_to_zero():
    entropy = np.linspace(3, -3, 61)
    captures = of_metrics(entropy=entropy, approx_kl=[0.02] * 61, actions=[64] * 61, epochs=range(61))
    assert first_violation(policy.entropy_collapsed(captures)[ENTROPY]) is None


def test_of_a_continuous_policy_the_deviation_is_judged():
    captures = of_metrics(
        train__std=[1.0] * 9 + [0.001] * 5,
        train__entropy_loss=[-1.4] * 9 + [5.5] * 5,
        train__approx_kl=[0.02] * 14,
        actions=[64] * 14,
        epochs=range(14),
    )
    scores = policy.entropy_collapsed(captures)
    assert scores.keys() == {STD}
    assert first_violation(scores[STD]) == 11


def test_a_critic_that_was_worse_than_a_constant_for_32_captures():
    explained = [0.5] + [-0.1] * 40 + [0.2] + [-0.1] * 8
    scores = policy.explains_nothing(of_metrics(losses__explained_variance=explained))["_model", "explained_variance"]
    assert np.flatnonzero(scores > 1).tolist() == list(range(32, 41))
    assert none_or(scores[:31]) == [None] * 31


def test_advantages_that_are_all_the_same():
    captures = of_metrics(advantage_std=[0.5, 1e-9, 0.0, 1e-8, 1e-4])
    assert none_or(policy.advantages_flat(captures)["_model", "advantages"]) == [None, None, 0.0, 2.0, 0.0]


def test_small_advantages_have_a_scale():
    captures = of_metrics(advantage_std=[1e-6] * 5)
    assert none_or(policy.advantages_flat(captures)["_model", "advantages"]) == [None, None, 0.0, 0.0, 0.0]


def test_one_action_only_in_three_rollouts_of_a_thousand_actions():
    captures = of_metrics(action_share=[0.9, 1, 1, 1, 1, 0.99], actions=[400] * 6)
    assert none_or(policy.one_action(captures)["_model", "action"]) == [None, None, 0, 2, 2, 0]


def test_few_actions_may_be_the_same_by_chance():
    share = [0.9] + [1] * 21
    scores = policy.one_action(of_metrics(action_share=share, actions=[50] * 22))["_model", "action"]
    assert first_violation(scores) == 20  # the twentieth of 50: a thousand


def test_an_agent_that_holds_almost_always_is_healthy():
    captures = of_metrics(action_share=[0.999] * 64, actions=[2048] * 64)
    assert set(policy.one_action(captures)["_model", "action"][2:]) == {0.0}


def test_where_actions_are_not_counted_a_rollout_has_a_few():
    scores = policy.one_action(of_metrics(action_share=[1] * 40))["_model", "action"]
    assert first_violation(scores) == 31  # 32 of 32 actions


def test_one_position_only_though_actions_differ():
    captures = of_metrics(position_share=[1] * 5, action_share=[0.5] * 5, actions=[512] * 5)
    assert none_or(policy.one_position(captures)["_model", "position"]) == [None, None, 2, 2, 2]
    assert set(policy.one_action(captures)["_model", "action"][2:]) == {0.0}


def test_what_two_metrics_have_a_name_for_is_taken_from_the_first_that_has_a_value():
    captures = of_metrics(a__approx_kl=[NONE, 1], b__approx_kl=[2, 3], **{"train__entropy_loss": [-1, -2]})
    assert logged(captures, "approx_kl").tolist() == [2, 1]
    assert logged(captures, "entropy").tolist() == [1, 2]


VALUES = st.sampled_from([NONE, -1.0, 0.0, 1e-9, 0.001, 0.5, 1.0, 1.0, 1.0, 5.0, 400.0])
NAMES = ("entropy", "train/std", "approx_kl", "clip_fraction", "explained_variance", "advantage_std", "action_share")


@given(st.lists(st.tuples(*[VALUES] * 9), min_size=100, max_size=100), st.integers(1, 30))
@settings(max_examples=25, deadline=None)
def test_a_score_depends_on_no_capture_before_the_window(rows, first):
    columns = dict(zip((*NAMES, "actions", "position_share"), np.array(rows).T, strict=True))
    whole = of_metrics(epochs=np.arange(100), **{name.replace("/", "__"): values for name, values in columns.items()})
    assert {check.look_back for check in policy.CHECKS} == {WINDOW}
    assert set(policy.CHECKS) <= set(CHECKS)
    late = whole.part(100 - first - WINDOW) if first + WINDOW <= 100 else whole
    for check in policy.CHECKS:
        part = check.judge(late)
        for series, scores in check.judge(whole).items():
            np.testing.assert_array_equal(part.get(series, np.full(len(late.time), NONE))[-first:], scores[-first:])

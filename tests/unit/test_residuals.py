"""Residuals: what they see, what they do not, and that they never look ahead."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewatch.jobs.scoring.residuals import LEARNED_FROM, LONGEST_WARM_UP, WARM_UP, Residuals, z_scores
from gatewatch.jobs.scoring.rolling_state import HISTORY, NEWEST, REFERENCE, SETTLED, SMOOTHED, RollingState
from gatewatch.jobs.scoring.signals import SIGNALS, SignalKey

GATE = ("memory", "forget")
FLOORS = {name: row.floor for name, row in SIGNALS.items()}
STILL = ("mean_activation", "spread", "entropy", "saturation")
"""Features that no other feature has a part in, as long as nothing is said of updates."""
LINE = REFERENCE + SMOOTHED - 1
"""The first capture that there is a line for."""
FIRST = 16
"""The first capture that anything is said of: there is a line by then, and some distances from it."""


def learning(captures=120, seed=0, noise=0.5, features=STILL):
    """Channels that drift as a network that learns does, with noise of about half a floor."""
    random = np.random.default_rng(seed)
    time = np.linspace(0, 1, captures)
    found = {}
    for feature in features:
        path = random.normal() * 20 * (1 - np.exp(-3 * time)) + noise * random.normal(size=captures)
        found[SignalKey(*GATE, feature)] = 0.4 + path * FLOORS[feature]
    return found


def medians(values):
    return [np.median(values[max(0, k - SMOOTHED + 1) : k + 1]) for k in range(len(values))]


def usual(signals):
    """(n, C)."""
    return z_scores(signals, RollingState()).z


def of(signals, feature):
    """(n,), what is said of one feature."""
    rolling = RollingState()
    found = z_scores(signals, rolling).z
    return found[:, [name.signal for name in rolling.keys].index(feature)]


def stepped(begin, end, floors, captures=160, signal="mean_activation", **options):
    signals = learning(captures, **options)
    signals[SignalKey(*GATE, signal)][begin:end] += floors * FLOORS[signal]
    return signals


class TestSight:
    def test_the_beginning_says_nothing(self):
        found = usual(learning())
        assert np.isnan(found[:FIRST]).all()
        assert np.isfinite(found[FIRST:]).all()
        assert FIRST < WARM_UP

    @pytest.mark.parametrize("captures", [0, 1, 2, 3, REFERENCE, FIRST])
    def test_a_short_run_has_none(self, captures):
        assert np.isnan(usual(learning(captures))).all()

    def test_steady_learning_is_nothing_unusual(self):
        found = np.concatenate([np.abs(usual(learning(seed=seed))[WARM_UP:]).ravel() for seed in range(8)])
        assert np.quantile(found, 0.99) < 5

    def test_a_constant_channel_is_usual_throughout(self):
        found = usual({SignalKey(*GATE, feature): np.full(80, 0.3) for feature in FLOORS})
        np.testing.assert_allclose(found[FIRST:], 0, atol=1e-9)

    def test_a_step_stays_visible_while_it_lasts_and_only_then(self):
        found = of(stepped(80, 120, -100, seed=5), "mean_activation")
        assert np.abs(found[WARM_UP:79]).max() < LEARNED_FROM
        assert found[82:120].max() < -LEARNED_FROM
        assert np.abs(found[124:]).max() < LEARNED_FROM

    def test_it_is_seen_at_its_second_capture(self):
        found = of(stepped(80, 160, 100, seed=5), "mean_activation")
        assert np.abs(found[WARM_UP:81]).max() < LEARNED_FROM < found[81]

    def test_a_small_step_becomes_the_new_normal_sooner_than_a_large_one(self):
        def back_to_normal(size):
            values = np.random.default_rng(2).normal(size=300)
            values[60:] += size
            found = np.abs(usual({SignalKey(*GATE, "spread"): values * FLOORS["spread"]})[62:, 0])
            return int(np.argmax(found < 3)) if (found < 3).any() else len(found)

        sizes = [10, 20, 30, 1000]
        assert sorted(set(map(back_to_normal, sizes))) == [back_to_normal(size) for size in sizes]

    def test_a_step_of_any_size_is_normal_once_nothing_else_is_remembered(self):
        found = of(stepped(80, 240, 1e6, captures=240, seed=5), "mean_activation")
        assert np.nanmin(found[82 : 80 + HISTORY]) > LEARNED_FROM
        assert np.abs(found[-60:]).max() < LEARNED_FROM

    def test_one_odd_capture_alone_raises_nothing(self):
        signals = learning(seed=4)
        calm = usual(signals)
        for name, values in signals.items():
            values[70] += 50 * FLOORS[name.signal]
        assert np.abs(usual(signals)[69:75]).max() < np.abs(calm[69:75]).max() + 6

    def test_two_odd_captures_are_seen(self):
        signals = learning(seed=4)
        for name, values in signals.items():
            values[70:72] += 50 * FLOORS[name.signal]
        assert np.abs(usual(signals)[71]).min() > LEARNED_FROM

    def test_the_noisier_a_channel_the_further_it_may_go(self):
        calm, noisy = (np.abs(of(stepped(80, 90, 40, noise=noise), "mean_activation")[82]) for noise in (0.5, 8))
        assert noisy < calm / 3

    def test_a_floor_is_usual_at_the_least(self):
        signals = {SignalKey(*GATE, feature): np.full(80, 0.3) for feature in STILL}
        for name, values in signals.items():
            values[60:] += 5 * FLOORS[name.signal]
        np.testing.assert_allclose(usual(signals)[61], 5, rtol=1e-6)


def burst(at, seed=0, captures=120, noise=0.3, updates=True):
    """Signals that stand still but for noise, then rise within about ten captures by forty floors, along a sigmoid."""
    random, time = np.random.default_rng(seed), np.arange(captures)
    found = {
        SignalKey(*GATE, feature): FLOORS[feature]
        * (40 / (1 + np.exp(-(time - at) / 2)) + noise * random.normal(size=captures))
        for feature in STILL
    }
    if updates:
        found[SignalKey("memory", "kernel", "update_ratio")] = random.normal(-2.5, 0.05, captures)
    return found


class TestBursts:
    @pytest.mark.parametrize("seed", range(4))
    def test_a_burst_of_learning_after_a_calm_warm_up_is_nothing_unusual(self, seed):
        found = usual(burst(60, seed))[WARM_UP:]
        assert np.nanmax(np.abs(found)) < LEARNED_FROM

    @pytest.mark.parametrize("seed", range(4))
    def test_a_jump_as_large_as_a_burst_is_unusual_at_its_second_capture(self, seed):
        signals = burst(1000, seed)
        for name, values in signals.items():
            values[60:] += 40 * FLOORS[name.signal] * (name.signal in STILL)
        columns = [name.signal in STILL for name in signals]
        assert np.abs(usual(signals)[61, columns]).min() > 20

    def settled(self, signals):
        rolling = RollingState()
        z_scores(signals, rolling)
        return rolling.settled

    def test_the_warm_up_ends_after_its_fewest_captures_where_nothing_is_learned(self):
        assert self.settled(burst(1000)) == WARM_UP

    def test_a_burst_that_is_over_by_then_does_not_lengthen_it(self):
        assert self.settled(burst(18)) == WARM_UP

    def test_a_burst_under_way_is_waited_for(self):
        assert WARM_UP + 4 < self.settled(burst(34)) < 52

    def test_a_run_that_drifts_evenly_is_waited_for_no_longer_than_this(self):
        drift = burst(1000, noise=0.0)
        for name in drift:
            drift[name] += np.arange(120) * FLOORS[name.signal] * (name.signal in STILL)
        assert self.settled(drift) == LONGEST_WARM_UP

    def test_a_network_without_updates_does_not_learn(self):
        assert self.settled(burst(34, updates=False)) == WARM_UP

    def test_a_run_whose_captures_are_all_in_the_warm_up_has_not_settled(self):
        assert self.settled(burst(34, captures=WARM_UP)) is None


class TestLoss:
    def loss(self, scale=1.0):
        random = np.random.default_rng(3)
        return scale * (1 + np.exp(-np.arange(120) / 40) + random.normal(0, 0.01, 120))

    def test_its_scale_is_its_own(self):
        name = SignalKey("_model", "loss", "loss")
        small, large = (usual({name: self.loss(scale)}) for scale in (1.0, 1e6))
        np.testing.assert_allclose(small, large, rtol=1e-6, atol=1e-6)

    def test_a_loss_that_jumps_is_seen_whatever_its_scale(self):
        values = self.loss(1e-3)
        values[80:] *= 3
        assert usual({SignalKey("_model", "loss", "loss"): values})[81, 0] > LEARNED_FROM


class TestPace:
    """What says how fast a network learns: schedules raise and lower it."""

    def paces(self, after, signal="gradient_norm"):
        """A cosine from one decade above its end, then a restart at some height."""
        random = np.random.default_rng(1)
        fall = 0.5 + 0.5 * np.cos(np.linspace(0, np.pi, 80))
        values = np.concatenate([fall - 2, np.full(40, after - 2.0)])
        return of({SignalKey("memory", "kernel", signal): values + random.normal(0, 0.02, 120)}, signal)

    @pytest.mark.parametrize("feature", ["gradient_norm", "gradient_level", "update_ratio"])
    def test_a_restart_at_a_pace_that_was_there_before_is_no_deviation(self, feature):
        found = self.paces(0.95, feature)
        assert np.abs(found[FIRST:]).max() < 3
        assert np.abs(found[81:]).max() == 0

    def test_a_pace_beyond_all_that_were_is_and_while_it_lasts(self):
        assert self.paces(3.5)[81:95].min() > LEARNED_FROM

    def test_so_is_one_below_all_that_were(self):
        assert self.paces(-3.0)[81:95].max() < -LEARNED_FROM

    def test_one_odd_capture_widens_the_range_by_nothing(self):
        values = np.random.default_rng(1).normal(-2, 0.05, 140)
        values[80:] += 1.5
        name = SignalKey("memory", "kernel", "gradient_norm")
        wanted = of({name: values}, "gradient_norm")[80:]
        values[60] += 3
        found = of({name: values}, "gradient_norm")
        assert np.abs(found[FIRST:80]).max() < 1
        np.testing.assert_allclose(found[80:], wanted, atol=0.1)

    def test_other_channels_have_no_such_range(self):
        assert self.paces(0.95, "gradient_noise")[81] > 3


class TestLevels:
    """What moves with the weights, and as much faster as they do."""

    def trained(self, speed, captures=160):
        """A gate whose mean goes to and fro as far as the updates are large, and they themselves."""
        random = np.random.default_rng(5)
        return {
            SignalKey(*GATE, "mean_activation"): 0.5 + 5 * speed * np.sign(random.normal(size=captures)),
            SignalKey("memory", "kernel", "update_ratio"): np.log10(speed),
        }

    def speed(self, fast):
        """Fast at first, slow then, fast again."""
        return np.concatenate([np.full(40, 1e-2), np.geomspace(1e-2, 1e-3, 40), np.full(60, 1e-3), np.full(20, fast)])

    def test_they_may_move_as_much_faster_as_the_updates_were_before(self):
        signals = self.trained(self.speed(1e-2))
        alone = {name: values for name, values in signals.items() if name.signal == "mean_activation"}
        assert np.abs(of(alone, "mean_activation")[140:]).max() > LEARNED_FROM
        assert np.abs(of(signals, "mean_activation")[140:]).max() < 4

    def test_captures_of_which_no_update_is_known_hide_nothing(self):
        def unknown(where):
            signals = learning(160, features=("mean_activation", "update_ratio"), seed=5)
            mean, ratio = signals
            signals[mean][80:] += 300 * FLOORS["mean_activation"]
            signals[ratio] = np.where(where, np.nan, signals[ratio] - 3)
            return of(signals, "mean_activation")

        every = np.arange(160)
        for where in (every % 10 == 9, every >= 85, every < 70):  # ends of epochs; a training that is over, or begins
            assert unknown(where)[81:110].min() > LEARNED_FROM

    def test_but_not_where_updates_are_larger_than_ever(self):
        found = of(self.trained(self.speed(1.0)), "mean_activation")
        assert np.abs(found[140:]).max() > LEARNED_FROM


class TestRollingState:
    def test_a_capture_that_is_far_off_is_not_learned_from(self):
        signals = stepped(80, 140, 100, captures=140, seed=5)
        name, rolling = SignalKey(*GATE, "mean_activation"), RollingState()
        found = z_scores(signals, rolling)
        column = rolling.keys.index(name)
        before = signals[name][:80]
        assert before[-30:].min() <= found.before[-1, column] <= before[-30:].max()
        assert found.high[-1, column] == max(medians(signals[name])[LINE:80])

    def test_what_is_told_beside_a_deviation(self):
        signals, rolling = learning(), RollingState()
        found = z_scores(signals, rolling)
        for column, name in enumerate(rolling.keys):
            values = signals[name]
            np.testing.assert_array_equal(found.value[:, column], values)
            for k in (40, 90):
                known = values[: k - SMOOTHED + 1]
                assert found.before[k, column] == np.median(known[-REFERENCE:])
                assert found.high[k, column] == max(medians(values)[LINE : k - SETTLED + 1])

    def test_it_does_not_grow(self):
        rolling = RollingState()
        for _ in range(5):
            z_scores(learning(60), rolling)
        assert rolling.count == 300
        assert len(rolling.distances) == len(rolling.speed) == HISTORY
        assert len(rolling.values) == len(rolling.learnable) == NEWEST

    def test_a_channel_that_joins_late_changes_nothing_for_the_others(self):
        signals, late = learning(seed=9), SignalKey("late", "kernel", "gradient_norm")
        alone, rolling = usual(signals), RollingState()
        first = z_scores({name: values[:50] for name, values in signals.items()}, rolling).z
        more = {name: values[50:] for name, values in signals.items()} | {late: np.linspace(0, 1, 70)}
        then = z_scores(more, rolling).z
        np.testing.assert_array_equal(np.concatenate([first, then[:, :-1]]), alone)
        assert rolling.keys[-1] == late
        assert np.isnan(then[:FIRST, -1]).all()
        assert np.isfinite(then[FIRST:, -1]).all()

    def test_a_channel_that_is_gone_is_not_known_until_it_is_back(self):
        signals, rolling = learning(90), RollingState()
        gone = SignalKey(*GATE, "entropy")
        z_scores({name: values[:40] for name, values in signals.items()}, rolling)
        without = {name: values[40:60] for name, values in signals.items() if name != gone}
        found = z_scores(without, rolling)
        column = rolling.keys.index(gone)
        assert np.isnan(found.z[:, column]).all()
        back = z_scores({name: values[60:] for name, values in signals.items()}, rolling).z[:, column]
        assert np.isnan(back[: SMOOTHED - 1]).all()
        assert np.isfinite(back[SMOOTHED - 1 :]).all()


@st.composite
def runs(draw):
    """Captures of signals of all kinds, with steps, odd captures, and values that are not known."""
    captures = draw(st.integers(20, 110))
    signals = learning(captures, seed=draw(st.integers(0, 10**6)), features=FLOORS)
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    for name, values in signals.items():
        kind = random.integers(5)
        if kind == 1:
            values[random.integers(captures) :] += random.choice([-1, 1]) * random.uniform(3, 100) * FLOORS[name.signal]
        elif kind == 2:
            values[random.integers(captures)] += 100 * FLOORS[name.signal]
        elif kind == 3:
            begin = random.integers(captures)
            values[begin : begin + random.integers(1, 30)] = np.nan
        elif kind == 4:
            values[random.uniform(size=captures) < 0.1] = np.nan
    return signals


def in_pieces(signals, cuts):
    """What is said of the captures piece by piece, and what is remembered in the end."""
    rolling, found = RollingState(), []
    size = len(next(iter(signals.values())))
    for begin, end in zip([0, *cuts], [*cuts, size], strict=True):
        found.append(z_scores({name: values[begin:end] for name, values in signals.items()}, rolling))
    return Residuals(*map(np.concatenate, zip(*found, strict=True))), rolling


@settings(deadline=None, max_examples=40)
@given(runs(), st.data())
def test_what_is_said_does_not_depend_on_the_pieces_in_which_it_comes(signals, data):
    size = len(next(iter(signals.values())))
    cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=8)))
    whole, remembered = in_pieces(signals, [])
    found, rolling = in_pieces(signals, cuts)
    for wanted, told in zip(whole, found, strict=True):
        np.testing.assert_array_equal(told, wanted)
    for each in fields(RollingState):
        np.testing.assert_array_equal(getattr(rolling, each.name), getattr(remembered, each.name), each.name)


@settings(deadline=None, max_examples=30)
@given(runs(), st.data())
def test_what_is_said_of_a_capture_does_not_change_with_what_comes_after(signals, data):
    whole, _ = in_pieces(signals, [])
    end = data.draw(st.integers(1, len(whole.z)))
    cut, _ = in_pieces({name: values[:end] for name, values in signals.items()}, [])
    for wanted, told in zip(whole, cut, strict=True):
        np.testing.assert_array_equal(told, wanted[:end])


def test_channels_do_not_touch_each_other():
    signals = stepped(50, 160, 100, seed=9)
    together = usual(signals)
    for column, (name, values) in enumerate(signals.items()):
        np.testing.assert_array_equal(together[:, column], usual({name: values})[:, 0])


def test_what_is_not_finite_has_no_deviation_and_spoils_only_its_neighbours():
    signals = learning(seed=6)
    signals[SignalKey(*GATE, "entropy")][60] = np.nan
    found = usual(signals)
    column = [name.signal for name in signals].index("entropy")
    assert np.isnan(found[60 : 60 + SMOOTHED, column]).all()
    assert np.isfinite(np.delete(found, column, axis=1)[FIRST:]).all()
    assert np.isfinite(found[60 + SMOOTHED :, column]).all()


def test_numbers_at_the_end_of_what_single_precision_holds_raise_nothing():
    signs = np.where(np.random.default_rng(0).uniform(size=120) < 0.5, -1, 1)
    signals = {SignalKey(*GATE, feature): np.finfo(np.float32).max * signs for feature in ("mean_activation", "loss")}
    with np.errstate(all="raise", under="ignore"):
        assert not np.isinf(usual(signals)).any()

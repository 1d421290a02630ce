"""The detectors and their contract: 0 to 1 is normal, above 1 anomalous; NaN where there is nothing to say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gatewatch.collector.schema import GATE_STATS_FIELDS, LAYER_UPDATES_FIELDS
from gatewatch.jobs.scoring.captures import Captures
from gatewatch.jobs.scoring.detectors.base import Batch
from gatewatch.jobs.scoring.detectors.consensus import FOREST_DECIDES_FROM, consensus
from gatewatch.jobs.scoring.detectors.isolation_forest import CONTAMINATION, Forest
from gatewatch.jobs.scoring.detectors.robust import LIMITS, MIN_OWN_RESIDUAL, Robust, evidence
from gatewatch.jobs.scoring.detectors.rules import (
    CERTAIN,
    COLLAPSE,
    EXPLODED_DECADES,
    OPEN,
    SATURATION,
    SHUT,
    UPDATE_RATE_EXCESS,
    UPDATE_SPIKE,
    VANISHED_LOG10,
    rule_scores,
)
from gatewatch.jobs.scoring.residuals import Residuals, z_scores
from gatewatch.jobs.scoring.rolling_state import RollingState
from gatewatch.jobs.scoring.scoring_state import columns_by_series
from gatewatch.jobs.scoring.signals import SignalKey, extract_signals

NAN = math.nan


def normal(rows=200, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, 5))


class TestForest:
    def test_what_is_usual_is_below_one_and_what_is_far_off_above(self):
        forest = Forest(normal())
        assert (forest.score(normal(seed=1)) > 1).mean() <= CONTAMINATION
        far = normal(50, seed=2)
        far[:, 0] = 140
        far[:, 2] = -60
        assert forest.score(far).min() > 1
        assert forest.score(far).max() < 2

    def test_nothing_deviating_is_the_most_normal_of_all(self):
        forest = Forest(normal())
        assert forest.score(np.zeros((1, 5)))[0] <= forest.score(normal(300, seed=3)).min()

    def test_a_statistic_that_stood_still_may_move_as_much_as_is_usual_but_not_more(self):
        rows = normal()
        rows[:, 4] = 0
        forest = Forest(rows)
        nudged, thrown = np.zeros((2, 1, 5))
        nudged[0, 4], thrown[0, 4], thrown[0, 0] = 2.5, 90, 90
        assert forest.score(nudged)[0] < 1 < forest.score(thrown)[0]

    def test_nan_in_no_score_out(self):
        rows = normal(4)
        rows[1, 2] = NAN
        assert np.isnan(Forest(normal()).score(rows)).tolist() == [False, True, False, False]
        assert np.isnan(Forest(normal()).score(np.full((2, 5), NAN))).all()
        assert Forest(normal()).score(np.empty((0, 5))).shape == (0,)

    def test_the_same_rows_make_the_same_forest(self):
        one, other, different = Forest(normal()), Forest(normal()), Forest(normal(seed=1))
        assert one.model_id == other.model_id != different.model_id
        rows = normal(seed=5)
        np.testing.assert_array_equal(one.score(rows), other.score(rows))
        np.testing.assert_array_equal(one.score(rows[:7]), one.score(rows)[:7])

    def test_rows_that_are_not_known_have_no_part_in_it(self):
        rows = np.insert(normal(), [3, 90], NAN, axis=0)
        assert Forest(rows).model_id == Forest(normal()).model_id
        assert Forest(rows).provenance["rows"] == 200

    def test_it_says_what_it_was_made_of(self):
        forest = Forest(normal(), about={"source": "warm-up"})
        assert forest.provenance["source"] == "warm-up"
        assert set(forest.provenance["versions"]) == {"scikit-learn", "numpy"}
        assert Forest(normal(), contamination=0.1).model_id != forest.model_id

    def test_too_little_to_learn_from_is_said(self):
        rows = normal(20)
        rows[5:] = NAN
        with pytest.raises(ValueError, match="5 finite rows"):
            Forest(rows)


class TestRobust:
    @pytest.mark.parametrize(("rank", "limit"), LIMITS.items())
    def test_so_many_channels_must_deviate_by_so_much(self, rank, limit):
        signals = np.full((1, 12), 0.0)
        signals[0, :rank] = 1.01 * limit
        assert evidence(signals)[0] == pytest.approx(1.01)
        assert evidence(-signals)[0] == pytest.approx(1.01)
        signals[0, rank - 1] = 0.99 * limit
        below = max((1.01 * limit / LIMITS[fewer] for fewer in LIMITS if fewer < rank), default=0)
        assert evidence(signals)[0] == pytest.approx(max(0.99, below))
        assert evidence(signals)[0] < 1

    def test_the_further_down_the_less_is_asked_for(self):
        assert list(LIMITS.values()) == sorted(LIMITS.values(), reverse=True)
        assert list(LIMITS) == sorted(LIMITS)

    def test_a_layer_of_few_channels_has_no_further_ranks(self):
        assert evidence(np.array([[3.0, 3.0]]))[0] == pytest.approx(3 / LIMITS[2])
        assert evidence(np.empty((2, 0))).tolist() == [0, 0]

    def test_what_is_not_known_deviates_by_nothing(self):
        signals = np.array([[NAN, 9.9, NAN, 1.0], [NAN] * 4])
        np.testing.assert_array_equal(evidence(signals), evidence(np.nan_to_num(signals)))
        assert evidence(signals)[1] == 0

    @pytest.mark.parametrize("layers", [2, 5, 40])
    def test_the_more_layers_the_more_is_asked_for(self, layers):
        signals = np.array([[8.0, 0.0], [6.0, 6.0]])
        limits = [math.sqrt(LIMITS[rank] ** 2 + 2 * math.log(layers)) for rank in (1, 2)]
        np.testing.assert_allclose(evidence(signals, layers), [8.0 / limits[0], 6.0 / limits[1]])
        by_capture = evidence(np.repeat(signals, 2, axis=0), np.array([1, layers] * 2))
        wanted = np.stack([evidence(signals), evidence(signals, layers)], axis=1).ravel()
        np.testing.assert_array_equal(by_capture, wanted)

    @given(hnp.arrays(float, (3, 8), elements=st.floats(-1e6, 1e6)))
    def test_the_order_of_channels_and_what_is_beside_a_capture_do_not_matter(self, signals):
        found = evidence(signals)
        np.testing.assert_array_equal(evidence(signals[:, ::-1]), found)
        np.testing.assert_array_equal(np.concatenate([evidence(row[None]) for row in signals]), found)
        assert (evidence(2 * signals) >= found).all()


GATE, KERNEL, RECURRENT = ("l", "forget"), ("l", "kernel"), ("l", "recurrent")


def look(told, gates=(GATE,), updates=(KERNEL, RECURRENT), counts=None):
    """(series, rule) → the scores of captures.

    Args:
        told: channel → its value, the median before, and the largest before, of each capture.
        gates, updates: series.
        counts: (series, field) → the counts at each capture: of values that are not finite, of the optimizer's steps.
    """
    size = len(next(iter((told or counts).values())))

    def tables(all_series, fields):
        found = {series: np.zeros((size, len(fields))) for series in all_series}
        for series in updates if fields is LAYER_UPDATES_FIELDS else ():
            found[series][:, fields.index("optimizer_steps")] = 1
        for (series, field), values in (counts or {}).items():
            if series in found:
                found[series][:, fields.index(field)] = values
        return found

    captures = Captures(
        {"run": "r"},
        np.arange(size),
        np.arange(size, dtype=float),
        tables(gates, GATE_STATS_FIELDS),
        {},
        tables(updates, LAYER_UPDATES_FIELDS),
        {},
    )
    table = np.array([*told.values()], dtype=float).reshape(len(told), size, 3)
    value, before, high = np.moveaxis(table, (2, 1, 0), (0, 1, 2))
    found = rule_scores(captures, Residuals(np.zeros_like(value), value, before, high), [*told])
    return {(series, rule): score.tolist() for series, rule, score in found}


def scores(rule, feature, rows, series=None, **options):
    """The scores of one rule: rows of value, before and high, or one row for both of two captures."""
    layer, part = series or (GATE if feature in ("mean_activation", "saturation") else KERNEL)
    rows = rows if isinstance(rows, list) else [rows, rows]
    return look({SignalKey(layer, part, feature): rows}, **options)[(layer, part), rule]


class TestRules:
    @pytest.mark.parametrize("count", ["nan_count", "inf_count"])
    @pytest.mark.parametrize("series", [GATE, KERNEL, ("l", "bias")])
    def test_a_number_that_is_none_is_wrong_at_once(self, series, count):
        found = look({}, updates=(KERNEL, ("l", "bias")), counts={(series, count): [0, 1, 0, 7, NAN]})
        assert found[series, "not_finite"] == [0, CERTAIN, 0, CERTAIN, 0]
        assert all(score == [0] * 5 for (one, _), score in found.items() if one != series)

    def test_the_first_capture_may_already_be_not_finite(self):
        assert look({}, counts={(GATE, "nan_count"): [3]})[GATE, "not_finite"] == [CERTAIN]

    @pytest.mark.parametrize(
        ("value", "before", "broken"),
        [
            (SHUT - 1e-9, SHUT + COLLAPSE + 0.01, True),
            (SHUT, SHUT + COLLAPSE + 0.01, False),
            (SHUT - 1e-9, SHUT + COLLAPSE - 0.01, False),
            (OPEN + 1e-9, OPEN - COLLAPSE - 0.01, True),
            (OPEN, OPEN - COLLAPSE - 0.01, False),
            (OPEN + 1e-9, OPEN - COLLAPSE + 0.01, False),
            (0.99, 0.99, False),  # a long memory
            (0.5, 0.9, False),
            (NAN, 0.5, False),
            (0.0, NAN, False),
        ],
    )
    def test_a_gate_that_keeps_the_state_has_collapsed(self, value, before, broken):
        found = scores("collapsed", "mean_activation", (value, before, 1.0))
        assert found[0] == 0
        assert (found[1] > 1) is broken
        assert found == scores(
            "collapsed", "mean_activation", (value, before, 1.0), ("l", "update"), gates=[("l", "update")]
        )

    @pytest.mark.parametrize("gate", ["input", "output", "reset", "cell"])
    def test_only_such_a_gate(self, gate):
        found = look({SignalKey("l", gate, "mean_activation"): [(0.0, 0.9, 1.0)] * 2}, gates=[("l", gate)])
        assert (("l", gate), "collapsed") not in found

    @pytest.mark.parametrize(
        ("rule", "feature", "row", "broken"),
        [
            ("saturated", "saturation", (0.2 + SATURATION + 0.01, 0.2, 0.3), True),
            ("saturated", "saturation", (0.2 + SATURATION - 0.01, 0.2, 0.3), False),
            ("saturated", "saturation", (0.9, 0.9, 0.9), False),
            ("saturated", "saturation", (0.1, 0.9, 0.9), False),
            ("leap", "update_ratio", (-2 + UPDATE_SPIKE + 0.01, -3, -2), True),
            ("leap", "update_ratio", (-2 + UPDATE_SPIKE - 0.01, -3, -2), False),
            ("leap", "update_ratio", (-3, -5, -2), False),  # a warm restart
            ("leap", "update_ratio", (-2, -3, -math.inf), False),  # nothing is known yet
            ("exploded", "gradient_norm", (EXPLODED_DECADES + 0.01, 0, 0), True),
            ("exploded", "gradient_norm", (EXPLODED_DECADES - 0.01, 0, 0), False),
            ("exploded", "gradient_norm", (EXPLODED_DECADES + 0.01, 0, EXPLODED_DECADES - 1.01), True),
            (
                "exploded",
                "gradient_norm",
                (EXPLODED_DECADES + 0.01, 0, EXPLODED_DECADES - 0.5),
                False,
            ),  # it was nearly as large before
            ("exploded", "gradient_norm", (EXPLODED_DECADES + 0.01, NAN, -math.inf), False),
            ("vanished", "gradient_norm", (VANISHED_LOG10 - 0.01, VANISHED_LOG10 + EXPLODED_DECADES + 0.01, 0), True),
            ("vanished", "gradient_norm", (VANISHED_LOG10, VANISHED_LOG10 + EXPLODED_DECADES + 0.01, 0), False),
            (
                "vanished",
                "gradient_norm",
                (VANISHED_LOG10 - 0.01, VANISHED_LOG10 - 0.01 + EXPLODED_DECADES - 0.01, 0),
                False,
            ),
            ("vanished", "gradient_norm", (-12, -12, -12), False),  # there never was one
            ("vanished", "gradient_norm", (-12, NAN, -math.inf), False),
        ],
    )
    def test_a_rule_is_broken_beyond_its_limit_and_by_two_captures(self, rule, feature, row, broken):
        assert scores(rule, feature, [row]) == [0]
        first, second = scores(rule, feature, row)
        assert first == 0
        assert (second > 1) is broken
        calm = (row[1], row[1], max(row[1], row[2]))
        assert max(scores(rule, feature, [calm, row, calm])) == 0

    @pytest.mark.parametrize(
        ("row", "frozen"),
        [
            ((-12, -3, -3), True),
            ((-12, -3, -3 + EXPLODED_DECADES - 0.01), True),
            ((-12, -3, -3 + EXPLODED_DECADES + 0.01), False),  # a schedule that has come to its end
            ((-11.9, -3, -3), False),
            ((-12, NAN, -math.inf), False),
        ],
    )
    def test_no_weight_moves(self, row, frozen):
        assert scores("frozen", "update_ratio", row) == [0, CERTAIN if frozen else 0]
        assert scores("frozen", "update_ratio", [row, (-3, -3, -3)]) == [0, 0]

    def test_a_parameter_that_is_no_longer_trained_while_others_are(self):
        gone, moving, still = (NAN, -3, -3), (-3, -3, -3), (-12, -12, -12)
        kernel, recurrent = (SignalKey(*series, "update_ratio") for series in (KERNEL, RECURRENT))
        found = look({kernel: [moving, gone, gone], recurrent: [moving] * 3})
        assert found[KERNEL, "frozen"] == [0, 0, CERTAIN]
        assert found[RECURRENT, "frozen"] == [0, 0, 0]
        for other in (gone, still):  # nobody says anything of updates any more, or nothing is trained
            found = look({kernel: [moving, gone, gone], recurrent: [moving, other, other]})
            assert found[KERNEL, "frozen"] == [0, 0, 0]

    def test_a_parameter_that_the_optimizer_passed_over_stands_not_still(self):
        gone, moving = (NAN, -3, -3), (-3, -3, -3)
        kernel, recurrent = (SignalKey(*series, "update_ratio") for series in (KERNEL, RECURRENT))
        told = {kernel: [moving, gone, gone], recurrent: [moving] * 3}
        assert look(told, counts={(KERNEL, "optimizer_steps"): [1, 0, 0]})[KERNEL, "frozen"] == [0, 0, 0]

    def test_updates_that_the_learning_rate_does_not_explain(self):
        one, two, three = (SignalKey(*series, "update_per_rate") for series in (KERNEL, RECURRENT, ("head", "kernel")))
        calm, fast, slow = (
            (-1, -1, -1),
            (-1 + UPDATE_RATE_EXCESS * 1.1, -1, -1),
            (-1 + UPDATE_RATE_EXCESS * 0.9, -1, -1),
        )
        found = look({one: [calm, fast, fast], two: [calm, fast, fast], three: [calm] * 3})
        assert [found[name[:2], "hasty"][:2] for name in (one, two, three)] == [[0, 0]] * 3
        assert found[KERNEL, "hasty"][2] == found[RECURRENT, "hasty"][2] == pytest.approx(1.1)
        assert found[("head", "kernel"), "hasty"][2] == 0
        alone = look({one: [fast] * 3, two: [calm] * 3, three: [calm] * 3})
        assert max(alone[KERNEL, "hasty"]) == 0
        within = look({one: [slow] * 3, two: [slow] * 3, three: [(NAN, -1, -1)] * 3})
        assert max(within[KERNEL, "hasty"]) < 1
        assert max(within[("head", "kernel"), "hasty"]) == 0

    def test_a_schedule_is_followed_to_its_end(self):
        def frozen(ratio):
            name = SignalKey(*KERNEL, "update_ratio")
            values = np.log10(np.maximum(ratio, 1e-12))
            found = z_scores({name: values}, RollingState())
            captures = Captures({}, np.arange(len(ratio)), np.arange(len(ratio)), {}, {}, {}, {})
            return next(score for _, rule, score in rule_scores(captures, found, [name]) if rule == "frozen")

        cosine = np.concatenate([1e-3 * (0.5 + 0.5 * np.cos(np.linspace(0, np.pi, 120))), np.zeros(20)])
        assert frozen(cosine).max() == 0
        stopped = np.concatenate([np.full(120, 1e-3), np.zeros(20)])
        assert frozen(stopped)[:121].max() == 0
        assert frozen(stopped)[121:].min() == CERTAIN

    def test_a_network_of_which_little_is_known_breaks_none(self):
        size = 40
        table = np.full((size, len(GATE_STATS_FIELDS)), NAN)
        captures = Captures({}, np.arange(size), np.arange(size), {GATE: table}, {}, {}, {})
        rolling = RollingState()
        found = z_scores(extract_signals(captures), rolling)
        assert all((score == 0).all() for _, _, score in rule_scores(captures, found, rolling.keys))


class TestRobustOfSeries:
    """Whose evidence counts for whom."""

    def scores(self, usual, layers=("l",), value=None, told=()):
        names = [*usual]
        table = np.array([*usual.values()], dtype=float).T
        values = np.where(np.isnan(table), NAN, 1.0)
        for name, known in (value or {}).items():
            values[:, names.index(name)] = known
        gates = {(layer, "forget"): np.zeros((len(table), len(GATE_STATS_FIELDS))) for layer in layers}
        captures = Captures({}, np.arange(len(table)), np.arange(len(table)), gates, {}, {}, {})
        residuals = Residuals(table, values, np.zeros_like(table), np.zeros_like(table))
        columns = columns_by_series(names)
        return Robust().score(Batch(captures, 0, 0, names, columns, residuals, set(told), 0, 0, None, {})).by_series

    def test_a_series_has_the_evidence_of_its_layer_as_far_as_it_has_a_part_in_it(self):
        far = {SignalKey("l", "forget", feature): [20.0] for feature in ("mean_activation", "spread")}
        usual = far | {
            SignalKey("l", "input", "spread"): [MIN_OWN_RESIDUAL / 2],
            SignalKey("l", "kernel", "gradient_norm"): [NAN],
        }
        found = self.scores(usual)
        assert found["l", "forget"] == evidence(np.array([[20.0, 20.0, MIN_OWN_RESIDUAL / 2]]))
        assert found["l", "input"] == 0.5
        assert np.isnan(found[KERNEL])

    def test_what_is_of_no_recurrent_layer_is_evidence_in_each_and_a_layer_in_no_other(self):
        usual = {SignalKey(layer, "forget", "spread"): [4.0] for layer in ("l", "m")}
        alone = self.scores(usual, ("l", "m"))
        with_head = self.scores(usual | {SignalKey("head", "kernel", "gradient_norm"): [20.0]}, ("l", "m"))
        assert alone["l", "forget"] == alone["m", "forget"] == evidence(np.array([[4.0]]), 2)
        assert with_head["l", "forget"] == with_head["m", "forget"] == 4.0 / MIN_OWN_RESIDUAL
        one = self.scores(usual | {SignalKey("m", "input", "spread"): [20.0]}, ("l", "m"))
        assert one["l", "forget"] == alone["l", "forget"] < one["m", "forget"]

    def test_an_update_is_no_evidence_once_a_learning_rate_was_told(self):
        ratio, rate = (SignalKey(*KERNEL, feature) for feature in ("update_ratio", "update_per_rate"))
        usual = {ratio: [30.0] * 4, rate: [NAN] * 4}
        assert (self.scores(usual)[KERNEL] > 1).all()
        known = {rate: [NAN, 1.0, NAN, NAN]}
        assert (self.scores(usual, value=known)[KERNEL] > 1).tolist() == [True, False, False, False]
        assert (self.scores(usual, told=[rate])[KERNEL] > 1).tolist() == [False] * 4
        assert (self.scores(usual | {rate: [30.0] * 4})[KERNEL] > 1).all()


class TestConsensus:
    @pytest.mark.parametrize(
        ("ruled", "robust", "forest", "wanted"),
        [
            (0.0, 0.5, 0.5, 0.5),
            (0.0, 1.5, 0.5, 1.5),  # the robust detector alone is enough
            (2.0, 0.5, 0.5, 2.0),  # and so is a rule
            (2.0, 3.0, 0.5, 3.0),
            (0.0, 0.9, 1.2, 0.9 / FOREST_DECIDES_FROM),  # short of that the forest decides
            (0.0, 0.9, 0.99, 0.99),
            (0.0, 0.9, 0.5, 0.9),
            (0.0, 0.9, NAN, 0.9),
            (0.0, 0.7, 1.9, 0.7 / FOREST_DECIDES_FROM),  # which is below 1
            (0.0, 0.1, 1.9, 0.1 / FOREST_DECIDES_FROM),  # the forest alone proves nothing
            (2.0, NAN, NAN, 2.0),  # not a number: the rule is all that is left
            (0.5, NAN, NAN, NAN),
            (0.0, NAN, 1.9, NAN),
        ],
    )
    def test_who_decides(self, ruled, robust, forest, wanted):
        found = consensus(np.array([ruled]), np.array([robust]), np.array([forest]))
        np.testing.assert_allclose(found, [wanted])

    @pytest.mark.parametrize(("ruled", "robust", "wanted"), [(0, 0.9, 0.9), (2, 0.9, 2), (2, NAN, 2), (0, NAN, NAN)])
    def test_without_a_forest(self, ruled, robust, wanted):
        np.testing.assert_array_equal(consensus(np.array([float(ruled)]), np.array([robust]), None), [wanted])

    @given(
        *[hnp.arrays(float, 6, elements=st.floats(0, 20) | st.just(NAN))] * 2,
        hnp.arrays(float, 6, elements=st.floats(0, 20)),
    )
    def test_it_is_never_less_than_the_robust_detector_or_a_broken_rule(self, robust, forest, ruled):
        found = consensus(ruled, robust, forest)
        assert (found >= robust)[np.isfinite(robust)].all()
        assert (found >= ruled)[ruled > 1].all()
        assert (np.isfinite(found) == (np.isfinite(robust) | (ruled > 1))).all()

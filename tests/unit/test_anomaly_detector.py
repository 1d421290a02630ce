"""AnomalyDetector: features of a sample, and the contract of its scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewatch import AnomalyDetector
from gatewatch.jobs.normal_range import NormalRange
from gatewatch.jobs.sample_features import FEATURES, observe

pytestmark = pytest.mark.filterwarnings("error")


def sample(seed=0, centre=0.0, gradients=0.1):
    random = np.random.default_rng(seed)
    return {
        "activations": np.tanh(centre + random.normal(0, 0.5, (8, 12, 6))),
        "gradients": [random.normal(0, gradients, (6, 4)), random.normal(0, gradients, 6)],
    }


@pytest.fixture(scope="module")
def detector():
    return AnomalyDetector().train(sample(seed) for seed in range(100))


def test_the_features_are_those_of_the_arrays():
    given_ = sample(3)
    found = AnomalyDetector().extract_features(given_)
    gradient = np.concatenate([part.ravel() for part in given_["gradients"]])
    above = given_["activations"] > 0
    assert found["mean_activation"] == pytest.approx(given_["activations"].mean())
    assert found["std_activation"] == pytest.approx(given_["activations"].std())
    assert found["mean_gradient"] == pytest.approx(gradient.mean())
    assert found["var_gradient"] == pytest.approx(gradient.var())
    assert found["zero_crossing_rate"] == pytest.approx((above[:, 1:] != above[:, :-1]).mean())
    assert found["saturation"] == pytest.approx((np.abs(given_["activations"]) > 0.9).mean())
    assert 0 < found["entropy"] < np.log2(20)


@pytest.mark.parametrize("shape", [(6,), (12, 6), (8, 12, 6), (2, 4, 12, 6)])
def test_activations_may_have_any_shape_and_stand_alone(shape):
    values = np.random.default_rng(0).normal(0, 0.5, shape)
    found = AnomalyDetector().extract_features(values)
    assert found == AnomalyDetector().extract_features({"activations": values, "gradients": None})
    assert found["mean_activation"] == pytest.approx(values.mean())
    assert found["var_gradient"] == 0


def test_what_is_not_finite_is_left_out():
    broken = sample(1)
    broken["activations"][0, 0, 0], broken["activations"][1, 1, 1] = np.nan, np.inf
    broken["gradients"][0][0, 0] = np.nan
    found = AnomalyDetector().extract_features(broken)
    assert np.isfinite(list(found.values())).all()
    assert found["mean_activation"] == pytest.approx(broken["activations"][np.isfinite(broken["activations"])].mean())


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({}, "must have 'activations'; this one has nothing"),
        ({"loss": 1.0}, "this one has loss"),
        ({"activations": np.full((2, 3), np.nan)}, "no finite value"),
        ({"activations": np.empty((0, 3))}, "no finite value"),
        ({"activations": None}, "no finite value"),
        ({"activations": []}, "no finite value"),
        ({"activations": [np.ones(3), np.ones(4)]}, "activations must be one array"),
        ({"activations": "text"}, "activations: must be arrays of numbers, not str"),
        ({"activations": np.ones(3), "gradients": ["x"]}, "gradients: must be arrays of numbers, not str"),
    ],
)
def test_a_sample_without_numbers_is_told(wrong, reason):
    with pytest.raises((ValueError, TypeError), match=reason) as raised:
        AnomalyDetector().extract_features(wrong)
    assert "\n" not in str(raised.value)
    with pytest.raises(type(raised.value), match=reason):
        AnomalyDetector().train([sample(), wrong])


@pytest.mark.parametrize("framework", ["list", "torch", "keras", "several"])
def test_arrays_are_of_any_framework(framework):
    plain = sample(2)
    activations, gradients = plain["activations"], plain["gradients"]
    match framework:
        case "list":
            given_ = {"activations": activations.tolist(), "gradients": [part.tolist() for part in gradients]}
        case "torch":
            import torch

            tensors = [torch.tensor(part, requires_grad=True) for part in (activations, *gradients)]
            given_ = {"activations": tensors[0], "gradients": tensors[1:]}
        case "keras":
            import keras

            tensors = [keras.ops.convert_to_tensor(part, dtype="float64") for part in (activations, *gradients)]
            given_ = {
                "activations": tensors[0],
                "gradients": {"kernel": tensors[1], "bias": tensors[2], "frozen": None},
            }
        case "several":
            given_ = {"activations": list(activations), "gradients": gradients}
    found, wanted = (AnomalyDetector().extract_features(each) for each in (given_, plain))
    assert found == pytest.approx(wanted)


@pytest.mark.parametrize("ask", ["predict", "score"])
def test_it_must_be_trained_first(ask):
    with pytest.raises(ValueError, match="must be trained before prediction"):
        getattr(AnomalyDetector(), ask)(sample())


@pytest.mark.parametrize("contamination", [0, -0.1, 0.6, float("nan"), "0.1", None])
def test_the_contamination_has_bounds(contamination):
    with pytest.raises(ValueError, match="contamination"):
        AnomalyDetector(contamination)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_samples_are_told(count):
    with pytest.raises(ValueError, match=f"{count} normal samples"):
        AnomalyDetector().train([sample()] * count)


def test_normal_is_below_one_and_what_differs_above(detector):
    scores = [detector.score(sample(seed)) for seed in range(100)]
    assert np.mean(np.array(scores) > 1) == pytest.approx(0.05, abs=0.01)
    assert min(scores) > 0
    for odd in (sample(500, centre=2.0), sample(500, gradients=50.0), {"activations": np.ones((8, 12, 6))}):
        assert detector.predict(odd)
        assert detector.score(odd) > 1


CONSTANT = {
    "saturated": np.ones((8, 12, 6)),
    "dead": np.zeros((8, 12, 6)),
    "at the edge of a bin": np.full((8, 12, 6), 0.5),
    "at the limit of saturation": np.full((8, 12, 6), -0.9),
    "anything": np.tanh(np.random.default_rng(3).normal(0, 0.5, (8, 12, 6))),
    "anything in half precision": np.tanh(np.random.default_rng(4).normal(0, 0.5, (8, 12, 6))).astype(np.float16),
    "beyond the scale": np.full((8, 12, 6), 1000.0),
    "of single precision": np.full((8, 12, 6), 0.3, np.float32),
}
"""Activations of which every normal sample has the same."""


@pytest.mark.parametrize("which", CONSTANT)
class TestAConstantPast:
    @pytest.fixture
    def constant(self, which):
        return AnomalyDetector().train([{"activations": CONSTANT[which]}] * 100)

    def test_the_same_is_normal(self, constant, which):
        assert constant.score({"activations": CONSTANT[which]}) <= 1

    @pytest.mark.parametrize("size", [1e-9, 1e-7, 1e-6])
    def test_rounding_is_normal(self, constant, which, size):
        noise = size * np.random.default_rng(0).normal(size=(8, 12, 6)) * max(1, np.abs(CONSTANT[which]).max())
        assert constant.score({"activations": CONSTANT[which] + noise}) <= 1

    @pytest.mark.parametrize("gradient", [10.0, -10.0, 1e-3, 1e-6])
    def test_a_gradient_where_there_was_none_is_seen(self, constant, which, gradient):
        assert constant.predict({"activations": CONSTANT[which], "gradients": np.full((6, 4), gradient)})

    def test_what_rounding_makes_of_no_gradient_is_normal(self, constant, which):
        assert not constant.predict({"activations": CONSTANT[which], "gradients": np.full((6, 4), 1e-9)})

    def test_activations_that_move_are_seen(self, constant, which):
        assert constant.predict({"activations": CONSTANT[which] * 0.5 + 0.1})
        assert constant.predict(
            {"activations": CONSTANT[which] + np.where(np.arange(6) == 2, 1.0, 0.0) * max(1, CONSTANT[which].max())}
        )

    def test_a_larger_move_scores_higher(self, constant, which):
        scores = [
            constant.score({"activations": CONSTANT[which], "gradients": np.full(9, g)}) for g in (0.1, 10, 1e3, 1e20)
        ]
        assert scores == sorted(scores)
        assert len(set(scores)) == 4


@pytest.mark.parametrize("feature", ["mean_activation", "var_gradient", "mean_gradient"])
def test_one_constant_feature_among_others_that_vary_is_looked_at(feature):
    def varied(seed):
        made = sample(seed)
        gradient = made["gradients"][0] - made["gradients"][0].mean()
        match feature:
            case "mean_activation":
                made["activations"] -= made["activations"].mean()
            case "mean_gradient":
                made["gradients"] = gradient
            case "var_gradient":
                made["gradients"] = np.full(24, gradient[0, 0])
        return made

    constant = AnomalyDetector().train(varied(seed) for seed in range(100))
    moved = varied(200)
    assert constant.score(moved) < 2
    match feature:
        case "mean_activation":
            moved["activations"] += 0.3
        case "mean_gradient":
            moved["gradients"] = moved["gradients"] + 0.3
        case "var_gradient":
            moved["gradients"] += np.repeat([0.3, -0.3], 12)
    assert constant.score(moved) > 2


@pytest.mark.parametrize("noise", [1e-12, 1e-9, 1e-7])
def test_what_was_constant_but_for_rounding_is_constant(noise):
    base = sample(3)["activations"]
    noisy = [{"activations": base + noise * np.random.default_rng(k).normal(size=base.shape)} for k in range(100)]
    almost = AnomalyDetector().train(noisy)
    assert max(map(almost.score, noisy)) <= 1
    assert almost.score({"activations": base + 1e-6 * np.random.default_rng(0).normal(size=base.shape)}) <= 1
    assert almost.predict({"activations": base, "gradients": [10.0]})
    assert almost.predict({"activations": base + 0.01})


def test_a_feature_of_two_values_has_a_range():
    alternating = AnomalyDetector().train(
        {"activations": CONSTANT["saturated"], "gradients": np.full(9, 1e-3 * (k % 2))} for k in range(100)
    )
    gradients = {
        g: alternating.predict({"activations": CONSTANT["saturated"], "gradients": np.full(9, g)})
        for g in (0.0, 1e-3, 5e-4, 1e-2, 10.0, 1e20)
    }
    assert gradients == {0.0: False, 1e-3: False, 5e-4: False, 1e-2: True, 10.0: True, 1e20: True}


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_far_outside_its_range_is_seen_whatever_the_others_are(detector, name):
    normal = detector._learned.normal
    row = (normal.low + normal.high) / 2
    assert normal.score(row) == 0
    row[FEATURES.index(name)] += 3 * (normal.high - normal.low)[FEATURES.index(name)]
    assert normal.score(row) > 1


@pytest.mark.parametrize("size", [2, 3, 5, 10, 30])
def test_few_normal_samples_are_alike_by_chance(size):
    few = [AnomalyDetector().train(sample(1000 * k + n) for n in range(size))._learned.normal for k in range(10)]
    outside = [normal.score(observe(sample(10**6 + n)).row) > 1 for n in range(30) for normal in few]
    assert np.mean(outside) < 0.01


def test_gradients_that_were_nan_in_all_of_the_past_are_seen_when_they_come(detector):
    broken = [sample(k) | {"gradients": np.full(9, np.nan)} for k in range(20)]
    of_broken = AnomalyDetector().train(broken)
    assert of_broken.score(broken[0]) == 2
    assert of_broken.predict(sample(30))


@pytest.mark.parametrize("value", [1e20, -1e20, 1e300, 1.7e308, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
def test_huge_values_and_values_that_are_not_finite_alarm_without_a_warning(detector, value, kind):
    with np.errstate(all="ignore"):
        one = np.array(value).astype(kind)  # of a smaller type it is infinite
    for part in ("activations", "gradients"):
        for everywhere in (False, True):
            odd = sample(1)
            array = odd["activations"] if part == "activations" else odd["gradients"][0]
            array = array.astype(kind)
            array[... if everywhere else (0,) * array.ndim] = one
            odd[part] = array
            assert detector.predict(odd)
            assert np.isfinite(detector.score(odd))
            assert CONSTANT_DETECTOR.predict(odd)


CONSTANT_DETECTOR = AnomalyDetector().train([{"activations": CONSTANT["saturated"]}] * 100)


@pytest.mark.parametrize("value", [1e20, 1e300, 1.7e308])
def test_huge_normal_samples_are_learned_from(value):
    huge = AnomalyDetector().train(
        {"activations": np.full((2, 3), value), "gradients": np.full(4, -value * (1 + k % 2) / 2)} for k in range(20)
    )
    assert not huge.predict({"activations": np.full((2, 3), value), "gradients": np.full(4, -value)})
    assert huge.predict({"activations": np.zeros((2, 3))})


def test_a_sample_without_a_finite_value_scores_two(detector):
    for nothing in (np.nan, np.inf):
        assert detector.score({"activations": np.full((2, 3), nothing)}) == 2
        assert detector.score(np.full((2, 3), nothing)) == 2
        assert detector.score({"activations": np.full((2, 3), nothing), "gradients": [np.nan]}) == 2
    with pytest.raises(ValueError, match="no finite value"):
        detector.score(np.empty((0, 3)))


def test_masked_steps_are_normal_as_far_as_normal_samples_had_them(detector):
    def padded(seed, steps):
        made = sample(seed)
        made["activations"][:, 12 - steps :] = np.nan
        return made

    of_padded = AnomalyDetector().train(padded(seed, 3 + seed % 3) for seed in range(100))
    assert [of_padded.score(padded(200, steps)) >= 2 for steps in (0, 3, 5, 10)] == [False, False, False, True]
    assert detector.score(padded(200, 1)) >= 2  # none of its normal samples had one
    torn = padded(200, 3)
    torn["activations"][0, 0, 0] = np.nan  # one unit of a step is not masked
    assert of_padded.score(torn) >= 2


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6))
def test_prediction_and_score_say_the_same(detector, seed):
    assert detector.predict(sample(seed)) is bool(detector.score(sample(seed)) > 1)


def test_the_same_samples_make_the_same_detector(detector):
    again = AnomalyDetector().train([sample(seed) for seed in range(100)])
    assert again.score(sample(7)) == detector.score(sample(7))


def test_a_range_as_wide_as_numbers_are_takes_every_value_without_a_warning():
    widest = np.array([np.finfo(float).max])
    whole = NormalRange(-widest, widest, np.ones(1), 2)
    assert whole.varies.all()
    assert whole.score(widest) == 0
    assert NormalRange(widest, widest, widest, 2).score(-widest) == 0

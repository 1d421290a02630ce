"""AnomalyDetector: features of a sample, and the contract of its scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewatch import AnomalyDetector
from gatewatch.collector.errors import ConfigError


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


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6))
def test_prediction_and_score_say_the_same(detector, seed):
    assert detector.predict(sample(seed)) is bool(detector.score(sample(seed)) > 1)


def test_the_same_samples_make_the_same_detector(detector):
    again = AnomalyDetector().train([sample(seed) for seed in range(100)])
    assert again.score(sample(7)) == detector.score(sample(7))


def test_it_is_kept_in_a_file_with_its_provenance(detector, tmp_path):
    detector.save(tmp_path / "normal.skops")
    loaded = AnomalyDetector.load(tmp_path / "normal.skops")
    assert [loaded.score(sample(k)) for k in range(5)] == [detector.score(sample(k)) for k in range(5)]
    assert loaded.provenance["samples"] == 100
    assert set(loaded.provenance["versions"]) == {"numpy", "scikit-learn"}


def test_a_file_that_is_none_is_one_line(detector, tmp_path):
    whole = tmp_path / "normal.skops"
    detector.save(whole)
    (tmp_path / "cut.skops").write_bytes(whole.read_bytes()[:-1000])
    (tmp_path / "text.skops").write_text("no detector")
    import skops.io

    skops.io.dump({"other": 1}, tmp_path / "other.skops")
    skops.io.dump({"forest": detector._forest}, tmp_path / "forest.skops")
    skops.io.dump({"forest": detector._forest, "provenance": {"features": ["mean"]}}, tmp_path / "old.skops")
    (tmp_path / "folder.skops").mkdir()
    for name in ("cut", "text", "other", "forest", "old", "folder", "missing"):
        with pytest.raises(ConfigError, match=f"{name}.skops: ") as raised:
            AnomalyDetector.load(tmp_path / f"{name}.skops")
        assert "\n" not in str(raised.value)

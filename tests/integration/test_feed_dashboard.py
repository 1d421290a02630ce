"""The dashboard Feed on runs whose feed changed, and whose features are known by hand, in a real InfluxDB."""

from __future__ import annotations

import json
import time

import pytest

from gatewatch.collector.schema import FEED_FEATURES, FEED_STATS, GATE_SCORES, RUNS, TRAIN_METRICS, Point
from grafana.emulator.check import open_dashboard
from grafana.emulator.frames import FluxSource
from grafana.source import dashboards
from tests.recorded import SECOND

CAPTURES = 80
CHANGED = 60
"""The capture, and its step, at which what is fed changes."""
RUN = {"run": 'r "1" ${x}', "phase": "train"}
NAMES = ["close", 'a "b" [c], \\d', "volumé"]


@pytest.fixture(scope="module")
def now():
    return time.time_ns()


@pytest.fixture(scope="module")
def board():
    return dashboards()["gatewatch-feed"]


@pytest.fixture
def opened(influxd, board, now):
    """Opens the dashboard over points, in a bucket of their own: panel → what was asked."""

    def opened(*points):
        bucket = influxd.bucket()
        influxd.store(bucket).write([point for part in points for point in part])
        source = FluxSource(influxd.url, org=influxd.org, bucket=bucket, token=influxd.token)
        found = {}
        window = (now - 1000 * SECOND, now)
        for one in open_dashboard(board, source, now=now, window=window, chosen={"run": RUN["run"]}):
            assert one.problem is None, (one.panel, one.problem, one.flux)
            found[one.panel] = one
        return found

    return opened


def at(now, k):
    """A capture each 10 seconds; the last ends with now."""
    return now - (CAPTURES - k) * 10 * SECOND


def started(now, names=NAMES, **config):
    about = {"x": [1, "a", {"y": None}], "feature_names": names, **config}
    return [Point(RUNS, RUN, {"event": "started", "config": json.dumps(about), "step": 0}, at(now, 0) - SECOND)]


def fed(now, statistics=None):
    """Captures of the feed: statistic → feature → the values before and from the change on."""
    points = [Point(FEED_STATS, RUN, {"distance": 0.1, "step": k}, at(now, k)) for k in range(CAPTURES)]
    for statistic, features in (statistics or {}).items():
        for k in range(CAPTURES):
            fields = {f"f{i:03d}": float(pair[k >= CHANGED]) for i, pair in enumerate(features)}
            points.append(Point(FEED_FEATURES, {**RUN, "statistic": statistic}, fields | {"step": k}, at(now, k)))
    return points


def scored(now, detector, layer, gate, high, cause, until=CAPTURES):
    """Scores, above 1 from the change on until a capture."""
    tags = {**RUN, "layer": layer, "gate": gate, "detector": detector}
    for k in range(CAPTURES):
        is_high = CHANGED <= k < until
        fields = {"anomaly_score": high if is_high else 0.2, "step": k, "source": "data"}
        yield Point(GATE_SCORES, tags, fields | ({f"why_{cause}": high} if is_high else {}), at(now, k))


def said(found):
    (frame,) = found["Did what is fed change?"].frames
    return frame.fields[-1].values[0]


def shown(found, panel):
    """Row → the first and the last value of a heatmap."""
    return {
        frame.numbers[0].name: (frame.numbers[0].values[0], round(frame.numbers[0].values[-1], 6))
        for frame in found[panel].frames
    }


def table(found):
    (frame,) = found["Which feature moved furthest"].frames
    return [
        dict(zip([f.name for f in frame.fields], row, strict=True))
        for row in zip(*(f.values for f in frame.fields), strict=True)
    ]


SCALES = {"mean": [(100, 150), (1e6, 1e6), (3, 3)], "std": [(10, 10), (2e5, 8e5), (0, 0)]}


class TestSentence:
    def test_a_feed_that_the_detector_of_data_found_changed(self, opened, now):
        scores = scored(now, "data", "_data", "feed", 1.5, "own_cause")
        found = opened(started(now), fed(now, SCALES), scores)
        assert said(found) == (
            "Yes, it changed at step 60: own_cause; furthest moved 00 close, "
            "its mean moved by 5 of its standard deviations"
        )
        (frame,) = found["It changed first"].frames
        assert frame.fields[-1].values == [at(now, CHANGED) // 10**6]

    def test_a_check_of_one_feature_names_it(self, opened, now):
        scores = scored(now, "checks", "_data", "volumé", 2.0, "not_finite")
        found = opened(started(now), fed(now, SCALES), scores)
        assert said(found) == "Yes, a check failed at step 60 in volumé: values are NaN or infinite"

    def test_what_was_fed_for_a_while_is_over(self, opened, now):
        scores = scored(now, "checks", "_data", "volumé", 2.0, "not_finite", until=CHANGED + 1)
        assert said(opened(started(now), fed(now), scores)).endswith("infinite; the newest captures are normal again")

    @pytest.mark.parametrize(
        ("detector", "layer"), [("checks", "_optimizer"), ("consensus", "_data"), ("robust", "memory")]
    )
    def test_what_the_network_or_its_optimizer_did_is_no_change_of_the_feed(self, opened, now, detector, layer):
        calm = scored(now, "checks", "_data", "feed", 0.5, "none")
        scores = scored(now, detector, layer, "kernel", 3.0, "loss")
        found = opened(started(now), fed(now), calm, scores)
        assert said(found) == "No"
        assert not found["It changed first"].rows

    def test_what_the_jobs_have_not_scored_is_not_called_sound(self, opened, now):
        assert said(opened(started(now), fed(now))) == "Not judged: `gatewatch jobs` has not scored it"

    def test_what_is_not_recorded_says_how_to_record_it(self, opened, now):
        expected = "Not recorded: pass batch= to step(), or wrap what fit is given in monitor.feed()"
        assert said(opened(started(now))) == expected


class TestFeatures:
    def test_a_large_feature_hides_no_small_one(self, opened, now):
        found = opened(started(now), fed(now, SCALES))
        hostile = f"01 {NAMES[1]}"
        assert shown(found, "Mean of each feature") == {"00 close": (0, 5), hostile: (0, 0), "02 volumé": (0, 0)}
        assert shown(found, "Spread of each feature") == {"00 close": (0, 0), hostile: (0, 2), "02 volumé": (0, 0)}

    def test_the_one_that_moved_furthest_comes_first(self, opened, now):
        rows = table(opened(started(now), fed(now, SCALES), scored(now, "data", "_data", "feed", 1.5, "x")))
        assert [row["feature"] for row in rows] == ["00 close", f"01 {NAMES[1]}", "02 volumé"]
        assert [row["how"] for row in rows[:2]] == [
            "its mean moved by 5 of its standard deviations",
            "its spread is 4 times as large",
        ]
        assert (rows[0]["mean before"], rows[0]["mean since"], rows[1]["spread since"]) == (100, 150, 8e5)

    @pytest.mark.parametrize(
        ("mean", "std", "how"),
        [
            ((5, 5), (1, 0), "it has become constant"),
            ((5, 5), (0, 1), "it was constant and is not any more"),
            ((5, 7), (0, 0), "it was constant and has another value"),
            ((5, 4), (2, 0.5), "its spread is 4 times as small"),
            ((-5, -8), (1.5, 1.5), "its mean moved by 2 of its standard deviations"),
            ((0, 0), (0, 0), "it did not move"),
            ((5, 5.1), (2, 2.01), "it hardly moved"),
        ],
    )
    def test_what_happened_in_words(self, opened, now, mean, std, how):
        scores = scored(now, "data", "_data", "feed", 1.5, "x")
        (row,) = table(opened(started(now), fed(now, {"mean": [mean], "std": [std]}), scores))
        assert row["how"] == how

    @pytest.mark.parametrize("names", [None, [], ["close"], "close"])
    def test_features_without_names_have_their_number(self, opened, now, names):
        found = opened(started(now, names), fed(now, SCALES))
        first = "00 close" if names == ["close"] else "00"
        assert [*shown(found, "Mean of each feature")] == [first, "01", "02"]

    def test_a_feature_that_was_constant_at_first_is_no_gap(self, opened, now):
        found = opened(started(now, None), fed(now, {"mean": [(3, 4), (3, 2)], "std": [(0, 0.5), (0, 0)]}))
        assert shown(found, "Mean of each feature") == {"00": (0, 99), "01": (0, -99)}
        assert shown(found, "Spread of each feature") == {"00": (0, 99), "01": (0, 0)}

    def test_shares_and_correlations_are_shown_as_they_are(self, opened, now):
        found = opened(started(now, None), fed(now, {"nan_share": [(0, 0.25)], "lag1": [(0.9, 0.1)]}))
        assert shown(found, "NaN share of each feature") == {"00": (0, 0.25)}
        assert shown(found, "Lag-1 autocorrelation of each feature") == {"00": (0.9, 0.1)}


def test_the_probe_loss_lies_beside_the_loss_of_the_batches(opened, now):
    logged = [
        Point(TRAIN_METRICS, RUN, {"loss": 1.0, "probe_loss": 0.5, "val_loss": 2.0, "step": k}, at(now, k))
        for k in range(CAPTURES)
    ]
    found = opened(started(now), logged)["Loss of the batches and of the probe"]
    assert {frame.numbers[0].name: set(frame.numbers[0].values) for frame in found.frames} == {
        "loss": {1.0},
        "probe_loss": {0.5},
    }

"""A detector and a derived metric of one's own: passed to a pass, they are scored, written, shown and kept."""

from __future__ import annotations

import numpy as np
import pytest

from gatewatch import open_store
from gatewatch.collector.schema import GATE_DERIVED, Field
from gatewatch.jobs.checkpoint import load
from gatewatch.jobs.findings.explanations import in_words
from gatewatch.jobs.report.page import write_report
from gatewatch.jobs.scoring.detectors import DETECTORS, Detector
from gatewatch.jobs.scoring.detectors.base import Scores
from gatewatch.jobs.scoring.metrics import METRICS
from gatewatch.jobs.scoring.metrics.base import Metric
from tests.passes import only, scores, until_done
from tests.recorded import end, fill, recorded, shut


class LowMean(Detector):
    """A gate whose mean is below 0.1 scores 3, any other 0.5; it also counts the captures it has seen."""

    name = "low_mean"
    scores_warm_up = True

    def __init__(self):
        self.seen = 0

    def score(self, batch):
        self.seen += len(batch.residuals.z)
        new = batch.captures.part(batch.first)
        low = {gate: new.statistic(gate, "mean") < 0.1 for gate in new.gates}
        return Scores(
            {gate: np.where(is_low, 3.0, 0.5) for gate, is_low in low.items()},
            {gate: {"low": np.where(is_low, 3.0, 0.0)} for gate, is_low in low.items()},
        )

    @property
    def state(self):
        return {"seen": np.array([self.seen])}

    @state.setter
    def state(self, arrays):
        self.seen = int(arrays["seen"][0])


def rise(of):
    """How much higher the mean is than 40 captures ago."""
    mean = of.captures.statistic(of.pair, "mean")
    earlier = np.concatenate([np.full(40, np.nan), mean])[-of.new - 40 : -40]
    return mean[-of.new :] - earlier


RISE = Metric("rise", "share", "gate", rise, look_back=40)


@pytest.fixture
def store(tmp_path):
    opened = open_store(f"sqlite:///{tmp_path / 'points.db'}")
    fill(opened, recorded(60, change=shut(50)))
    end(opened)
    return opened


def test_a_detector_of_ones_own_scores_every_gate_from_the_first_capture_on(store):
    done = only(store, detectors=(*DETECTORS, LowMean))
    assert done.unscored["warm-up"] > 0
    own = scores(store, detector="low_mean")
    assert len(own) == 2 * 60
    forget = own[own["gate"] == "forget"]
    assert forget["anomaly_score"].tolist() == [0.5] * 50 + [3.0] * 10
    assert forget["anomalous"].tolist() == [0] * 50 + [1] * 10
    assert (forget["why_low"].dropna() == 3.0).all()
    assert set(scores(store)["detector"]) == {"isolation_forest", "robust", "rules", "consensus", "low_mean"}
    consensus = scores(store, detector="consensus")
    assert consensus["step"].min() == 32  # the others still have a warm-up


def test_its_state_is_in_the_checkpoint_and_a_pass_without_it_begins_anew(store, tmp_path):
    detectors = (*DETECTORS, LowMean)
    state = tmp_path / "state"
    until_done(store, state=state, limit=25, detectors=detectors)
    tags = {"run": "r", "phase": "train"}
    assert load(state, "r", tags, detectors).scoring.detectors[-1].seen == 60
    assert load(state, "r", tags) is None


def test_its_causes_are_shown_by_name(store, tmp_path):
    assert in_words({"low": 3.0}) == ["it rose (low, 3× its usual)"]
    only(store, detectors=(*DETECTORS, LowMean))
    assert (scores(store, detector="consensus", gate="forget")["why_low"].dropna() == 3.0).any()
    assert "low rose" in write_report(store, None, tmp_path / "report.html").read_text()


def test_a_metric_of_ones_own_is_written_the_same_in_one_pass_and_in_pieces(store, tmp_path, declared_fields):
    declared_fields[GATE_DERIVED] += (Field("rise", float, "share"),)
    metrics = (*METRICS, RISE)
    other = open_store(f"sqlite:///{tmp_path / 'other.db'}")
    fill(other, recorded(60, change=shut(50)))
    end(other)
    only(store, metrics=metrics)
    until_done(other, state=tmp_path / "state", limit=7, metrics=metrics)
    whole, pieces = (each.read(GATE_DERIVED, tags={"gate": "forget"}) for each in (store, other))
    assert whole["rise"].notna().sum() == 20
    assert (whole["rise"].dropna()[-10:] < -0.3).all()
    np.testing.assert_array_equal(whole["rise"], pieces["rise"])


def test_a_metric_is_given_no_more_captures_than_it_declares(store):
    sizes = []
    spy = Metric("spy", "captures", "gate", lambda of: sizes.append(len(of.captures.time) - of.new), look_back=3)
    for limit in (20, 20, 20):
        only(store, metrics=(*METRICS, spy), limit=limit)
    assert set(sizes) <= {0, 3}

"""`reference=`: a backtest whose features are no longer normalised, as its training's were."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from gatewatch import open_store
from gatewatch.collector.schema import GATE_SCORES
from gatewatch.jobs.findings.explanations import in_words
from gatewatch.jobs.scoring.scoring_pass import run_pass
from gatewatch.torch import GateMonitor
from tests.passes import until_done

PRICE, RANGE = 180.0, 4.0
NAMES = ["price", "range"]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(2, 4, batch_first=True)
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


@pytest.fixture
def store(tmp_path):
    return open_store(f"sqlite:///{tmp_path / 'points.db'}")


def bars(seed, *shape, wild=1.0):
    """Normalised prices and ranges: near 0, with a deviation of 1."""
    return wild * torch.randn(*shape, 2, generator=torch.Generator().manual_seed(seed))


def raw(normalised):
    """The same as a market has them: prices around 180, ranges of a hundredth."""
    return normalised * torch.tensor([5.0, 0.01]) + torch.tensor([PRICE, 0.0])


def slow(x):
    """The same, where prices follow each other: means over nine bars."""
    prices = torch.nn.functional.avg_pool1d(x[..., 0], 9, stride=1, padding=4, count_include_pad=False)
    return torch.stack([prices, x[..., 1]], -1)


def train(store, steps=20, begin=0, run="run-7", prepare=lambda x: x, **options):
    torch.manual_seed(0)
    net = Net()
    optimizer = torch.optim.Adam(net.parameters())
    options = {"feature_names": NAMES, **options}
    with GateMonitor(net, None, probe=bars(0, 4, 8), store=store, every=4, run=run, **options) as monitor:
        if begin:
            monitor.load_state_dict({"step": begin, "epoch": 0})
        for step in range(begin + 1, begin + steps + 1):
            optimizer.zero_grad()
            net(prepare(bars(step, 16, 24))).square().mean().backward()
            optimizer.step()
            monitor.step()
    return net


def walk(store, prepare, count=6, begin=0, run="bt", reference="run-7", phase="backtest", names=NAMES, **options):
    """A backtest that looks at windows of 24 bars."""
    options = {"reference": reference, "feature_names": names, **options}
    with GateMonitor(Net(), None, store=store, every=1, run=run, phase=phase, **options) as monitor:
        if begin:
            monitor.load_state_dict({"step": begin, "epoch": 0})
        for bar in range(begin, begin + count):
            monitor.step(prepare(bars(1000 + bar, 1, 24)), time=(1_600_000_000 + 60 * bar) * 10**9)


def scored(store, run="bt", detector="consensus"):
    assert all(done.failed is None for done in run_pass(store))
    return alarms(store, run, detector)


def alarms(store, run="bt", detector="consensus"):
    found = store.read(GATE_SCORES, run=run, tags={"layer": "_data", "detector": detector})
    return found[found["anomalous"] == 1] if len(found) else found


def test_raw_prices_are_an_alarm_from_the_first_capture_on_and_name_the_feature(store):
    train(store)
    walk(store, raw)
    found = scored(store)
    price = found[found["gate"] == "price"]
    assert price["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert set(price["source"]) == {"data"}
    # Both ends of the window are 165 or more, and the largest batch was rounded up to 1.19.
    assert price["why_larger_than_training"].between(13, 18).all()
    assert in_words({"larger_than_training": 18.0}) == [
        "a feature is far larger than in the training it is compared with: was it normalised? "
        "(larger_than_training, 180 times)"
    ]
    assert set(found["gate"]) == {"price", "feed"}  # the ranges alone are too small: one of two features


def test_raw_returns_are_too_small(store):
    train(store)
    walk(store, lambda x: 0.01 * x)
    found = scored(store)
    assert set(found["gate"]) == {"price", "range", "feed"}
    assert found["step"].min() == 1
    assert (found["why_smaller_than_training"] > 1).all()


def test_raw_prices_near_one_hardly_move(store):
    train(store)
    walk(store, lambda x: x * torch.tensor([0.01, 0.001]) + 1.0, count=18)
    found = scored(store)
    assert set(found["gate"]) == {"price", "range", "feed"}
    assert sorted(set(found["step"])) == [16, 17, 18]
    assert set(found[found["gate"] == "price"]["why_moves_less_than_training"] > 1) == {True}


def test_columns_that_come_in_another_order_from_the_first_bar_on_are_named(store):
    train(store, prepare=slow)
    walk(store, lambda x: slow(x).flip(-1), count=18)
    found = scored(store)
    assert set(found["gate"]) == {"price", "range", "feed"}
    assert sorted(set(found["step"])) == [16, 17, 18]
    assert set(found["why_columns_permuted"]) == {2.0}


@pytest.mark.parametrize("wild", [0.25, 4.0])
def test_normalised_prices_in_another_regime_are_none(wild, store):
    train(store)
    walk(store, lambda x: wild * x, count=20)
    assert len(scored(store)) == 0
    checked = store.read(GATE_SCORES, run="bt", tags={"layer": "_data", "detector": "checks"})
    assert checked["anomaly_score"].tolist() == [0.0] * 20


@pytest.mark.parametrize("phase", ["backtest", "live"])
def test_a_phase_that_names_no_run_is_compared_with_its_own_training(phase, store):
    train(store)
    walk(store, raw, run="run-7", reference=None, phase=phase)
    found = scored(store, "run-7")
    assert set(found["phase"]) == {phase}
    assert "price" in set(found["gate"])


def test_features_are_compared_by_their_names(store):
    train(store)
    walk(store, lambda x: raw(x).flip(-1), names=NAMES[::-1])
    assert set(scored(store)["gate"]) == {"price", "feed"}


@pytest.mark.parametrize("tags", [{"symbol": "GOOG"}, {"symbol": "MSFT"}, {}])
def test_another_symbol_is_compared_too(tags, store):
    train(store, tags={"symbol": "GOOG"})
    walk(store, raw, tags=tags)
    assert "price" in set(scored(store)["gate"])


def test_a_symbol_is_compared_with_its_own_training(store):
    train(store, tags={"symbol": "GOOG"})
    torch.manual_seed(1)
    net = Net()
    options = {"tags": {"symbol": "MSFT"}, "feature_names": NAMES}
    with GateMonitor(
        net, None, probe=bars(0, 4, 8), store=store, every=1, run="run-7", resume=True, **options
    ) as monitor:
        for step in range(5):
            monitor.step(batch=raw(bars(step, 16, 8)))
    walk(store, raw, tags={"symbol": "GOOG"})
    assert "price" in set(scored(store)["gate"])


def test_a_run_that_is_not_there_is_said_once(store, caplog):
    walk(store, raw, reference="nowhere")
    with caplog.at_level(logging.WARNING, "gatewatch"):
        assert len(scored(store)) == 0
        run_pass(store, again=True)
    (line,) = [record.message for record in caplog.records if "compared with no training" in record.message]
    assert "'nowhere' has no feed of one" in line


def test_a_training_of_another_number_of_features_is_not_compared(store):
    torch.manual_seed(0)
    with GateMonitor(Net(), None, probe=bars(0, 4, 8), store=store, every=1, run="run-7") as monitor:
        for step in range(1, 6):
            monitor.step(batch=torch.cat([bars(step, 16, 8)] * 2, -1))
    walk(store, raw)
    assert len(scored(store)) == 0


def test_in_pieces_with_checkpoints_it_is_as_in_one_pass(store, tmp_path):
    other = open_store(f"sqlite:///{tmp_path / 'other.db'}")
    for each in (store, other):
        train(each)
    walk(store, raw, count=3)
    until_done(store, state=tmp_path / "state", limit=1)
    walk(store, raw, count=6, begin=3, resume=True)
    until_done(store, state=tmp_path / "state", limit=1)
    late = alarms(store)
    run_pass(store, again=True)
    assert late.equals(alarms(store))
    assert late[late["gate"] == "price"]["step"].tolist() == [*range(1, 10)]


def test_a_training_that_has_seen_more_since_counts_for_all_of_the_phase(store, tmp_path):
    state = tmp_path / "state"
    walk(store, raw, count=3)
    until_done(store, state=state)
    assert len(alarms(store)) == 0
    train(store)
    walk(store, raw, count=3, begin=3, resume=True)
    until_done(store, state=state)
    found = alarms(store)
    assert found[found["gate"] == "price"]["step"].tolist() == [1, 2, 3, 4, 5, 6]

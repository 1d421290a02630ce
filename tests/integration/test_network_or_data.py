"""Backtests in which the market changes, or the network does: a fixed probe beside the windows tells which."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gatewatch import open_store
from gatewatch.jobs.findings.axis import Axis
from gatewatch.jobs.findings.series import by_series
from gatewatch.jobs.findings.statements import statements
from gatewatch.torch import GateMonitor
from tests.passes import only, scores

BARS, STRIKE, TIME = 64, 48, 16
LONG, WILD_FROM = 120, 80
"""Of a backtest that is to be scored by the detectors that need a warm-up."""
CHECKS = ("why_network_changed", "why_probe_varies")


class Policy(nn.Module):
    def __init__(self, noise=0.0):
        super().__init__()
        self.lower = nn.LSTM(1, 6, batch_first=True)
        self.upper = nn.LSTM(6, 6, batch_first=True)
        self.head = nn.Linear(6, 1)
        self.noise = noise

    def forward(self, x):
        x = self.lower(x)[0]
        if self.noise:  # as of Monte Carlo dropout, in inference too
            x = nn.functional.dropout(x, self.noise, training=True)
        return self.head(self.upper(x)[0][:, -1])


def market(wild_from=None):
    """Windows of returns, bar by bar; the market is ten times as wild from a bar on, and its returns revert."""
    bars = BARS if wild_from is None else LONG
    noise = np.random.default_rng(0).normal(size=bars + TIME)
    returns = np.zeros(bars + TIME)
    for k in range(1, len(returns)):
        wild = wild_from is not None and k - TIME >= wild_from
        returns[k] = (-0.9 if wild else 0.9) * returns[k - 1] + (10.0 if wild else 0.3) * noise[k]
    whole = torch.tensor(returns, dtype=torch.float32)
    return [whole[bar : bar + TIME].reshape(1, TIME, 1) for bar in range(bars)]


def another():
    torch.manual_seed(9)
    return Policy().state_dict()


def load_upper(policy):
    with torch.no_grad():
        policy.upper.weight_hh_l0.copy_(another()["upper.weight_hh_l0"])


def load_head(policy):
    with torch.no_grad():
        policy.head.weight.copy_(another()["head.weight"])


def halve(policy):
    """Round the weights to 16 bits, as a conversion does."""
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(parameter.half().float())


def walked(store, *, run="bt", wild_from=None, change=None, noise=0.0, phase="backtest", learns=False, **options):
    torch.manual_seed(1)
    policy = Policy(noise)
    probe = torch.randn(16, TIME, 1, generator=torch.Generator().manual_seed(2))
    optimizer = torch.optim.Adam(policy.parameters(), 1e-3)
    options = {"probe": probe, "every": 1, **options}
    with GateMonitor(policy, None, store=store, run=run, phase=phase, **options) as monitor:
        for bar, window in enumerate(market(wild_from)):
            if bar == STRIKE and change is not None:
                change(policy)
            monitor.step(window, time=np.datetime64("2020-01-01") + bar)
            if noise:
                policy(window)  # which draws
            if learns:
                optimizer.zero_grad()
                policy(window).square().mean().backward()
                optimizer.step()
    only(store)
    return store


@pytest.fixture
def store(tmp_path):
    return open_store(f"sqlite:///{tmp_path / 'points.db'}")


def alarms(store):
    """Step → the sources of the consensus scores above 1."""
    frame = scores(store, detector="consensus")
    frame = frame[frame["anomalous"] == 1]
    return {step: set(rows["source"]) for step, rows in frame.groupby("step")}


def first_findings(store):
    said = statements(scores(store), {"backtest": Axis(("backtest",))}, ["lower/l0", "upper/l0"])
    return [finding for finding in said if finding.time == said[0].time]


def test_a_market_that_turns_wild_is_a_notice_about_data_where_the_probe_stays(store):
    walked(store, wild_from=WILD_FROM)
    frame = scores(store, detector="data")
    notices = frame[(frame["anomalous"] == 1) & frame["why_windows_moved"].gt(1)]
    assert len(notices) > 0
    assert notices["step"].min() >= WILD_FROM
    assert set(notices["source"]) == {"data"}
    assert not any("network" in sources for sources in alarms(store).values())
    assert not set(CHECKS) & set(scores(store))


def test_without_a_probe_the_same_market_is_taken_for_the_network(store):
    walked(store, wild_from=WILD_FROM, probe=None)
    found = alarms(store)
    assert any("network" in sources for step, sources in found.items() if step > WILD_FROM)
    assert "why_windows_moved" not in scores(store)


def test_a_calm_backtest_says_nothing(store):
    walked(store)
    assert alarms(store) == {}
    assert not set(CHECKS) & set(scores(store))


def test_weights_that_are_loaded_are_an_alarm_at_once_that_names_the_layer(store):
    walked(store, change=load_upper)
    found = alarms(store)
    assert min(found) == STRIKE + 1
    assert found[STRIKE + 1] == {"network"}
    named = scores(store, detector="checks")
    named = named[named["why_network_changed"] > 0]
    assert set(named["step"]) == {STRIKE + 1}
    assert set(named["layer"]) == {"upper/l0"}
    (finding,) = first_findings(store)
    assert (finding.level, finding.source, finding.key.layer) == ("alarm", "network", "upper/l0")
    assert "a fixed probe has other gates than before" in finding.sentence


def test_a_change_after_the_gates_shows_in_the_loss_of_the_probe(store):
    options = {"probe_targets": torch.zeros(16, 1), "loss": nn.functional.mse_loss}
    walked(store, change=load_head, **options)
    assert alarms(store) == {STRIKE + 1: {"network"}}
    named = scores(store, detector="checks")
    assert set(named[named["why_network_changed"] > 0]["gate"]) == {"probe_loss"}


def test_weights_of_half_precision_are_seen(store):
    walked(store, change=halve)
    assert alarms(store) == {STRIKE + 1: {"network"}}


def test_dropout_that_is_left_on_is_said_once(store):
    walked(store, noise=0.5)
    named = scores(store, detector="checks")
    assert named[named["why_probe_varies"] > 0]["step"].tolist() == [4] * 6
    assert set(named[named["why_probe_varies"] > 0]["layer"]) == {"upper/l0"}


def test_a_live_phase_that_learns_is_no_other_network(store):
    walked(store, phase="live", learns=True)
    forget = store.read("gate_stats", tags={"gate": "forget", "layer": "lower/l0", "look": "reference"})
    assert forget["mean"].nunique() == BARS
    assert not set(CHECKS) & set(scores(store))


def test_a_resumed_backtest_goes_on_with_the_same_network(store):
    walked(store)
    with GateMonitor(Policy(), None, store=store, run="bt", phase="backtest", resume=True, every=1) as monitor:
        windows = market()
        for bar in range(BARS + 5):
            monitor.step(windows[bar % BARS], time=np.datetime64("2020-01-01") + bar)
    only(store)
    assert not set(CHECKS) & set(scores(store))
    assert len(by_series(store.read("gate_stats", tags={"look": "reference"}))) == 12

"""Modules that are called by a method, not by themselves: policies with `predict`, agents of CleanRL."""

from __future__ import annotations

import logging

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_contrib import RecurrentPPO
from torch import nn

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.store import open_store
from gatewatch.torch import GateMonitor


class Agent(nn.Module):
    """As CleanRL's agents are made: no forward, several entries, and a state that is passed around."""

    def __init__(self):
        super().__init__()
        self.network = nn.Linear(3, 6)
        self.lstm = nn.LSTM(6, 5)
        self.actor = nn.Linear(5, 2)
        self.critic = nn.Linear(5, 1)

    def get_states(self, x, lstm_state, done):
        hidden = self.network(x).reshape((-1, lstm_state[0].shape[1], 6))
        new_hidden = []
        for h, d in zip(hidden, done.reshape((-1, lstm_state[0].shape[1])), strict=True):
            kept = (1.0 - d).view(1, -1, 1)
            output, lstm_state = self.lstm(h.unsqueeze(0), (kept * lstm_state[0], kept * lstm_state[1]))
            new_hidden += [output]
        return torch.flatten(torch.cat(new_hidden), 0, 1), lstm_state

    def get_action_and_value(self, x, lstm_state, done, action=None):
        hidden, lstm_state = self.get_states(x, lstm_state, done)
        probs = torch.distributions.Categorical(logits=self.actor(hidden))
        action = probs.sample() if action is None else action
        return action, probs.log_prob(action), probs.entropy(), self.critic(hidden), lstm_state


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/gates.db"


def test_an_agent_of_cleanrl(url):
    torch.manual_seed(1)
    agent = Agent()
    optimizer = torch.optim.Adam(agent.parameters(), 0.01)
    state = torch.zeros(1, 4, 5), torch.zeros(1, 4, 5)
    probe = torch.randn(7 * 4, 3), state, torch.zeros(7 * 4)
    method = "get_action_and_value"
    with GateMonitor(agent, None, run="agent", probe=probe, method=method, every=1, store=url) as monitor:
        for _ in range(3):
            drawn = torch.get_rng_state()
            monitor.step()
            assert torch.equal(torch.get_rng_state(), drawn)
            _, logprob, _, value, _ = agent.get_action_and_value(*probe)
            optimizer.zero_grad()
            (value.square().mean() - logprob.mean()).backward()
            optimizer.step()
    stats = open_store(url).read("gate_stats", run="agent", tags={"gate": "hidden"})
    assert stats["layer"].tolist() == ["lstm/l0"] * 3
    assert stats["step"].tolist() == [1, 2, 3]
    assert "t006" in open_store(url).read("gate_time", run="agent")


def test_a_policy_of_stable_baselines3_in_a_backtest(url, caplog):
    model = RecurrentPPO(
        "MlpLstmPolicy", gym.make("CartPole-v1"), n_steps=8, seed=1, policy_kwargs={"lstm_hidden_size": 5}
    )
    bars = np.random.default_rng(1).normal(size=(4, 1, 4)).astype(np.float32)
    state, starts, actions = None, np.ones(1, bool), []
    options = {"phase": "backtest", "method": "predict", "layers": ["lstm_actor"], "every": 1}
    with (
        caplog.at_level(logging.WARNING, "gatewatch"),
        GateMonitor(model.policy, None, run="policy", store=url, **options) as monitor,
    ):
        for day, bar in enumerate(bars):
            monitor.step((bar, state, starts, True), time=np.datetime64("2024-01-01") + day)
            action, state = model.predict(bar, state, starts, deterministic=True)
            starts[:] = False
            actions.append(int(action[0]))
    assert not caplog.records
    stats = open_store(url).read("gate_stats", run="policy", tags={"gate": "hidden"})
    assert stats["layer"].tolist() == ["lstm_actor/l0"] * 4
    hidden, given = stats["mean"].tolist(), None
    for bar, mean in zip(bars, hidden, strict=True):
        _, given = model.predict(bar, given, np.array([given is None]), deterministic=True)
        assert mean == pytest.approx(given[0].mean(), abs=1e-6)


@pytest.mark.parametrize("method", ["prediction", "training", 3])
def test_an_unknown_method_is_refused_by_its_name(method, url):
    with pytest.raises(ConfigError) as caught:
        GateMonitor(Agent(), None, method=method, store=url)
    assert str(caught.value) == f"method={method!r}: the module Agent has no such method"


def test_inputs_that_the_method_does_not_take_are_refused_with_what_it_takes(url):
    with (
        pytest.raises(ConfigError, match=r"the module Agent: its get_states takes \(x, lstm_state, done\)"),
        GateMonitor(Agent(), None, probe=torch.zeros(2, 3), method="get_states", store=url),
    ):
        pass


def test_a_module_without_a_forward_is_refused_with_what_to_give(url):
    with (
        pytest.raises(ConfigError, match=r"Agent: it has no forward; method= of GateMonitor names what is"),
        GateMonitor(Agent(), None, probe=torch.zeros(2, 3), store=url),
    ):
        pass

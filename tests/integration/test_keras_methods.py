"""Keras models that are called by a method, not by themselves: agents with `act`, encoders with `encode`."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from gatewatch import GateMonitor, open_store
from gatewatch.collector.errors import ConfigError

X = np.random.default_rng(0).normal(size=(8, 5, 3)).astype("float32")


class Agent(keras.Model):
    """Has no call; keeps what it did, and is given arrays and a flag."""

    def __init__(self):
        super().__init__(name="agent")
        self.memory = keras.layers.LSTM(4, name="memory")
        self.actor = keras.layers.Dense(2, name="actor")
        self.actions = []

    def act(self, observations, mask, deterministic=False):
        assert isinstance(observations, np.ndarray)
        observations *= mask  # in place
        logits = self.actor(self.memory(observations))
        assert deterministic
        self.actions.append(int(np.argmax(keras.ops.convert_to_numpy(logits)[0])))
        return logits


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/gates.db"


def train(agent, monitor=None):
    optimizer = keras.optimizers.SGD(0.1)
    for step in range(3):
        agent.act(X[:2].copy(), np.ones((2, 5, 1), "float32"), True)
        if monitor is not None:
            monitor.step()
        if step == 0:
            optimizer.build(agent.trainable_variables)
        optimizer.apply([0.1 * keras.ops.ones_like(v) for v in agent.trainable_variables])
    return [*map(np.ndarray.tolist, agent.get_weights())], agent.actions


def test_an_agent_that_is_called_by_its_act(url, caplog):
    keras.utils.set_random_seed(1)
    wanted = train(Agent())
    keras.utils.set_random_seed(1)
    agent, probe = Agent(), X[:4].copy()
    mask = np.zeros((4, 5, 1), "float32")
    with GateMonitor(agent, None, run="a", probe=(probe, mask, True), method="act", every=1, store=url) as monitor:
        assert not agent.memory.built
        assert train(agent, monitor) == wanted
    assert not caplog.messages
    assert probe.tolist() == X[:4].tolist()
    stats = open_store(url).read("gate_stats", run="a", tags={"gate": "hidden"})
    assert stats["layer"].tolist() == ["memory"] * 3
    assert stats["step"].tolist() == [1, 2, 3]


def test_each_step_may_bring_the_arguments(url):
    agent = Agent()
    with GateMonitor(agent, None, run="a", method="act", phase="live", every=1, store=url) as monitor:
        for day in range(3):
            monitor.step((X[day : day + 1], np.float32(1), True))
    assert open_store(url).read("gate_stats", run="a", tags={"gate": "hidden"})["step"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("method", ["action", "layers", 3])
def test_an_unknown_method_is_refused_by_its_name(method, url):
    with pytest.raises(ConfigError) as caught:
        GateMonitor(Agent(), None, method=method, store=url)
    assert str(caught.value) == f"method={method!r}: the model Agent has no such method"


@pytest.mark.parametrize("method", ["predict", "fit", "train_on_batch", "__call__"])
def test_a_method_of_keras_is_refused_with_what_to_do(method, url):
    with pytest.raises(ConfigError) as caught:
        GateMonitor(Agent(), None, method=method, store=url)
    assert str(caught.value) == (
        f"method={method!r}: that is a method of Keras's; without method= the model itself is called, and method= "
        "names one of your own class"
    )


def test_a_model_that_fit_gives_is_asked_for_the_method_before_the_first_batch(url):
    model = keras.Sequential([keras.Input((5, 3)), keras.layers.LSTM(4)])
    model.compile("sgd", "mse")
    before = model.get_weights()
    with pytest.raises(ConfigError, match="method='act': the model Sequential has no such method"):
        model.fit(X, X[:, 0, :1], verbose=0, callbacks=[GateMonitor(None, None, probe=X[:2], method="act", store=url)])
    assert all(map(np.array_equal, model.get_weights(), before))


def test_inputs_that_the_method_does_not_take_are_refused_with_what_it_takes(url):
    with (
        pytest.raises(
            ConfigError, match=r"the model 'agent': its act takes \(observations, mask, deterministic=False\)"
        ),
        GateMonitor(Agent(), None, probe=X[:2], method="act", store=url),
    ):
        pass


class Deciding(keras.Model):
    """Decides by Keras's own predict, which runs a loop."""

    def __init__(self):
        super().__init__(name="deciding")
        self.memory = keras.layers.LSTM(4, name="memory")

    def call(self, x):
        return self.memory(x)

    def decide(self, x):
        return self.predict(x, verbose=0).argmax()


def test_a_method_that_runs_keras_own_loop_leaves_nothing_behind(url):
    agent = Deciding()
    agent(X[:1])
    agent.compile("sgd", "mse")
    before = dict(vars(agent))
    with GateMonitor(agent, None, run="d", probe=X[:2], method="decide", every=1, store=url) as monitor:
        monitor.step()
    assert vars(agent) == before
    assert open_store(url).read("gate_stats", run="d", tags={"gate": "hidden"})["step"].tolist() == [1]

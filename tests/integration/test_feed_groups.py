"""`step(groups=)`: how far each symbol's or environment's sequences are from what was fed before."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gatewatch.torch import GateMonitor
from tests.kept import Kept

PROBE = torch.randn(4, 12, 2, generator=torch.Generator().manual_seed(0))
SYMBOLS = ["GOOG", "AAPL", "MSFT", "EURUSD"]


@pytest.fixture(autouse=True)
def one_thread():
    """Let the small networks of these tests compute on one thread: they are faster than threads that wait."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(2, 4, batch_first=True)

    def forward(self, x):
        return self.lstm(x)[0][:, -1]


def by_group(store):
    """Return group → step → fields."""
    found = {}
    for point in store.points:
        if point.measurement == "feed_groups":
            fields = dict(point.fields)
            found.setdefault(point.tags["group"], {})[fields.pop("step")] = fields
    return found


def train(groups, *, steps=20, size=32, change=lambda step, x: x, given=True):
    """Train with batches of `size` sequences; return the store."""
    torch.manual_seed(1)
    store, net = Kept(), Net()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    with GateMonitor(net, None, probe=PROBE, store=store, every=2, run="r") as monitor:
        for step in range(1, steps + 1):
            x = change(step, torch.randn(size, 12, 2))
            net(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            monitor.step(batch=x if given else None, groups=groups)
    return store


@pytest.mark.parametrize("given", [True, False], ids=["batch-given", "batch-seen"])
def test_the_group_whose_sequences_change_is_the_one_that_is_far(given):
    def change(step, x):
        x = x.clone()
        if step > 16:
            x[2::4] *= 5
        return x

    groups = by_group(train(SYMBOLS * 8, change=change, given=given))
    assert set(groups) == set(SYMBOLS)
    assert groups["GOOG"][2] == {"sequences": 8}  # nothing was fed before
    assert groups["MSFT"][16]["distance"] < 0.1
    assert groups["MSFT"][18]["distance"] > 0.3
    assert all(groups[name][18]["distance"] < 0.1 for name in SYMBOLS if name != "MSFT")


def test_of_a_small_batch_the_latest_sequences_of_a_group_count_together():
    groups = by_group(train(["a", "b"] * 2, size=4, steps=40))
    assert groups["a"][40]["sequences"] == 2
    assert -0.3 < groups["a"][40]["distance"] < 0.3


@pytest.mark.parametrize(
    "labels",
    [np.array([1, 2] * 4), torch.tensor([1, 2] * 4), ["1", "2"] * 4, (1, 2) * 4],
    ids=["array", "tensor", "list", "tuple"],
)
def test_labels_are_texts_or_whole_numbers_of_any_library(labels):
    assert set(by_group(train(labels, size=8, steps=2))) == {"1", "2"}


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (["a"] * 7, "7 labels for a batch of 8 sequences; give one label for each sequence"),
        ("GOOG", "must be one label for each sequence of the batch"),
        ([None] * 8, "must be one label for each sequence of the batch"),
        ([0.5] * 8, "must be one label for each sequence of the batch"),
        ([True] * 8, "must be one label for each sequence of the batch"),
        (np.zeros((8, 2), int), "must be one label for each sequence of the batch"),
        (7, "must be one label for each sequence of the batch"),
    ],
    ids=["too-few", "one-text", "none", "floats", "flags", "two-dimensions", "a-number"],
)
def test_labels_that_fit_no_batch_cost_one_line(labels, problem, caplog):
    store = train(labels, size=8, steps=6)
    assert not by_group(store)
    assert [point for point in store.points if point.measurement == "feed_stats"]
    (line,) = [record.getMessage() for record in caplog.records if "groups of the feed" in record.getMessage()]
    assert problem in line


def test_a_run_records_sixteen_groups_and_says_so_once(caplog):
    groups = by_group(train([f"g{k:02d}" for k in range(20)], size=20, steps=6))
    assert list(groups) == [f"g{k:02d}" for k in range(16)]
    lines = [record.getMessage() for record in caplog.records if "16 groups" in record.getMessage()]
    assert len(lines) == 1
    assert "'g16'" in lines[0]


def test_a_batch_of_keras_that_is_given_by_hand_may_have_groups():
    keras = pytest.importorskip("keras")
    from gatewatch import GateMonitor as KerasMonitor

    x, y = np.random.default_rng(0).normal(size=(8, 6, 3)).astype("float32"), np.zeros((8, 1), "float32")
    model = keras.Sequential([keras.Input((6, 3)), keras.layers.LSTM(3), keras.layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=False)
    store = Kept()
    with KerasMonitor(model, None, probe=x[:4], store=store, every=2) as monitor:
        for _ in range(6):
            model.train_on_batch(x, y)
            monitor.step(batch=x, targets=y, groups=["GOOG"] * 5 + ["AAPL"] * 3)
    groups = by_group(store)
    assert {name: [fields[step]["sequences"] for step in fields] for name, fields in groups.items()} == {
        "GOOG": [5, 5, 5],
        "AAPL": [3, 3, 3],
    }


def test_the_groups_of_a_rollout_are_its_environments(tmp_path):
    pytest.importorskip("sb3_contrib")
    from gymnasium import Env, spaces
    from sb3_contrib import RecurrentPPO
    from stable_baselines3.common.vec_env import DummyVecEnv

    from gatewatch.sb3 import GateMonitorCallback

    class Market(Env):
        observation_space = spaces.Box(-100, 100, (2,), np.float32)
        action_space = spaces.Discrete(2)

        def __init__(self, level):
            self.level, self.random = level, np.random.default_rng(0)

        def reset(self, seed=None, options=None):
            return self.seen(), {}

        def step(self, action):
            return self.seen(), 0.0, False, False, {}

        def seen(self):
            return (self.level + self.random.normal(size=2)).astype(np.float32)

    def learn(*levels):
        store = Kept()
        env = DummyVecEnv([lambda level=level: Market(level) for level in levels])
        model = RecurrentPPO("MlpLstmPolicy", env, n_steps=64, batch_size=32, n_epochs=1, seed=1, device="cpu")
        model.learn(64 * len(levels) * 40, GateMonitorCallback(None, store=store, every=64 * len(levels)))
        return by_group(store)

    groups = learn(0, 0, 30)
    assert set(groups) == {"0", "1", "2"}
    newest = {group: fields[max(fields)] for group, fields in groups.items()}
    assert newest["2"]["sequences"] == 1
    assert newest["2"]["distance"] > newest["0"]["distance"] + 0.1
    assert not learn(0)  # one environment is no group

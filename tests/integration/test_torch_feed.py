"""What a torch module is fed: which batch is recorded with a capture, and how a module may be called."""

from __future__ import annotations

import copy
import logging
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from gatewatch import open_store
from gatewatch.collector.errors import ConfigError
from gatewatch.torch import GateMonitor
from tests.kept import Kept
from tests.zoo.traces import assert_equal, seed_all, traces

PROBE = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.lstm = nn.LSTM(3, 4, **{"batch_first": True, **options})
        self.head = nn.Linear(4, 1)

    def forward(self, x, state=None):
        return self.head(self.lstm(x, state)[0])


@pytest.fixture(autouse=True)
def same_weights_every_time():
    torch.manual_seed(1)


@pytest.fixture
def store():
    return Kept()


def feed(store):
    """Return step → fields of `feed_stats`, and of `feed_features` by statistic."""
    found = {}
    for point in store.points:
        if point.measurement in ("feed_stats", "feed_features"):
            fields = dict(point.fields)
            found.setdefault(fields.pop("step"), {})[point.tags.get("statistic")] = fields
    return found


def means(store):
    """Return step → the mean of the first feature, which tells the batches of these tests apart."""
    return {step: round(fields["mean"]["f000"], 3) for step, fields in feed(store).items()}


def batch_of(number, *shape):
    """Return a batch whose values have the mean `number`, and are no two the same."""
    values = torch.linspace(-1e-3, 1e-3, int(np.prod(shape))).reshape(shape)
    return values - values.mean((0, 1), keepdim=True) + number


def train(net, store, steps, forward, *, every=3, optimizer=None, accumulate=1, probe=PROBE, **options):
    """Call `forward` with the number of each step, for a loss, and step the optimizer after so many of them."""
    optimizer = optimizer or torch.optim.SGD(net.parameters(), 0.01)
    with GateMonitor(net, None, probe=probe, store=store, every=every, **options) as monitor:
        for step in range(1, steps + 1):
            forward(step).sum().backward()
            if step % accumulate == 0:
                optimizer.step()
                optimizer.zero_grad()
            monitor.step()


# Which batch.


def test_it_is_the_batch_of_the_step_that_is_recorded(store):
    net = Net()
    train(net, store, 9, lambda step: net(batch_of(step, 8, 5, 3)))
    assert means(store) == {3: 3, 6: 6, 9: 9}
    assert feed(store)[3][None]["sequences"] == 8
    assert feed(store)[3][None]["positions"] == 5


def test_where_the_optimizer_pauses_it_is_that_of_its_latest_step(store):
    net = Net()
    train(net, store, 40, lambda step: net(batch_of(step, 8, 5, 3)), every=10, accumulate=4)
    steps = {point.fields["step"] for point in store.points if point.fields.get("optimizer_steps")}
    assert steps == {10, 20, 30, 40}
    assert means(store) == {10: 8, 20: 20, 30: 28, 40: 40}


def test_a_call_that_is_no_training_is_not_taken_for_the_feed(store):
    net = Net()

    def forward(step):
        with torch.no_grad():
            net(batch_of(100, 8, 5, 3))
        net.eval()
        net(batch_of(200, 8, 5, 3))
        net.train()
        out = net(batch_of(step, 8, 5, 3))
        net(batch_of(300, 8, 5, 3))  # a critic's call after the actor's
        return out

    train(net, store, 6, forward)
    assert means(store) == {3: 3, 6: 6}


def test_what_the_user_gives_takes_the_place_of_what_was_seen(store):
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    with GateMonitor(net, None, probe=PROBE, store=store, every=2) as monitor:
        for step in range(1, 5):
            net(batch_of(step, 8, 5, 3)).sum().backward()
            optimizer.step()
            given = {"batch": batch_of(50, 9, 5, 2)} if step == 2 else {"targets": 7 * batch_of(step, 8, 5, 3)[:, -1]}
            monitor.step(**given)
    assert means(store) == {2: 50, 4: 4}
    assert feed(store)[2][None]["features"] == 2
    assert "target_correlation" not in feed(store)[2][None]
    assert feed(store)[4][None]["target_correlation"] == pytest.approx(1)


def test_in_a_backtest_it_is_what_is_looked_at(store):
    net = Net()
    with GateMonitor(net, None, probe=PROBE, store=store, every=2, phase="backtest") as monitor, torch.no_grad():
        for step in range(1, 5):
            monitor.step(batch_of(step, 1, 5, 3))
            net(batch_of(100, 1, 5, 3))
    assert means(store) == {2: 2, 4: 4}


def test_auto_has_the_feed_of_each_capture(store):
    net = Net()
    train(net, store, 5, lambda step: net(batch_of(step, 8, 5, 3)), every="auto", overhead=1.0)
    captures = {point.fields["step"] for point in store.points if point.measurement == "gate_stats"}
    assert captures - {0} == set(means(store))
    assert all(step == mean for step, mean in means(store).items())


# How a module may be called.


@pytest.mark.parametrize("square", [False, True], ids=["", "square"])
@pytest.mark.parametrize("inside", [False, True], ids=["outside", "inside"])
def test_the_layers_tell_where_time_is(inside, square, store):
    class Turned(Net):
        def forward(self, x):
            return super().forward(x.transpose(0, 1))

    net = Turned(batch_first=False) if inside else Net(batch_first=False)
    sequences = 5 if square else 8
    steps = torch.arange(5.0)[None, :, None].expand(sequences, 5, 3) + torch.arange(float(sequences))[:, None, None]
    batch = steps if inside else steps.transpose(0, 1)

    train(net, store, 3, lambda step: net(batch), probe=batch)
    found = feed(store)[3][None]
    assert (found["sequences"], found["positions"]) == (sequences, 5)
    assert found["lag1"] == pytest.approx(0.4)  # of 0 to 4: products of neighbours 4, of squares 10


@pytest.mark.parametrize(
    ("batch", "sequences", "positions"),
    [
        pytest.param(torch.randn(6, 3), 1, 6, id="a sequence by itself"),
        pytest.param(torch.randn(6, 2, 3), 2, 6, id="time first"),
        pytest.param(pack_sequence([torch.randn(6, 3), torch.randn(4, 3)]), 2, 6, id="packed"),
    ],
)
def test_a_layer_by_itself(batch, sequences, positions, store):
    net = nn.LSTM(3, 4)

    def loss(step):
        out = net(batch)[0]
        return out if isinstance(out, torch.Tensor) else out.data

    train(net, store, 3, loss, probe=batch)
    found = feed(store)[3]
    assert (found[None]["sequences"], found[None]["positions"]) == (sequences, positions)
    assert sum(found["gradient_share"].values()) == pytest.approx(1)


def test_states_and_labels_are_no_features_and_labels_are_targets(store):
    class Labelled(Net):
        def forward(self, x, hx, labels=None, flag=True):
            return super().forward(x, hx)

    net, random = Labelled(), torch.Generator().manual_seed(0)
    x = torch.randn(16, 5, 3, generator=random)
    state = (torch.zeros(1, 16, 4), torch.zeros(1, 16, 4))
    train(net, store, 3, lambda step: net(x, state, labels=-x[:, -1, 1], flag=False), probe=(x, state))
    found = feed(store)[3][None]
    assert found["features"] == 3
    assert found["target_correlation"] == pytest.approx(1)


def test_ids_and_a_mapping(store):
    class Mixed(Net):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(5, 1)

        def forward(self, named):
            ids = self.embed(named["symbol"])[:, None].expand(-1, 5, 1)
            return super().forward(torch.cat([named["prices"], ids], 2))

    net = Mixed()
    batch = {"symbol": torch.tensor([0, 1, 1, 2]), "prices": torch.ones(4, 5, 2)}
    train(net, store, 3, lambda step: net(batch), probe=(batch,))
    found = feed(store)[3]
    assert found[None]["features"] == 2
    assert found[None]["distinct_share"] == 0.75
    assert found["mean"] == {"f000": 1, "f001": 1}
    assert "gradient_share" not in found


@pytest.mark.parametrize("wrap", [lambda net: net, nn.DataParallel, lambda net: torch.compile(net, backend="eager")])
def test_the_module_may_be_wrapped(wrap, store):
    net = wrap(Net())
    train(net, store, 3, lambda step: net(batch_of(step, 8, 5, 3)))
    assert means(store) == {3: 3}


def test_a_method_or_a_part_is_not_the_module(store):
    net = Net()
    train(net, store, 3, lambda step: net.lstm(batch_of(step, 8, 5, 3))[0])
    assert feed(store) == {}


# The gradient by feature.


@pytest.mark.parametrize(
    ("steps", "calls", "gives", "says"),
    [(32, "head", False, True), (31, "head", False, False), (32, "head", True, False), (32, "module", False, False)],
)
def test_a_training_that_never_calls_the_module_itself_is_told_to_give_its_batches(
    steps, calls, gives, says, store, caplog
):
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with (
        caplog.at_level(logging.WARNING, "gatewatch"),
        GateMonitor(net, None, run="r", store=store, probe=PROBE, every=1) as monitor,
    ):
        for _ in range(steps):
            optimizer.zero_grad()
            (net(PROBE) if calls == "module" else net.head(net.lstm(PROBE)[0])).square().mean().backward()
            optimizer.step()
            monitor.step(batch=PROBE if gives else None)
    said = (
        "gatewatch: run 'r' ends without what was fed: the watched module itself was never seen called in training, "
        "but maybe a part or a method of it, or a compiled copy; give batches with step(batch=...)"
    )
    assert caplog.messages == ([said] if says else [])
    assert bool(feed(store)) == (gives or calls == "module")


@pytest.mark.parametrize(
    ("targets", "given"),
    [
        (torch.zeros(3, 1), "of shape (3, 1)"),
        (["up", "down"], "text, text"),
        (torch.tensor(1.0), "Tensor"),
        (object(), "a object"),
    ],
)
def test_targets_that_do_not_fit_the_batch_cost_one_line(targets, given, store, caplog):
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with (
        caplog.at_level(logging.WARNING, "gatewatch"),
        GateMonitor(net, None, run="r", store=store, probe=PROBE, every=1) as monitor,
    ):
        for _ in range(3):
            net(PROBE).square().mean().backward()
            optimizer.step()
            monitor.step(targets=targets)
    said = "give an array or a tensor with a row for each sequence of the batch"
    assert caplog.messages == [f"gatewatch: targets of the feed are not recorded: {given}; {said}"]
    assert sorted(feed(store)) == [1, 2, 3]


def test_the_gradient_of_the_kernel_by_feature(store):
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    with GateMonitor(net, None, probe=PROBE, store=store, every=1) as monitor:
        net(PROBE * torch.tensor([1.0, 0, 2])).sum().backward()
        optimizer.step()
        monitor.step()
    squares = net.lstm.weight_ih_l0.grad.square().sum(0)
    shares = feed(store)[1]["gradient_share"]
    assert list(shares.values()) == pytest.approx((squares / squares.sum()).tolist(), rel=1e-5)
    assert shares["f001"] == 0


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(
    ("give", "has_shares"),
    [
        pytest.param(lambda x: x, True, id="the batch itself"),
        pytest.param(lambda x: x.numpy().copy(), True, id="a copy of it"),
        pytest.param(lambda x: x + 1, False, id="another one"),
    ],
)
def test_a_batch_that_is_given_has_the_gradient_of_the_call_with_it(batch_first, give, has_shares, store):
    net = Net(batch_first=batch_first)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    x = torch.randn(8, 5, 3)
    with GateMonitor(net, None, probe=PROBE, store=store, every=1) as monitor:
        net(x).square().mean().backward()
        optimizer.step()
        monitor.step(batch=give(x), targets=torch.zeros(8 if batch_first else 5))
    assert ("gradient_share" in feed(store)[1]) == has_shares


@pytest.mark.parametrize("between", [lambda x: x * 1.0, lambda x: x.flip(2), lambda x: x.add_(1)])
def test_where_something_lies_between_there_is_none(between, store):
    class Scaled(Net):
        def forward(self, x):
            return super().forward(between(x))

    net = Scaled()
    train(net, store, 3, lambda step: net(batch_of(step, 8, 5, 3)))
    assert means(store) == {3: 3}
    assert "gradient_share" not in feed(store)[3]


# No trace, no harm.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_training_is_the_same_bit_for_bit(dtype, store):
    def trained(every):
        seed_all()
        net = Net(num_layers=2, dropout=0.3).to(dtype)
        optimizer = torch.optim.Adam(net.parameters())
        monitor = GateMonitor(net, None, probe=PROBE.to(dtype), store=store, every=every) if every else None
        with monitor or torch.enable_grad():
            for _ in range(6):
                x = torch.randn(8, 5, 3, dtype=dtype)
                net(x).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
                if monitor:
                    monitor.step(targets=x[:, -1])
        return traces(net, optimizer)

    assert_equal(trained(None), trained(2))
    assert list(feed(store)) == [2, 4, 6]


def test_what_is_copied_or_pickled_in_a_step_that_is_watched_has_nothing_of_it(store):
    net = Net()
    bare = [sorted(vars(part)) for part in net.modules()]
    with GateMonitor(net, None, probe=PROBE, store=store, every=1) as monitor:
        twin = copy.deepcopy(net)
        twin(batch_of(7, 8, 5, 3))  # another module
        for one in (net, twin, pickle.loads(pickle.dumps(net))):
            assert [sorted(set(vars(part)) - {"_compiled_call_impl"}) for part in one.modules()] == bare
            assert one is net or not any(part._compiled_call_impl for part in one.modules())  # that of the states
            assert not any(len(part._forward_pre_hooks) for part in one.modules())
        assert b"gatewatch" not in pickle.dumps(net)
        monitor.step()
    assert feed(store) == {}


def test_the_call_of_modules_is_torchs_own_but_in_a_step_that_is_watched():
    own, seen = nn.Module.__call__, []
    net = Net()

    def forward(step):
        seen.append(nn.Module.__call__ is own)
        return net(PROBE)

    train(net, Kept(), 10, forward, every=4)
    assert nn.Module.__call__ is own
    assert seen[4:] == [True, True, True, False, True, True]


def test_a_feed_that_raises_costs_a_line(store, caplog):
    class Odd(dict):
        def __iter__(self):
            raise RuntimeError("no names here")

    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    with caplog.at_level(logging.WARNING), GateMonitor(net, None, probe=PROBE, store=store, every=1) as monitor:
        for step in range(1, 4):
            net(batch_of(step, 8, 5, 3)).sum().backward()
            optimizer.step()
            monitor.step(batch=Odd(a=1) if step == 2 else None)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["gatewatch: a look at the feed failed, training goes on: RuntimeError: no names here"]
    assert set(feed(store)) == {1, 3}


def test_nan_in_the_feed_is_counted_and_a_batch_may_change_its_size(store):
    net = Net()

    def forward(step):
        x = batch_of(step, 4 * step, 5, 3)
        x[0, 0, 0] = torch.nan
        return net(x)

    train(net, store, 6, forward)
    assert {step: fields[None]["sequences"] for step, fields in feed(store).items()} == {3: 12, 6: 24}
    assert feed(store)[3]["nan_share"]["f000"] == pytest.approx(1 / 60)


# Names of features.


def test_names_are_recorded_and_another_number_is_said_once(store, caplog):
    net = Net()
    with caplog.at_level(logging.WARNING):
        train(net, store, 6, lambda step: net(PROBE), feature_names=["return", "range\u202e"])
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["gatewatch: feature_names has 2 names, the feed 3 features: give a name for each"]
    (started,) = (point for point in store.points if point.fields.get("event") == "started")
    assert '"feature_names": ["return", "range\\\\u202e"]' in started.fields["config"]


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ("open", "feature_names='open': must be the names of the features"),
        ([], "must be the names of the features; give a list of texts, such as ['return', 'volume']"),
        ([1, 2], "must be the names"),
        ({"a": 1}, "must be the names"),
        (["a", "b", "a"], "feature_names: 'a' comes twice; give each feature a name of its own"),
    ],
)
def test_names_that_are_none_are_refused_at_construction(names, problem):
    with pytest.raises(ConfigError) as refused:
        GateMonitor(Net(), None, probe=PROBE, feature_names=names)
    assert problem in str(refused.value)


def test_a_store_holds_it(tmp_path):
    net, store = Net(), open_store(f"sqlite:///{tmp_path}/gatewatch.db")
    train(net, store, 4, lambda step: net(batch_of(step, 8, 5, 3)), every=2, run="a")
    assert store.read("feed_stats", run="a").step.tolist() == [2, 4]
    of_means = store.read("feed_features", run="a", tags={"statistic": "mean"})
    assert of_means.f000.tolist() == pytest.approx([2, 4], abs=1e-6)
    store.close()

"""A torch module whose methods do something odd costs a line in the log: it trains as without a monitor."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import nullcontext

import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.store import open_store
from gatewatch.collector.torch import gates
from gatewatch.torch import GateMonitor

X = torch.randn(32, 7, 3, generator=torch.Generator().manual_seed(1))


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.memory = nn.LSTM(3, 5, batch_first=True)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(5, 1)

    def forward(self, x):
        return self.head(self.drop(self.memory(x)[0][:, -1]))


class RaisingRepr(Odd):
    def __repr__(self):
        raise ValueError("unseen")


class RaisingExtraRepr(Odd):
    def extra_repr(self):
        raise ValueError("unseen")


class NoRepr(Odd):
    def __repr__(self):
        return None


class RaisingParameters(Odd):
    def parameters(self, recurse=True):
        raise RuntimeError("sharded")


class StrangeParameters(Odd):
    def parameters(self):
        return {"memory": 1}


class BareParameters(Odd):
    def parameters(self, group):
        return getattr(self, group).parameters()


class RaisingNamed(Odd):
    def named_modules(self, *_, **__):
        raise RuntimeError

    named_children = children = modules = named_parameters = named_buffers = buffers = named_modules
    state_dict = train = eval = register_forward_hook = get_submodule = named_modules

    def parameters(self):
        return [*self.memory.parameters(), *self.head.parameters()]


class RaisingAttributes(Odd):
    def __getattr__(self, name):
        if name in self.__dict__["_modules"]:
            return self.__dict__["_modules"][name]
        raise KeyError(name)


class Sealed(Odd):
    def __setattr__(self, name, value):
        if self.__dict__.get("sealed"):
            raise RuntimeError("sealed")
        super().__setattr__(name, value)

    def __init__(self):
        super().__init__()
        self.sealed = True


class RaisingLength(Odd):
    def __len__(self):
        raise RuntimeError


class OddMemory(nn.LSTM):
    @property
    def bidirectional(self):
        return False

    @bidirectional.setter
    def bidirectional(self, value):
        pass

    def __repr__(self):
        raise ValueError("unseen")

    def named_parameters(self, *arguments, **options):
        if sys._getframe(1).f_globals["__name__"].startswith("gatewatch."):
            raise RuntimeError
        return super().named_parameters(*arguments, **options)


class OddPart(Odd):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            self.memory = OddMemory(3, 5, batch_first=True)

    def parameters(self):
        return [*self.memory._parameters.values(), *self.head.parameters()]


class Drawing(Odd):
    """Showing it draws random numbers, and leaves its dropout off."""

    def __repr__(self):
        self.eval()
        raise ValueError(f"unseen {torch.rand(1).numel()}")


def trained(kind, monitor=None):
    """The weights after a training."""
    torch.manual_seed(1)
    module = kind()
    held = [*module.memory._parameters.values(), *module.head._parameters.values()]
    optimizer = torch.optim.Adam(held, 0.01)
    with nullcontext() if monitor is None else monitor(module) as watch:
        for start in range(0, 32, 8):
            optimizer.zero_grad()
            module(X[start : start + 8]).square().mean().backward()
            optimizer.step()
            if watch is not None:
                watch.step()
    return held


def lines(caplog):
    return [record.message for record in caplog.records if record.name == "gatewatch"]


@pytest.mark.parametrize(
    ("kind", "asked", "said"),
    [
        (RaisingRepr, "__repr__()", "ValueError: unseen"),
        (RaisingExtraRepr, "__repr__()", "Value"),
        (NoRepr, "__repr__()", "TypeError: "),
        (RaisingParameters, "parameters()", "Runt"),
        (StrangeParameters, "parameters()", "Attr"),
        (BareParameters, "parameters()", "TypeError"),
        (OddPart, "__repr__()", "ValueError: unseen"),
        (Drawing, "__repr__()", "ValueError: unseen 1"),
        (RaisingNamed, None, None),
        (RaisingAttributes, None, None),
        (Sealed, None, None),
        (RaisingLength, None, None),
    ],
)
def test_a_module_that_raises_when_it_is_asked_trains_as_without_a_monitor(kind, asked, said, tmp_path, caplog):
    url = f"sqlite:///{tmp_path}/gates.db"
    wanted = trained(kind)
    with caplog.at_level(logging.WARNING, "gatewatch"):
        found = trained(kind, lambda module: GateMonitor(module, None, run="odd", probe=X[:4], every=2, store=url))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, wanted, strict=True))
    assert len(lines(caplog)) == (asked is not None), lines(caplog)
    if asked is not None:
        wanted = f"{kind.__name__}.{asked} is left out of what is recorded of the run: it raised {said}"
        assert lines(caplog)[0].startswith(f"gatewatch: {wanted}")
    store = open_store(url)
    assert store.read("runs", run="odd")["event"].tolist() == ["started", "completed"]
    assert store.read("gate_stats", run="odd", tags={"gate": "forget"})["step"].tolist() == [2, 4]
    assert set(store.read("layer_updates", run="odd")["layer"]) == {"memory/l0", "head"}
    assert store.read("collector_health", run="odd")["failures"].max() == 0


def test_the_rest_of_what_a_module_says_of_itself_is_recorded(tmp_path):
    url = f"sqlite:///{tmp_path}/gates.db"
    trained(RaisingRepr, lambda module: GateMonitor(module, None, run="odd", probe=X[:4], store=url))
    config = json.loads(open_store(url).read("runs", run="odd")["config"].iloc[0])
    assert (config["summary"], config["parameters"], config["layers"]["memory/l0"]["hidden_size"]) == (None, 206, 5)


class Interrupting(Odd):
    def __repr__(self):
        raise KeyboardInterrupt


def test_ctrl_c_passes(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        trained(Interrupting, lambda net: GateMonitor(net, None, probe=X[:4], store=f"sqlite:///{tmp_path}/gates.db"))


class Unshowable:
    def __repr__(self):
        raise RuntimeError


@pytest.mark.parametrize("make", [GateMonitor, gates])
def test_what_is_no_module_is_refused_in_one_line_though_it_cannot_be_shown(make):
    with pytest.raises(ConfigError, match="module=a Unshowable that cannot be shown: must be a torch"):
        make(Unshowable())


@pytest.mark.parametrize(
    ("arguments", "options", "problem"),
    [
        ((X[:4],), {}, r"module=Tensor of shape .*: must be a torch.nn.Module; give the model first"),
        ((Odd,), {"probe": X[:4]}, r"must be a torch.nn.Module: it is a class; give a model of it, such as Odd\(\)"),
        ((nn.LSTM(3, 4), X[:4]), {}, r"log_dir=Tensor of shape .*: must be a path.*; a batch .* given as probe="),
        ((nn.LSTM(3, 4), "sqlite:///g.db"), {}, r"log_dir='sqlite:///g\.db': is a URL .*store="),
        (
            (nn.LSTM(3, 4),),
            {"probe": [[1, 2], [3, 4]]},
            "the probe is no batch .* but numbers or text; give a tensor",
        ),
        ((nn.LSTM(3, 4),), {"probe": "x"}, "the probe is no batch of inputs but numbers or text"),
        ((nn.LSTM(3, 4),), {"probe": iter(X)}, "the probe is no batch of inputs but a source of batches"),
        ((nn.LSTM(3, 4),), {"probe": DataLoader(X)}, "the probe is no batch of inputs but a source of batches"),
        ((nn.LSTM(3, 4),), {"probe": pd.DataFrame({"a": [1]})}, "the probe is no batch of inputs but a DataFrame"),
        ((nn.LSTM(3, 4),), {"probe": X[:4], "store": "g.db"}, r"did you mean 'sqlite:///g\.db'\?"),
        ((nn.LSTM(3, 4),), {"probe": X[:4], "store": 5}, "store=5: must be a URL"),
    ],
)
def test_arguments_that_were_mixed_up_are_named_with_what_to_do(arguments, options, problem):
    with pytest.raises(ConfigError, match=problem) as caught:
        GateMonitor(*arguments, **options)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        ({"x": {"loss": 0.1}}, "step({'loss': 0.1}): the first argument is the model's input; give metrics="),
        ({"x": 3}, "step(3): the first argument is the model's input"),
        ({"x": torch.tensor(1.0)}, "step(tensor(1.)): the first argument is the model's input"),
        ({"metrics": [0.1]}, "metrics=[0.1]: must be a mapping of names to numbers, such as {'loss': 0.1}"),
        ({"metrics": 0.1}, "metrics=0.1: must be a mapping of names to numbers"),
    ],
)
def test_what_step_was_given_in_place_of_something_else_is_said_once(tmp_path, caplog, step, problem):
    with GateMonitor(nn.LSTM(3, 4), None, probe=X[:4], every=1, store=f"sqlite:///{tmp_path}/g.db") as monitor:
        monitor.step()
        monitor.step(**step)
        monitor.step(**step)
        monitor.step()
    assert caplog.text.count(f"training goes on: {problem}") == 1
    steps = open_store(f"sqlite:///{tmp_path}/g.db").read("gate_stats", tags={"gate": "forget"})["step"]
    assert {1, 4} <= set(steps)

"""Inputs that are not normalised, such as raw prices: a right replay is recorded, a wrong one is refused.

Sums of hundreds of large products differ with the order in which they are added, and so do gates that are near their
middle by chance. Torch's own layers are what the replay is held to.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from gatewatch.collector import cells
from gatewatch.collector.replay.lstm import replay_lstm
from gatewatch.collector.store import open_store
from gatewatch.collector.torch.layers import recurrent_layers
from gatewatch.collector.torch.trace import trace
from gatewatch.torch import GateMonitor


def prices(start, batch=1, time=20, features=600):
    """Random walks with steps of one per cent."""
    walk = torch.randn(batch, time, features).mul(0.01).cumsum(1).exp()
    return start * torch.randn(features).mul(0.5).exp() * walk


class Loop(nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x):
        state = None
        for k in range(x.shape[1]):
            state = self.cell(x[:, k], state)


MODULES = {
    "lstm": lambda f, u: nn.LSTM(f, u, batch_first=True),
    "gru": lambda f, u: nn.GRU(f, u, batch_first=True),
    "stacked": lambda f, u: nn.LSTM(f, u, 2, batch_first=True),
    "both-ways": lambda f, u: nn.GRU(f, u, batch_first=True, bidirectional=True),
    "projected": lambda f, u: nn.LSTM(f, u, batch_first=True, proj_size=u // 2),
    "lstm-cell": lambda f, u: Loop(nn.LSTMCell(f, u)),
    "gru-cell": lambda f, u: Loop(nn.GRUCell(f, u)),
}


def look(module, x, known=cells.CELLS):
    return trace(module, lambda twin: twin(x), recurrent_layers(module, known))


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("kind", MODULES)
def test_a_right_replay_is_recorded_whatever_the_order_of_the_sums(kind):
    for seed in range(6):
        torch.manual_seed(seed)
        assert not look(MODULES[kind](600, 32), prices(10.0 ** (2 + seed % 4))).unreplayed, seed


def test_a_wrong_one_is_refused():
    def exchanged(x, weights, *rest, **options):
        units = weights.recurrent.shape[1] // 4
        order = np.r_[units : 2 * units, :units, 2 * units : 4 * units]
        parts = {name: getattr(weights, name)[..., order] for name in ("kernel", "recurrent", "bias")}
        return replay_lstm(x, replace(weights, **parts), *rest, **options)

    torch.manual_seed(1)
    wrong = (replace(cells.LSTM, replay=exchanged), cells.GRU)
    for scale in (1.0, 1e2, 1e4):
        found = look(nn.LSTM(50, 16, batch_first=True), prices(scale, 8, 30, 50), wrong)
        assert "differs from the module's own output" in found.unreplayed["l0"]


def test_a_layer_that_is_wrong_once_is_recorded_again(tmp_path, caplog):
    class Odd(nn.Module):
        """In its second look its weights change between the steps."""

        def __init__(self):
            super().__init__()
            self.sound = nn.LSTM(3, 4, batch_first=True)
            self.cell = nn.GRUCell(3, 4)
            self.wrong = False

        def forward(self, x):
            self.sound(x)
            state = None
            for k in range(x.shape[1]):
                state = self.cell(x[:, k] + self.wrong * k, state)
                if self.wrong:
                    state = state + 0
                    with torch.no_grad():
                        self.cell.weight_ih.mul_(1.5)
            return state

    torch.manual_seed(1)
    module, url = Odd(), f"sqlite:///{tmp_path}/gates.db"
    with (
        caplog.at_level(logging.WARNING, "gatewatch"),
        GateMonitor(module, None, run="odd", probe=torch.randn(2, 5, 3), every=1, store=url) as monitor,
    ):
        for step in range(1, 5):
            module.wrong = step == 2
            monitor.step()
    store = open_store(url)
    stats = store.read("gate_stats", run="odd", tags={"gate": "hidden"})
    assert stats.groupby("layer")["step"].unique().map(list).to_dict() == {"cell": [1, 3, 4], "sound/l0": [1, 2, 3, 4]}
    health = store.read("collector_health", run="odd").dropna(subset="unreplayed_layers")
    assert health["unreplayed_layers"].tolist()[:4] == [0, 1, 0, 0]
    said = [record.message for record in caplog.records]
    assert len(said) == 2
    assert said[0].startswith("gatewatch: layer 'cell' is not recorded: the replay of its module differs from")
    assert said[1] == "gatewatch: layer 'cell' is recorded again"

"""A real training on four symbols, of which one changes: the verdict and the report name it."""

from __future__ import annotations

import pytest
import torch

import gatewatch
from gatewatch import open_store
from gatewatch.jobs.findings.findings import findings_of
from gatewatch.jobs.findings.run_points import read_points
from gatewatch.jobs.findings.run_state import run_row
from gatewatch.torch import GateMonitor
from tests.passes import only

SYMBOLS = ["GOOG", "AAPL", "MSFT", "EURUSD"]
STRIKE, STEPS = 120, 160


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    torch.manual_seed(0)
    memory, head = torch.nn.LSTM(2, 8, batch_first=True), torch.nn.Linear(8, 1)
    module = torch.nn.ModuleDict({"memory": memory, "head": head})
    module.forward = lambda x: head(memory(x)[0][:, -1])
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    opened = open_store(f"sqlite:///{tmp_path_factory.mktemp('groups') / 'points.db'}")
    for run, changes in (("one", [2]), ("all", [0, 1, 2, 3])):
        with GateMonitor(module, None, run=run, store=opened, probe=torch.randn(8, 12, 2), every=4) as monitor:
            for step in range(1, STEPS + 1):
                x = torch.randn(32, 12, 2)
                if step >= STRIKE:
                    for place in changes:
                        x[place::4] *= 20
                optimizer.zero_grad()
                (module(x) - x[:, -1, :1].sign()).square().mean().backward()
                optimizer.step()
                monitor.step(batch=x, groups=SYMBOLS * 8)
        only(opened, run=run)
    return opened


def of_the_feed(store, run):
    points = read_points(store, run_row(store, run))
    return [finding for finding in findings_of(points) if finding.source == "data"]


def test_the_symbol_that_changed_is_named(store):
    found = of_the_feed(store, "one")
    assert found
    assert all("; mostly MSFT: its distance is 0." in finding.sentence for finding in found)
    verdict = gatewatch.verdict(store, "one")
    assert {each.evidence["group"] for each in verdict.findings if each.source == "data"} == {"MSFT"}


def test_where_all_symbols_changed_none_is_named(store):
    found = of_the_feed(store, "all")
    assert found
    assert not any("mostly" in finding.sentence for finding in found)

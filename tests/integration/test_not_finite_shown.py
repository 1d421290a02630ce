"""A training that ends in NaN, and what a user sees of it: each place says so, and none shows the last finite value."""

from __future__ import annotations

import json
import logging
import re
import time

import numpy as np
import pytest
import torch
from torch import nn

from gatewatch import open_store
from gatewatch.collector.config import AlertSettings, Settings
from gatewatch.jobs.alerts import evaluate
from gatewatch.jobs.cli import main
from gatewatch.jobs.report.page import write_report
from gatewatch.torch import GateMonitor
from tests.integration.test_mail import Postbox, text_of
from tests.passes import only

STEPS, EVERY, STRIKE = 160, 2, 120


class Network(nn.Module):
    """Two layers; the one next to the inputs is the last by the alphabet."""

    def __init__(self):
        super().__init__()
        self.trend = nn.LSTM(2, 4, batch_first=True)
        self.carry = nn.LSTM(4, 4, batch_first=True)
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.carry(self.trend(x)[0])[0][:, -1])


@pytest.fixture(scope="module")
def log():
    """What the training said on the terminal."""
    return []


@pytest.fixture(scope="module")
def store(tmp_path_factory, log):
    """One run, completed and scored: NaN in all gates of both layers from step `STRIKE` on."""
    handler = logging.Handler()
    handler.emit = lambda record: log.append(record.getMessage())
    logging.getLogger("gatewatch").addHandler(handler)
    torch.manual_seed(0)
    random, network = np.random.default_rng(0), Network()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('nan') / 'points.db'}")
    probe = torch.tensor(random.normal(size=(8, 6, 2)), dtype=torch.float32)
    with GateMonitor(network, None, run="r", store=store, probe=probe, every=EVERY) as monitor:
        for step in range(1, STEPS + 1):
            if step == STRIKE:
                network.trend.weight_ih_l0.data[0, 0] = torch.nan
            x = torch.tensor(random.normal(size=(16, 6, 2)), dtype=torch.float32)
            loss = (network(x) - x[:, -1, :1]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            monitor.step(metrics={"loss": loss.item()})
    logging.getLogger("gatewatch").removeHandler(handler)
    only(store)
    return store


@pytest.fixture(scope="module")
def page(store, tmp_path_factory):
    return write_report(store, "r", tmp_path_factory.mktemp("page") / "r.html").read_text()


def test_the_report_begins_with_it_and_says_it_once(page):
    verdict = re.search(r'<p class="verdict">(.*?)</p>', page, re.DOTALL)[1]
    assert verdict == (
        f"Values that are not finite appeared in 12 gates, first at step {STRIKE} in all 12 gates of 2 layers at once: "
        "begin with trend/l0, of these next to the inputs."
    )


def test_the_training_says_so_in_one_line_when_it_begins(store, log):
    assert log == [
        f"gatewatch: run 'r', step {STRIKE}: values are NaN or infinite in all 12 gates, of the layer trend/l0 first"
    ]


def test_what_was_recorded_is_counted_without_what_is_no_gate(page):
    assert "<dt>Recorded</dt><dd>2 layers, 12 gates</dd>" in page


def test_the_table_of_gates_has_nan_in_its_cells(page):
    (row,) = re.findall(r"<tr>.*?trend/l0</td><td>forget</td>.*?</tr>", page, re.DOTALL)
    assert re.findall(r'<td class="n(?: high)?">([^<]*)</td>', row)[-4:] == ["NaN"] * 4
    assert "now NaN" in page


def test_the_charts_shade_what_their_lines_leave_out(page):
    shaded = [
        json.loads(text)["layout"] for text in re.findall(r'<script type="application/json">(.*?)</script>', page)
    ]
    spans = {
        (shape["x0"], shape["x1"])
        for layout in shaded
        if any(each["text"] == "NaN" for each in layout.get("annotations", ()))
        for shape in layout["shapes"]
    }
    assert spans == {(STRIKE, STEPS)}
    assert sum("NaN" in json.dumps(layout.get("annotations", "")) for layout in shaded) == 13  # 12 gates and the loss


def test_the_list_of_runs_says_it(store, capsys):
    assert main(["runs", "--store", store.url]) == 0
    assert "NaN in 2 layers and metrics" in capsys.readouterr().out
    assert main(["runs", "--store", store.url, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["not_finite"] == "NaN in 2 layers and metrics"


def test_one_nan_is_one_thing_in_a_mail_and_nobody_is_told_to_stop_a_run_that_ended(store, tmp_path):
    postbox = Postbox()
    try:
        settings = Settings(mail=postbox.settings(), alerts=AlertSettings())
        now = time.time_ns()
        for seconds in (0, 40):
            evaluate(store, settings, tmp_path, now + seconds * 10**9)
    finally:
        postbox.stop()
    (mail,) = postbox.mails
    assert mail["Subject"] == "[gatewatch] ENDED WHILE FIRING 1: r trend/l0/candidate and 19 more"
    text = text_of(mail)
    assert re.match(r"r \(completed \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\): ended while firing 1\n", text)
    assert f", step {STRIKE}\n" in text
    assert "at once in 19 more: trend/l0: cell, forget, hidden, input, output, " in text
    assert "do: Nothing that it learns from that step on is usable" in text
    assert "Stop the run" not in text


def test_it_becomes_a_baseline_only_where_that_is_meant(store, capsys):
    assert main(["baseline", "add", "r", "--store", store.url]) == 2
    assert capsys.readouterr().err.startswith(
        "gatewatch: run 'r' is not healthy: Values that are not finite appeared in 12 gates, first at step 120"
    )
    assert main(["baseline", "list", "--store", store.url]) == 0
    assert "has no baseline" in capsys.readouterr().out
    assert main(["baseline", "add", "r", "--anyway", "--store", store.url]) == 0
    assert main(["baseline", "list", "--json", "--store", store.url]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"run": "r", "phases": "train", "network": "trend/l0 LSTM 4, carry/l0 LSTM 4"}
    ]

"""How a run's life is told: that it lives, how it ended, that it died; whatever the process does."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

from gatewatch.collector.schema import DIED_SECONDS
from gatewatch.collector.store import open_store
from gatewatch.jobs.findings.run_state import current_state
from gatewatch.torch import GateMonitor

TRAINING = """
import os, signal, sys, time
import torch
import gatewatch.collector.run_life, gatewatch.collector.run_store
from gatewatch.torch import GateMonitor

module = torch.nn.LSTM(3, 4, batch_first=True)
monitor = GateMonitor(module, None, run="life", probe=torch.ones(2, 5, 3), every=1)
"""
LOOP = """
with monitor:
    for i in range(10**6):
        monitor.step(metrics={"loss": 1 / (i + 1)})
        if i == 3:
            print("training", flush=True)
        time.sleep(0.02)
"""


def start(script):
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINING + script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "training\n", process.stderr.read()
    return process


def the_run():
    runs = open_store().runs()
    assert runs["run"].tolist() == ["life"]
    return runs.iloc[0]


@pytest.mark.parametrize(
    ("number", "state"),
    [(signal.SIGTERM, "interrupted"), (signal.SIGINT, "interrupted"), (signal.SIGKILL, "heartbeat")],
)
def test_a_signal_ends_the_process_as_it_always_did_and_the_run_says_so(place, number, state):
    process = start(LOOP.replace("with monitor", "gatewatch.collector.run_store.HEARTBEAT_SECONDS = 0.2\nwith monitor"))
    time.sleep(1.5)
    process.send_signal(number)
    process.wait(20)
    assert process.returncode == -number or (number == signal.SIGINT and process.returncode in (1, -number))
    told = the_run()
    assert told["state"] == state
    steps = open_store().read("gate_stats", run="life", tags={"gate": "forget"})["step"].tolist()
    assert steps == [*range(1, len(steps) + 1)]
    assert len(steps) > 4


def test_a_second_sigterm_ends_it_at_once(place):
    process = start(
        "gatewatch.collector.run_life.CLOSE_SECONDS = 60\n"
        "monitor._session.store.write_lines = lambda lines: time.sleep(99)" + LOOP
    )
    process.terminate()
    time.sleep(1.0)
    assert process.poll() is None
    process.terminate()
    assert process.wait(10) == -signal.SIGTERM


def test_children_that_are_terminated_right_after_the_fork_die(place):
    """A child that is sent SIGTERM before its first line of Python has run still ends by it."""
    script = """
from multiprocessing import get_context
with monitor:
    monitor.step()
    print("training", flush=True)
    children = [get_context("fork").Process(target=time.sleep, args=(60,)) for _ in range(40)]
    for child in children:
        child.start()
        child.terminate()
    for child in children:
        child.join(10)
    codes = [child.exitcode for child in children]
    for child in children:
        child.kill()
print({code: codes.count(code) for code in set(codes)})
print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""
    out, error = start(script).communicate(timeout=300)
    assert out.splitlines() == ["{-15: 40}", "True set()"], error
    assert the_run()["state"] == "completed"


def test_a_signal_mask_of_the_users_own_survives_a_fork(place):
    script = """
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
with monitor:
    monitor.step()
    print("training", flush=True)
    child = os.fork()
    if child == 0:
        os._exit(signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, []))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""
    out, error = start(script).communicate(timeout=300)
    assert out.splitlines() == ["1 {<Signals.SIGTERM: 15>}"], error


def test_a_handler_of_the_users_own_is_left_alone(place):
    process = start("signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))" + LOOP)
    process.terminate()
    assert process.wait(20) == 7
    assert the_run()["state"] == "interrupted"


def test_after_the_run_sigterm_is_as_it_was(place):
    with GateMonitor(torch.nn.LSTM(3, 4), None, probe=torch.ones(2, 5, 3)):
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize(
    ("inside", "state", "error"),
    [
        ("raise ValueError('no\\nprice for GOOG')", "failed", "ValueError: no price for GOOG"),
        ("raise KeyboardInterrupt", "interrupted", None),
        ("raise SystemExit(3)", "interrupted", None),
        ("pass", "completed", None),
    ],
)
def test_a_run_tells_what_ended_it(place, inside, state, error):
    monitor = GateMonitor(torch.nn.LSTM(3, 4), None, run="life", probe=torch.ones(2, 5, 3))
    try:
        with monitor:
            exec(inside)
    except BaseException:
        pass
    assert (the_run()["state"], the_run()["error"]) == (state, error)


def test_an_error_that_cannot_be_shown_is_told_by_its_type(place):
    class OddError(Exception):
        def __str__(self):
            raise ValueError

    with pytest.raises(OddError), GateMonitor(torch.nn.LSTM(3, 4), None, run="life", probe=torch.ones(2, 5, 3)):
        raise OddError
    assert the_run()["state"] == "failed"
    assert the_run()["error"].startswith("OddError")


def test_the_runs_of_a_process_share_the_time_there_is_to_ship(place):
    process = start(
        "import gatewatch.collector.runtime.shutdown; gatewatch.collector.runtime.shutdown.END_SECONDS = 1.0\n"
        "others = [GateMonitor(module, None, run=f'other-{k}', probe=torch.ones(2, 5, 3), every=1).__enter__()"
        " for k in range(3)]\n"
        "for one in others: one._session.store.write_lines = lambda lines: time.sleep(99)" + LOOP
    )
    begin = time.monotonic()
    process.terminate()
    process.wait(20)
    assert time.monotonic() - begin < 8
    assert subprocess.run([sys.executable, "-m", "gatewatch.jobs.cli", "spool", "flush"], check=False).returncode == 0
    assert set(open_store().runs()["state"]) == {"interrupted"}


@pytest.mark.parametrize(
    ("cell", "state", "error"),
    [
        ("raise ValueError('odd')", "failed", "ValueError: odd"),
        ("raise KeyboardInterrupt", "interrupted", None),
    ],
)
def test_a_notebooks_cell_that_is_stopped_ends_the_run_that_it_began(place, capsys, cell, state, error):
    shell = InteractiveShell.instance()
    try:
        shell.run_cell(TRAINING)
        shell.run_cell(f"monitor.__enter__()\nmonitor.step()\n{cell}")
        assert (the_run()["state"], the_run()["error"]) == (state, error)
    finally:
        InteractiveShell.clear_instance()


def test_a_cell_that_fails_leaves_the_runs_of_other_cells_alone(place, capsys):
    shell = InteractiveShell.instance()
    try:
        shell.run_cell(TRAINING)
        shell.run_cell("monitor.__enter__()\nmonitor.step()")
        shell.run_cell("raise ValueError")
        shell.run_cell("monitor._session._shipper.flush(20)")
        assert the_run()["state"] == "started"
        shell.run_cell("monitor.close()")
        assert the_run()["state"] == "completed"
    finally:
        InteractiveShell.clear_instance()


def test_a_run_says_that_it_lives_while_nothing_is_captured(place, monkeypatch):
    monkeypatch.setattr("gatewatch.collector.run_store.HEARTBEAT_SECONDS", 0.05)
    with GateMonitor(torch.nn.LSTM(3, 4), None, run="life", probe=torch.ones(2, 5, 3)):
        deadline = time.monotonic() + 20
        while len(events := open_store().read("runs", run="life")) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert events["event"].tolist()[:3] == ["started", "heartbeat", "heartbeat"]
    assert open_store().read("runs", run="life")["event"].tolist()[-1] == "completed"


def test_what_is_told_at_the_start_is_enough_to_look_the_same_way_again(place):
    probe = torch.arange(30.0).reshape(2, 5, 3)
    configs = []
    for seen in (probe, probe, probe + 1):
        with GateMonitor(torch.nn.LSTM(3, 4, batch_first=True), None, probe=seen, tags={"symbol": "GOOG"}) as monitor:
            pass
        runs = open_store().runs()
        configs.append(json.loads(runs[runs["run"] == monitor.run]["config"].iloc[0]))
    first, again, other = configs
    assert first["probe_fingerprint"] == again["probe_fingerprint"] != other["probe_fingerprint"]
    assert first["layers"]["l0"]["hidden_size"] == 4
    assert "LSTM(3, 4" in first["summary"]
    assert first["versions"].keys() >= {"python", "torch", "numpy"}
    assert first["tags"] == {"symbol": "GOOG"}


def never(monitor):
    pass


def too_rarely(monitor):
    for _ in range(7):
        monitor.step()


def in_vain(monitor):
    for _ in range(3):
        monitor.step(torch.ones(2, 5, 9))


@pytest.mark.parametrize(
    ("loop", "why"),
    [
        (never, "the training ended before its first step, or nothing called step\\(\\)"),
        (too_rarely, "none of its 7 steps was due, with every=8"),
        (in_vain, r"each look failed: the input of shape \(2, 5, 9\) does not fit .*"),
    ],
)
def test_a_run_that_captured_nothing_says_why(place, caplog, loop, why):
    every = 8 if loop is too_rarely else 1
    probe = torch.ones(2, 5, 3)
    with GateMonitor(torch.nn.LSTM(3, 4), None, run="life", probe=probe, every=every) as monitor:
        loop(monitor)
    ends = [record.getMessage() for record in caplog.records if "without a capture" in record.getMessage()]
    assert len(ends) == 1
    assert re.fullmatch(f"gatewatch: run 'life' ends without a capture: {why}", ends[0])


def test_life_and_death():
    assert current_state("started", 1) == current_state("heartbeat", DIED_SECONDS) == "live"
    assert current_state("heartbeat", DIED_SECONDS + 1) == "died"
    for ended in ("completed", "failed", "interrupted"):
        assert current_state(ended, 10**9) == ended

"""How a process ends while a run is open: by signals, forks, finalizers, and while it ships already.

The network is made up: nothing here depends on a framework.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from gatewatch.collector.store import open_store

TRAINING = """
import atexit, gc, logging, os, signal, sys, threading, time
import numpy as np
from gatewatch.collector.monitor import Monitor
from gatewatch.collector.trace import LayerGates, Look, Trace

class Training(Monitor):
    def __init__(self, run="r", every=1, store=None):
        log_dir = tags = layers = reference = feature_names = config = None
        phase, overhead, resume, all_ranks = "train", 0.01, False, False
        self._set_up(locals())

    def _begin(self):
        self._session.start(framework="none", model="none", config={})

    def _look(self, x, state):
        return Look({"lstm": LayerGates({"forget": np.full((2, 3, 4), 0.5, np.float32)})})

    def _trace(self, inputs, state=None):
        return Trace()

def said(text):
    print(text, flush=True)

def slow(monitor, seconds=1.0):
    "Let each write to the store take a while, and say when one begins."
    store = monitor._session.store
    send = store.write_lines
    def write(lines):
        said("ships")
        time.sleep(seconds)
        send(lines)
    monitor._session._shipper.delivery._send = write
"""


def start(script):
    return subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", TRAINING + script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until_it_ends(process):
    """Wait until it says that it ends, and a little longer."""
    assert "ends\n" in iter(process.stdout.readline, ""), process.stderr.read()
    time.sleep(0.4)


def ended(process):
    """The exit status, and what was printed."""
    out, error = process.communicate(timeout=60)
    return process.returncode, out.split(), error


def events(run="r"):
    return open_store().read("runs", run=run)["event"].tolist()


def steps(run="r"):
    return open_store().read("gate_stats", run=run)["step"].tolist()


OPEN = "monitor = Training().__enter__()\nmonitor.step()\n"
ENDS = {
    "exit": OPEN + "slow(monitor)\natexit.register(said, 'ends')\n",
    "close": OPEN + "slow(monitor)\nsaid('ends')\nmonitor.close()\ntime.sleep(60)\n",
    "a thread that goes on": OPEN
    + """
def train():
    while monitor._session.started:
        monitor.step()
        time.sleep(0.02)
    time.sleep(60)
threading.Thread(target=train).start()
said("ends")
""",
}


@pytest.mark.parametrize("end", ENDS)
def test_sigterm_while_the_process_ends_waits_for_what_is_shipped_and_is_not_lost(place, end):
    process = start(ENDS[end])
    until_it_ends(process)
    process.terminate()
    code, _, error = ended(process)
    assert (code, error) == (-signal.SIGTERM, "")
    assert events() == ["started", "completed" if end == "close" else "interrupted"]
    assert steps()[0] == 1


def test_a_second_sigterm_ends_it_at_once(place):
    process = start(OPEN + "slow(monitor, 30)\natexit.register(said, 'ends')\n")
    until_it_ends(process)
    process.terminate()
    time.sleep(0.4)
    assert process.poll() is None
    process.terminate()
    assert process.wait(10) == -signal.SIGTERM


OWNER = """
class Owner:
    "Closes its monitor when it is collected; it refers to itself, so that only the collector finds it."
    def __init__(self):
        self.me = self
        self.monitor = Training().__enter__()
    def __del__(self):
        self.monitor.close()
owner = Owner()
owner.monitor.step()
session = owner.monitor._session
"""
COLLECTED = {
    "at the end of the process": "",
    "by the thread that ships": """
monitor = owner.monitor
send = session._shipper.delivery._send
def write(lines):
    global owner
    owner = None
    gc.collect()
    send(lines)
session._shipper.delivery._send = write
begin = time.monotonic()
while session.started and time.monotonic() - begin < 8:
    time.sleep(0.05)
print(time.monotonic() - begin < 5)
""",
    "in the middle of a step": """
monitor = owner.monitor
spool = session._shipper.spool
queue = spool._write
def write(*record):
    global owner
    queue(*record)
    owner = None
    gc.collect()
spool._write = write
begin = time.monotonic()
monitor.step()
print(time.monotonic() - begin < 5)
""",
}


@pytest.mark.parametrize("collected", COLLECTED)
def test_a_monitor_that_is_closed_by_a_finalizer(place, collected):
    code, out, error = ended(start(OWNER + COLLECTED[collected]))
    assert (code, error) == (0, "")
    assert out == ["True"] * bool(COLLECTED[collected])
    assert events() == ["started", "interrupted" if collected == "at the end of the process" else "completed"]
    assert steps()[0] == 1


def test_monitors_that_nobody_holds_when_the_process_ends(place):
    script = """
for k in range(20):
    monitor = Training(run=f"r{k}").__enter__()
    monitor.step()
    monitor.me = monitor
    monitor = None
"""
    assert ended(start(script)) == (0, [], "")
    runs = open_store().runs()
    assert len(runs) == 20
    assert set(runs["state"]) == {"interrupted"}


def test_a_fork_of_a_fork(place):
    script = (
        OPEN
        + """
def forked(work):
    child = os.fork()
    if child == 0:
        work()
        sys.exit()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def inner():
    monitor.step()
    said("terminated")
    os.kill(os.getpid(), signal.SIGTERM)

def outer():
    monitor.step()
    said(forked(monitor.step))
    said(forked(inner))
    monitor.step()

said(forked(outer))
monitor.close()
"""
    )
    code, out, error = ended(start(script))
    assert (code, out, error) == (0, ["0", "terminated", "-15", "0"], "")
    assert events() == ["started", "completed"]
    assert sorted(set(steps())) == [1, 2, 3]


def test_the_service_in_a_thread_ends_with_the_main_thread(place):
    script = """
from pathlib import Path
from gatewatch.collector.config import load_settings
from gatewatch.collector.store import open_store
from gatewatch.jobs.service.scheduler import Service
service = Service(open_store().destination, load_settings(), Path(), warn=lambda line: None)
threading.Thread(target=lambda: said(service.run())).start()
time.sleep(0.5)
"""
    assert ended(start(script)) == (0, ["True"], "")

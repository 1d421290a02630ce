"""File systems without locks, with locks that keep nobody out, and with locks that other machines do not see."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from gatewatch.collector import file_locks
from gatewatch.collector.spool.writer_dir import LEASE_SECONDS
from tests.shims import shim

WITHOUT = {"ENOLCK": errno.ENOLCK, "ENOSYS": errno.ENOSYS, "EOPNOTSUPP": errno.EOPNOTSUPP, "always": "always"}
"""What `flock` does, or the error that it gives."""
RECORDS, TAKEN = 300, 100

COMMON = """
import os, sys
from pathlib import Path
from gatewatch.collector.spool import queue, writer_dir

def spool():
    spool = queue.Spool(Path(sys.argv[1]), {"url": "sqlite:////nowhere/g.db"}, 2**30)
    spool.segment_points = 7
    return spool

def take_all(spool):
    lines = []
    while (batch := spool.next_batch()) is not None:
        lines += batch.lines.splitlines()
        spool.done(batch)
    return [int(line.split()[2]) for line in lines]
"""
WRITER = f"""
one = spool()
for number in range({RECORDS}):
    if number == {TAKEN}:
        print("some", flush=True)
        sys.stdin.readline()
    one.append(f"m f=1i {{number}}\\n".encode(), 1)
one.adopt()
print("all", flush=True)
sys.stdin.readline()
print(take_all(one) == [*range({RECORDS})], one.dropped, one.damaged, flush=True)
"""
OTHER = """
other = spool()
print(other.adopt(), len(take_all(other)), other.dropped)
"""
OTHER_MACHINE = """
import gatewatch.collector.spool.writer_dir as writer_dir
writer_dir.lock_domain, writer_dir.is_shared = (lambda: "elsewhere"), (lambda path: True)
"""


def run(code, *arguments, environment=()):
    """Run Python code in a process to its end."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | dict(environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@contextmanager
def writing(folder):
    """A process in the middle of writing to the spool."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", COMMON + WRITER, folder], **pipes) as process:
        assert process.stdout.readline() == "some\n"
        yield process
        process.kill()


def goes_on(process):
    print(file=process.stdin, flush=True)
    return process.stdout.readline().strip()


TRAINING = """
import sys, torch
from gatewatch.collector.errors import ConfigError
from gatewatch.torch import GateMonitor

try:
    with GateMonitor(torch.nn.LSTM(3, 4), None, store=sys.argv[1], probe=torch.ones(2, 5, 3), every=1) as monitor:
        monitor.step()
except ConfigError as error:
    print(error)
"""


@pytest.mark.parametrize("lock", WITHOUT)
def test_a_spool_without_locks_is_refused_before_training(tmp_path, lock):
    environment = shim("flock", flock=WITHOUT[lock]) | {"GATEWATCH_SPOOL": str(tmp_path / "spool")}
    trained = run(TRAINING, f"sqlite:///{tmp_path}/g.db", environment=environment)
    assert trained.stderr == ""
    (line,) = trained.stdout.splitlines()
    kind = file_locks.file_system(tmp_path)
    assert line.startswith(
        f"the spool folder {tmp_path}/spool cannot be used: its file system ({kind}) has no file locks: "
    )
    assert line.endswith("; name one on a local disk in GATEWATCH_SPOOL")
    assert [path.name for path in (tmp_path / "spool").glob("*/*")] == ["destination.json"]


@pytest.mark.parametrize("lock", ["ENOLCK", "always"])
def test_a_state_folder_without_locks_is_refused_by_the_service(tmp_path, lock):
    environment = shim("flock", flock=WITHOUT[lock]) | {"GATEWATCH_STATE": str(tmp_path / "state")}
    jobs = "import sys; from gatewatch.jobs.cli import main; sys.exit(main(['jobs', '--store', sys.argv[1]]))"
    ended = run(jobs, f"sqlite:///{tmp_path}/g.db", environment=environment)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "has no file locks" in ended.stderr
    assert ended.stderr.endswith("; name one on a local disk in GATEWATCH_STATE or [jobs] state\n")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("lock", WITHOUT)
def test_a_process_without_locks_takes_nothing_that_another_is_writing(tmp_path, lock):
    with writing(tmp_path) as process:
        other = run(COMMON + OTHER, tmp_path, environment=shim("flock", flock=WITHOUT[lock]))
        assert other.stdout == "0 0 0\n", other.stderr
        assert goes_on(process) == "all"
        assert goes_on(process) == "True 0 0"


def test_locks_that_other_machines_do_not_see_lose_nothing(tmp_path):
    """The folder of another machine is adopted once that has not renewed its lease for an hour."""
    spool, locks = tmp_path / "spool", tmp_path / "locks"
    locks.mkdir()
    machine = shim("flock", flock="private", folder=locks)
    with writing(spool) as process:
        other = run(COMMON + OTHER_MACHINE + OTHER, spool, environment=machine)
        assert other.stdout == "0 0 0\n", other.stderr
        (lock,) = spool.glob("*/*/lock")
        let_pass(lock, LEASE_SECONDS)  # it is renewed when it writes on
        assert goes_on(process) == "all"
        other = run(COMMON + OTHER_MACHINE + OTHER, spool, environment=machine)
        assert other.stdout == "0 0 0\n", other.stderr
    other = run(COMMON + OTHER_MACHINE + OTHER, spool, environment=machine)
    assert other.stdout == "0 0 0\n", other.stderr  # who was killed may have been suspended
    let_pass(lock, LEASE_SECONDS)
    other = run(COMMON + OTHER_MACHINE + OTHER, spool, environment=machine)
    assert other.stdout == f"{RECORDS} {RECORDS} 0\n", other.stderr
    assert not [*spool.glob("*/*/*.spool")]


def let_pass(lock, seconds):
    """Let a lock be renewed so long ago."""
    before = time.time() - seconds - 1
    os.utime(lock, (before, before))


FLUSH = """
import sys
from pathlib import Path
from gatewatch.collector.spool.flush import flush
from gatewatch.collector.spool.queue import Spool
from gatewatch.collector.store import open_store
store = open_store(sys.argv[2])
store.check()
(folder,) = Path(sys.argv[1]).glob("*")
own = Spool(Path(sys.argv[1]), store.destination, 2**30).folder
if not own.exists():
    folder.rename(own)
    (own / "destination.json").write_text(__import__("json").dumps(store.destination))
for result in flush(Path(sys.argv[1]), 10):
    print(result.shipped, result.left, result.problem)
"""


def test_a_flush_says_why_it_ships_nothing(tmp_path):
    spool, url = tmp_path / "spool", f"sqlite:///{tmp_path}/g.db"
    (tmp_path / "locks").mkdir()
    with writing(spool):
        pass
    without = run(FLUSH, spool, url, environment=shim("flock", flock="always"))
    assert without.stdout.startswith(f"0 {TAKEN} {spool}/"), without.stderr
    assert "has no file locks: a locked file can be locked a second time" in without.stdout
    machine = shim("flock", flock="private", folder=tmp_path / "locks")
    elsewhere = run(OTHER_MACHINE + FLUSH, spool, url, environment=machine)
    assert elsewhere.stdout.startswith(f"0 {TAKEN} {TAKEN} points in {spool}/"), elsewhere.stderr
    assert elsewhere.stdout.endswith(
        "are of another machine, where their process may be alive: they can be shipped 60 minutes after its last sign"
        " of life, or on that machine\n"
    )
    assert run(FLUSH, spool, url).stdout == f"{TAKEN} 0 None\n"


def test_a_machine_alone_takes_over_at_once_what_its_dead_processes_left(tmp_path):
    with writing(tmp_path):
        pass
    other = run(COMMON + OTHER, tmp_path)
    assert other.stdout == f"{TAKEN} {TAKEN} 0\n", other.stderr


ALERTS = """
import sys
from pathlib import Path
from gatewatch.jobs.alerts import state
if sys.argv[2:]:
    state.lock_domain = lambda: sys.argv[2]
    state.is_shared = lambda path: True
with state.owned(Path(sys.argv[1])) as own:
    print(own)
"""


def test_of_two_machines_that_do_not_see_each_others_locks_one_evaluates_the_alerts(tmp_path):
    assert run(ALERTS, tmp_path, "here").stdout == "True\n"
    assert run(ALERTS, tmp_path, "elsewhere").stdout == "False\n"
    assert run(ALERTS, tmp_path, "here").stdout == "True\n"
    let_pass(tmp_path / "lock", 300)
    assert run(ALERTS, tmp_path, "elsewhere").stdout == "True\n"
    assert run(ALERTS, tmp_path, "here").stdout == "False\n"


EPOCH = """
import sys
from pathlib import Path
import numpy as np
from gatewatch.collector.epoch_files import save_epoch
from gatewatch.collector.trace import LayerGates
layers = {"l": LayerGates({"forget": np.zeros((1, 2, 3), np.float32)})}
for run in ("a", "b"):
    save_epoch(Path(sys.argv[1]), layers, run=run, phase="train", epoch=0, step=1)
"""


@pytest.mark.parametrize("lock", WITHOUT)
def test_files_of_epochs_need_no_locks(tmp_path, lock):
    saved = run(EPOCH, tmp_path, environment=shim("flock", flock=WITHOUT[lock]))
    assert (saved.returncode, saved.stderr) == (0, "")
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.npz")}
    assert files == {"gate_epoch_0.npz", "a/gate_epoch_0.npz"}


def test_the_file_system_of_a_path_is_that_of_the_mount_it_lies_in():
    assert file_locks.file_system("/proc/self") == "proc"
    assert file_locks.is_shared("/proc/self")
    assert not file_locks.is_shared("/dev/shm")

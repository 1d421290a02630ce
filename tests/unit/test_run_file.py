"""The lock on a run's name: one process of a machine holds it, however its children and its end behave."""

import os
import signal
import time

import pytest

from gatewatch.collector.run_file import RunFile, lock_run


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock, and whose child goes on living after it."""
    ready, done = os.pipe(), os.pipe()
    process = os.fork()
    if process == 0:
        lock = lock_run(tmp_path, "r", "train")
        lock.save({"pid": os.getpid()})
        if os.fork() == 0:
            lock.release()
            os.write(ready[1], b".")
            os.read(done[0], 1)
            os._exit(0)
        time.sleep(60)
        os._exit(0)
    assert os.read(ready[0], 1) == b"."
    yield process
    os.write(done[1], b".")
    for descriptor in (*ready, *done):
        os.close(descriptor)


def test_a_name_is_held_while_its_process_lives_and_free_after_it_was_killed(tmp_path, holder):
    assert lock_run(tmp_path, "r", "train") == holder  # its child has let go of what it inherited: that changes nothing
    assert isinstance(lock_run(tmp_path, "r", "live"), RunFile)
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    lock = lock_run(tmp_path, "r", "train")
    assert isinstance(lock, RunFile)
    assert lock.left == {"pid": holder}
    lock.release()
    assert isinstance(lock_run(tmp_path, "r", "train"), RunFile)


def test_what_a_file_says_is_replaced_whole(tmp_path):
    lock = lock_run(tmp_path, "r", "train")
    assert lock.left == {}
    lock.save({"session": "a long one", "step": 1000})
    lock.save({"step": 1})
    lock.release()
    lock.save({"step": 2})  # too late: another process may have it
    assert lock_run(tmp_path, "r", "train").left == {"step": 1}


def test_files_of_runs_long_past_are_deleted_unless_somebody_holds_them(tmp_path):
    folder, long_ago = tmp_path / "runs", time.time() - 91 * 86_400
    paths, locks = {}, {}
    for run in ("past", "held", "recent"):
        locks[run] = lock_run(tmp_path, run, "train")
        (paths[run],) = set(folder.iterdir()) - set(paths.values())
    for run in ("past", "held"):
        os.utime(paths[run], (long_ago, long_ago))
    locks["past"].release()
    locks["recent"].release()
    lock_run(tmp_path, "new", "train")
    assert [run for run, path in paths.items() if path.exists()] == ["held", "recent"]

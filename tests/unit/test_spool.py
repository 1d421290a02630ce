"""The queue on disk: what was appended comes out once and in order, whatever becomes of the process or of the files."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import struct
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.spool.inspect import pending
from gatewatch.collector.spool.queue import Spool, spool_root
from gatewatch.collector.spool.segment import MAGIC, SUFFIX, as_record
from gatewatch.collector.spool.writer_dir import LOCK

MEGABYTE = 2**20


def open_spool(root, max_bytes=MEGABYTE, segment_bytes=MEGABYTE, segment_points=5000, url="sqlite:////g.db"):
    spool = Spool(root, {"url": url}, max_bytes)
    spool.segment_bytes, spool.segment_points = segment_bytes, segment_points
    return spool


def put(spool, *numbers):
    for number in numbers:
        spool.append(b"m f=%d %d\n" % (number, number), 1)


def take(spool):
    """Everything that comes out, as numbers; done with."""
    taken = []
    while batch := spool.next_batch():
        assert batch.points == len(batch.lines.splitlines())
        taken += [int(line.rpartition(b" ")[2]) for line in batch.lines.splitlines()]
        spool.done(batch)
    return taken


def after_a_kill(spool):
    """What a process leaves that was killed: its files, and no lock."""
    spool.after_fork_in_child()


def segments(root):
    return sorted(root.glob(f"*/*/*{SUFFIX}"))


def test_what_goes_in_comes_out_once_and_in_order(tmp_path):
    spool = open_spool(tmp_path)
    put(spool, 1, 2, 3)
    assert spool.waiting == 3
    assert take(spool) == [1, 2, 3]
    assert take(spool) == []
    put(spool, 4)
    assert take(spool) == [4]
    assert (spool.waiting, spool.dropped, spool.damaged) == (0, 0, 0)


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 200), st.integers(1, 7))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_appending_and_taking_in_any_order_loses_nothing(tmp_path_factory, moves, segment_bytes, segment_points):
    folder = tmp_path_factory.mktemp("spool")
    spool = open_spool(folder, segment_bytes=segment_bytes, segment_points=segment_points)
    appended, taken = 0, []
    for move in moves:
        if move > 3:
            put(spool, appended)
            appended += 1
        elif move == 3:
            after_a_kill(spool)
            spool.adopt()
        elif batch := spool.next_batch():
            taken += [int(line.rpartition(b" ")[2]) for line in batch.lines.splitlines()]
            if move:
                spool.done(batch)
            else:
                taken = taken[: -batch.points]
    taken += take(spool)
    assert sorted(taken) == list(range(appended))
    assert spool.waiting == 0
    spool.close()


def test_a_batch_holds_whole_records_up_to_its_limit_and_at_least_one(tmp_path):
    spool = open_spool(tmp_path, segment_points=5)
    for first in (0, 10, 20):
        spool.append(b"".join(b"m f=1 %d\n" % n for n in range(first, first + 3)), 3)
    sizes = []
    while batch := spool.next_batch():
        sizes.append(batch.points)
        spool.done(batch)
    assert sizes == [3, 3, 3]
    put(spool, *range(7))
    assert spool.next_batch().points == 5


def test_a_batch_that_is_not_done_comes_again(tmp_path):
    spool = open_spool(tmp_path, segment_points=1)
    put(spool, 1, 2)
    assert spool.next_batch().lines == spool.next_batch().lines == b"m f=1 1\n"


def test_what_a_dead_process_left_is_taken_over_and_what_it_shipped_is_not(tmp_path):
    dead = open_spool(tmp_path, segment_points=1)
    put(dead, 1, 2, 3)
    dead.done(dead.next_batch())
    after_a_kill(dead)
    heir = open_spool(tmp_path)
    put(heir, 9)
    assert heir.adopt() == 2
    assert take(heir) == [2, 3, 9]
    heir.close()
    assert not list(tmp_path.glob("*/*/*"))


def test_what_lives_is_left_alone(tmp_path):
    alive, other = open_spool(tmp_path), open_spool(tmp_path)
    put(alive, 1)
    assert other.adopt() == 0
    assert take(other) == []
    alive.close()
    assert other.adopt() == 1
    assert take(other) == [1]


def test_stores_have_spools_of_their_own(tmp_path):
    one, other = open_spool(tmp_path, url="http://a"), open_spool(tmp_path, url="http://b")
    put(one, 1)
    after_a_kill(one)
    assert other.adopt() == 0
    assert {entry.destination["url"]: entry.points for entry in pending(tmp_path)} == {"http://a": 1}


@pytest.mark.parametrize("cut", range(1, 20))
def test_a_torn_tail_is_cut_and_all_before_it_kept(tmp_path, cut):
    spool = open_spool(tmp_path)
    put(spool, 1, 2)
    after_a_kill(spool)
    (file,) = segments(tmp_path)
    file.write_bytes(file.read_bytes()[:-cut])
    heir = open_spool(tmp_path)
    assert heir.adopt() == 1
    assert take(heir) == [1]
    assert heir.damaged == 1


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_damage_anywhere_is_never_fatal_and_what_comes_out_is_what_went_in(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("spool")
    spool = open_spool(root, segment_bytes=data.draw(st.integers(1, 300)))
    put(spool, *range(20))
    after_a_kill(spool)
    file = data.draw(st.sampled_from(segments(root)))
    content = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at : at + data.draw(st.integers(1, 40))] = data.draw(st.binary(max_size=40))
    file.write_bytes(content)
    heir = open_spool(root)
    heir.adopt()
    taken = take(heir)
    assert set(taken) <= set(range(20))
    assert len(taken) == len(set(taken))
    heir.close()


@pytest.mark.parametrize("content", [b"", b"x", MAGIC, b"\0" * 100, MAGIC + b"\xff" * 8, os.urandom(500)])
def test_rubbish_in_place_of_a_segment_is_passed_over(tmp_path, content):
    dead = open_spool(tmp_path)
    put(dead, 1)
    folder = segments(tmp_path)[0].parent
    after_a_kill(dead)
    (folder / f"00000000{SUFFIX}").write_bytes(content)
    heir = open_spool(tmp_path)
    heir.adopt()
    assert take(heir) == [1]


def test_a_record_that_is_damaged_in_the_middle_is_passed_over_and_counted(tmp_path):
    spool = open_spool(tmp_path)
    put(spool, 1, 2, 3)
    (file,) = segments(tmp_path)
    file.write_bytes(file.read_bytes().replace(b"f=2 2", b"f=7 7"))
    assert take(spool) == [1, 3]
    assert spool.damaged == 1


def test_past_the_bound_the_oldest_go_whole_and_are_counted(tmp_path):
    spool = open_spool(tmp_path, max_bytes=2000, segment_bytes=400)
    put(spool, *range(300))
    assert sum(file.stat().st_size for file in segments(tmp_path)) <= 2000 + 400
    taken = take(spool)
    assert taken == list(range(300 - len(taken), 300))
    assert spool.dropped == 300 - len(taken) > 0


def test_what_is_being_shipped_is_not_thrown_away(tmp_path):
    spool = open_spool(tmp_path, max_bytes=2000, segment_bytes=400)
    put(spool, 0)
    batch = spool.next_batch()
    put(spool, *range(1, 300))
    spool.done(batch)
    assert 0 not in take(spool)
    assert spool.dropped < 299


def test_the_bound_counts_what_other_processes_hold(tmp_path):
    other = open_spool(tmp_path)
    put(other, *range(100))
    spool = open_spool(tmp_path, max_bytes=2000, segment_bytes=200)
    put(spool, *range(100))
    assert spool.dropped > 0
    assert other.dropped == 0
    assert len(take(other)) == 100


def test_the_bound_holds_for_many_short_processes_of_which_none_writes_much(tmp_path):
    dropped = 0
    for _ in range(24):
        spool = open_spool(tmp_path, max_bytes=2000, segment_bytes=500)
        spool.adopt()
        put(spool, *range(10))
        dropped += spool.dropped
        spool.close()
    assert sum(file.stat().st_size for file in segments(tmp_path)) <= 2000 + 500
    heir = open_spool(tmp_path)
    assert heir.adopt() + dropped == 240
    assert dropped > 0


def test_files_of_the_former_format_are_shipped_from_where_they_were_left(tmp_path):
    first, second = (as_record(b"m f=%d %d\n" % (n, n), 1) for n in (1, 2))
    dead = open_spool(tmp_path)
    put(dead, 0)
    (file,) = segments(tmp_path)
    after_a_kill(dead)
    content = struct.pack("<8sQ", b"GWSPOOL1", 16 + len(first)) + first + second
    file.write_bytes(content)
    heir = open_spool(tmp_path)
    assert heir.adopt() == 1
    assert take(heir) == [2]
    assert heir.damaged == 0
    assert segments(tmp_path) == []


def test_a_folder_that_cannot_be_listed_keeps_its_lock(tmp_path, monkeypatch):
    """Without its lock no process could ever adopt what is in it."""
    spool = open_spool(tmp_path)
    put(spool, 1)
    monkeypatch.setattr(os, "listdir", lambda folder: (_ for _ in ()).throw(OSError(24, "Too many open files")))
    spool.close()
    monkeypatch.undo()
    heir = open_spool(tmp_path)
    heir.adopt()
    assert take(heir) == [1]


def test_a_folder_that_is_cleared_under_it_is_made_again(tmp_path):
    spool = open_spool(tmp_path)
    put(spool, 1)
    for file in tmp_path.glob("*/*/*"):
        file.unlink()
    for folder in tmp_path.glob("*/[0-9]*"):
        folder.rmdir()
    put(spool, 2)
    assert take(spool) == [2]


def test_a_segment_that_is_deleted_under_it_is_counted_and_nothing_more(tmp_path):
    spool = open_spool(tmp_path)
    put(spool, 1)
    segments(tmp_path)[0].unlink()
    assert take(spool) == []
    assert spool.damaged == 1


def test_a_record_that_a_full_disk_does_not_take_stays_in_memory_and_the_next_is_whole(tmp_path, monkeypatch):
    """A stand-in for the disk: after half a record the system says that there is no room."""
    spool = open_spool(tmp_path)
    put(spool, 1)
    write = os.write

    def full(descriptor, content):
        if len(content) > 5:
            return write(descriptor, content[:5])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", lambda descriptor, content: full(descriptor, content[-9:]))
    put(spool, 2)
    monkeypatch.undo()
    assert spool.disk_error.errno == errno.ENOSPC
    put(spool, 3)
    assert spool.waiting == 3
    assert take(spool) == [1, 3, 2]
    assert spool.damaged == 0


@pytest.mark.parametrize("written", [True, False])
def test_a_ctrl_c_in_the_middle_of_an_append_harms_nothing_that_was_accepted(tmp_path, monkeypatch, written):
    """A stand-in for the moment: right after the system has written, or in its middle."""
    spool = open_spool(tmp_path)
    put(spool, 1, 2)
    write = os.write

    def interrupted(descriptor, content):
        write(descriptor, content if written else content[:7])
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        put(spool, 3)
    monkeypatch.undo()
    put(spool, 4, 5)
    assert take(spool) == [1, 2, 4, 5]
    assert (spool.dropped, spool.damaged) == (0, 0)


def test_a_ctrl_c_while_a_file_is_begun_does_not_stop_the_next(tmp_path, monkeypatch):
    spool = open_spool(tmp_path, segment_bytes=1)
    put(spool, 1)
    opened = os.open

    def interrupted(path, *arguments, **options):
        os.close(opened(path, *arguments, **options))
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "open", interrupted)
    with pytest.raises(KeyboardInterrupt):
        put(spool, 2)
    monkeypatch.undo()
    put(spool, 3)
    assert take(spool) == [1, 3]


def test_a_part_that_cannot_be_read_does_not_hold_up_the_others(tmp_path, monkeypatch):
    """A stand-in for a disk that fails in one place."""
    dead = open_spool(tmp_path)
    put(dead, 1)
    (broken,) = segments(tmp_path)
    after_a_kill(dead)
    spool = open_spool(tmp_path)
    spool.adopt()
    put(spool, 2)
    opened = Path.open

    def failing(path, *arguments, **options):
        if path == broken:
            raise OSError(errno.EIO, "Input/output error")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", failing)
    assert spool.next_batch().lines == b"m f=2 2\n"
    monkeypatch.undo()
    assert take(spool) == [1, 2]


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="GATEWATCH_SPOOL"):
        open_spool(tmp_path / "file").check()


def test_an_empty_queue_leaves_no_folder_behind(tmp_path):
    spool = open_spool(tmp_path)
    spool.check()
    put(spool, 1)
    take(spool)
    spool.close()
    assert not list(tmp_path.glob("*/[0-9]*"))


def test_the_status_says_what_waits_and_what_was_refused(tmp_path):
    spool = open_spool(tmp_path, segment_points=1)
    put(spool, 1, 2, 3)
    spool.done(spool.next_batch())
    spool.reject([(b'm f="x" 1', "field type\nconflict"), (b"m f=2 2", "too old")])
    (entry,) = pending(tmp_path)
    assert (entry.destination, entry.points, entry.rejected, entry.reason) == (
        {"url": "sqlite:////g.db"},
        2,
        2,
        "too old",
    )
    assert b'm f="x" 1\n' in entry.rejected_file.read_bytes()
    assert entry.bytes > 0


@pytest.mark.parametrize("text", ["", "[]", "null", '{"url": 1}', "rubbish"])
def test_a_folder_without_a_destination_is_none_of_ours(tmp_path, text):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "destination.json").write_text(text)
    assert list(pending(tmp_path)) == []


def test_many_threads_may_append_while_one_takes(tmp_path):
    spool = open_spool(tmp_path, segment_bytes=500)
    threads = [threading.Thread(target=put, args=(spool, *range(k, 800, 8))) for k in range(8)]
    for thread in threads:
        thread.start()
    taken = []
    while any(thread.is_alive() for thread in threads):
        taken += take(spool)
    taken += take(spool)
    assert sorted(taken) == list(range(800))


def _child(spool, numbers):
    put(spool, *numbers)


def test_a_forked_child_has_a_lane_of_its_own(tmp_path):
    spool = open_spool(tmp_path)
    put(spool, 1)
    child = multiprocessing.get_context("fork").Process(target=_child, args=(spool, [2, 3]))
    child.start()
    child.join()
    assert child.exitcode == 0
    put(spool, 4)
    assert spool.adopt() == 2
    assert sorted(take(spool)) == [1, 2, 3, 4]


def test_a_forked_child_that_lives_on_does_not_keep_its_parents_lane(tmp_path):
    """A lock would be shared by both; the child must let go of it at once."""
    started, stop = os.pipe()
    parent = os.fork()
    if parent == 0:  # the parent of the test: it appends, forks a child that stays, and dies
        spool = open_spool(tmp_path)
        put(spool, 1)
        if os.fork() == 0:
            os.close(stop)
            os.read(started, 1)
            os._exit(0)
        os._exit(0)
    os.waitpid(parent, 0)
    heir = open_spool(tmp_path)
    deadline = time.monotonic() + 10
    while not (adopted := heir.adopt()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert adopted == 1
    os.close(stop)
    os.close(started)


def test_the_folder_is_as_named_or_the_users_own(tmp_path, monkeypatch):
    monkeypatch.setenv("GATEWATCH_SPOOL", str(tmp_path / "a"))
    assert spool_root("b") == tmp_path / "a"
    monkeypatch.delenv("GATEWATCH_SPOOL")
    monkeypatch.chdir(tmp_path)
    assert spool_root("b") == tmp_path / "b"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert spool_root() == tmp_path / "state" / "gatewatch" / "spool"


def test_a_home_that_is_nobodys_is_said(monkeypatch):
    monkeypatch.setenv("GATEWATCH_SPOOL", "~nosuchuser/spool")
    with pytest.raises(ConfigError, match="GATEWATCH_SPOOL"):
        spool_root()


def test_without_a_home_directory_a_folder_has_to_be_named(monkeypatch):
    for name in ("GATEWATCH_SPOOL", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what Python gives where there is none
    with pytest.raises(ConfigError, match="no home directory; name a folder in GATEWATCH_SPOOL"):
        spool_root()


def test_the_destination_is_told_for_the_command_that_ships_later(tmp_path):
    spool = open_spool(tmp_path, url="http://host:8086")
    put(spool, 1)
    (about,) = tmp_path.glob("*/destination.json")
    assert json.loads(about.read_text()) == {"url": "http://host:8086"}
    assert Path(about.parent).stat().st_mode & 0o077 == 0
    assert (segments(tmp_path)[0].parent / LOCK).exists()

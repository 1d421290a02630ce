"""Files of the spool that are damaged or crafted: what they claim is not believed, and takes no memory."""

from __future__ import annotations

import json
import struct
import tracemalloc
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatewatch.collector.files import read_json_object
from gatewatch.collector.run_file import lock_run
from gatewatch.collector.spool.inspect import pending, points_wait
from gatewatch.collector.spool.segment import MAGIC, MOST_BYTES, as_record, read_segment
from gatewatch.collector.user_folders import DESTINATION
from tests.unit.test_spool import after_a_kill, open_spool, put, segments, take

LINES = b"m f=1 1\n"
SOUND = as_record(LINES, 1)


def record(length, points, lines=LINES):
    """A record whose checksum is right, whatever its header claims."""
    counts = struct.pack("<II", length, points)
    return counts + struct.pack("<I", zlib.crc32(lines, zlib.crc32(counts))) + lines


def former(shipped, records):
    return struct.pack("<8sQ", b"GWSPOOL1", shipped) + records


HOSTILE = {
    "a length of 4 GB": (MAGIC + SOUND + record(2**32 - 1, 1), LINES),
    "a length of 2 GB in the middle": (MAGIC + SOUND + record(2**31, 1) + SOUND, LINES),
    "no length": (MAGIC + SOUND + record(0, 1), LINES),
    "more points than lines": (MAGIC + SOUND + record(len(LINES), 2**32 - 1) + SOUND, LINES * 2),
    "a wrong checksum": (MAGIC + SOUND + SOUND[:8] + bytes(4) + LINES + SOUND, LINES * 2),
    "a former file shipped beyond its end": (former(2**63, SOUND), b""),
    "a former file shipped as far as there are numbers": (former(2**64 - 1, SOUND), b""),
    "a former file of a huge record": (former(16, SOUND + record(2**32 - 1, 1)), LINES),
    "a former file that is cut": (former(16, b"")[:12], b""),
    "a format to come": (b"GWSPOOL9" + SOUND, b""),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_what_is_sound_is_read_and_the_rest_counts_as_damaged(tmp_path, how):
    content, lines = HOSTILE[how]
    file = tmp_path / "1.spool"
    file.write_bytes(content)
    tracemalloc.start()
    segment, read = read_segment(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (read, segment.points, segment.damaged) == (lines, lines.count(b"\n"), 1)
    assert peak < 2**20


@pytest.mark.parametrize("how", HOSTILE)
def test_the_next_process_ships_what_is_sound_and_is_rid_of_the_file(tmp_path, how):
    content, lines = HOSTILE[how]
    dead = open_spool(tmp_path)
    put(dead, 0)
    (file,) = segments(tmp_path)
    after_a_kill(dead)
    file.write_bytes(content)
    heir = open_spool(tmp_path)
    assert heir.adopt() == lines.count(b"\n")
    assert take(heir) == [1] * lines.count(b"\n")
    assert (heir.damaged, segments(tmp_path)) == (1, [])


def test_a_file_of_a_terabyte_is_not_read_to_its_end(tmp_path):
    dead = open_spool(tmp_path)
    put(dead, 1)
    (file,) = segments(tmp_path)
    after_a_kill(dead)
    with file.open("r+b") as stream:
        stream.truncate(2**40)  # takes no room on the disk
    tracemalloc.start()
    segment, lines = read_segment(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (segment.points, segment.damaged, segment.size) == (1, 1, 2**40)
    assert lines == b"m f=1 1\n"
    assert peak < 3 * MOST_BYTES
    heir = open_spool(tmp_path)
    assert heir.adopt() == 1
    assert take(heir) == [1]


def test_a_record_of_many_megabytes_is_read(tmp_path):
    lines = b'm f="%s" 1\n' % (b"x" * 2**26)
    file = tmp_path / "1.spool"
    file.write_bytes(MAGIC + as_record(lines, 1))
    segment, read = read_segment(file)
    assert (read == lines, segment.points, segment.damaged) == (True, 1, 0)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.sampled_from([MAGIC, b"GWSPOOL1", MAGIC + SOUND, former(16, SOUND), b""]))
def test_whatever_a_file_holds_it_is_read(tmp_path, content, begin):
    file = tmp_path / "1.spool"
    file.write_bytes(begin + content)
    segment, lines = read_segment(file)
    assert 0 <= segment.points <= lines.count(b"\n")
    assert segment.damaged or lines or not begin + content or len(begin + content) <= 16


NOTES = {
    "nested too deeply": b"[" * 60_000,
    "nested too deeply in an object": b'{"a":' * 12_000,
    "a list": b"[]",
    "text": b"\xff\xfe",
    "a number of too many digits": b'{"a":' + b"9" * 60_000 + b"}",
    "larger than any": b'{"a":"' + b"x" * 70_000 + b'"}',
}


@pytest.mark.parametrize("how", NOTES)
def test_a_note_that_is_none_is_as_if_there_were_none(tmp_path, how):
    spool = open_spool(tmp_path)
    put(spool, 1)
    (spool.folder / DESTINATION).write_bytes(NOTES[how])
    assert list(pending(tmp_path)) == []
    again = open_spool(tmp_path)
    put(again, 2)
    assert json.loads((again.folder / DESTINATION).read_text()) == {"url": "sqlite:////g.db"}
    assert points_wait(again.folder, "r", "train") is False


@pytest.mark.parametrize("how", NOTES)
def test_a_runs_file_that_is_none_says_nothing(tmp_path, how):
    held = lock_run(tmp_path, "r", "train")
    held.release()
    (file,) = tmp_path.rglob("*.json")
    file.write_bytes(NOTES[how])
    again = lock_run(tmp_path, "r", "train")
    assert again.left == {}
    again.release()
    with file.open("rb") as stream:
        assert read_json_object(stream) == {}

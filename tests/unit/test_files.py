"""Files are replaced whole or not at all."""

from __future__ import annotations

import pytest

from gatewatch.collector.files import check_writable, replace_file


def test_readers_find_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with replace_file(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_in_the_middle_leaves_the_old_file_and_no_other(tmp_path, error):
    path = tmp_path / "a"
    path.write_text("old")

    def fail():
        with replace_file(path) as file:
            file.write(b"ne")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


def test_a_file_may_have_the_longest_name_that_there_is_and_permissions_of_its_own(tmp_path):
    path = tmp_path / ("a" * 255)
    with replace_file(path, mode=0o600, durable=True) as file:
        file.write(b"secret")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_folder_is_made_with_its_parents_and_one_that_is_a_file_is_refused(tmp_path):
    check_writable(tmp_path / "a" / "b")
    assert [*(tmp_path / "a" / "b").iterdir()] == []
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        check_writable(tmp_path / "file" / "b")

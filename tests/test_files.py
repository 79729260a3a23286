"""Files are written whole or not at all, and errors name the file that was meant."""

import errno
import os
import stat

import pytest

from minillm import files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with files.replacing(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
        assert temporary.parent == tmp_path  # `os.replace` is atomic only within one file system
    assert target.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, MemoryError])
def test_what_goes_wrong_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(error), files.replacing(target) as temporary:
        temporary.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_text_is_utf8_and_readable_as_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "a.txt", "h\u00e9 \u2603")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").read_bytes() == "h\u00e9 \u2603".encode()
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_errors_name_the_file_that_was_meant(tmp_path):
    missing = tmp_path / "nowhere" / "a.txt"
    with pytest.raises(FileNotFoundError) as caught:
        files.write_text(missing, "text")
    assert caught.value.filename == str(missing)

    full = tmp_path / "a.txt"  # a full disk names no file
    with pytest.raises(OSError, match="No space") as caught, files.replacing(full):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(full)

    with pytest.raises(OSError, match="Permission") as caught, files.replacing(full):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), "another.txt")
    assert caught.value.filename == "another.txt"

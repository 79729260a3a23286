"""Archives with anything wrong in them: what is whole comes out, and the damage is told."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.data.reading import streams
from minillm.data.reading.streams import Broken, Line, chunks, lines, members, whole


def packed(suffix: str, data: bytes) -> bytes:
    if suffix == ".gz":
        return gzip.compress(data)
    zstandard = pytest.importorskip("zstandard")
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def read(path: Path, ratio: float = 100) -> tuple[bytes, list[str]]:
    """All bytes of a file, and what is said of its damage."""
    found = list(chunks(path, ratio))
    whys = [part.why for part in found if isinstance(part, Broken)]
    return b"".join(part for part in found if not isinstance(part, Broken)), whys


every_archive = pytest.mark.parametrize("suffix", [".gz", ".zst"])


@every_archive
@settings(max_examples=20, deadline=None)
@given(parts=st.lists(st.binary(max_size=5000), min_size=1, max_size=5))
def test_members_one_after_the_other_are_one_stream(tmp_path_factory, suffix, parts):
    path = tmp_path_factory.mktemp("archive") / f"a{suffix}"
    path.write_bytes(b"".join(packed(suffix, part) for part in parts) + b"\0" * 700)
    assert read(path) == (b"".join(parts), [])
    found = [b"".join(member) for member in members(path, 100)]
    assert found == [part for part in parts if part]


@every_archive
@pytest.mark.parametrize("damage", ["garbage inside", "cut off", "a wrong checksum", "a wrong head"])
def test_a_broken_member_costs_that_member_alone(tmp_path, suffix, damage, monkeypatch):
    monkeypatch.setattr(streams, "PIECE", 4096)
    texts = [b"".join(b"%d.%d " % (i, j * j) for j in range(4000)) for i in range(3)]
    good = [packed(suffix, text) for text in texts]
    bad = bytearray(good[1])
    if damage == "garbage inside":
        bad[len(bad) // 2 : len(bad) // 2 + 40] = b"?" * 40
    elif damage == "cut off":
        del bad[len(bad) // 2 :]
    elif damage == "a wrong checksum":
        bad[-5 if suffix == ".gz" else -1] ^= 1
    else:
        bad[0] ^= 255
    path = tmp_path / f"a{suffix}"
    path.write_bytes(good[0] + bytes(bad) + good[2])
    data, whys = read(path)
    assert data.startswith(texts[0])
    assert data.endswith(texts[2])
    assert len(whys) == 1
    assert f"member at byte {len(good[0]):,} is" in whys[0]
    path.write_bytes(good[0] + bytes(bad))
    assert len(read(path)[1]) == 1


@every_archive
def test_a_bomb_is_left_alone_before_it_fills_the_memory(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(streams, "FREE", 1 << 20)
    path = tmp_path / f"bomb{suffix}"
    path.write_bytes(packed(suffix, b"\0" * (1 << 25)))
    data, whys = read(path)
    assert len(data) < (1 << 25)
    assert len(whys) == 1
    assert "archive bomb" in whys[0]
    assert read(path, ratio=1e9) == (b"\0" * (1 << 25), [])  # told that it is none


@every_archive
def test_the_case_of_a_name_does_not_matter(tmp_path, suffix):
    path = tmp_path / f"A.TXT{suffix.upper()}"
    path.write_bytes(packed(suffix, b"text"))
    assert read(path) == (b"text", [])
    assert [b"".join(member) for member in members(path, 100)] == [b"text"]


def stream(*parts: bytes | Broken):
    return iter(parts)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200).map(lambda data: data.replace(b"a", b"\n")), st.integers(1, 20))
def test_lines_do_not_depend_on_how_the_stream_is_cut(data, size):
    cut = stream(*(data[i : i + size] for i in range(0, len(data), size)))
    found = list(lines(cut, 1000))
    expected = data.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert [line.data for line in found] == [line.removesuffix(b"\r") for line in expected]
    for line in found:
        assert data[line.place :].startswith(line.data)


def test_a_line_that_is_too_long_is_told_and_not_held():
    parts = [b"one\n", b"x" * 50, b"y" * 50, b"z\ntwo"]
    one, long, two = lines(stream(*parts), 60)
    assert (one, two) == (Line(0, b"one"), Line(106, b"two"))
    assert long.why == "a line of 101 bytes; at most 60 are read"
    assert long.rest == b"x" * 50


def test_a_line_cut_by_damage_is_not_joined_with_what_comes_after_it():
    found = list(lines(stream(b"one\ntw", Broken(9, "damage"), b"four\n"), 100))
    assert [line.data for line in found if isinstance(line, Line)] == [b"one", b"four"]
    assert found[1] == Broken(4, "a line is cut short: damage", b"tw")


def test_a_whole_file_has_a_most():
    assert whole(stream(b"ab", b"cd"), 4) == b"abcd"
    assert "more than 3 bytes" in whole(stream(b"ab", b"cd"), 3).why
    assert whole(stream(b"ab", Broken(1, "damage"), b"cd"), 9) == Broken(1, "damage", b"ab")

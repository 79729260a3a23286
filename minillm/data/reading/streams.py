"""Bytes and lines of a file, plain or compressed, a piece at a time, whatever is wrong with it.

A file may be larger than memory, a line may be, and a small archive may unpack to anything. So
nothing here holds more than a piece and a line of at most `longest` bytes. Damage ends no stream: a
`Broken` says where and why something could not be read, and reading goes on at the next place where
it can. For gzip and zstd that is the next member, which is how web archives are written: one member
per page, so one broken page costs one page.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from minillm.data.extras import needed

PIECE = 1 << 18  # bytes read from a file at once
FEED = 1 << 10  # bytes unpacked at once: at most 32 MiB come of them (zstd; gzip 1 MiB)
BEHIND = 1 << 18  # damage is noticed at most so many bytes late: a block of zstd has 128 KiB
FREE = 1 << 26  # bytes that an archive may unpack to before its ratio counts
COMPRESSED = (".gz", ".zst")
MEMBER_END = b""  # among the chunks of `unpacked`


@dataclass(frozen=True)
class Broken:
    """Something that could not be read; what comes after it has nothing to do with what was before.

    `place` is where (for lines, in the unpacked stream), `why` one line for a person, `rest` the
    beginning of what there is of it.
    """

    place: int
    why: str
    rest: bytes = b""


@dataclass(frozen=True)
class Line:
    """A line without its end, and where it begins (in the unpacked stream)."""

    place: int
    data: bytes


Chunks = Iterator[bytes | Broken]


# ---------------------------------------------------------------------------------- archives


def chunks(path: Path, most_ratio: float, start: int = 0) -> Chunks:
    """The content of a file, unpacked where its name ends in .gz or .zst.

    Args:
        path: the file. Raises `OSError` where it cannot be opened.
        most_ratio: bytes unpacked per byte read, beyond which an archive is taken for a bomb and
            left alone, once it has unpacked `FREE` bytes.
        start: where to begin, in a file that is not compressed.
    """
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        if suffix in COMPRESSED:
            yield from (part for part in _unpacked(file, suffix, most_ratio) if part)
        else:
            file.seek(start)
            while data := file.read(PIECE):
                yield data


def members(path: Path, most_ratio: float) -> Iterator[Chunks]:
    """The members of an archive, each as chunks of its own; a plain file is one member.

    Take all chunks of a member before the next member.
    """
    suffix = path.suffix.lower()
    if suffix not in COMPRESSED:
        yield chunks(path, most_ratio)
        return
    with path.open("rb") as file:
        parts = _unpacked(file, suffix, most_ratio)
        for first in parts:
            if first != MEMBER_END:
                yield _one_member(first, parts)


def _one_member(first: bytes | Broken, parts: Chunks) -> Chunks:
    """`first` and what follows it, up to the end of the member or the damage in it."""
    yield first
    if isinstance(first, Broken):
        return
    for part in parts:
        if part == MEMBER_END:
            return
        yield part
        if isinstance(part, Broken):
            return


def _unpacked(file: BinaryIO, suffix: str, most_ratio: float) -> Chunks:
    """What an archive unpacks to, with `MEMBER_END` after each member that is whole."""
    kind, source, size = _kind(suffix), _Source(file), 0
    searching = False  # whether the place was found by looking for a member behind damage
    while source.skip_zeros():  # zeros may fill up the end of an archive
        begin, unpacker, why, found = source.place, kind.unpacker(), "", False
        while not unpacker.eof and not why:
            piece = source.take(FEED)
            try:
                part = unpacker.decompress(piece) if piece else b""
            except kind.error as error:
                why = f"is damaged ({error})"
                break
            if not piece:
                why = "is cut off"
            if part:
                found = True
                yield part
            size += len(part)
            if size > FREE and size > most_ratio * source.place:
                why = f"more than {size:,} bytes come of {source.place:,}"
                yield Broken(begin, f"an archive bomb: {why}")
                return
        if unpacker.eof:
            source.back(len(unpacker.unused_data))
            yield MEMBER_END
        else:
            if found or not searching:
                yield Broken(begin, f"the {kind.name} member at byte {begin:,} {why}")
            source.find(kind.magic, begin + 1)
        searching = not unpacker.eof


@dataclass(frozen=True)
class _Kind:
    """How to unpack one kind of archive, and how its members begin."""

    name: str
    magic: bytes
    unpacker: Any  # a function that gives a new object with `decompress`, `eof`, `unused_data`
    error: type[Exception]


def _kind(suffix: str) -> _Kind:
    if suffix == ".gz":
        return _Kind("gzip", b"\x1f\x8b\x08", lambda: zlib.decompressobj(wbits=31), zlib.error)
    zstandard = needed("zstandard", "a .zst file")
    reader = zstandard.ZstdDecompressor()
    return _Kind("zstd", b"\x28\xb5\x2f\xfd", reader.decompressobj, zstandard.ZstdError)


class _Source:
    """A file read forwards in pieces, in which one may step back by what was taken last."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.data, self.at, self.base = file, b"", 0, 0

    @property
    def place(self) -> int:
        """Where in the file the next byte lies."""
        return self.base + self.at

    def take(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end of the file."""
        if self.at == len(self.data):
            self.base, self.at = self.place, 0
            self.data = self.file.read(PIECE)
        piece = self.data[self.at : self.at + size]
        self.at += len(piece)
        return piece

    def back(self, size: int) -> None:
        """Give back the last `size` bytes of what was taken last."""
        self.at -= size

    def skip_zeros(self) -> bool:
        """Go to the next byte that is not zero; False at the end of the file."""
        while piece := self.take(FEED):
            if rest := piece.lstrip(b"\0"):
                self.back(len(rest))
                return True
        return False

    def find(self, magic: bytes, place: int) -> None:
        """Go to the first `magic` from `place` on, or to the end of the file.

        What was taken is looked at again, as far as `BEHIND`: damage shows only some time after it
        was read. What is found need not be a member: what is packed may look like the beginning of
        one. It will then fail to unpack, and the search goes on.
        """
        self.base = max(place, self.place - BEHIND)
        self.file.seek(self.base)
        self.data, self.at = self.file.read(PIECE), 0
        while (found := self.data.find(magic)) < 0 and (more := self.file.read(PIECE)):
            kept = self.data[1 - len(magic) :]
            self.base += len(self.data) - len(kept)
            self.data = kept + more
        self.at = found if found >= 0 else len(self.data)


# ------------------------------------------------------------------------------------- lines


def lines(parts: Chunks, longest: int, place: int = 0) -> Iterator[Line | Broken]:
    """The lines of a stream. One above `longest` bytes, or cut by damage, comes as `Broken`.

    Args:
        parts: as `chunks` gives them.
        longest: bytes of the longest line that is kept.
        place: where the first chunk begins.
    """
    held: list[bytes] = []  # the beginning of a line, as far as it is kept
    size = 0  # of that line
    for part in parts:
        if isinstance(part, Broken):
            why = f"a line is cut short: {part.why}" if size else part.why
            yield Broken(place, why, _start(held))
            place, held, size = place + size, [], 0
            continue
        begin = 0
        while (end := part.find(b"\n", begin)) >= 0:
            size += end - begin
            if size <= longest:
                held.append(part[begin:end])
            yield _line(place, held, size, longest)
            place, held, size, begin = place + size + 1, [], 0, end + 1
        size += len(part) - begin
        if size <= longest and begin < len(part):
            held.append(part[begin:])
    if size:
        yield _line(place, held, size, longest)


def _line(place: int, held: list[bytes], size: int, longest: int) -> Line | Broken:
    if size > longest:
        why = f"a line of {size:,} bytes; at most {longest:,} are read"
        return Broken(place, why, _start(held))
    data = held[0] if len(held) == 1 else b"".join(held)
    return Line(place, data[:-1] if data.endswith(b"\r") else data)


def _start(held: list[bytes]) -> bytes:
    """The first bytes of something that is not kept, to be shown."""
    return b"".join(held)[:1000]


def whole(parts: Chunks, most: int) -> bytes | Broken:
    """All of a stream, or why it cannot be had whole."""
    held: list[bytes] = []
    size = 0
    for part in parts:
        if isinstance(part, Broken):
            return Broken(part.place, part.why, _start(held))
        size += len(part)
        if size > most:
            return Broken(0, f"more than {most:,} bytes, the most that is read", _start(held))
        held.append(part)
    return b"".join(held)

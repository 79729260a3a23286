"""Texts and files as blocks of bytes, so that a corpus larger than memory passes through.

Small texts are joined, each with its end noted; a large one comes in parts. A part ends where a
word starts whatever stands before it (`scanner.sure_start`); what is left over opens the next.

Every block lies in the same array. Fresh ones of ever different sizes would leave holes in the
heap, which keeps what is freed (`backend.keep_freed_memory`), until it is as large as the corpus.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from minillm.errors import InputError
from minillm.jit import jit
from minillm.kernels.layout import flat
from minillm.tokenizer.base import Text, check_utf8, to_bytes, to_text
from minillm.tokenizer.queue import grown
from minillm.tokenizer.scanner import classes, sure_start

CHUNK = 1 << 20  # bytes of a file read at a time
BLOCK = 1 << 24  # bytes of text given out at a time, about
Source = Text | os.PathLike[str]


def blocks_of(source: Source, errors: str) -> Iterator[bytes]:
    """The bytes of a text or a file, in blocks that do not cut a UTF-8 character."""
    if not isinstance(source, os.PathLike):
        data, offset = to_bytes(source), 0
        while offset < len(data):
            block = data[offset : offset + CHUNK]
            if offset + CHUNK < len(data):
                block = block[: _whole_characters(block)]
            yield block
            offset += len(block)
        return
    if errors not in ("strict", "replace", "bytes"):
        raise InputError(f"errors is {errors!r}; it takes 'strict', 'replace' or 'bytes'")
    offset, rest = 0, b""
    try:
        with Path(source).open("rb") as file:
            while block := file.read(CHUNK):
                block = rest + block
                whole = _whole_characters(block)
                block, rest = block[:whole], block[whole:]
                yield check_utf8(block, errors, source, offset)
                offset += whole
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror}") from error
    if rest:
        yield check_utf8(rest, errors, source, offset)


def lines_of(source: Source, errors: str) -> Iterator[str]:
    """The text in lines, each with its newline, wherever blocks end."""
    parts: list[str] = []
    for block in blocks_of(source, errors):
        begun, newline, text = to_text(block).partition("\n")
        parts.append(begun + newline)
        if newline:
            yield "".join(parts)
            *lines, rest = text.split("\n")
            yield from (line + "\n" for line in lines)
            parts = [rest]
    if any(parts):
        yield "".join(parts)


def _whole_characters(block: bytes) -> int:
    """How much of `block` lies before a character that its end cuts in two."""
    for back in range(1, min(4, len(block)) + 1):
        byte = block[-back]
        if byte & 0xC0 != 0x80:  # the first byte of the last character
            size = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(block) - back if size > back else len(block)
    return len(block)


def batches_of(
    sources: Iterable[Source], rules: int, errors: str
) -> Iterator[tuple[np.ndarray, list[int], int]]:
    """Texts end to end, where each ends, how far to count: many small ones or part of a large one.

    What lies beyond that place comes again in the next batch, which takes the place of this one.
    Texts are read-only, as when they are encoded: so loops over them are compiled once.
    """
    room, size, ends = np.empty(BLOCK + CHUNK, np.uint8), 0, [0]
    enough = BLOCK
    for source in sources:
        for block in blocks_of(source, errors):
            room = grown(room, size + len(block))
            room[size : size + len(block)] = np.frombuffer(block, np.uint8)
            size += len(block)
            if size < enough:
                continue
            until = ends[-1] + _last_start(rules, flat(room[ends[-1] : size]))
            if until == ends[-1]:  # a text that nobody may cut has to come whole
                enough = 2 * size
                continue
            yield flat(room[:size]), [*ends[1:], size], until
            room[: size - until] = room[until:size].copy()
            size, ends, enough = size - until, [0], BLOCK
        if size > ends[-1]:
            ends.append(size)
        if size >= BLOCK:
            yield flat(room[:size]), ends[1:], size
            size, ends, enough = 0, [0], BLOCK
    if size:
        yield flat(room[:size]), ends[1:], size


def _last_start(rules: int, data: np.ndarray) -> int:
    """A place near the end of `data` where a word starts for sure; 0 where there is none."""
    back = 1 << 12
    while back < 2 * len(data):
        begin = max(len(data) - back, 0)
        place = _sure_start(rules, data, begin, classes())
        if place < len(data):
            return place
        back *= 16
    return 0


@jit
def _sure_start(rules, data, begin, table):
    return sure_start(rules, data, begin, data.size, table)

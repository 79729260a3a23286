"""Texts and files as blocks of bytes, so that a corpus larger than memory passes through.

Small texts are joined, each with its end noted; a large file comes in parts. A part ends where a
word starts whatever stands before it (`scanner.sure_start`); what is left over opens the next.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from minillm.errors import InputError
from minillm.jit import jit
from minillm.tokenizer.base import Text, check_utf8, to_bytes
from minillm.tokenizer.scanner import classes, sure_start

BLOCK = 1 << 24  # bytes of a file read at a time
Source = Text | os.PathLike[str]


def blocks_of(source: Source, errors: str) -> Iterator[bytes]:
    """The bytes of a text, or of a file in blocks that do not cut a UTF-8 character."""
    if not isinstance(source, os.PathLike):
        yield to_bytes(source)
        return
    if errors not in ("strict", "replace", "bytes"):
        raise InputError(f"errors is {errors!r}; it takes 'strict', 'replace' or 'bytes'")
    offset, rest = 0, b""
    try:
        with Path(source).open("rb") as file:
            while block := file.read(BLOCK):
                block = rest + block
                whole = _whole_characters(block)
                block, rest = block[:whole], block[whole:]
                yield check_utf8(block, errors, source, offset)
                offset += whole
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror}") from error
    if rest:
        yield check_utf8(rest, errors, source, offset)


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
    """Texts end to end, where each ends, how far to count: many small ones or part of a file."""
    texts: list[bytes] = []
    waiting = 0
    for source in sources:
        rest = b""
        for block in blocks_of(source, errors):
            if len(block) < BLOCK // 2 and not rest:  # keep small texts until there are many
                rest = block
                continue
            data = np.frombuffer(rest + block, np.uint8)
            until = _last_start(rules, data)
            yield data, [len(data)], until
            rest = data[until:].tobytes()
        texts.append(rest)
        waiting += len(rest)
        if waiting >= BLOCK:
            yield _joined(texts)
            texts, waiting = [], 0
    yield _joined(texts)


def _joined(texts: list[bytes]) -> tuple[np.ndarray, list[int], int]:
    data = np.frombuffer(b"".join(texts), np.uint8)
    return data, np.cumsum([len(text) for text in texts]).tolist(), len(data)


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

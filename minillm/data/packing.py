"""Packing: whole documents in rows of one length, with little padding and nothing cut off.

Windows cut a long stream wherever they end, so most of them begin in the middle of one document and
hold parts of others. Packing gives every document a place where it is whole:

* a document longer than a row is cut into full rows and a rest, no token left out;
* documents and rests are taken from the longest to the shortest, and each goes into the row that
  it fills best: the one with the least room that is still enough (best-fit decreasing). Short
  documents fill what long ones leave, so little is padding.

The row that fits best is found by a set of bits, one for each amount of room, and a list of rows
for each: all of it takes time in proportion to the number of documents.

Each document keeps a number of its own in its row, so that attention stays inside it and positions
begin again (`models/base.py`): what a model learns from a packed row is, to rounding, what it
learns from its documents one by one.

Source: Ding et al. 2024, "Fewer truncations improve language modeling", section 3.
"""

from __future__ import annotations

import numpy as np

from minillm import backend
from minillm.errors import InputError
from minillm.jit import jit


def pieces_of(lengths: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Documents of these lengths cut into pieces of at most `size` tokens.

    Returns document, start in it, and length of each piece, (P,) int64.

    >>> [part.tolist() for part in pieces_of(np.array([5, 2]), 3)]
    [[0, 0, 1], [0, 3, 0], [3, 2, 2]]
    """
    if size < 1:
        raise InputError(f"rows of {size} tokens; at least 1")
    lengths = np.asarray(lengths, np.int64)
    counts = -(-lengths // size)
    document = np.repeat(np.arange(len(lengths)), counts)
    place = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    start = place * size
    return document, start, np.minimum(size, lengths[document] - start)


def pack(lengths: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    """Put pieces of these lengths, each 1 to `size`, into rows of `size`, best fit first.

    Of equal lengths, earlier pieces are placed first. Returns the row of each piece, (P,) int64,
    and the number of rows. Raises `InputError` for a length that does not fit.

    >>> rows, count = pack(np.array([3, 5, 2, 4]), 7)
    >>> rows.tolist(), count
    ([1, 0, 0, 1], 2)
    """
    lengths = np.asarray(lengths, np.int64)
    if len(lengths) and not 1 <= lengths.min() <= lengths.max() <= size:
        wrong = lengths[(lengths < 1) | (lengths > size)][0]
        raise InputError(f"a piece of {wrong} tokens in rows of {size}; pieces have 1 to {size}")
    order = np.argsort(-lengths, kind="stable")
    rows = np.empty(len(lengths), np.int64)
    place = _pack_fast if backend.fast() else pack_reference
    return rows, int(place(lengths, order, size, rows))


def pack_reference(lengths: np.ndarray, order: np.ndarray, size: int, rows: np.ndarray) -> int:
    """Fill in `rows`, looking at every row for every piece; returns the number of rows.

    Of rows with the same room, the one that came to it last is taken.
    """
    room: list[int] = []
    since: list[int] = []  # when each row came to its room
    for now, piece in enumerate(order.tolist()):
        length = int(lengths[piece])
        fitting = [row for row, free in enumerate(room) if free >= length]
        if fitting:
            row = min(fitting, key=lambda row: (room[row], -since[row]))
        else:
            row = len(room)
            room.append(size)
            since.append(now)
        room[row] -= length
        since[row] = now
        rows[piece] = row
    return len(room)


@jit
def _pack_fast(lengths, order, size, rows):
    """The same: rows of each room in a linked list, newest first; a bit for each list with rows."""
    count = 0
    newest = np.full(size + 1, -1, np.int64)  # the row that came to this room last
    before = np.empty(len(order), np.int64)  # the row that came to the same room before
    filled = np.zeros(size // 64 + 1, np.uint64)
    for piece in order:
        length = lengths[piece]
        word = length >> 6
        bits = filled[word] & (~np.uint64(0) << np.uint64(length & 63))
        while bits == 0 and word + 1 < len(filled):
            word += 1
            bits = filled[word]
        if bits == 0:
            row, free = count, size
            count += 1
        else:
            free = word << 6
            while bits & np.uint64(1) == 0:
                bits >>= np.uint64(1)
                free += 1
            row = newest[free]
            newest[free] = before[row]
            if newest[free] < 0:
                filled[free >> 6] &= ~(np.uint64(1) << np.uint64(free & 63))
        free -= length
        before[row] = newest[free]
        newest[free] = row
        filled[free >> 6] |= np.uint64(1) << np.uint64(free & 63)
        rows[piece] = row
    return count

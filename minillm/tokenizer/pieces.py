"""Cutting texts into pieces that threads can work on apart, with the result of working in order.

A piece is three numbers: where its first word begins, before where its last word begins, and where
its text ends (a pattern looks ahead past the end of a piece, but never past the end of a text).
Long texts are cut where a word starts whatever stands before it (`scanner.sure_start`); a text
without such a place stays whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from minillm import backend
from minillm.jit import jit
from minillm.tokenizer.scanner import classes, sure_start

PIECE = 1 << 18  # bytes: long enough to pay for the call, short enough to share out evenly
Share = TypeVar("Share")
Result = TypeVar("Result")


@jit
def cut(rules, data, ends, table, size):
    """The pieces (n, 3) int64 of the texts that lie in `data` end to end, each up to one of `ends`.

    All but the last of a text have `size` bytes or more.
    """
    pieces = np.empty((ends.size + data.size // size, 3), np.int64)
    n, begin = 0, 0
    for end in ends:
        while begin < end:
            until = sure_start(rules, data, begin + size, end, table)
            pieces[n, 0] = begin
            pieces[n, 1] = min(until, end)
            pieces[n, 2] = end
            n += 1
            begin = pieces[n - 1, 1]
    return pieces[:n].copy()


def groups_of(rules: int, data: np.ndarray, ends: Sequence[int]) -> list[np.ndarray]:
    """The pieces of texts, in order, in groups of about `PIECE` bytes."""
    pieces = cut(rules, data, np.asarray(ends, np.int64), classes(), PIECE)
    if not len(pieces):
        return []
    group = (pieces[:, 1] - 1) // PIECE
    return np.split(pieces, np.flatnonzero(np.diff(group)) + 1)


def in_parallel(work: Callable[[Share], Result], shares: Sequence[Share]) -> list[Result]:
    """`work(share)` of each, on as many threads as the backend may use; results in order."""
    threads = min(backend.threads(), len(shares))
    if threads < 2:
        return [work(share) for share in shares]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, shares))

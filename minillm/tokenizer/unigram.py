"""The unigram model: of all ways to cut a text into pieces, the most probable.

Every piece has a probability, and pieces are independent, so the log-probability of a cut is the
sum of its pieces' scores. The best cut is found from left to right (Viterbi): the best one that
ends at a place is the best one that ends where the last piece began, plus that piece,

    best[end] = max over pieces data[begin:end] of best[begin] + score(piece)

and following the winners back from the end gives the pieces. A trie yields all pieces that begin
at a place in one walk, so the work is the length of the text times that of the longest piece.

A character that is no piece costs ten more than the least probable piece, so it is taken only
where nothing else covers it.

Source: Kudo (2018), "Subword Regularization", arXiv:1804.10959, section 3.2.
"""

from __future__ import annotations

import numpy as np

from minillm.jit import jit
from minillm.tokenizer.inner import inner
from minillm.tokenizer.trie import build_trie, trie_step

PENALTY = 10.0  # of an unknown character, below the least probable piece


def trie_of(pieces: dict[bytes, int]) -> tuple[np.ndarray, np.ndarray]:
    """A trie of pieces, and the id of the piece that ends at each node, -1 for none."""
    order = sorted(pieces)
    data = np.frombuffer(b"".join(order), np.uint8)
    ends = np.cumsum([len(piece) for piece in order], dtype=np.int64)
    trie, nodes = build_trie(data, ends, np.arange(len(order), dtype=np.int32))
    ids = np.full(len(trie), -1, np.int32)
    ids[nodes] = [pieces[piece] for piece in order]
    return trie, ids


def best_cut(
    trie: np.ndarray, ids: np.ndarray, scores: np.ndarray, unknown: float, data: bytes
) -> np.ndarray:
    """The most probable pieces of `data` (UTF-8): rows of id and size in bytes, (N, 2) int64.

    A character that is no piece has the id -1. `scores` are log-probabilities by id; sums are made
    in their dtype.
    """
    text = np.frombuffer(data, np.uint8)
    least = scores.dtype.type(unknown)
    return _best_cut(trie, ids, scores, least, text)


@inner
def character_size(data, p):
    """The bytes of the character at `p` of valid UTF-8."""
    return 1 if data[p] < 0x80 else 2 if data[p] < 0xE0 else 3 if data[p] < 0xF0 else 4


@jit
def _best_cut(trie, ids, scores, unknown, data):
    size = data.size
    best = np.full(size + 1, -np.inf, scores.dtype)
    last = np.full(size + 1, -1, np.int32)  # the piece that ends here
    begin = np.zeros(size + 1, np.int64)  # and where it begins
    best[0] = 0
    p = 0
    while p < size:
        width = character_size(data, p)
        known = False
        node, end = 0, p
        while end < size:
            node = trie_step(trie, node, data[end])
            end += 1
            if node < 0:
                break
            piece = ids[node]
            if piece >= 0:
                known = known or end == p + width
                if best[p] + scores[piece] > best[end]:
                    best[end] = best[p] + scores[piece]
                    last[end] = piece
                    begin[end] = p
        if not known and best[p] + unknown > best[p + width]:
            best[p + width] = best[p] + unknown
            last[p + width] = -1
            begin[p + width] = p
        p += width
    count, p = 0, size
    while p > 0:
        count += 1
        p = begin[p]
    cut = np.empty((count, 2), np.int64)
    p = size
    while p > 0:
        count -= 1
        cut[count, 0] = last[p]
        cut[count, 1] = p - begin[p]
        p = begin[p]
    return cut

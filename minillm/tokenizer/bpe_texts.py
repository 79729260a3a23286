"""Encoding whole texts on all threads, with the result of encoding word after word.

Texts come apart where a word is sure to start (`pieces.py`), and where there is no such place for
long, the words are looked for. What remains are giant words: millions of letters without a space.
They are cut anywhere. Each part is encoded as a word of its own, the first part and a little of the
second, the second and a little of the third, and so on. For the bytes that two parts share, either
one's tokens are right in themselves: each may follow the one before (see `bpe_encoding.py`). So
once both have the same token at the same place, the one's tokens up to there and the other's from
there on are a sequence in which each may follow the one before, and that is the encoding. Most
parts agree after some ten bytes. A word with two that never do is encoded again as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise

import numpy as np

from minillm.jit import jit
from minillm.tokenizer import pieces
from minillm.tokenizer.bpe_encoding import LENGTH, Machine, encode_group
from minillm.tokenizer.scanner import WHOLE, classes, word_end

SHARED = 1 << 11  # bytes that two parts of a word share
Job = tuple[int, np.ndarray]  # rules and pieces


def encode_texts(
    machine: Machine, rules: int, data: np.ndarray, ends: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tokens of the texts that lie in `data` end to end, each up to one of `ends`.

    Returns all ids end to end (int32), and places in `data` (rising; texts end at some of them),
    each with the number of tokens since the one before, int64 both.
    """
    tasks: list[list[Job]] = []  # one job, or those of the parts of one word
    for group in pieces.groups_of(rules, data, ends):
        if group[0, 1] - group[0, 0] > 2 * pieces.PIECE:  # a long piece is the first of its group
            tasks += _cut_long(machine, rules, data, group[0])
            group = group[1:]
        if len(group):
            tasks.append([(rules, group)])
    jobs = list(chain.from_iterable(tasks))
    found = iter(pieces.in_parallel(lambda job: encode_group(machine, job[0], data, job[1]), jobs))
    ids, counts, untils = [np.empty(0, np.int32)], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for task in tasks:
        parts = [next(found) for _ in task]
        if len(parts) > 1:
            parts[0] = _join(machine, data, task, [tokens for tokens, _ in parts])
        ids.append(parts[0][0])
        counts.append(parts[0][1])
        untils.append(task[-1][1][:, 1])
    return np.concatenate(ids), np.concatenate(untils), np.concatenate(counts)


def _cut_long(machine: Machine, rules: int, data: np.ndarray, piece: np.ndarray) -> list[list[Job]]:
    """The jobs of one long piece: shorter pieces, and giant words in parts."""
    size = max(pieces.PIECE, int(machine.tokens[:, LENGTH].max()))
    tasks: list[list[Job]] = []
    for begin, end, giant in _spans(rules, data, piece, classes(), size).tolist():
        if not giant:
            tasks.append([(rules, np.array([[begin, end, piece[2]]]))])
            continue
        starts = range(begin, end - size, size)
        stops = [start + size + min(SHARED, size // 2) for start in starts[:-1]] + [end]
        parts = [np.array([[a, b, b]]) for a, b in zip(starts, stops, strict=True)]
        tasks.append([(WHOLE, part) for part in parts])
    return tasks


@jit
def _spans(rules, data, piece, table, size):
    """Rows of begin, end and whether it is a giant word: 0 for a few words, `size` bytes or more.

    A giant word has at least twice as many, so every row but the last one has `size` or follows
    one that has.
    """
    begin, until, stop = piece
    spans = np.empty((2 * ((until - begin) // size) + 2, 3), np.int64)
    n, p = 0, begin
    while p < until:
        end = word_end(rules, data, p, stop, table)
        giant = end - p >= 2 * size
        if giant and begin < p:
            spans[n, 0], spans[n, 1], spans[n, 2] = begin, p, 0
            n += 1
            begin = p
        if giant or end - begin >= size or end >= until:
            spans[n, 0], spans[n, 1], spans[n, 2] = begin, end, int(giant)
            n += 1
            begin = end
        p = end
    return spans[:n]


def _join(
    machine: Machine, data: np.ndarray, jobs: list[Job], parts: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of a word from those of its parts, and their number."""
    places = [part[0] for _, part in jobs]
    for number, (before, after) in enumerate(pairwise(places)):
        left, right = parts[number : number + 2]
        i, j = _meet(machine.tokens, left, before[1], right, after[0])
        if i < 0:
            whole = np.array([[places[0][0], places[-1][1], places[-1][1]]])
            return encode_group(machine, WHOLE, data, whole)
        parts[number], parts[number + 1] = left[:i], right[j:]
    ids = np.concatenate(parts)
    return ids, np.array([len(ids)])


@jit
def _meet(tokens, left, end, right, begin):
    """Where `left`, up to `end`, and `right`, from `begin` on, have the same token: i, j or -1."""
    i, p = left.size, end
    while p > begin:
        i -= 1
        p -= tokens[left[i], LENGTH]
    j, q = 0, begin
    while i < left.size and j < right.size:
        if p == q and left[i] == right[j]:
            return i, j
        if p <= q:
            p += tokens[left[i], LENGTH]
            i += 1
        else:
            q += tokens[right[j], LENGTH]
            j += 1
    return -1, -1

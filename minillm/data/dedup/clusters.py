"""Clusters: documents that are alike, directly or through others, by union-find.

Every document points at one with a smaller or the same number; following the pointers leads to the
root of its cluster, the smallest of them. Joining two clusters lets the larger root point at the
smaller. Source: Tarjan 1975, "Efficiency of a good but not linear set union algorithm" (with path
halving: on the way, each document is made to point at its pointer's pointer).

Buckets are documents whose band is the same. All pairs in a bucket are to be compared, which for a
page that was copied ten thousand times would be fifty million. But pairs that are already in one
cluster need no comparison. So rounds: first the first document of every bucket is compared with
the rest of it, and likes are joined; then the next two, the next four, ... against those after them
that are in another cluster still. A bucket of copies is done after the first round. The result is
that of comparing all pairs: each is compared, or was in one cluster already.

Most pairs that met by chance are told from their signatures, at the place where pairs are made: one
that agrees in too few places goes no further.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from minillm import backend
from minillm.jit import jit
from minillm.tokenizer.inner import inner

BLOCK = 1 << 18  # pairs that are judged at a time


def unite(
    roots: np.ndarray,
    buckets: Iterable[np.ndarray],
    bits: int,
    rows_of: Callable[[np.ndarray], np.ndarray],
    least: int,
    alike: Callable[[np.ndarray], np.ndarray],
) -> None:
    """Join the clusters of all documents that share a bucket and are alike.

    Args:
        roots: the pointers (N,) int64, changed in place; `np.arange(N)` to begin with.
        buckets: arrays of keys as `bands.shared_only` gives them; gone through several times.
        bits: how many lower bits of a key are the document's number.
        rows_of: gives the signatures (n, P) of documents (n,).
        least: in so many places the signatures of two documents agree at least, or they differ.
        alike: says of pairs (n, 2) of which that is true which are alike, (n,) bool.
    """
    low, high = 0, 1
    while high:
        for pairs in _in_blocks(_all_pairs(roots, buckets, bits, rows_of, least, low, high)):
            join(roots, pairs[alike(pairs)])
        more = any(largest(keys, bits) > high + 1 for keys in buckets)
        low, high = high, 2 * high + 1 if more else 0


def _all_pairs(
    roots: np.ndarray,
    buckets: Iterable[np.ndarray],
    bits: int,
    rows_of: Callable[[np.ndarray], np.ndarray],
    least: int,
    low: int,
    high: int,
) -> Iterator[np.ndarray]:
    for keys in buckets:
        documents = (keys & np.uint64(2**bits - 1)).astype(np.int64)
        upper, rows = keys >> np.uint64(bits), rows_of(documents)
        yield from pairs_of(upper, documents, rows, least, low, high, roots)


def _in_blocks(parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Pairs from `parts`, about `BLOCK` at a time, sorted; those that come twice, once."""
    waiting, size = [], 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= BLOCK:
            yield np.unique(np.concatenate(waiting), axis=0)
            waiting, size = [], 0
    if waiting:
        yield np.unique(np.concatenate(waiting), axis=0)


def largest(keys: np.ndarray, bits: int) -> int:
    """How many documents the largest bucket has."""
    upper = keys >> np.uint64(bits)
    edges = np.flatnonzero(upper[1:] != upper[:-1])
    return int(np.diff(edges, prepend=-1, append=len(keys) - 1).max())


def pairs_of(
    buckets: np.ndarray,
    documents: np.ndarray,
    rows: np.ndarray,
    least: int,
    low: int,
    high: int,
    roots: np.ndarray,
) -> Iterator[np.ndarray]:
    """Pairs of documents (n, 2) int64 from the same bucket and different clusters.

    Documents (n,) with their buckets (in order) and signatures. The first of each pair is at a
    place from `low` to `high` in its bucket, the other behind it, and their signatures agree in
    `least` places or more. At most `BLOCK` at a time; clusters joined meanwhile are heeded.
    """
    if not backend.fast(buckets, documents, rows, roots):
        yield from pairs_reference(buckets, documents, rows, least, low, high, roots)
        return
    place = np.array([0, low, low + 1], np.int64)
    while place[0] < len(buckets):
        out = np.empty((BLOCK, 2), np.int64)
        count = _pairs(buckets, documents, rows, least, low, high, roots, out, place)
        if count:
            yield out[:count]


def join(roots: np.ndarray, pairs: np.ndarray) -> None:
    """Join the clusters of both documents of every pair (n, 2), in place."""
    if not backend.fast(roots, pairs):
        for i, j in pairs.tolist():
            a, b = find_reference(roots, i), find_reference(roots, j)
            roots[max(a, b)] = min(a, b)
        return
    _join(roots, pairs)


def smallest_of_cluster(roots: np.ndarray) -> np.ndarray:
    """For every document the smallest number in its cluster, (N,) int64."""
    clusters = roots.copy()
    for begin in range(0, len(clusters), BLOCK):  # pointers go down, to what is done already
        part = clusters[begin : begin + BLOCK]
        while True:  # or to the same part, where each step halves the way that is left
            further = clusters[part]
            if np.array_equal(further, part):
                break
            part[:] = further
    return clusters


# ------------------------------------------------------------------------------- reference


def find_reference(roots: np.ndarray, i: int) -> int:
    """The root of document `i`."""
    while roots[i] != i:
        i = int(roots[i])
    return i


def pairs_reference(
    buckets: np.ndarray,
    documents: np.ndarray,
    rows: np.ndarray,
    least: int,
    low: int,
    high: int,
    roots: np.ndarray,
) -> Iterator[np.ndarray]:
    """`pairs_of`, bucket by bucket."""
    for bucket in np.split(np.arange(len(buckets)), np.flatnonzero(np.diff(buckets)) + 1):
        for place, leader in enumerate(bucket[low:high].tolist(), low + 1):
            others = bucket[place:][(rows[bucket[place:]] == rows[leader]).sum(axis=1) >= least]
            i = int(documents[leader])
            root = find_reference(roots, i)
            others = [j for j in documents[others].tolist() if find_reference(roots, j) != root]
            for begin in range(0, len(others), BLOCK):
                yield np.array([(i, j) for j in others[begin : begin + BLOCK]], np.int64)


# ------------------------------------------------------------------------------- fast twin
#
# The same loops without objects, which stop when the output is full and go on from `place`: the
# start of the bucket, and the places of both documents in it.


@inner
def find(roots, i):
    while roots[i] != i:
        roots[i] = roots[roots[i]]
        i = roots[i]
    return i


@jit
def _join(roots, pairs):
    for k in range(pairs.shape[0]):
        a, b = find(roots, pairs[k, 0]), find(roots, pairs[k, 1])
        roots[max(a, b)] = min(a, b)


@inner
def one_cluster(documents, roots):
    """Whether all of `documents` are together already: a look at each, not at each pair."""
    root = find(roots, documents[0])
    for i in documents:
        if find(roots, i) != root:
            return False
    return True


@inner
def agreeing(left, right):
    count = 0
    for k in range(left.size):
        count += left[k] == right[k]
    return count


@jit
def _pairs(buckets, documents, rows, least, low, high, roots, out, place):
    begin, leader, other, count = place[0], place[1], place[2], 0
    while begin < buckets.size:
        end = begin + 1
        while end < buckets.size and buckets[end] == buckets[begin]:
            end += 1
        stop = min(high, end - begin)
        if other == low + 1 and one_cluster(documents[begin:end], roots):
            stop = low
        while leader < stop:
            i, row = documents[begin + leader], rows[begin + leader]
            while begin + other < end:
                if count == out.shape[0]:
                    place[0], place[1], place[2] = begin, leader, other
                    return count
                j = documents[begin + other]
                if find(roots, i) != find(roots, j) and agreeing(row, rows[begin + other]) >= least:
                    out[count, 0], out[count, 1] = i, j
                    count += 1
                other += 1
            leader, other = leader + 1, leader + 2
        begin, leader, other = end, low, low + 1
    place[0] = begin
    return count

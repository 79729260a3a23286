"""MinHash: short signatures whose agreement estimates how many shingles two documents share.

    J(A, B) = |A and B| / |A or B|                       the Jaccard similarity of two sets
    m_k(A)  = min over x in A of pi_k(x)                 for P random permutations pi_k

The smallest of A and B together under pi_k is any of its elements with the same chance, and it lies
in both with chance J. So P(m_k(A) = m_k(B)) = J, and the share of equal places in two signatures of
P numbers estimates J with a standard deviation of sqrt(J (1 - J) / P): 0.035 at 0.8 with P = 128.

    pi_k(x) = a_k x + b_k  mod 2^32,  a_k odd            x: the upper half of a shingle's hash

which permutes the 32-bit numbers; shingles' hashes are random already. Source: Broder 1997, "On the
resemblance and containment of documents".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minillm import backend
from minillm.data.dedup.words import (
    batches,
    characters,
    fingerprint,
    fingerprint_reference,
    finish_reference,
    hash_shingles,
    letters,
    read_words,
    room_for,
    shingles_reference,
    words_reference,
)
from minillm.errors import InputError
from minillm.jit import jit, prange
from minillm.tokenizer.inner import inner

HALF = np.uint64(32)
EMPTY = np.uint32(0xFFFFFFFF)  # every place of the signature of a document without words
SHARE = 1 << 17  # bytes of text that a thread takes at a time


def sketch(
    texts: Sequence[str], permutations: int = 128, ngram: int = 5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Signatures (N, permutations) uint32 and fingerprints (N, 2) uint64 of `texts`.

    Equal settings give equal signatures on every machine and number of threads; those of different
    settings cannot be compared. Raises `InputError` for settings below 1.
    """
    if permutations < 1 or ngram < 1:
        raise InputError(f"{permutations} permutations of {ngram}-grams; both must be 1 or more")
    signatures = np.empty((len(texts), permutations), np.uint32)
    marks = np.empty((len(texts), 2), np.uint64)
    a, b = permutation_factors(permutations, seed)
    if not backend.fast():
        for i, text in enumerate(texts):
            shingles = shingles_reference(words_reference(text), ngram)
            signatures[i] = signature_reference(shingles, a, b)
            marks[i] = fingerprint_reference(shingles)
        return signatures, marks
    for first, data, ends in batches(texts):
        rows = slice(first, first + len(ends))
        with np.errstate(over="ignore"):  # without compilation, NumPy would warn
            _sketch(
                data, ends, shares(ends), characters(), letters(), ngram, a, b,
                signatures[rows], marks[rows],
            )  # fmt: skip
    return signatures, marks


def permutation_factors(permutations: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """a (odd) and b of every permutation, each (permutations,) uint32, by hashing 0, 1, 2, ..."""
    numbers = np.arange(2 * permutations, dtype=np.uint64)
    values = finish_reference(numbers + finish_reference(np.uint64(seed % 2**64)))
    halves = (values >> HALF).astype(np.uint32)
    return halves[:permutations] | np.uint32(1), halves[permutations:]


def agreement(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """In how many places signatures agree, pair by pair: two (N, P), gives (N,) int64.

    >>> agreement(np.array([[1, 2, 3, 4]]), np.array([[1, 2, 0, 4]]))
    array([3])
    """
    return (left == right).sum(axis=1)


# ------------------------------------------------------------------------------- reference


def signature_reference(shingles: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The signature (P,) uint32 of a document's shingles (uint64)."""
    if len(shingles) == 0:
        return np.full(len(a), EMPTY)
    x = (shingles >> HALF).astype(np.uint32)
    return (a[:, None] * x + b[:, None]).min(axis=1)  # uint32, so modulo 2^32


# ------------------------------------------------------------------------------- fast twin
#
# Threads take documents by the share. The smallest value under one permutation is looked for over
# all shingles, which lie in the nearest cache: 16 at a time with AVX-512, nothing stored.


def shares(ends: np.ndarray) -> np.ndarray:
    """Documents cut into shares of about `SHARE` bytes: where each begins, and the end."""
    group = (ends - 1) // SHARE
    inner = np.flatnonzero(np.diff(group)) + 1
    return np.concatenate([[0], inner, [len(ends)]]).astype(np.int64)


@jit(parallel=True)
def _sketch(data, ends, cuts, table, ascii, ngram, a, b, signatures, marks):
    for share in prange(cuts.size - 1):
        low, high = cuts[share], cuts[share + 1]
        _sketch_share(data, ends, low, high, table, ascii, ngram, a, b, signatures, marks)


@jit
def _sketch_share(data, ends, low, high, table, ascii, ngram, a, b, signatures, marks):
    room = room_for(longest(ends, low, high))
    words, hashes = np.empty(room, np.uint64), np.empty(room, np.uint64)
    x = np.empty(room, np.uint32)
    for i in range(low, high):
        count = read_words(data, ends[i - 1] if i else 0, ends[i], table, ascii, words)
        count = hash_shingles(words, count, ngram, hashes)
        fingerprint(hashes[:count], marks[i])
        upper = x[:count]
        for j in range(count):
            upper[j] = np.uint32(hashes[j] >> HALF)
        for k in range(a.size):
            factor, term, least = a[k], b[k], EMPTY
            for j in range(count):
                value = np.uint32(factor * upper[j] + term)
                least = min(least, value)
            signatures[i, k] = least


@inner
def longest(ends, low, high):
    """The size of the longest of the texts `low` to `high`."""
    size = 0
    for i in range(low, high):
        size = max(size, ends[i] - (ends[i - 1] if i else 0))
    return size

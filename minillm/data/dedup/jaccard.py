"""True Jaccard similarity of pairs of documents, from their sets of shingles.

    J(A, B) = |A and B| / |A or B| = shared / (|A| + |B| - shared)

A document's set is its sorted 64-bit shingle hashes without repeats. Two sorted lists are compared
in one walk along both. Sets are made when they are needed and forgotten, a bounded amount of text
at a time: they take as much memory as the texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from minillm import backend
from minillm.data.dedup.minhash import longest, shares
from minillm.data.dedup.words import (
    batches,
    characters,
    hash_shingles,
    letters,
    read_words,
    room_for,
    shingles_reference,
    words_reference,
)
from minillm.jit import jit, prange
from minillm.tokenizer.inner import inner

TEXT_AT_ONCE = 1 << 23  # characters of text whose sets are in memory together
TOP = np.uint64(64)


def similarities(texts: Sequence[str], pairs: np.ndarray, ngram: int = 5) -> np.ndarray:
    """The Jaccard similarity of the word n-grams of pairs of texts.

    Args:
        texts: anything that gives the text of document i as `texts[i]`.
        pairs: numbers of documents (n, 2); best sorted, so that a text is read once.
        ngram: words in a shingle.

    Returns (n,) float64; 0 for two texts without words.
    """
    out = np.zeros(len(pairs))
    for part, documents, chosen in _portions(texts, pairs):
        left, right = np.searchsorted(documents, pairs[part]).T
        if not backend.fast():
            sets = [set_reference(text, ngram) for text in chosen]
            out[part] = [
                similarity_reference(sets[i], sets[j])
                for i, j in zip(left.tolist(), right.tolist(), strict=True)
            ]
            continue
        hashes, begins, counts = shingle_sets(chosen, ngram)
        _similarities(hashes, begins, counts, left, right, out[part])
    return out


def _portions(
    texts: Sequence[str], pairs: np.ndarray
) -> Iterator[tuple[slice, np.ndarray, list[str]]]:
    """Runs of pairs with the numbers (sorted) and texts of their documents, bounded in size."""
    chosen: dict[int, str] = {}
    first, size = 0, 0
    for place, pair in enumerate(pairs.tolist()):
        for document in pair:
            if document not in chosen:
                chosen[document] = texts[document]
                size += len(chosen[document])
        if size >= TEXT_AT_ONCE or place == len(pairs) - 1:
            documents = sorted(chosen)
            yield slice(first, place + 1), np.array(documents), [chosen[i] for i in documents]
            first, size, chosen = place + 1, 0, {}


# ------------------------------------------------------------------------------- reference


def set_reference(text: str, ngram: int) -> np.ndarray:
    """The different shingles of `text`, sorted (uint64)."""
    return np.unique(shingles_reference(words_reference(text), ngram))


def similarity_reference(left: np.ndarray, right: np.ndarray) -> float:
    """The Jaccard similarity of two arrays of different numbers."""
    shared = len(np.intersect1d(left, right, assume_unique=True))
    return shared / max(1, len(left) + len(right) - shared)


# ------------------------------------------------------------------------------- fast twin
#
# Hashes are spread evenly, so a document's are sorted by putting each near the place that its upper
# bits tell, and then moving it a step or two: no comparison sort. The walk along two sets has no
# branch that the processor could guess wrong: both places move on by a comparison's outcome.


def shingle_sets(texts: Sequence[str], ngram: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The sets of `texts`: hashes (uint64), where in them each begins, and how many it has."""
    parts, begins, counts = [], [], []
    size = 0
    for _, data, ends in batches(texts):
        room = np.diff(ends, prepend=0) // 2 + 2  # `room_for` each
        first = np.cumsum(room) - room
        hashes, count = np.empty(room.sum(), np.uint64), np.empty(len(ends), np.int64)
        with np.errstate(over="ignore"):
            _sets(data, ends, shares(ends), characters(), letters(), ngram, first, hashes, count)
        parts.append(hashes)
        begins.append(first + size)
        counts.append(count)
        size += len(hashes)
    return np.concatenate(parts), np.concatenate(begins), np.concatenate(counts)


@jit(parallel=True)
def _sets(data, ends, cuts, table, ascii, ngram, first, hashes, counts):
    for share in prange(cuts.size - 1):
        room = room_for(longest(ends, cuts[share], cuts[share + 1]))
        words, runs = np.empty(room, np.uint64), np.empty(room, np.uint64)
        starts = np.empty(room + 1, np.int64)
        for i in range(cuts[share], cuts[share + 1]):
            start = ends[i - 1] if i else 0
            count = read_words(data, start, ends[i], table, ascii, words)
            count = hash_shingles(words, count, ngram, runs)
            out = hashes[first[i] : first[i] + count]
            sort_hashes(runs[:count], starts[: count + 1], out)
            counts[i] = without_repeats(out)


@inner
def sort_hashes(values, starts, out):
    """`values` in order into `out`; `starts` is room for one number more."""
    n = np.uint64(values.size)
    starts[:] = 0
    for value in values:  # n buckets: the upper 32 bits times n, divided by 2^32
        starts[(value >> TOP // 2) * n >> TOP // 2] += 1
    place = 0
    for bucket in range(values.size):
        place, starts[bucket] = place + starts[bucket], place
    for value in values:
        bucket = (value >> TOP // 2) * n >> TOP // 2
        out[starts[bucket]] = value
        starts[bucket] += 1
    for i in range(1, values.size):
        value, j = out[i], i
        while j > 0 and out[j - 1] > value:
            out[j] = out[j - 1]
            j -= 1
        out[j] = value


@inner
def without_repeats(values):
    """Move the different ones of sorted `values` to the front; returns how many."""
    count = 0
    for i in range(values.size):
        if i == 0 or values[i] != values[count - 1]:
            values[count] = values[i]
            count += 1
    return count


@jit(parallel=True)
def _similarities(hashes, begins, counts, left, right, out):
    for k in prange(left.size):
        a = hashes[begins[left[k]] : begins[left[k]] + counts[left[k]]]
        b = hashes[begins[right[k]] : begins[right[k]] + counts[right[k]]]
        out[k] = _similarity(a, b)


@inner
def _similarity(a, b):
    i, j, shared = 0, 0, 0
    while i < a.size and j < b.size:
        x, y = a[i], b[j]
        shared += x == y
        i += x <= y
        j += y <= x
    return shared / max(1, a.size + b.size - shared)

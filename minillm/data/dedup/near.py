"""Near duplicates: from texts to clusters of documents that share most of their words' runs.

    texts -> signatures (minhash.py) -> buckets of equal bands (bands.py)
          -> pairs, judged by signature, then by true similarity (jaccard.py) -> clusters

A pair of documents is one cluster when it shares a band and its Jaccard similarity over word
n-grams reaches the threshold; clusters are what such pairs connect. So nothing below the threshold
is ever taken for a duplicate by itself, and what is missed, the S-curve tells beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from minillm.data.dedup.bands import (
    band_keys,
    check_threshold,
    choose_bands,
    index_bits,
    shared_only,
    with_index,
)
from minillm.data.dedup.clusters import smallest_of_cluster, unite
from minillm.data.dedup.jaccard import similarities
from minillm.data.dedup.minhash import sketch
from minillm.errors import InputError

SURE = 4.0  # standard deviations that a signature's estimate is given the benefit of the doubt


def near_duplicates(
    texts: Sequence[str],
    threshold: float = 0.8,
    permutations: int = 128,
    ngram: int = 5,
    seed: int = 0,
) -> np.ndarray:
    """Find the documents that nearly repeat others.

    Args:
        texts: the documents.
        threshold: Jaccard similarity of their sets of word n-grams from which two are the same.
        permutations: numbers in a signature; more of them miss fewer duplicates.
        ngram: words in a shingle.
        seed: another one draws other permutations.

    Returns for every document the smallest number in its cluster, (N,) int64: those with
    `clusters == np.arange(N)` are the ones to keep. A document without words stands alone. Raises
    `InputError` for settings out of range.

    >>> story = "one upon a time there was a king who had a golden ball and lost it"
    >>> near_duplicates([story, "something else", story.upper() + "!"]).tolist()
    [0, 1, 0]
    """
    check_texts(texts)
    check_threshold(threshold)
    signatures, marks = sketch(texts, permutations, ngram, seed)
    roots, bits = np.arange(len(texts)), index_bits(len(texts))
    some = np.flatnonzero(marks.any(axis=1))
    same_words = shared_only(with_index(marks[some, 0], some, bits), bits)
    unite(roots, [same_words], bits, marks.__getitem__, 2, judge(None))
    some = some[roots[some] == some]
    bands, rows = choose_bands(threshold, permutations)
    keys = band_keys(signatures[some], some, bands, rows, bits)
    buckets = [shared_only(band, bits) for band in keys]
    least = least_agreement(threshold, permutations)
    unite(roots, buckets, bits, signatures.__getitem__, least, judge(texts, threshold, ngram))
    return smallest_of_cluster(roots)


def least_agreement(threshold: float, permutations: int, verified: bool = True) -> int:
    """In how many places the signatures of documents at the threshold agree at least.

    Where pairs are verified, they get `SURE` standard deviations of doubt: one pair in 30,000 at
    the threshold agrees in fewer places.
    """
    doubt = SURE * (threshold * (1 - threshold) / permutations) ** 0.5 if verified else 0.0
    return math.ceil(permutations * (threshold - doubt) - 1e-9)


def judge(
    texts: Sequence[str] | None, threshold: float = 1.0, ngram: int = 5
) -> Callable[[np.ndarray], np.ndarray]:
    """The function that says which pairs of documents (n, 2) reach the threshold, (n,) bool.

    Without texts, all do: those that came so far agree in enough places.
    """

    def alike(pairs: np.ndarray) -> np.ndarray:
        if texts is None:
            return np.ones(len(pairs), bool)
        return similarities(texts, pairs, ngram) >= threshold

    return alike


def check_texts(texts: Sequence[str]) -> None:
    """Raise `InputError` where a text is given in place of many."""
    if isinstance(texts, str | bytes):
        raise InputError("one text was given; a list of texts is needed")

"""True similarity: that of Python's sets, however the texts are portioned."""

import random
import re

import numpy as np
import pytest
from planted import corpus

from minillm import backend
from minillm.data.dedup import jaccard, similarities


def by_sets(left, right, ngram):
    def shingles(text):
        words = re.findall(r"[a-z0-9]+", text.lower())
        return {tuple(words[i : i + ngram]) for i in range(max(1, len(words) - ngram + 1))} - {()}

    left, right = shingles(left), shingles(right)
    return len(left & right) / max(1, len(left | right))


@pytest.mark.parametrize("name", ["numba", "numpy"])
@pytest.mark.parametrize("ngram", [1, 2, 5])
@pytest.mark.parametrize("at_once", [1, 3000, 1 << 23])
def test_similarity_is_that_of_sets(name, ngram, at_once, monkeypatch):
    monkeypatch.setattr(jaccard, "TEXT_AT_ONCE", at_once)
    texts = [*corpus(1, originals=10, words=60), "", "a", "A.", "a a a a a a a", "..."]
    rng = random.Random(0)
    pairs = np.array([rng.sample(range(len(texts)), 2) for _ in range(120)])
    expected = [by_sets(texts[i], texts[j], ngram) for i, j in pairs.tolist()]
    with backend.use(name):
        np.testing.assert_array_equal(similarities(texts, pairs, ngram), expected)
    assert len(similarities(texts, pairs[:0])) == 0


def test_hashes_are_sorted_and_repeats_dropped():
    texts = corpus(2, originals=5) + ["x y " * 300, "", "one"]
    hashes, begins, counts = jaccard.shingle_sets(texts, 3)
    for text, begin, count in zip(texts, begins.tolist(), counts.tolist(), strict=True):
        found = hashes[begin : begin + count]
        np.testing.assert_array_equal(found, jaccard.set_reference(text, 3))

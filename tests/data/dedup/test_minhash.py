"""MinHash: the estimate is right on average and errs as far as it should."""

import random

import numpy as np
import pytest
from planted import text

from minillm import backend
from minillm.data.dedup import agreement, sketch
from minillm.data.dedup.minhash import EMPTY, permutation_factors, signature_reference
from minillm.errors import InputError


@pytest.mark.parametrize(("size", "similarity"), [(40, 0.5), (500, 0.8), (500, 0.95)])
def test_estimates_are_unbiased_and_spread_like_coin_tosses(size, similarity):
    rng = np.random.default_rng(0)
    shared = round(size * similarity)
    estimates = []
    for seed in range(600):
        a, b = permutation_factors(128, seed)
        both = rng.integers(0, 2**64, size, dtype=np.uint64)
        left, right = (
            both[: (shared + size) // 2],
            np.delete(both, np.s_[shared : (shared + size) // 2]),
        )
        left, right = signature_reference(left, a, b), signature_reference(right, a, b)
        estimates.append((left == right).mean())
    true, spread = shared / size, np.sqrt(similarity * (1 - similarity) / 128)
    assert abs(np.mean(estimates) - true) < 4 * spread / np.sqrt(600)
    assert 0.85 < np.std(estimates) / spread < 1.15


def test_permutations_are_one_to_one_and_differ():
    a, b = permutation_factors(256, seed=3)
    assert (a % 2 == 1).all()  # odd factors have an inverse modulo 2^32
    assert len(set(zip(a.tolist(), b.tolist(), strict=True))) == 256
    assert not np.array_equal(a, permutation_factors(256, seed=4)[0])
    np.testing.assert_array_equal(a[:1], permutation_factors(256, seed=3)[0][:1])


def test_signatures_are_the_same_everywhere_and_forever():
    """Files of signatures from other machines and versions are to be compared."""
    signatures, marks = sketch(["The quick brown fox jumps over the lazy dog, again and again."])
    assert signatures[0, :4].tolist() == [56625330, 204081415, 683233466, 243707247]
    assert marks[0].tolist() == [1280614721022450854, 13702422225826942826]


def test_neither_threads_nor_batches_change_a_signature(monkeypatch):
    texts = [text(random.Random(seed), 50) for seed in range(60)]
    whole = sketch(texts)
    monkeypatch.setattr("minillm.data.dedup.words.BATCH", 1000)
    monkeypatch.setattr("minillm.data.dedup.minhash.SHARE", 200)
    before = backend.threads()
    try:
        backend.set_threads(1)
        parts = sketch(texts)
    finally:
        backend.set_threads(before)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, other)


def test_texts_without_words_and_no_texts():
    signatures, marks = sketch(["", " \n", "?!"])
    assert (signatures == EMPTY).all()
    assert (marks == 0).all()
    assert sketch([])[0].shape == (0, 128)
    assert agreement(np.ones((2, 5)), np.ones((2, 5))).tolist() == [5, 5]


@pytest.mark.parametrize("settings", [{"permutations": 0}, {"ngram": 0}])
def test_settings_below_one(settings):
    with pytest.raises(InputError, match="both must be 1 or more"):
        sketch(["a"], **settings)

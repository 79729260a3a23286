"""Words and shingles: what counts as the same text, and the twin against the reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import backend
from minillm.data.dedup import sketch
from minillm.data.dedup.words import fingerprint_reference, shingles_reference, words_reference

TEXTS = st.text("abZ9é _-.\n\t'ÀßİДд\u0301中の\u0e01🙂\ud800\x00", max_size=30)


@settings(deadline=None, max_examples=150)
@given(st.lists(TEXTS, max_size=4), st.integers(1, 6))
def test_the_twin_reads_what_the_reference_reads(texts, ngram):
    fast = sketch(texts, 8, ngram)
    with backend.use("numpy"):
        plain = sketch(texts, 8, ngram)
    for one, other in zip(fast, plain, strict=True):
        np.testing.assert_array_equal(one, other)


def test_words_are_letters_and_digits_in_lower_case():
    same = ["Don't STOP: 42 Ärger!", "don t stop 42 ärger", "\n(don't)\tstop--42, ÄRGER…"]
    first = words_reference(same[0])
    assert len(first) == 5
    for text in same:
        np.testing.assert_array_equal(words_reference(text), first)
    assert len(set(words_reference("a b ab ba aab abb aa bb 1 11 é e").tolist())) == 12


@pytest.mark.parametrize(("text", "count"), [("我们 ok の", 4), ("กข", 2), ("한국어 말", 2)])
def test_scripts_without_spaces_give_a_word_per_character(text, count):
    assert len(words_reference(text)) == count


def test_shingles_are_runs_of_words():
    words = np.arange(1, 8, dtype=np.uint64)
    for ngram in (1, 2, 5, 7):
        shingles = shingles_reference(words, ngram)
        assert len(set(shingles.tolist())) == 8 - ngram
        if ngram < 7:
            np.testing.assert_array_equal(shingles[1:], shingles_reference(words[1:], ngram))
    assert len(shingles_reference(words, 8)) == 1  # fewer words than that: all of them
    assert len(shingles_reference(words[:0], 5)) == 0
    assert shingles_reference(words[:2], 5) != shingles_reference(words[1::-1], 5)


def test_fingerprints_know_the_words_and_their_order():
    def mark(text):
        return tuple(fingerprint_reference(shingles_reference(words_reference(text), 5)).tolist())

    assert mark("one two, three") == mark("One\ntwo three.")
    texts = ["one two three", "three two one", "one two", "a b a b a b a", "a b a b a b a b a", ""]
    assert len({mark(text) for text in texts}) == len(texts)
    assert mark(" ...") == (0, 0)

"""Fingerprints: no shared passage is missed, and the first document that has it is named."""

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import text

from minillm import backend
from minillm.data.dedup import earlier_sharers, texts_before, write_fingerprints
from minillm.data.dedup.prints import fingerprints


@settings(deadline=None, max_examples=150)
@given(st.lists(st.text("abé🙂\ud800", max_size=60), max_size=4), st.integers(1, 20))
def test_the_twin_finds_what_the_reference_finds(texts, least):
    fast = fingerprints(texts, least)
    with backend.use("numpy"):
        np.testing.assert_array_equal(fast, fingerprints(texts, least))


@settings(deadline=None, max_examples=150)
@given(st.data(), st.integers(1, 30))
def test_texts_that_share_a_passage_share_a_fingerprint(data, least):
    letters = st.text("ab", max_size=50)
    passage = data.draw(st.text("ab", min_size=least, max_size=least + 20))
    texts = [data.draw(letters) + passage + data.draw(letters) for _ in range(2)]
    found = fingerprints(texts, least)
    both = [set(found["hash"][found["document"] == number].tolist()) for number in range(2)]
    assert both[0] & both[1]


def test_few_runs_are_fingerprints():
    rng = random.Random(0)
    texts = [text(rng, 500) for _ in range(20)]
    found = fingerprints(texts, 200)
    expected = sum(len(one) - 100 + 1 for one in texts) * 2 / 102
    assert abs(len(found) / expected - 1) < 0.1
    assert len(np.unique(found["hash"])) == len(found)


def test_the_first_of_the_kept_documents_with_a_passage_is_named(tmp_path):
    rng = random.Random(0)
    own = [text(rng, 60) for _ in range(8)]
    licence, speech = text(rng, 80), text(rng, 80)
    for number in (1, 2, 6):
        own[number] += licence
    for number in (4, 7):
        own[number] = speech + own[number]
    own[5] = own[3]
    paths = [tmp_path / "0.prints", tmp_path / "1.prints", tmp_path / "2.prints"]
    for path, some in zip(paths, (own[:4], [], own[4:]), strict=True):
        write_fingerprints(path, some, 100)
    firsts, kept = np.array([0, 4, 4]), np.ones(8, bool)

    def sharers(memory=1 << 20):
        return earlier_sharers(paths, firsts, kept, memory, tmp_path).tolist()

    assert sharers() == [[2, 1], [5, 3], [6, 1], [7, 4]]
    assert sharers(memory=100) == sharers()
    kept[[1, 5]] = False
    assert sharers() == [[6, 2], [7, 4]]


def test_earlier_texts_are_those_of_most_documents_and_no_more_than_wanted():
    pairs = np.array([[3, 0], [10, 2], [11, 1], [11, 10], [12, 1], [12, 2], [13, 1], [20, 5]])
    assert texts_before(pairs, 10, 14, "abcdef".__getitem__, 100) == ["b", "c"]
    assert texts_before(pairs, 10, 14, "abcdef".__getitem__, 1) == ["b"]
    assert texts_before(pairs, 14, 20, "abcdef".__getitem__, 100) == []

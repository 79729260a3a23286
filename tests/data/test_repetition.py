"""Repetition: the compiled measure is the plain one, and both are what the words say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import backend
from minillm.data import repetition
from minillm.data.repetition import duplicates, ngram_shares, ngram_shares_reference

texts = st.lists(st.sampled_from(["a", "bb", "ccc", "über", "日本"]), max_size=60).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(st.one_of(texts, st.text(max_size=80)))
def test_the_compiled_measure_is_the_plain_one(text):
    words = "".join(c if c.isascii() or not c.isspace() else "_" for c in text)
    shares = ngram_shares(words)
    np.testing.assert_allclose(shares, ngram_shares_reference(words.split()), rtol=1e-12)
    assert ((shares >= 0) & (shares <= 1)).all()
    with backend.use("numpy"):
        np.testing.assert_allclose(ngram_shares(words), shares, rtol=1e-12)


def test_what_the_shares_are():
    text = "to be or not to be that is the question"
    shares = dict(zip(repetition.SIZES, ngram_shares(text), strict=True))
    assert shares[2] == pytest.approx(8 / 30)  # "to be", twice, of 30 letters
    assert shares[3] == 0
    line = "one two three four five six seven eight nine ten "
    assert ngram_shares(line) == pytest.approx(0)
    assert ngram_shares(line * 2)[3:] == pytest.approx(1)
    assert ngram_shares("") == pytest.approx(0)


@settings(max_examples=50, deadline=None)
@given(texts)
def test_longer_runs_never_cover_more(text):
    shares = ngram_shares(text)[3:]  # all duplicates, from 5 words on
    assert (np.diff(shares) <= 1e-12).all()


def test_lines_that_come_again():
    assert duplicates([]) == (0, 0)
    assert duplicates(["x", "y"]) == (0, 0)
    assert duplicates(["xx", "y", "xx", "y", "xx"]) == (3 / 5, 5 / 8)

"""Repeated passages: what is cut stood before, and what is left repeats nothing."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import text

from minillm import backend
from minillm.data.dedup import cut_passages, repeated_passages, repeated_runs
from minillm.errors import InputError


@settings(deadline=None, max_examples=150)
@given(st.lists(st.text("abé🙂\ud800", max_size=40), max_size=5), st.integers(1, 9))
def test_the_twin_finds_what_the_reference_finds(documents, least):
    fast = repeated_passages(documents, least)
    with backend.use("numpy"):
        plain = repeated_passages(documents, least)
    np.testing.assert_array_equal(fast, plain)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.lists(st.integers(0, 2), max_size=30), min_size=1, max_size=4), st.integers(1, 6)
)
def test_exactly_what_stood_wholly_before_is_covered(documents, least):
    covered, seen = set(), {}
    place = 0
    for number, document in enumerate(documents):
        for start in range(len(document) - least + 1):
            run = tuple(document[start : start + least])
            if place + start - seen.setdefault(run, place + start) >= least:
                covered |= {(number, i) for i in range(start, start + least)}
        place += len(document) + 1
    spans = repeated_runs([np.array(document, np.int64) for document in documents], least)
    assert {(n, i) for n, start, stop, *_ in spans.tolist() for i in range(start, stop)} == covered
    for number, start, stop, first, begin in spans.tolist():
        assert stop - start >= least
        run = documents[number][start : start + least]
        assert documents[first][begin : begin + least] == run
        assert first < number or begin + least <= start


def test_a_licence_in_many_documents_is_kept_once():
    rng = random.Random(0)
    licence = text(rng, 80)
    own = [text(rng, 60) for _ in range(20)]
    documents = [f"{part[:100]}\n{licence}\n{part[100:]}" for part in own]
    spans = repeated_passages(documents, least_bytes=100)
    assert spans[:, 0].tolist() == list(range(1, 20))
    assert (spans[:, 3] < spans[:, 0]).all()
    left = cut_passages(documents, spans)
    assert left[0] == documents[0]
    for part, rest in zip(own[1:], left[1:], strict=True):
        assert len(part) - 10 <= len(rest) <= len(part) + 2
    assert len(repeated_passages(left, least_bytes=100)) == 0


def test_a_repeat_inside_one_document_and_one_that_overlaps_itself():
    joke = "the same old joke, told again and again; "
    (span,) = repeated_passages(["x" + joke + "y" + joke + "z"], least_bytes=30).tolist()
    assert span == [0, 1 + len(joke) + 1, 2 + 2 * len(joke), 0, 1]
    (span,) = repeated_passages(["-" * 1000], least_bytes=30).tolist()
    assert span[:3] == [0, 30, 1000]  # the first copy stays


def test_characters_are_not_cut_in_two():
    documents = ["aé" + "b" * 10 + "ü", "xè" + "b" * 10 + "ű"]  # é and è share a byte, ü and ű too
    spans = repeated_passages(documents, least_bytes=5)
    assert cut_passages(documents, spans)[1] == "xèű"


def test_nothing_to_find_and_bad_input():
    for documents in ([], [""], ["", ""], ["short", "short"]):
        assert repeated_passages(documents, least_bytes=6).shape == (0, 5)
        assert cut_passages(documents, repeated_passages(documents)) == documents
    assert repeated_passages(["short", "short"], least_bytes=5).tolist() == [[1, 0, 5, 0, 0]]
    with pytest.raises(InputError, match="at least one symbol"):
        repeated_passages(["a"], least_bytes=0)
    with pytest.raises(InputError, match="a list of texts"):
        repeated_passages("a")

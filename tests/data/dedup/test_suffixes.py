"""Suffix arrays: the order of Python's own comparison, on texts made to be hard."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import backend
from minillm.data.dedup import common_prefixes, suffix_array


def by_sorting(text):
    order = sorted(range(len(text)), key=lambda i: text[i:])
    common = [0] * len(text)
    for before, start in itertools.pairwise(order):
        while text[before + common[start] :][:1] == text[start + common[start] :][:1] != text[:0]:
            common[start] += 1
    return order, common


@pytest.mark.parametrize("name", ["numba", "numpy"])
@settings(deadline=None, max_examples=150)
@given(
    st.one_of(st.binary(max_size=60), st.text("ab", max_size=80).map(str.encode)), st.integers(1, 4)
)
def test_order_and_shared_lengths(name, text, times):
    text *= times
    symbols = np.frombuffer(text, np.uint8)
    with backend.use(name):
        order = suffix_array(symbols)
        common = common_prefixes(symbols, order)
    expected = by_sorting(text)
    assert order.tolist() == expected[0]
    assert common.tolist() == expected[1]


def fibonacci(size):
    a, b = b"a", b"ab"
    while len(b) < size:
        a, b = b, b + a
    return b[:size]


@pytest.mark.parametrize(
    "text", [b"a" * 3000, b"ab" * 1500, fibonacci(3000), bytes(range(255, 0, -1)) * 5], ids=len
)
def test_texts_full_of_repeats(text):
    symbols = np.frombuffer(text, np.uint8)
    order = suffix_array(symbols)
    assert order.tolist() == by_sorting(text)[0]
    with backend.use("numpy"):
        np.testing.assert_array_equal(order, suffix_array(symbols))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 2**40), max_size=40))
def test_numbers_of_any_size(numbers):
    order = suffix_array(np.array(numbers, np.int64))
    assert order.tolist() == by_sorting(numbers)[0]

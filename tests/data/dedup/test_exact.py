"""Exact duplicates: equal but for case, spacing and the way accents are written."""

from minillm.data.dedup import exact_duplicates


def test_the_first_of_equal_texts():
    texts = ["a b", "x", "A  b\n", "a-b", "ab", "X ", "café", "cafe\u0301", "", " \t", "a b"]
    assert exact_duplicates(texts).tolist() == [0, 1, 0, 3, 4, 1, 6, 6, 8, 8, 0]
    assert exact_duplicates([]).tolist() == []
    assert exact_duplicates(iter(["\ud800", "\ud800"])).tolist() == [0, 0]

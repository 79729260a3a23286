"""Counting words: in pieces, in blocks and in parallel, the counts stay the same."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import backend
from minillm.errors import InputError
from minillm.tokenizer import patterns, pieces, reading
from minillm.tokenizer.bpe_counting import count_words

TEXT = "It's 12,345 words, isn't it?\n\n  naïve 日本語のテキスト 🙂 \t\n/end/\r\n" * 40
NAMES = ["gpt2", "gpt4", "gpt4o", "qwen2", "whole", r"\w+|\W+"]
named = pytest.mark.parametrize("name", NAMES)


def as_dictionary(words):
    data, lengths, counts = words
    found, begin = {}, 0
    for length, count in zip(lengths.tolist(), counts.tolist(), strict=True):
        found[data[begin : begin + length].tobytes()] = count
        begin += length
    assert len(found) == len(lengths)  # no word twice
    return found


def by_regex(texts, name):
    return Counter(word for text in texts for word in patterns.split(text.encode(), name))


@named
@settings(deadline=None, max_examples=30)
@given(st.lists(st.text("ab' \n1é\u3000", max_size=40), max_size=6))
def test_counts_of_many_texts(name, texts):
    assert as_dictionary(count_words(texts, name)) == by_regex(texts, name)


@named
@pytest.mark.parametrize("block", [5, 64, 1000, 1 << 24])
def test_a_file_in_blocks_counts_as_a_whole(name, block, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "BLOCK", block)
    path = tmp_path / "text.txt"
    path.write_bytes(TEXT.encode())
    seen = []
    words = count_words([path, "more text"], name, progress=lambda *report: seen.append(report))
    assert as_dictionary(words) == by_regex([TEXT, "more text"], name)
    assert seen[-1][1] == len(TEXT.encode()) + len("more text")


def test_threads_do_not_change_the_counts(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 1000)
    text = "".join(f"word{i % 500} and {i}\n" for i in range(3000))
    before = backend.threads()
    try:
        backend.set_threads(1)
        alone = as_dictionary(count_words([text], "gpt4"))
    finally:
        backend.set_threads(before)
    assert as_dictionary(count_words([text], "gpt4")) == alone == by_regex([text], "gpt4")


@pytest.mark.parametrize("block", [3, 1 << 24])
def test_files_that_are_not_utf8(block, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "BLOCK", block)
    path = tmp_path / "text.txt"
    path.write_bytes("né".encode() * 5 + b"\xff x")
    with pytest.raises(InputError, match=r"text.txt is not UTF-8 text: byte 0xff at 15"):
        count_words([path], "gpt2")
    assert as_dictionary(count_words([path], "gpt2", "bytes"))[b"\xff"] == 1
    assert as_dictionary(count_words([path], "gpt2", "replace"))["\ufffd".encode()] == 1
    with pytest.raises(InputError, match="it takes 'strict', 'replace' or 'bytes'"):
        count_words([path], "gpt2", "ignore")
    path.write_bytes("né".encode()[:-1])
    with pytest.raises(InputError, match="byte 0xc3 at 1"):
        count_words([path], "gpt2")

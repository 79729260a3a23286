"""Counting words: in pieces, in blocks and in parallel, the counts stay the same."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import backend
from minillm.errors import InputError
from minillm.tokenizer import base, bpe_counting, patterns, pieces, reading, scanner
from minillm.tokenizer.bpe_counting import count_words

TEXT = "It's 12,345 words, isn't it?\n\n  naïve 日本語のテキスト 🙂 \t\n/end/\r\n" * 40
NAMES = ["gpt2", "gpt4", "gpt4o", "qwen2", "whole", r"\w+|\W+", r"(?<=a)b?|\w+(?!i)"]
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
@pytest.mark.parametrize("block", [5, 64, 1000, 1 << 20])
def test_a_file_in_blocks_counts_as_a_whole(name, block, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "CHUNK", block)
    monkeypatch.setattr(reading, "BLOCK", 3 * block)
    monkeypatch.setattr(patterns, "LOOK", 20)
    path = tmp_path / "text.txt"
    path.write_bytes(TEXT.encode())
    seen = []
    words = count_words([path, "more text"], name, progress=lambda *report: seen.append(report))
    assert as_dictionary(words) == by_regex([TEXT, "more text"], name)
    assert seen[-1][1] == len(TEXT.encode()) + len("more text")


@pytest.mark.parametrize("block", [64, 1 << 20])
def test_blocks_look_as_texts_do_when_they_are_encoded(block, monkeypatch):
    """Read-only: loops over them are compiled once."""
    monkeypatch.setattr(reading, "CHUNK", block)
    monkeypatch.setattr(reading, "BLOCK", 3 * block)
    batches = list(reading.batches_of([TEXT, "more"], scanner.RULES["gpt4"], "strict"))
    assert len(batches) > 1 or block > len(TEXT)
    assert not any(data.flags.writeable for data, _, _ in batches)


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


@pytest.mark.parametrize("name", ["gpt2", r"\S+|\s"])
def test_a_table_that_is_full_forgets_the_rarest_words(name, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "CHUNK", 500)
    monkeypatch.setattr(reading, "BLOCK", 1000)
    monkeypatch.setattr(bpe_counting, "WORDS", 300)
    monkeypatch.setattr(pieces, "PIECE", 100)
    rng = np.random.default_rng(0)
    often = ["often" + letter for letter in "abcdefghijklmnopqrst"]
    once = ["".join(letters) for letters in itertools.product("abcdefghijklmno", repeat=3)]
    words = often * 100 + once
    rng.shuffle(words)
    path = tmp_path / "text.txt"
    path.write_text("\n".join(words))
    found = []
    before = backend.threads()
    for threads in (1, 2):
        backend.set_threads(threads)
        with pytest.warns(UserWarning, match=r"some that had occurred \d+ times or less were forg"):
            found.append(as_dictionary(count_words([path], name)))
    backend.set_threads(before)
    assert found[0] == found[1] and len(found[0]) < 500
    for word in often:
        assert 95 <= found[0][word.encode()] <= 100
    monkeypatch.setattr(bpe_counting, "WORDS", 10**6)
    monkeypatch.setattr(bpe_counting, "BYTES", 2000)
    with pytest.warns(UserWarning, match="or 2,000 bytes of them"):
        data, _, _ = count_words([path], name)
    assert len(data) < 3000


@pytest.mark.parametrize("block", [4, 1 << 20])
def test_files_that_are_not_utf8(block, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "CHUNK", block)
    monkeypatch.setattr(reading, "BLOCK", 3 * block)
    path = tmp_path / "text.txt"
    monkeypatch.setattr(base, "CHECKED", 5)
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

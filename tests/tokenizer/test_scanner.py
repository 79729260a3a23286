"""The compiled scanners find exactly the words that `regex` finds."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.errors import InputError
from minillm.tokenizer import patterns, pieces, scanner

# Every kind of character the patterns tell apart, and those with a rule of their own.
TRICKY = (
    "aZßſ日ǅʰ\u0301\u0903 9٣½\u3000\u00a0\u0085\u2028\t\r\n'/sStTdDmMlLvVrReE!.-\u200d🙂𝐀\ufffd"
)
TEXTS = st.one_of(
    st.text(max_size=60),
    st.text(TRICKY, max_size=60),
    st.lists(st.sampled_from(["don't ", "I'LL", "'ſ", " \n", "   x", "1234", "日A日", "/\n/"])).map(
        "".join
    ),
)
NAMES = sorted(scanner.RULES)
named = pytest.mark.parametrize("name", NAMES)


def words(data, name):
    """The words of `data` by `regex`, as the places where they end."""
    return np.cumsum([len(word) for word in patterns.split(data, name)], dtype=np.int64)


@named
@settings(deadline=None, max_examples=300)
@given(text=TEXTS)
def test_words_of_any_text(name, text):
    data = text.encode()
    assert scanner.word_ends(data, name).tolist() == words(data, name).tolist()


@named
@settings(deadline=None, max_examples=200)
@given(data=st.one_of(st.binary(max_size=40), TEXTS.map(str.encode)), cut=st.integers(0, 40))
def test_words_of_any_bytes(name, data, cut):
    broken = data[cut:] + data[:cut]  # characters cut in two
    assert scanner.word_ends(broken, name).tolist() == words(broken, name).tolist()


def around(codes):
    """A text with each of these characters beside letters of both cases, digits and spaces."""
    return "".join(f"a{c}b {c}{c}B{c}1 '{c}\n{c}!{c} " for c in map(chr, codes))


@named
def test_characters_where_the_class_changes(name):
    change = np.flatnonzero(np.diff(scanner.classes())) + 1
    codes = sorted({*change.tolist(), *(change - 1).tolist(), *range(256)})
    data = around(code for code in codes if not 0xD800 <= code < 0xE000).encode()
    assert np.array_equal(scanner.word_ends(data, name), words(data, name))


@pytest.mark.slow
@named
def test_every_character_of_unicode(name):
    for first in range(0, 0x110000, 0x8000):
        codes = [code for code in range(first, first + 0x8000) if not 0xD800 <= code < 0xE000]
        data = around(codes).encode()
        assert np.array_equal(scanner.word_ends(data, name), words(data, name))


@named
@settings(deadline=None, max_examples=200)
@given(texts=st.lists(TEXTS, max_size=4), size=st.integers(1, 12))
def test_pieces_have_the_words_of_the_whole(name, texts, size):
    texts = [text.encode() for text in texts]
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    data = np.frombuffer(b"".join(texts), np.uint8)
    rules, table = scanner.RULES[name], scanner.classes()
    found = []
    for begin, until, end in pieces.cut(rules, data, ends, table, size):
        while begin < until:
            begin += scanner.word_ends(data[begin:end].tobytes(), name)[0]
            found.append(begin)
        assert begin == until
    starts = [0, *ends.tolist()]
    expected = [starts[i] + words(text, name) for i, text in enumerate(texts)]
    assert found == np.concatenate([[], *expected]).tolist()


def test_words_of_real_text():
    text = Path(__file__).read_text("utf-8") + "Ünï cödé — 日本語のテキスト。\r\n\r\n" * 50
    for name in NAMES:
        data = text.encode()
        assert np.array_equal(scanner.word_ends(data, name), words(data, name))


@pytest.mark.parametrize("spelled", patterns._ALIASES)
def test_a_pattern_known_by_its_expression_cuts_as_the_expression_does(spelled):
    name = patterns.name_of(spelled)
    for text in map("".join, product("a1!' \n", repeat=4)):
        for begin in range(4):
            expected = regex.findall(spelled, text[begin:])
            found = list(patterns.split(text[begin:].encode(), name))
            assert [word.decode() for word in found] == expected


def test_a_pattern_of_ones_own_loses_nothing():
    assert list(patterns.split(b"ab12 cd", r"[a-z]+")) == [b"ab", b"12 ", b"cd"]
    assert list(patterns.split(b"ab\xff", r"x*")) == [b"ab\xff"]
    with pytest.raises(InputError, match="neither a name"):
        patterns.compiled("(")

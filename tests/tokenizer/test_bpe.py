"""Byte-pair encoding: the fast code against the plain algorithm, and bad input."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.errors import InputError
from minillm.tokenizer import BPETokenizer, patterns
from minillm.tokenizer.bpe import learn_merges_plainly
from minillm.tokenizer.bpe_counting import from_counter
from minillm.tokenizer.bpe_training import lay_out, learn

WORDS = st.dictionaries(
    st.text("abc", min_size=1, max_size=12).map(str.encode), st.integers(1, 9), max_size=12
)


@settings(deadline=None, max_examples=200)
@given(WORDS, st.integers(0, 30), st.integers(1, 4), st.sampled_from([0, 9, 10**6]))
def test_fast_training_finds_the_plain_merges(words, n_merges, min_frequency, room):
    """`room`: how many places are followed at a time."""
    fast = learn(lay_out(from_counter(words)), n_merges, min_frequency, room=room)
    assert [tuple(pair) for pair in fast.tolist()] == learn_merges_plainly(
        words, n_merges, min_frequency
    )


def test_training_on_text_finds_the_plain_merges():
    text = "She sells sea shells by the sea shore; the shells she sells are sea shells. " * 3
    words = Counter(patterns.split(text.encode(), "gpt4"))
    fast = learn(lay_out(from_counter(words)), 60, 1)
    assert [tuple(pair) for pair in fast.tolist()] == learn_merges_plainly(words, 60, 1)


def test_no_token_is_longer_than_allowed():
    text = "internationalisation " * 50
    tokenizer = BPETokenizer.train(text, 400, (), max_token_length=5)
    lengths = [len(tokenizer.token_bytes(token)) for token in range(tokenizer.vocab_size)]
    assert max(lengths) == 5


def test_training_reads_files_and_reports_progress(tmp_path):
    (tmp_path / "a.txt").write_text("low lower lowest " * 20)
    seen = []
    one = BPETokenizer.train(tmp_path / "a.txt", 270, progress=lambda *report: seen.append(report))
    assert one.vocab_size <= 270 and seen
    (tmp_path / "b.txt").write_bytes(b"low \xff lower " * 20)
    both = [tmp_path / "a.txt", tmp_path / "b.txt"]
    with pytest.raises(InputError, match="b.txt is not UTF-8 text: byte 0xff at 4"):
        BPETokenizer.train(both, 270)
    for errors in ("replace", "bytes"):
        assert BPETokenizer.train(both, 270, errors=errors).encode("low")
    with pytest.raises(InputError, match="cannot read"):
        BPETokenizer.train(tmp_path / "none.txt", 270)


def test_a_vocabulary_too_small_is_one_clear_error():
    with pytest.raises(InputError, match="of 200 is too small: it takes at least 258"):
        BPETokenizer.train("text", 200, ("<a>", "<b>"))
    with pytest.raises(InputError, match="empty"):
        BPETokenizer.train("", 300)


def test_contradictions_in_a_vocabulary_are_named():
    single = [bytes([byte]) for byte in range(256)]
    with pytest.raises(InputError, match="same token b'a'"):
        BPETokenizer([*single, b"a"], [])
    with pytest.raises(InputError, match="byte 0xff has no token"):
        BPETokenizer(single[:-1], []).encode(b"ab\xffc")
    with pytest.raises(InputError, match="makes b'ab', which is not in the vocabulary"):
        BPETokenizer(single, [(97, 98)])
    with pytest.raises(InputError, match="joins ids 97 and 300"):
        BPETokenizer(single, [(97, 300)])
    with pytest.raises(InputError, match="there twice"):
        BPETokenizer([*single, b"ab"], [(97, 98), (97, 98)])
    with pytest.raises(InputError, match="out of order: no earlier merge makes b'ab'"):
        BPETokenizer([*single, b"ab", b"abc"], [(256, 99), (97, 98)])
    with pytest.raises(InputError, match="has id 97, which is the learned token b'a'"):
        BPETokenizer(single, [], {"<x>": 97})
    with pytest.raises(InputError, match="share id 256"):
        BPETokenizer(single, [], {"<x>": 256, "<y>": 256})
    with pytest.raises(InputError, match="given twice"):
        BPETokenizer.of_bytes(["<x>", "<x>"])
    with pytest.raises(InputError, match="neither a name"):
        BPETokenizer(single, [], pattern="(")

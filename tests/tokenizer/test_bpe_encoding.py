"""Encoding by borders gives what playing through the merges gives."""

import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minillm.errors import InputError
from minillm.tokenizer import BPETokenizer, pieces
from minillm.tokenizer.bpe import merge_plainly

BYTES = [bytes([byte]) for byte in range(256)]


@st.composite
def vocabularies(draw):
    """Any vocabulary whose merges join what is already there: learned ones are tamer."""
    tokens, merges = list(BYTES), []
    pool = list(draw(st.sampled_from([b"ab", b"abc"])))
    for _ in range(draw(st.integers(1, 20))):
        a, b = draw(st.sampled_from(pool)), draw(st.sampled_from(pool))
        if tokens[a] + tokens[b] not in tokens:
            merges.append((a, b))
            pool.append(len(tokens))
            tokens.append(tokens[a] + tokens[b])
    return BPETokenizer(tokens, merges, pattern="whole")


def plainly(tokenizer, data):
    ranks = {
        pair: (rank, tokenizer.tokens.index(b"".join(tokenizer.tokens[z] for z in pair)))
        for rank, pair in enumerate(map(tuple, tokenizer.merges.tolist()))
    }
    return merge_plainly(list(data), ranks)


@settings(deadline=None, max_examples=300)
@given(vocabularies(), st.lists(st.text("abcd", max_size=40).map(str.encode), max_size=8))
def test_any_vocabulary_on_any_text(tokenizer, texts):
    for data in texts:
        assert tokenizer.encode(data) == plainly(tokenizer, data)


def test_long_words_of_a_learned_vocabulary():
    rng = random.Random(0)
    text = "".join(rng.choice("aaab") for _ in range(3000))
    tokenizer = BPETokenizer.train(text, 300, (), "whole")
    for data in (text[:1500].encode(), b"a" * 997, b"ab" * 500):
        assert tokenizer.encode(data) == plainly(tokenizer, data)


@settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(vocabularies(), st.text("abcd", min_size=1, max_size=12), st.randoms(), st.integers(1, 12))
def test_a_giant_word_in_parts_is_the_word(monkeypatch, tokenizer, period, rng, often):
    monkeypatch.setattr(pieces, "PIECE", 8)
    letters = [*period * often]
    for _ in range(rng.randrange(4)):  # a period with a few flaws: parts agree late or never
        letters[rng.randrange(len(letters))] = rng.choice("abcd")
    data = "".join(letters).encode()
    assert tokenizer.encode(data) == plainly(tokenizer, data)


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4", "gpt4o", "whole"])
def test_giant_words_among_others(pattern, monkeypatch):
    tokenizer = BPETokenizer(TOKENIZER.tokens, TOKENIZER.merges, pattern=pattern)
    rng = random.Random(1)
    parts = ["thecatsat" * 99, " " * 600, "\n \n" * 200, "日本" * 300, "👨‍👩‍👧" * 90, "a cat. "]
    texts = ["".join(rng.choices(parts, k=9)) for _ in range(9)]
    expected = [tokenizer.encode(text) for text in texts]
    monkeypatch.setattr(pieces, "PIECE", 100)
    assert [tokenizer.encode(text) for text in texts] == expected
    assert tokenizer.encode_lists(texts) == expected


TOKENIZER = BPETokenizer.train("the cat sat on the mat, the rat sat on the cat. " * 20, 300)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text("the cat.\n<|end|>é", max_size=30), max_size=10))
def test_a_batch_is_its_texts(texts):
    for special in ("none", "all"):
        batch = TOKENIZER.encode_batch(texts, special)
        assert [ids.tolist() for ids in batch] == [TOKENIZER.encode(t, special) for t in texts]


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4o", r"\w+|\W+"])
def test_a_long_text_in_pieces_is_the_text(pattern, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 1000)
    tokenizer = BPETokenizer(TOKENIZER.tokens, TOKENIZER.merges, pattern=pattern)
    lines = [f"The cat no. {i} sat — on\n\n the mat\t\tat {i * i}!\n" for i in range(500)]
    text = "".join(lines)
    ids = tokenizer.encode_array(text)
    assert tokenizer.decode(ids) == text
    some = tokenizer.encode(text[:5000])
    assert ids[: len(some) - 9].tolist() == some[:-9]
    assert np.array_equal(ids, tokenizer.encode_batch([text, text])[1])


def test_a_word_that_is_a_token_stays_whole_where_wanted():
    tokens = [*BYTES, b"ab", b"bc", b"abc"]
    merges = [(97, 98), (98, 99), (97, 257)]  # abc = a + bc is never reached: ab comes first
    assert BPETokenizer(tokens, merges, pattern="gpt2").encode("abc") == [256, 99]
    whole = BPETokenizer(tokens, merges, pattern="gpt2", whole_words=True)
    assert whole.encode("abc abcabc") == [258, 32, 256, 99, 256, 99]


def test_merges_that_come_too_early_are_named():
    # bbb is made by (bb, b), the last merge: (b, bbb) can be no merge before it
    tokens = [*BYTES, b"bb", b"bbb", b"bbbbb"]
    merges = [(98, 98), (98, 256), (256, 257), (256, 98)]
    with pytest.raises(InputError, match="merge 2 of b'bb' and b'bbb' is out of order"):
        BPETokenizer(tokens, merges).encode("b")


@settings(deadline=None, max_examples=100)
@given(st.text("the cat.\né日🙂", max_size=30))
def test_offsets_point_at_each_token(text):
    ids, spans = TOKENIZER.encode_with_offsets(text.encode())
    assert ids.tolist() == TOKENIZER.encode(text)
    assert [text.encode()[a:b] for a, b in spans] == [TOKENIZER.token_bytes(z) for z in ids]
    _, of_characters = TOKENIZER.encode_with_offsets(text)
    for (a, b), (first, last) in zip(spans.tolist(), of_characters.tolist(), strict=True):
        assert first == len(text.encode()[:a].decode("utf-8", "ignore"))
        assert text[first:last].encode().find(text.encode()[a:b]) >= 0


def test_dropout_cuts_differently_and_loses_nothing():
    text = "the cat sat on the mat, the rat " * 5
    rng = np.random.default_rng(0)
    assert TOKENIZER.encode_with_dropout(text, 0.0, rng).tolist() == TOKENIZER.encode(text)
    bytes_alone = TOKENIZER.encode_with_dropout(text, 1.0, rng)
    assert bytes_alone.tolist() == list(text.encode())
    some = [TOKENIZER.encode_with_dropout(text, 0.3, rng) for _ in range(5)]
    assert len({ids.tobytes() for ids in some}) == 5
    assert {TOKENIZER.decode(ids) for ids in some} == {text}
    again = TOKENIZER.encode_with_dropout(text, 0.3, np.random.default_rng(7))
    same = TOKENIZER.encode_with_dropout(text, 0.3, np.random.default_rng(7))
    assert np.array_equal(again, same)
    with pytest.raises(InputError, match="from 0 to 1"):
        TOKENIZER.encode_with_dropout(text, 1.5, rng)


def test_no_dropout_is_ordinary_encoding_of_long_and_of_whole_words_too():
    doubled = BPETokenizer.from_merges([(97, 97), *((z, z) for z in range(256, 264))])
    whole = BPETokenizer([*BYTES, b"hello"], [], whole_words=True)
    for kind, text, token in ((doubled, "a" * 512, 264), (whole, "hello", 256)):
        ids = kind.encode_with_dropout(text, 0.0, np.random.default_rng(0))
        assert ids.tolist() == kind.encode(text) == [token]

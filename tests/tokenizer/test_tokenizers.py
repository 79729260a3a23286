"""Laws that every tokenizer keeps."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import tokenizer
from minillm.errors import InputError
from minillm.tokenizer import (
    BPETokenizer,
    CharTokenizer,
    SentencePieceTokenizer,
    StreamDecoder,
    WordPieceTokenizer,
    WordTokenizer,
    reading,
)
from minillm.tokenizer.sentencepiece import Spaces

TEXT = "It's a test: the theatre, the thief, 1234 and\n\n  naïve 日本語 🙂 ends. " * 4
SPECIAL = ("<|endoftext|>", "<|end|>")
BPE = BPETokenizer.train(TEXT, 320, SPECIAL)
ALL = [CharTokenizer.train(TEXT, SPECIAL), WordTokenizer.train(TEXT, None, SPECIAL), BPE]
each = pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.kind)


@each
def test_decode_undoes_encode(kind):
    ids = kind.encode(TEXT)
    assert kind.decode(ids) == TEXT
    assert kind.encode(TEXT.encode()) == ids
    assert kind.encode("") == [] and kind.decode([]) == ""
    array = kind.encode_array(TEXT)
    assert array.dtype == np.int32 and array.tolist() == ids
    assert kind.decode(array) == TEXT


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=60))
def test_any_bytes_come_back_from_byte_pairs(data):
    assert BPE.decode_bytes(BPE.encode(data)) == data


@each
def test_saved_is_loaded_the_same(kind, tmp_path):
    kind.save(tmp_path / "tokenizer.json")
    again = tokenizer.load(tmp_path / "tokenizer.json")
    assert type(again) is type(kind)
    assert again.encode(TEXT) == kind.encode(TEXT)
    assert again.special_tokens == kind.special_tokens
    assert again.vocab_size == kind.vocab_size


@each
def test_special_tokens_only_where_allowed(kind):
    end = kind.special_tokens["<|end|>"]
    text = "the<|end|>test"
    if kind is BPE:
        assert end not in kind.encode(text)
        assert kind.decode(kind.encode(text)) == text
    ids = kind.encode(text, allowed_special="all")
    assert ids == [*kind.encode("the"), end, *kind.encode("test")]
    assert kind.encode(text, allowed_special={"<|end|>"}) == ids
    assert kind.decode(ids) == text
    with pytest.raises(InputError, match="spells the special token"):
        kind.encode(text, allowed_special="refuse")
    assert kind.encode("the", allowed_special="refuse") == kind.encode("the")
    with pytest.raises(InputError, match="allowed_special"):
        kind.encode(text, allowed_special="some")
    with pytest.raises(InputError, match="not a special token"):
        kind.encode(text, allowed_special={"<|nobody|>"})


@each
@pytest.mark.parametrize("wrong", [-1, 10**6, 2**40])
def test_ids_out_of_range_are_named(kind, wrong):
    with pytest.raises(InputError, match=f"token id {wrong} is not in this vocabulary"):
        kind.decode([0, wrong])


@each
def test_ids_must_be_whole_numbers(kind):
    with pytest.raises(InputError, match="whole numbers"):
        kind.decode([0.5])


@each
def test_a_lone_surrogate_is_one_clear_error(kind):
    with pytest.raises(InputError, match=r"lone surrogate U\+D800 at character 3"):
        kind.encode("abc\ud800")


@each
def test_a_cut_off_file_is_one_clear_error(kind, tmp_path):
    path = tmp_path / "tokenizer.json"
    kind.save(path)
    whole = path.read_text()
    for size in (0, 1, len(whole) // 2, len(whole) - 3):
        path.write_text(whole[:size])
        with pytest.raises(InputError, match="damaged or cut off"):
            tokenizer.load(path)
    for key in json.loads(whole):
        content = json.loads(whole)
        del content[key]
        path.write_text(json.dumps(content))
        if key != "version":
            with pytest.raises(InputError):
                tokenizer.load(path)
    path.write_text("[1, 2]")
    with pytest.raises(InputError, match="not a minillm tokenizer"):
        tokenizer.load(path)
    with pytest.raises(InputError, match="cannot read"):
        tokenizer.load(tmp_path / "missing.json")


def test_a_number_too_large_in_a_file_is_one_clear_error(tmp_path):
    path = tmp_path / "tokenizer.json"
    BPE.save(path)
    content = json.loads(path.read_text())
    content["merges"][0][0] = 2**31
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="malformed"):
        tokenizer.load(path)


@pytest.mark.parametrize(
    ("kind", "vocabulary"),
    [
        (CharTokenizer, "ab"),
        (WordTokenizer, ["<unk>", "b"]),
        (WordPieceTokenizer, ["[UNK]", "b"]),
        (lambda tokens, special: BPETokenizer(tokens, [], special), [b"a", b"b"]),
    ],
)
def test_a_special_token_has_an_id_of_its_own(kind, vocabulary):
    good = kind(vocabulary, {"<x>": 2, "<y>": 3})
    assert good.decode([1, 3, 2]).replace(" ", "") == "b<y><x>"
    with pytest.raises(InputError, match="'<x>' has id 1, which is the learned token b?'b'"):
        kind(vocabulary, {"<x>": 1})
    with pytest.raises(InputError, match="'<x>' has the negative id -1"):
        kind(vocabulary, {"<x>": -1})
    with pytest.raises(InputError, match="'<x>' and '<y>' share id 2"):
        kind(vocabulary, {"<x>": 2, "<y>": 2})


@pytest.mark.parametrize("kind", [CharTokenizer, WordTokenizer])
def test_an_empty_text_teaches_nothing(kind):
    with pytest.raises(InputError, match="empty"):
        kind.train("")


def test_unknown_characters_and_words():
    with pytest.raises(InputError, match="character 'x' at 1"):
        CharTokenizer.train("abc").encode("axb")
    words = WordTokenizer.train("a a b", vocab_size=3)
    assert words.words == ["<unk>", " ", "a"]
    assert words.decode(words.encode("a b")) == "a <unk>"


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=20))
def test_streaming_never_splits_a_character(text):
    stream = StreamDecoder(BPE)
    pieces = [stream.push(token) for token in BPE.encode(text)]
    assert "".join(pieces) + stream.finish() == text
    assert "\ufffd" not in "".join(pieces) or "\ufffd" in text


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
PIECES = ["<unk>", "▁", "▁a", "b", "▁▁", "日", *BYTES]
STREAMED = [
    *ALL,
    WordPieceTokenizer.train(TEXT, 120),
    SentencePieceTokenizer.train(TEXT, 80, SPECIAL),
    SentencePieceTokenizer(PIECES, [0.0] * 262, "bpe"),
    SentencePieceTokenizer(PIECES, [0.0] * 262, "bpe", spaces=Spaces(prefix=False)),
]


@pytest.mark.parametrize("number", range(len(STREAMED)))
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_streaming_is_decoding(number, data):
    kind = STREAMED[number]
    known = st.integers(0, kind.vocab_size - 1).filter(lambda z: _has(kind, z))
    stream = StreamDecoder(kind)
    for _ in range(2):  # the second text begins afresh
        ids = data.draw(st.lists(known, max_size=12))
        assert "".join(map(stream.push, ids)) + stream.finish() == kind.decode(ids)


def _has(kind, token):
    try:
        kind.token_bytes(token)
    except InputError:
        return False
    return True


@pytest.mark.parametrize("kind", [SentencePieceTokenizer, WordPieceTokenizer])
def test_training_does_not_see_where_blocks_end(kind, monkeypatch, tmp_path):
    (tmp_path / "text").write_text("naïve theatre of 日本\r\nthe other\x0bline\n\nand one " * 30)
    expected = kind.train(tmp_path / "text", 90).pieces
    for size in (5, 64, 1000):
        monkeypatch.setattr(reading, "CHUNK", size)
        assert kind.train(tmp_path / "text", 90).pieces == expected


def test_streaming_shows_broken_bytes():
    stream = StreamDecoder(BPE)
    broken = "é".encode()[:1]
    assert stream.push(BPE.encode(broken)[0]) == ""
    assert stream.push(BPE.encode("a")[0]) == "\ufffda"
    stream.push(BPE.encode(broken)[0])
    assert stream.finish() == "\ufffd"

"""Pieces with spaces: the best cut is the best of all cuts, and the peers' ids are ours."""

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import tokenizer as tokenizer_room
from minillm.errors import InputError
from minillm.tokenizer import SentencePieceTokenizer
from minillm.tokenizer.bpe import merge_plainly
from minillm.tokenizer.formats import hugging_face, sentencepiece_files
from minillm.tokenizer.unigram import best_cut, trie_of

TEXT = "the theatre is there and the thief is not\nthis is the other theatre\n" * 20
TRAINED = SentencePieceTokenizer.train(TEXT, 60, ("<end>",))


def all_cuts(text, scores):
    """The best sum of scores over every way to cut `text`."""
    if not text:
        return 0.0
    fits = [piece for piece in scores if text.startswith(piece)]
    return max(
        (scores[piece] + all_cuts(text[len(piece) :], scores) for piece in fits), default=-np.inf
    )


@settings(deadline=None, max_examples=100)
@given(
    st.dictionaries(st.text("abé", min_size=1, max_size=4), st.floats(-9, -1), max_size=12),
    st.text("abé", min_size=1, max_size=9),
)
def test_the_cut_found_is_the_best_of_all(scores, text):
    scores = {"a": -5.0, "b": -5.0, "é": -5.0, **scores}
    trie, ids = trie_of({piece.encode(): number for number, piece in enumerate(scores)})
    values = np.array(list(scores.values()))
    cut = best_cut(trie, ids, values, -99.0, text.encode())
    assert cut[:, 1].sum() == len(text.encode())
    assert values[cut[:, 0]].sum() == pytest.approx(all_cuts(text, scores))


def test_training_keeps_every_character_and_finds_words():
    assert set("".join(TEXT.split())) <= set(TRAINED.pieces)
    assert "▁the" in TRAINED.pieces and TRAINED.vocab_size == 60
    assert TRAINED.decode(TRAINED.encode("the thief is there")) == "the thief is there"
    assert len(TRAINED.encode("the theatre")) < 5
    with pytest.raises(InputError, match="too small for the"):
        SentencePieceTokenizer.train(TEXT, 5)
    with pytest.raises(InputError, match="empty"):
        SentencePieceTokenizer.train("\n", 50)


def test_unknown_characters_are_one_piece_or_their_bytes():
    ids = TRAINED.encode("the 日本 thief")
    assert ids.count(TRAINED.unknown) == 1
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a"]
    scores = [0.0] * 257 + [-1.0, -1.0]
    for model in ("unigram", "bpe"):
        tokenizer = SentencePieceTokenizer(pieces, scores, model)
        assert tokenizer.decode(tokenizer.encode("a 日a")) == "a 日a"
        assert tokenizer.encode("日")[1:] == [1 + byte for byte in "日".encode()]


@settings(deadline=None, max_examples=100)
@given(st.text("abc ", max_size=30))
def test_bpe_by_scores_plays_the_merges(text):
    pieces = ["<unk>", "▁", "a", "b", "c", "ab", "▁ab", "bc", "abab", "▁a"]
    tokenizer = SentencePieceTokenizer(pieces, [-float(i) for i in range(10)], "bpe")
    number = {piece: index for index, piece in enumerate(pieces)}
    order = {piece: index for index, piece in enumerate(pieces[5:])}
    ranks = {
        (number[x], number[y]): (order[x + y], number[x + y])
        for x in pieces
        for y in pieces
        if x + y in order
    }
    expected = merge_plainly([number[letter] for letter in tokenizer.spaces.mark(text)], ranks)
    assert tokenizer.encode(text) == expected


def test_saved_is_loaded_the_same(tmp_path):
    TRAINED.save(tmp_path / "t.json")
    again = tokenizer_room.load(tmp_path / "t.json")
    assert again.encode(TEXT, "all") == TRAINED.encode(TEXT, "all")
    assert again.spaces == TRAINED.spaces


@settings(deadline=None, max_examples=100)
@given(
    st.one_of(
        st.text("the isaf\n 日", max_size=40), st.lists(st.sampled_from(TEXT.split())).map(" ".join)
    )
)
def test_hugging_face_gives_the_same_ids(peer, text):
    assert peer.encode(text).ids == TRAINED.encode(text)


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    tokenizers = pytest.importorskip("tokenizers")
    path = tmp_path_factory.mktemp("unigram") / "tokenizer.json"
    hugging_face.write(TRAINED, path)
    assert hugging_face.read(path).encode(TEXT) == TRAINED.encode(TEXT)
    return tokenizers.Tokenizer.from_file(str(path))


def message(number, data):
    return bytes([number << 3 | 2, len(data)]) + data


def model_file(model, pieces):
    """A SentencePiece model: pieces with score and type, then the trainer's settings."""
    data = b""
    for piece, score, kind in pieces:
        body = message(1, piece.encode()) + b"\x15" + struct.pack("<f", score) + bytes([24, kind])
        data += message(1, body)
    return data + message(2, bytes([24, model])) + message(3, bytes([32, 0]))


PIECES = [("<unk>", 0, 2), ("<s>", 0, 3), ("▁", -1, 1), ("a", -2, 1), ("▁a", -0.5, 1)]


def test_model_files(tmp_path):
    path = tmp_path / "t.model"
    for model in (1, 2):
        path.write_bytes(model_file(model, PIECES))
        tokenizer = tokenizer_room.load(path)
        assert tokenizer.special_tokens == {"<s>": 1}
        assert tokenizer.encode("a aa") == [4, 4, 3]
    whole = path.read_bytes()
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        try:
            sentencepiece_files.read(path)
        except InputError as error:
            assert str(path) in str(error)
    for content, reason in (
        (model_file(3, PIECES), "of type 3"),
        (model_file(1, PIECES[1:]), "no piece for the unknown"),
        (model_file(1, [*PIECES, ("a", 0, 1)]), "'a' is in the vocabulary twice"),
        (b"\x0b", "wire type 3"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=reason):
            sentencepiece_files.read(path)


DATA = Path(os.environ.get("MINILLM_DATA", "/nowhere"))


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="MINILLM_DATA names no folder with vocabularies")
@pytest.mark.parametrize("name", ["llama2/tokenizer.model", "sentencepiece_data/test_model.model"])
def test_published_models_on_real_texts(name):
    """The peer is SentencePiece itself, where it is installed; else only that texts come back."""
    path = DATA / "tokenizers" / name
    ours = sentencepiece_files.read(path)
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError:
        theirs = None
    else:
        theirs = SentencePieceProcessor(model_file=str(path))
    hf = None
    if not ours.charsmap:  # what it does is not what Hugging Face does
        hf = pytest.importorskip("tokenizers").Tokenizer.from_str(
            json.dumps(hugging_face.content_of(ours))
        )
    for text in DATA.glob("lang/lingua_20/*.txt"):
        for line in text.read_text("utf-8").splitlines():
            ids = ours.encode(line)
            if theirs is not None:
                assert ids == theirs.encode(line), line
            if hf is not None:
                assert ids == hf.encode(line).ids, line
                assert ours.decode(ids) == hf.decode(ids) == line

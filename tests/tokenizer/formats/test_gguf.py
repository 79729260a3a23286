"""Tokens inside GGUF files: what is described is read back, and damage is one clear error."""

import struct

import pytest

from minillm import tokenizer as tokenizer_room
from minillm.errors import InputError
from minillm.tokenizer import BPETokenizer, WordPieceTokenizer
from minillm.tokenizer.formats import gguf

TEXT = "It's the theatre; they're there, 1234 times!\n\n  naïve 日本語 🙂 " * 9


def string(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


def value(item):
    """A value with its type in front, as GGUF writes it."""
    if isinstance(item, bool):
        return struct.pack("<I?", 7, item)
    if isinstance(item, str):
        return struct.pack("<I", 8) + string(item)
    kind, write = {
        str: (8, string),
        float: (6, struct.Struct("<f").pack),
        int: (5, struct.Struct("<i").pack),
    }[type(item[0])]
    return struct.pack("<IIQ", 9, kind, len(item)) + b"".join(map(write, item))


def gguf_file(pairs):
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs))
    return head + b"".join(string(key) + value(item) for key, item in pairs.items())


@pytest.mark.parametrize("pattern", ["gpt2", "llama3", "qwen2", "gpt4o"])
def test_byte_pairs_come_back(pattern, tmp_path):
    ours = BPETokenizer.train(TEXT, 400, ("<|end|>",), pattern)
    ours = BPETokenizer(
        ours.tokens, ours.merges.tolist(), ours.special_tokens, pattern, pattern == "llama3"
    )
    (tmp_path / "t.gguf").write_bytes(gguf_file(gguf.to_metadata(ours)))
    again = tokenizer_room.load(tmp_path / "t.gguf")
    assert again.encode(TEXT, "all") == ours.encode(TEXT, "all")
    assert again.special_tokens == ours.special_tokens


def test_pieces_with_scores_come_back(tmp_path):
    pairs = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ["<unk>", "<s>", "▁", "a", "b", "▁a", "ab"],
        "tokenizer.ggml.scores": [0.0, 0.0, -9.0, -9.0, -9.0, -1.0, -2.0],
        "tokenizer.ggml.token_type": [2, 3, 1, 1, 1, 1, 1],
        "tokenizer.ggml.add_space_prefix": True,
    }
    (tmp_path / "t.gguf").write_bytes(gguf_file(pairs))
    tokenizer = tokenizer_room.load(tmp_path / "t.gguf")
    assert tokenizer.encode("abab") == [5, 4, 6]
    assert tokenizer.decode([5, 4, 6]) == "abab"


def test_damage_is_one_clear_error(tmp_path):
    path = tmp_path / "t.gguf"
    pairs = gguf.to_metadata(BPETokenizer.of_bytes(["<|end|>"], "gpt2"))
    pairs["tokenizer.ggml.merges"] = ["t h"]
    pairs["tokenizer.ggml.tokens"] += ["th"]
    pairs["tokenizer.ggml.token_type"] += [1]
    whole = gguf_file(pairs)
    path.write_bytes(whole)
    assert gguf.read(path).encode("th") == [257]
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"t\.gguf: it is (cut off|not a GGUF)"):
            gguf.read(path)
    for change, message in (
        ({"tokenizer.ggml.model": "rwkv"}, "its tokenizer is 'rwkv'"),
        ({"tokenizer.ggml.pre": "falcon"}, "cuts words by 'falcon'"),
        ({"tokenizer.ggml.token_type": [1]}, "but 1 types"),
        ({"tokenizer.ggml.merges": ["t q u"]}, "merge 0 is 't q u'"),
    ):
        path.write_bytes(gguf_file({**pairs, **change}))
        with pytest.raises(InputError, match=message):
            gguf.read(path)
    with pytest.raises(InputError, match="no name for the pattern"):
        gguf.to_metadata(BPETokenizer.of_bytes(pattern=r"\w+|\W+"))


def test_unigram_comes_back(tmp_path):
    """T5's kind, with the table of characters as an array of bytes."""
    table = struct.pack("<I", 4) + bytes(4)  # a table that replaces nothing
    pairs = {
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.tokens": ["<unk>", "</s>", "▁", "a", "b", "▁a", "ab", "<x>"],
        "tokenizer.ggml.scores": [0.0, 0.0, -9.0, -5.0, -5.0, -1.0, -2.0, 0.0],
        "tokenizer.ggml.token_type": [2, 3, 1, 1, 1, 1, 1, 4],
        "tokenizer.ggml.remove_extra_whitespaces": True,
        "tokenizer.ggml.precompiled_charsmap": [*table],
    }
    (tmp_path / "t.gguf").write_bytes(gguf_file(pairs))
    tokenizer = tokenizer_room.load(tmp_path / "t.gguf")
    assert tokenizer.encode(" abab  <x>日日 ") == [5, 4, 6, 2, 7, 0]
    assert tokenizer.special_tokens == {"</s>": 1}


def test_word_pieces_come_back(tmp_path):
    ours = WordPieceTokenizer.train(TEXT, 120)
    tokens = [
        piece if piece in ours.special_tokens
        else piece[2:] if piece.startswith("##") and len(piece) > 2
        else "▁" + piece
        for piece in ours.pieces
    ]  # fmt: skip
    pairs = {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token[0] == "[" else 1 for token in tokens],
    }
    (tmp_path / "t.gguf").write_bytes(gguf_file(pairs))
    again = tokenizer_room.load(tmp_path / "t.gguf")
    assert again.pieces == ours.pieces and again.special_tokens == ours.special_tokens
    assert again.encode(TEXT) == ours.encode(TEXT)

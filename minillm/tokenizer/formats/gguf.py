"""The tokens inside a GGUF file (llama.cpp): they stand among its key-value pairs, at the front.

A GGUF file begins with "GGUF", its version, the number of tensors and of pairs. A pair is a key, a
type and a value; a string is its length and its bytes; an array its type, its length and its
values. All numbers are little-endian. The tensors behind the pairs are not read.

Four models of tokenizer are read: "gpt2" (byte-level BPE; `tokenizer.ggml.pre` names the pattern),
"llama" (SentencePiece's BPE with scores), "t5" (its unigram) and "bert" (WordPiece, where pieces at
the start of a word carry "▁" and those inside one nothing).

Source: https://github.com/ggml-org/ggml, docs/gguf.md.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

from minillm.errors import InputError
from minillm.tokenizer.base import Tokenizer
from minillm.tokenizer.bpe import BPETokenizer
from minillm.tokenizer.formats.gpt2_files import (
    from_printables,
    printable_merges,
    printable_vocab,
)
from minillm.tokenizer.sentencepiece import SPACE, SentencePieceTokenizer, Spaces
from minillm.tokenizer.wordpiece import INSIDE, SPECIAL_TOKENS, WordPieceTokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # types of a token
_NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
_PATTERNS = {
    "default": "gpt2",
    "gpt-2": "gpt2",
    "llama-bpe": "llama3",
    "llama3": "llama3",
    "qwen2": "qwen2",
    "gpt-4o": "gpt4o",
}


def read(path: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer of a GGUF file. Raises `InputError` where it is cut off or has none."""
    try:
        with Path(path).open("rb") as file:
            return from_metadata(read_metadata(file))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (InputError, struct.error) as error:
        reason = error if isinstance(error, InputError) else "it is cut off"
        raise InputError(f"{path}: {reason}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} holds a malformed tokenizer: {error!r}") from error


def read_metadata(file: BinaryIO) -> dict[str, Any]:
    """The key-value pairs of a GGUF file."""
    if file.read(4) != b"GGUF":
        raise InputError("it is not a GGUF file")
    version, _, count = struct.unpack("<IQQ", file.read(20))
    if version not in (2, 3):
        raise InputError(f"it has version {version} of GGUF; 2 and 3 can be read")
    pairs: dict[str, Any] = {}
    for _ in range(count):
        key = _value(file, _STRING)
        pairs[key] = _value(file, struct.unpack("<I", file.read(4))[0])
    return pairs


def _value(file: BinaryIO, kind: int) -> Any:
    """The value of type `kind` at this place of the file."""
    if kind in _NUMBERS:
        form = "<" + _NUMBERS[kind]
        return struct.unpack(form, file.read(struct.calcsize(form)))[0]
    if kind == _STRING:
        (size,) = struct.unpack("<Q", file.read(8))
        data = file.read(size)
        if len(data) < size:
            raise InputError("it is cut off")
        return data.decode("utf-8", "replace")
    if kind == _ARRAY:
        element, size = struct.unpack("<IQ", file.read(12))
        return [_value(file, element) for _ in range(size)]
    raise InputError(f"it has a value of unknown type {kind}")


def from_metadata(pairs: dict[str, Any]) -> Tokenizer:
    """The tokenizer that the pairs of a GGUF file describe."""
    model = pairs.get("tokenizer.ggml.model")
    if model not in ("gpt2", "llama", "t5", "bert"):
        raise InputError(f"its tokenizer is {model!r}; gpt2, llama, t5 and bert can be read")
    tokens = pairs["tokenizer.ggml.tokens"]
    types = pairs.get("tokenizer.ggml.token_type", [NORMAL] * len(tokens))
    if len(types) != len(tokens):
        raise InputError(f"it has {len(tokens)} tokens, but {len(types)} types")
    if model == "gpt2":
        return _read_gpt2(pairs, tokens, types)
    if model == "bert":
        return _read_bert(tokens, types)
    return _read_sentencepiece(pairs, tokens, types)


def _of_types(tokens: list[str], types: list[int], *wanted: int) -> dict[str, int]:
    """The ids of tokens of these types."""
    return {
        token: number
        for number, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in wanted
    }


def _read_gpt2(pairs: dict[str, Any], tokens: list[str], types: list[int]) -> Tokenizer:
    pre = pairs.get("tokenizer.ggml.pre", "default")
    if pre not in _PATTERNS:
        raise InputError(f"it cuts words by {pre!r}; {', '.join(_PATTERNS)} can be read")
    vocab = {token: number for number, token in enumerate(tokens)}
    if len(vocab) < len(tokens):
        raise InputError("it has the same token twice")
    for token in _of_types(tokens, types, UNUSED):
        del vocab[token]
    special = list(_of_types(tokens, types, CONTROL, USER_DEFINED))
    whole = _PATTERNS[pre] == "llama3"
    return from_printables(vocab, pairs["tokenizer.ggml.merges"], special, _PATTERNS[pre], whole)


def _read_bert(tokens: list[str], types: list[int]) -> Tokenizer:
    def piece(token: str) -> str:
        if token.startswith("[") and token.endswith("]"):
            return token
        return token[1:] if token.startswith(SPACE) else INSIDE + token

    pieces = [piece(token) for token in tokens]
    special = _of_types(pieces, types, CONTROL)
    special |= {name: pieces.index(name) for name in SPECIAL_TOKENS if name in pieces}
    return WordPieceTokenizer(pieces, special)


def _read_sentencepiece(pairs: dict[str, Any], tokens: list[str], types: list[int]) -> Tokenizer:
    unigram = pairs["tokenizer.ggml.model"] == "t5"
    spaces = Spaces(
        prefix=bool(pairs.get("tokenizer.ggml.add_space_prefix", True)),
        collapse=bool(pairs.get("tokenizer.ggml.remove_extra_whitespaces", False)),
    )
    defined = _of_types(tokens, types, USER_DEFINED) if unigram else {}
    apart = (CONTROL, UNUSED) if unigram else (CONTROL, UNUSED, USER_DEFINED)
    return SentencePieceTokenizer(
        tokens,
        pairs.get("tokenizer.ggml.scores", [0.0] * len(tokens)),
        "unigram" if unigram else "bpe",
        _of_types(tokens, types, *apart),
        types.index(UNKNOWN) if UNKNOWN in types else 0,
        spaces,
        charsmap=bytes(byte & 255 for byte in pairs.get("tokenizer.ggml.precompiled_charsmap", ())),
        defined=defined,
    )


def to_metadata(tokenizer: BPETokenizer) -> dict[str, Any]:
    """The pairs that describe a byte-level BPE tokenizer, for whoever writes a GGUF file.

    Raises `InputError` for patterns that GGUF has no name for. Ids that are not in use are written
    as unused tokens.
    """
    names = {pattern: name for name, pattern in reversed(_PATTERNS.items())}
    pattern = "llama3" if tokenizer.pattern == "gpt4" and tokenizer.whole_words else None
    pattern = pattern or tokenizer.pattern
    if pattern not in names:
        raise InputError(f"GGUF has no name for the pattern {pattern!r}")
    tokens = [f"[unused{number}]" for number in range(tokenizer.vocab_size)]
    types = [UNUSED] * len(tokens)
    for token, number in printable_vocab(tokenizer).items():
        tokens[number], types[number] = token, NORMAL
    for token, number in tokenizer.special_tokens.items():
        tokens[number], types[number] = token, CONTROL
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": names[pattern],
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [" ".join(pair) for pair in printable_merges(tokenizer)],
    }

"""SentencePiece's `.model` files (BPE and unigram), through a small reader of their protobuf.

Source: https://github.com/google/sentencepiece, src/sentencepiece_model.proto.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

from minillm.errors import InputError
from minillm.tokenizer.formats.protobuf import fields
from minillm.tokenizer.sentencepiece import SentencePieceTokenizer, Spaces

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # types of a piece
_MODELS = {1: "unigram", 2: "bpe"}


def read(path: str | os.PathLike[str]) -> SentencePieceTokenizer:
    """The tokenizer of a `.model` file. Raises `InputError` where it is cut off or not one."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    try:
        return from_bytes(data)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, struct.error) as error:
        raise InputError(f"{path} is no SentencePiece model: {error!r}") from error


def from_bytes(data: bytes) -> SentencePieceTokenizer:
    """`read`, of a file's content."""
    pieces: list[str] = []
    scores: list[float] = []
    types: list[int] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for number, value in fields(data):
        if number == 1:
            piece = _message(value)
            pieces.append(piece[1].decode())
            scores.append(struct.unpack("<f", piece[2])[0] if 2 in piece else 0.0)
            types.append(piece.get(3, NORMAL))
        elif number == 2:
            trainer = _message(value)
        elif number == 3:
            normalizer = _message(value)
    model = trainer.get(3, 1)
    if model not in _MODELS:
        raise InputError(f"its model is of type {model}; unigram (1) and BPE (2) can be read")
    if trainer.get(24, 0):
        raise InputError("it puts spaces behind words, which is not supported")
    if UNKNOWN not in types:
        raise InputError("it has no piece for the unknown")
    special = {
        piece: number
        for number, (piece, kind) in enumerate(zip(pieces, types, strict=True))
        if kind in (CONTROL, UNUSED)
    }
    collapse = bool(normalizer.get(4, 1))
    spaces = Spaces(prefix=bool(normalizer.get(3, 1)), twice=True, collapse=collapse)
    return SentencePieceTokenizer(
        pieces, scores, _MODELS[model], special, types.index(UNKNOWN), spaces,
        charsmap=normalizer.get(2, b""),
        defined=[piece for piece, kind in zip(pieces, types, strict=True) if kind == USER_DEFINED],
    )  # fmt: skip


def _message(value: int | bytes) -> dict[int, Any]:
    """The fields of a message that is a field itself."""
    if isinstance(value, int):
        raise TypeError(f"the number {value} stands where a message belongs")
    return dict(fields(value))

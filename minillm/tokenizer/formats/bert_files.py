"""BERT's `vocab.txt`: one WordPiece per line, its id the number of the line."""

from __future__ import annotations

import os

from minillm.errors import InputError
from minillm.tokenizer.base import read_bytes
from minillm.tokenizer.wordpiece import SPECIAL_TOKENS, WordPieceTokenizer


def read(path: str | os.PathLike[str], lowercase: bool = True) -> WordPieceTokenizer:
    """The tokenizer of a `vocab.txt`; whether it is uncased the file does not say.

    Raises `InputError` for duplicates and where `[UNK]` is missing.
    """
    pieces = read_bytes(path).decode().splitlines()
    special = {name: pieces.index(name) for name in SPECIAL_TOKENS if name in pieces}
    try:
        return WordPieceTokenizer(pieces, special, lowercase)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error

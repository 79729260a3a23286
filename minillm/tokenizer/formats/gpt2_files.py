"""GPT-2's two files: `vocab.json` (token to id) and `merges.txt` (one merge per line, in order).

Tokens are written in GPT-2's alphabet of printable characters (`printable.py`). Entries of
`vocab.json` that are not made of it, or that no merge makes, and look like special tokens are the
special tokens: the file does not say which they are, so the caller may.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from minillm import files
from minillm.errors import InputError
from minillm.tokenizer.base import read_bytes
from minillm.tokenizer.bpe import BPETokenizer, Pair
from minillm.tokenizer.printable import from_printable, to_printable
from minillm.tokenizer.vocabulary import Tokens

VERSION_LINE = "#version: 0.2"


def read(
    vocab: str | os.PathLike[str],
    merges: str | os.PathLike[str],
    special_tokens: Collection[str] = ("<|endoftext|>",),
    pattern: str = "gpt2",
) -> BPETokenizer:
    """The tokenizer of the two files; of `special_tokens` those that the vocabulary has.

    Raises `InputError` with the file and what is wrong with it.
    """
    lines = read_bytes(merges).decode().split("\n")
    if lines[0].startswith("#version"):
        lines = lines[1:]
    try:
        return from_printables(
            load_json(vocab), [line for line in lines if line], special_tokens, pattern
        )
    except InputError as error:
        raise InputError(f"{vocab} and {merges}: {error}") from error


def write(
    tokenizer: BPETokenizer, vocab: str | os.PathLike[str], merges: str | os.PathLike[str]
) -> None:
    """Write the two files. The pattern is not in them: whoever reads them takes GPT-2's."""
    spelled = printable_vocab(tokenizer) | tokenizer.special_tokens
    files.write_text(vocab, json.dumps(spelled, ensure_ascii=False))
    lines = [VERSION_LINE, *(" ".join(pair) for pair in printable_merges(tokenizer))]
    files.write_text(Path(merges), "\n".join(lines) + "\n")


# ------------------------------------------------------------------ shared with tokenizer.json


def from_printables(
    vocab: Any,
    merges: list[Any],
    special_tokens: Collection[str],
    pattern: str,
    whole_words: bool = False,
    normal_form: str = "",
) -> BPETokenizer:
    """A tokenizer of tokens and merges ("a b" or ["a", "b"]) in printable characters."""
    if not isinstance(vocab, dict) or not vocab:
        raise InputError("the vocabulary is a table of tokens and ids, and not empty")
    if not all(isinstance(number, int) and number >= 0 for number in vocab.values()):
        raise InputError("the ids of a vocabulary are whole numbers from 0 on")
    if max(vocab.values()) > 16 * len(vocab):
        raise InputError(f"id {max(vocab.values())} is too high for {len(vocab)} tokens")
    tokens: Tokens = [None] * (max(vocab.values()) + 1)
    id_of: dict[str, int] = {}
    for token, number in vocab.items():
        if token in special_tokens:
            continue
        if tokens[number] is not None:
            raise InputError(f"id {number} is there twice, once as {token!r}")
        tokens[number] = from_printable(token)
        id_of[token] = number
    pairs: list[Pair] = []
    for rank, merge in enumerate(merges):
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(parts, list) or len(parts) != 2:
            raise InputError(f"merge {rank} is {merge!r}; two tokens belong there")
        for part in parts:
            if part not in id_of:
                raise InputError(f"merge {rank} joins {part!r}, which is not in the vocabulary")
        pairs.append((id_of[parts[0]], id_of[parts[1]]))
    special = {name: vocab[name] for name in special_tokens if name in vocab}
    return BPETokenizer(tokens, pairs, special, pattern, whole_words, normal_form)


def printable_vocab(tokenizer: BPETokenizer) -> dict[str, int]:
    """Each token in printable characters, and its id."""
    return {
        to_printable(token): number
        for number, token in enumerate(tokenizer.tokens)
        if token is not None
    }


def printable_merges(tokenizer: BPETokenizer) -> list[list[str]]:
    """The two parts of each merge in printable characters."""
    spelled = [to_printable(token or b"") for token in tokenizer.tokens]
    return [[spelled[a], spelled[b]] for a, b in tokenizer.merges.tolist()]


def load_json(path: str | os.PathLike[str]) -> Any:
    """The content of a JSON file. Raises `InputError` where it is cut off or malformed."""
    try:
        return json.loads(read_bytes(path), object_pairs_hook=_without_duplicates)
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is damaged or cut off: {error}") from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise InputError(f"{twice!r} is there twice")
    return content

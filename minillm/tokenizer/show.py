"""Seeing a tokenizer at work: a text coloured by token, the merges of one word, comparisons."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from minillm.errors import InputError
from minillm.tokenizer.base import Text, Tokenizer, to_bytes
from minillm.tokenizer.bpe import BPETokenizer, replace

COLOURS = (44, 42, 45, 46, 43, 41)  # ANSI backgrounds, in turn
_WORD = re.compile(rb"\S+")


def coloured(tokenizer: Tokenizer, text: Text, colour: bool = True) -> str:
    """`text` with each token on a background of its own; between bars where `colour` is off.

    A newline is shown as well as made, and bytes that are only part of a character as hexadecimal.
    """
    pieces = []
    for number, token in enumerate(tokenizer.encode(text)):
        data = tokenizer.token_bytes(token)
        try:
            piece = data.decode().replace("\n", "⏎\n")
        except UnicodeDecodeError:
            piece = "".join(f"<{byte:02x}>" for byte in data)
        code = COLOURS[number % len(COLOURS)]
        pieces.append(f"\x1b[30;{code}m{piece}\x1b[0m" if colour else piece)
    return "".join(pieces) if colour else "|".join(pieces)


def merge_steps(tokenizer: Tokenizer, word: Text) -> Iterator[tuple[list[bytes], str]]:
    """The pieces of `word` after each merge, and which merge it was ("" at the start).

    Raises `InputError` for a tokenizer that does not merge.
    """
    if not isinstance(tokenizer, BPETokenizer):
        raise InputError(f"a {tokenizer.kind} tokenizer has no merges to show")
    made = tokenizer.merged_ids.tolist()
    ranks = {tuple(pair): rank for rank, pair in enumerate(tokenizer.merges.tolist())}
    id_of = {token: number for number, token in enumerate(tokenizer.tokens) if token}
    ids = [id_of[bytes([byte])] for byte in to_bytes(word)]
    yield [tokenizer.token_bytes(token) for token in ids], ""
    while True:
        found = [ranks[pair] for pair in itertools.pairwise(ids) if pair in ranks]
        if not found:
            return
        rank = min(found)
        a, b = tokenizer.merges[rank].tolist()
        ids = replace(ids, (a, b), made[rank])
        note = f"merge {rank}: {tokenizer.token_bytes(a)!r} + {tokenizer.token_bytes(b)!r}"
        yield [tokenizer.token_bytes(token) for token in ids], note


def measure(tokenizer: Tokenizer, text: Text) -> tuple[int, float, float]:
    """The tokens of `text`, its bytes per token, and tokens per word (between white space)."""
    data = to_bytes(text)
    if not data:
        raise InputError("the text is empty: there is nothing to compare on")
    count = len(tokenizer.encode_array(data))
    words = sum(1 for _ in _WORD.finditer(data))
    return count, len(data) / count, count / max(words, 1)

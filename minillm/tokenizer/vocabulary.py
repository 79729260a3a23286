"""Checking a BPE vocabulary before it is used: each contradiction is one clear error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from minillm.errors import InputError
from minillm.tokenizer.base import check_special
from minillm.tokenizer.bpe_encoding import LEFT, RIGHT, choose_merges

Tokens = list[bytes | None]  # the bytes of each id; None for ids that no text becomes


def ids_by_bytes(tokens: Tokens, special_tokens: Mapping[str, int]) -> dict[bytes, int]:
    """The id of each token. Raises `InputError` for ids and tokens that are there twice."""
    id_of: dict[bytes, int] = {}
    for number, token in enumerate(tokens):
        if token is None:
            continue
        if not token:
            raise InputError(f"token {number} of the vocabulary is empty")
        if token in id_of:
            raise InputError(f"ids {id_of[token]} and {number} are the same token {token!r}")
        id_of[token] = number
    check_special(special_tokens, tokens)
    return id_of


def ids_of_merges(
    tokens: Tokens, id_of: Mapping[bytes, int], merges: np.ndarray, symbols: Iterable[int]
) -> np.ndarray:
    """The id that each of `merges` (M, 2) makes, (M,) int32.

    `symbols` are the ids that exist before any merge. Raises `InputError` for a merge of what is no
    token, into what is no token, there twice, or before the merge that makes one of its parts.
    """
    made = np.empty(len(merges), np.int32)
    ready = set(symbols)
    seen: set[tuple[int, int]] = set()
    for rank, (a, b) in enumerate(merges.tolist()):
        left, right = (tokens[z] if 0 <= z < len(tokens) else None for z in (a, b))
        if left is None or right is None:
            raise InputError(f"merge {rank} joins ids {a} and {b}, which are not both tokens")
        if left + right not in id_of:
            raise InputError(f"merge {rank} makes {left + right!r}, which is not in the vocabulary")
        if (a, b) in seen:
            raise InputError(f"merge {rank} of {left!r} and {right!r} is there twice")
        if a not in ready or b not in ready:
            late = left if a not in ready else right
            raise InputError(f"merge {rank} is out of order: no earlier merge makes {late!r}")
        made[rank] = id_of[left + right]
        seen.add((a, b))
        ready.add(int(made[rank]))
    return made


def merges_of_ranks(
    tokens: Tokens, id_of: Mapping[bytes, int], symbols: Iterable[int], order: Iterable[int]
) -> np.ndarray:
    """The merges of a vocabulary that gives tokens and their order, but not their parts.

    Any two neighbours that together are a token may merge there, the earliest token in `order`
    first. Of all ways to cut a token in two, encoding only ever meets one: that one is its merge.

    Returns (M, 2) int32; tokens that no text is encoded as have none.
    """
    pairs: list[tuple[int, int]] = []
    made: list[int] = []
    ranks: list[int] = []
    order = list(order)
    for place, number in enumerate(order):
        token = tokens[number] or b""
        for cut in range(1, len(token)):
            left, right = id_of.get(token[:cut]), id_of.get(token[cut:])
            if left is not None and right is not None:
                pairs.append((left, right))
                made.append(number)
                ranks.append(place)
    return merges_that_happen(tokens, symbols, pairs, made, ranks)


def merges_that_happen(
    tokens: Tokens,
    symbols: Iterable[int],
    pairs: Sequence[tuple[int, int]],
    made: Sequence[int],
    ranks: Sequence[int],
) -> np.ndarray:
    """Of `pairs`, which make the tokens `made` at rising `ranks`, those that encoding meets.

    Returns (M, 2) int32, one for each token that any text is encoded as, in order.
    """
    known, _, _, early = choose_merges(
        np.array(pairs, np.int32).reshape(-1, 2),
        np.array(made, np.int32),
        np.array(ranks, np.int32),
        len(tokens),
        np.array(list(symbols), np.int32),
    )
    if early >= 0:
        raise InputError(
            f"token {tokens[made[early]]!r} is out of order: it comes before one of its parts"
        )
    order = dict.fromkeys(made)  # each once
    return np.array(
        [known[z, [LEFT, RIGHT]] for z in order if known[z, LEFT] >= 0], np.int32
    ).reshape(-1, 2)

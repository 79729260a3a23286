"""Encoding fast: the tokens that merging ends with, without playing through the merges.

Merging works from the pairs learned first to those learned last, and sees only neighbours. Two
facts follow (see van Antwerpen and Neubeck, "So many tokens, so little time", GitHub, 2024):

1.  Whether two tokens a, b may stand side by side in an encoding depends on these two alone. Undo
    their merges, latest first, and look at the two tokens that face each other across the border:
    had they a merge that comes before the one just undone, it would have happened, and the border
    would not be there (`may_follow`). A sequence of tokens in which each may follow the one before
    is the encoding of its bytes, and every text has exactly one.
2.  So the tokens can be found from left to right: take the longest token that matches and may
    follow; where nothing fits, take back the last token and try its next shorter prefix. A place
    that turned out to be a dead end is one for every way of reaching it, and is marked, so each is
    tried once: the work is proportional to the length, for any text.

Matching is a walk down a trie of all tokens. Most words are one token, and the walk is all.

The same border test says which tokens encoding can produce at all. A token is made by the first
merge of two parts that may stand side by side until that merge; one that no merge makes so is
unreachable, and matched only as a whole word where the vocabulary wants that.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minillm.errors import InputError
from minillm.jit import jit
from minillm.tokenizer.inner import inner
from minillm.tokenizer.queue import new_table, pair_key, spread, table_slot
from minillm.tokenizer.scanner import classes, word_end
from minillm.tokenizer.trie import build_trie, trie_step

NEVER = 2**31 - 1
RANK, LEFT, RIGHT, LENGTH = 0, 1, 2, 3  # columns of `Machine.tokens`


class Machine(NamedTuple):
    """A vocabulary as arrays. V tokens; ranks and ids are int32, -1 for none."""

    tokens: np.ndarray  # (V, 4) the rank of its merge (-1 for single symbols), its parts, its bytes
    shorter: np.ndarray  # (V,) the longest reachable token that it starts with
    single: np.ndarray  # (256,) what a byte becomes where no token matches
    pairs: np.ndarray  # hash table: pair of ids -> rank
    marks: np.ndarray  # a bit for each hash that a pair of the table has: see `may_follow`
    trie: np.ndarray  # (nodes, 2) see trie.py
    ends: np.ndarray  # (nodes,) the reachable token that ends at a node
    words: np.ndarray  # (nodes,) the token that a whole word is, if it ends there


def build_machine(
    tokens: list[bytes | None],
    symbols: np.ndarray,
    merges: np.ndarray,
    made: np.ndarray,
    single: np.ndarray,
    whole_words: bool,
) -> Machine:
    """Compile a vocabulary.

    Args:
        tokens: the bytes of each id; None for ids that no text can become.
        symbols: ids of the tokens that exist without a merge.
        merges: pairs of ids (M, 2) in the order in which they merge, int32.
        made: the id that each merge makes, (M,) int32.
        single: see `Machine`.
        whole_words: whether a word that is a token becomes it even where it is unreachable.

    Raises `InputError` where a merge comes before the one that really makes one of its parts: the
    tokens could then not be told from their borders.
    """
    known, pairs, marks, early = choose_merges(
        merges, made, np.arange(len(merges), dtype=np.int32), len(tokens), symbols
    )
    if early >= 0:
        a, b = merges[early].tolist()
        raise InputError(
            f"merge {early} of {tokens[a]!r} and {tokens[b]!r} is out of order: "
            "a later merge makes one of its parts"
        )
    known[:, LENGTH] = [len(token or b"") for token in tokens]
    known[single, LENGTH] = np.maximum(known[single, LENGTH], 1)
    spelled = b"".join(token or b"" for token in tokens)
    ends_at = np.cumsum([len(token or b"") for token in tokens], dtype=np.int64)
    order = sorted(
        (number for number, token in enumerate(tokens) if token),
        key=lambda number: tokens[number] or b"",
    )
    data, sorted_ids = np.frombuffer(spelled, np.uint8), np.array(order, np.int32)
    trie, nodes = build_trie(data, ends_at, sorted_ids)
    words = np.full(len(trie), -1, np.int32)
    words[nodes] = sorted_ids
    ends = np.where((words >= 0) & (known[words, RANK] != NEVER), words, -1).astype(np.int32)
    shorter = _shorter(data, ends_at, trie, ends)
    return Machine(
        known, shorter, single.astype(np.int32), pairs, marks, trie, ends,
        words if whole_words else ends,
    )  # fmt: skip


# ------------------------------------------------------------------ borders between tokens


@inner
def may_follow(tokens, pairs, marks, a, b):
    """Whether merging leaves `a` and `b` apart, as far as the merges in `pairs` go.

    Few of the pairs met on the way merge, and a bit for each hash says so without a look into the
    table: with eight bits for each of its slots, sixteen or more for each pair, it seldom errs.
    """
    limit = np.int64(NEVER)
    rank_a, rank_b = np.int64(tokens[a, RANK]), np.int64(tokens[b, RANK])
    while True:
        key = pair_key(a, b)
        mark = spread(key) & (8 * marks.size - 1)
        if marks[mark >> 3] >> (mark & 7) & 1:
            slot = table_slot(pairs, key)
            if pairs[slot, 0] == key and pairs[slot, 1] < limit:
                return False
        if rank_a > rank_b:
            # The merge of `a` lies to the left: of two of the same rank it comes first.
            limit = rank_a
            a = np.int64(tokens[a, RIGHT])
            rank_a = np.int64(tokens[a, RANK])
        elif rank_b >= 0:
            limit = rank_b + 1
            b = np.int64(tokens[b, LEFT])
            rank_b = np.int64(tokens[b, RANK])
        else:
            return True


def choose_merges(
    merges: np.ndarray, made: np.ndarray, order: np.ndarray, n_tokens: int, symbols: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """For each token the merge that makes it.

    Merge i of `merges` (M, 2), of rank `order[i]` (rising), makes `made[i]`, int32 all; `symbols`
    are the tokens that exist without one.

    Returns three arrays as in `Machine` (`tokens`, without the lengths, ranks `NEVER` for tokens
    that no merge makes; `pairs`; `marks`) and the number of a merge that could happen, but comes
    before one of its parts exists, or -1.
    """
    tokens = np.full((n_tokens, 4), -1, np.int32)
    tokens[:, RANK] = NEVER
    tokens[symbols, RANK] = -1
    pairs = new_table(len(merges) + 1)
    marks = np.zeros(len(pairs), np.uint8)
    return tokens, pairs, marks, _choose_merges(merges, made, order, tokens, pairs, marks)


@jit
def _choose_merges(merges, made, order, tokens, pairs, marks):
    for number in range(merges.shape[0]):
        a, b, new = np.int64(merges[number, 0]), np.int64(merges[number, 1]), made[number]
        if tokens[new, RANK] != NEVER or tokens[a, RANK] == NEVER or tokens[b, RANK] == NEVER:
            continue
        if not may_follow(tokens, pairs, marks, a, b):
            continue
        tokens[new, RANK] = order[number]
        tokens[new, LEFT] = a
        tokens[new, RIGHT] = b
        key = pair_key(a, b)
        slot = table_slot(pairs, key)
        pairs[slot, 0] = key
        pairs[slot, 1] = order[number]
        mark = spread(key) & (8 * marks.size - 1)
        marks[mark >> 3] |= 1 << (mark & 7)
    for number in range(merges.shape[0]):
        latest = max(tokens[merges[number, 0], RANK], tokens[merges[number, 1], RANK])
        if order[number] < latest < NEVER and order[number] < tokens[made[number], RANK]:
            return number
    return -1


@jit
def _shorter(data, ends_at, trie, ends):
    """For each token the longest reachable one that is a proper prefix of it."""
    shorter = np.full(ends_at.size, -1, np.int32)
    begin = 0
    for token in range(ends_at.size):
        node = 0
        for p in range(begin, ends_at[token] - 1):
            node = trie_step(trie, node, data[p])
            if ends[node] >= 0:
                shorter[token] = ends[node]
        begin = ends_at[token]
    return shorter


# ------------------------------------------------------------------ words


@inner
def longest_match(machine, data, p, end):
    """The longest reachable token at `p`, and the token that all of `data[p:end]` is, or -1."""
    node, token, q = 0, -1, p
    while q < end:
        node = trie_step(machine.trie, node, data[q])
        if node < 0:
            break
        if machine.ends[node] >= 0:
            token = machine.ends[node]
        q += 1
    whole = np.int64(machine.words[node]) if node > 0 else -1
    if token < 0:
        token = machine.single[data[p]]
    return np.int64(token), whole


@inner
def follows(machine, a, b):
    """`may_follow`, for a whole vocabulary."""
    return may_follow(machine.tokens, machine.pairs, machine.marks, a, b)


@inner
def repeats(machine, data, start, p, end, last, dead):
    """Whether the token before `p` can stand there once more.

    A search that starts with it runs through long runs of one character; the longest match would
    try, and take back, dozens of tokens for each one that stays.
    """
    size = np.int64(machine.tokens[last, LENGTH])
    if p + size > end or dead[p + size - start]:
        return False
    for i in range(size):
        if data[p + i] != data[p - size + i]:
            return False
    return follows(machine, last, last)


@inner
def encode_word(machine, data, start, end, out, n, dead):
    """Write the tokens of `data[start:end]` to `out` from `n` on; the new `n`.

    `dead` is scratch, one byte for each place of the longest word and one more.
    """
    token, whole = longest_match(machine, data, start, end)
    if whole >= 0:
        out[n] = whole
        return n + 1
    for place in range(end - start + 1):
        dead[place] = 0
    first, p, last = n, start, np.int64(-1)
    while True:
        size = np.int64(machine.tokens[token, LENGTH])
        if dead[p + size - start] == 0 and (last < 0 or follows(machine, last, token)):
            out[n] = token
            n += 1
            p += size
            if p == end:
                return n
            last = token
            if not repeats(machine, data, start, p, end, last, dead):
                token, _ = longest_match(machine, data, p, end)
        elif machine.shorter[token] >= 0:
            token = np.int64(machine.shorter[token])
        else:  # nothing fits: take the last token back
            dead[p - start] = 1
            n -= 1
            token = np.int64(out[n])
            p -= machine.tokens[token, LENGTH]
            last = np.int64(out[n - 1]) if n > first else np.int64(-1)
            if token == last:  # it was tried before the longest
                token, _ = longest_match(machine, data, p, end)


def encode_group(
    machine: Machine, rules: int, data: np.ndarray, pieces: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of `pieces` of `data`, end to end, int32, and how many each piece has."""
    most = int(pieces[-1, 1] - pieces[0, 0])  # a token covers at least one byte
    out, dead = np.empty(most, np.int32), np.empty(most + 1, np.uint8)
    counts = _encode_pieces(machine, rules, data, pieces, classes(), out, dead)
    return out[: counts.sum()].copy(), counts


@jit
def _encode_pieces(machine, rules, data, pieces, table, out, dead):
    """Write the tokens of `pieces` to `out`, end to end; how many each has, (P,) int64."""
    counts = np.empty(pieces.shape[0], np.int64)
    n = 0
    for piece in range(pieces.shape[0]):
        before = n
        p = pieces[piece, 0]
        while p < pieces[piece, 1]:
            end = word_end(rules, data, p, pieces[piece, 2], table)
            n = encode_word(machine, data, p, end, out, n, dead)
            p = end
        counts[piece] = n - before
    return counts

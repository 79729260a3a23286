"""BPE dropout: merges left out at random, so that training sees words cut in many ways.

At every step each possible merge is dropped with probability p, and the first of those that remain
is done. With p = 1 every byte stays alone; with p = 0 `BPETokenizer` encodes as always. Above 0 two
things differ from ordinary encoding, whatever is dropped: a word above `LONGEST` bytes is cut, and
a token that no merges make (`whole_words`) is never found.

Source: Provilkov, Emelianenko and Voita (2020), "BPE-Dropout", arXiv:1910.13267, section 3.
"""

from __future__ import annotations

import numpy as np

from minillm.jit import jit
from minillm.tokenizer.bpe_encoding import NEVER, Machine
from minillm.tokenizer.queue import pair_key, table_slot
from minillm.tokenizer.scanner import classes, word_end

LONGEST = 128  # bytes; a longer word is cut first, for every step looks at all of its pairs


def encode_with_dropout(
    machine: Machine,
    made: np.ndarray,
    rules: int,
    data: np.ndarray,
    ends: np.ndarray,
    dropout: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Ids (int32) of the texts that end at `ends`; `made` (M,) is the id that each merge makes."""
    out = np.empty(len(data), np.int32)
    size = _encode(machine, made, rules, data, ends, classes(), dropout, rng, out)
    return out[:size].copy()


@jit
def _encode(machine, made, rules, data, ends, table, dropout, rng, out):
    n, p = 0, 0
    for stop in ends:
        while p < stop:
            end = min(word_end(rules, data, p, stop, table), p + LONGEST)
            n = _merge_some(machine, made, data, p, end, dropout, rng, out, n)
            p = end
    return n


@jit
def _merge_some(machine, made, data, p, end, dropout, rng, out, n):
    """Write the tokens of one word to `out` from `n` on; the new `n`."""
    size = end - p
    for i in range(size):
        out[n + i] = machine.single[data[p + i]]
    while True:
        best, place = np.int64(NEVER), -1
        for i in range(size - 1):
            key = pair_key(out[n + i], out[n + i + 1])
            slot = table_slot(machine.pairs, key)
            if machine.pairs[slot, 0] != key or rng.random() < dropout:
                continue
            if machine.pairs[slot, 1] < best:
                best, place = machine.pairs[slot, 1], i
        if place < 0:
            return n + size
        out[n + place] = made[best]
        for i in range(place + 1, size - 1):
            out[n + i] = out[n + i + 1]
        size -= 1

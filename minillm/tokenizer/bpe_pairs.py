"""The pairs that training follows: those frequent enough, each with all of its places.

Most pairs are rare, and no vocabulary is large enough to reach them. So a long text is not listed
as a whole: only pairs that occur `floor` times or more are followed, and when all of them are
merged or have fallen below it, the text is searched again with a lower floor. Counts never rise
(see `bpe_training.py`), so no pair that was left out can have come before one that was followed.

How low the floor may be, a first look decides: it adds up the counts of all pairs in cells by their
hash. What a cell holds is at least the count of each pair in it, so a pair in a cell below the
floor need not be looked up again, and memory does not grow with the number of rare pairs.
"""

from __future__ import annotations

import numpy as np

from minillm.jit import jit
from minillm.tokenizer.queue import (
    FREE,
    grown_rows,
    new_table,
    pair_key,
    spread,
    table_slot,
    wider_table,
)

KEY, COUNT, BEGIN, END = 0, 1, 2, 3  # columns of `pairs`: ids, count, slice of `places`
CELLS = 1 << 20
PLACES = 1 << 22  # places that are listed at a time, about; a word of n tokens has n - 1
UNKNOWN = -2  # the row of a pair of which only the key is known


@jit
def frequent_pairs(symbols, starts, word_counts, length, longest, least, below, room):
    """The pairs that occur often enough now: the floor, rows of `pairs`, and `places`.

    The floor is below `below`, at least `least`, and as low as `room` places allow. Pairs that make
    tokens of more than `longest` bytes are left out.
    """
    floor, cells = np.int64(least), np.zeros(0, np.int64)
    if symbols.size - 2 * starts.size > room:
        floor, cells = _look(symbols, starts, word_counts, length, least, below, room)
    table, found = _count(symbols, starts, word_counts, length, longest, floor, cells)
    n_pairs, n_places = 0, 0
    for row in range(found.shape[0]):  # rows that stay move up; their places come one by one
        if found[row, COUNT] >= floor:
            number = found[row, END]
            slot = table_slot(table, found[row, KEY])
            table[slot, 1] = n_pairs
            found[n_pairs, KEY], found[n_pairs, COUNT] = found[row, KEY], found[row, COUNT]
            found[n_pairs, BEGIN], found[n_pairs, END] = n_places, n_places
            n_places += number
            n_pairs += 1
        else:
            table[table_slot(table, found[row, KEY]), 1] = UNKNOWN
    pairs = found[:n_pairs].copy()
    places = np.empty(n_places, np.int32)
    for word in range(starts.size):
        p = np.int64(starts[word])
        q = p + length[symbols[p]]
        while symbols[q] >= 0:
            slot = table_slot(table, pair_key(symbols[p], symbols[q]))
            if table[slot, 0] != FREE and table[slot, 1] != UNKNOWN:
                row = table[slot, 1]
                places[pairs[row, END]] = p
                pairs[row, END] += 1
            p, q = q, q + length[symbols[q]]
    return floor, pairs, places


@jit
def _look(symbols, starts, word_counts, length, least, below, room):
    """A floor that about `room` places reach, and what the cells hold."""
    cells, numbers = np.zeros(CELLS, np.int64), np.zeros(CELLS, np.int32)
    for word in range(starts.size):
        p = np.int64(starts[word])
        q = p + length[symbols[p]]
        while symbols[q] >= 0:
            cell = spread(pair_key(symbols[p], symbols[q])) & (CELLS - 1)
            cells[cell] += word_counts[word]
            numbers[cell] += 1
            p, q = q, q + length[symbols[q]]
    reach = np.zeros(64, np.int64)  # places in cells that hold 2 ** power or more, less than twice
    for cell in range(CELLS):
        power, weight = 0, cells[cell] >> 1
        while weight > 0:
            power += 1
            weight >>= 1
        reach[power] += numbers[cell]
    power, total = 62, np.int64(0)
    while power > 0 and (total + reach[power] <= room or np.int64(1) << power >= below):
        total += reach[power]
        power -= 1
    return max(np.int64(1) << power, np.int64(least)), cells


@jit
def _count(symbols, starts, word_counts, length, longest, floor, cells):
    """Count the pairs in cells that hold `floor` or more; a table of them, and rows of pairs.

    In END stands how many places there are. With no cells at all, every pair counts.
    """
    table, found = new_table(1 << 16), np.empty((1 << 16, 4), np.int64)
    n_found, word, p = 0, 0, -1
    while True:
        n_found, word, p = _count_some(
            symbols, starts, word_counts, length, longest, floor, cells,
            table, found, n_found, word, p,
        )  # fmt: skip
        if word == starts.size:
            return table, found[:n_found]
        table, found = wider_table(table), grown_rows(found, 2 * n_found)


@jit
def _count_some(
    symbols, starts, word_counts, length, longest, floor, cells, table, found, n_found, word, p
):
    """`_count` from `p` of `word` on (-1: its start); where it stands when `found` is full."""
    while word < starts.size:
        p = np.int64(starts[word]) if p < 0 else p
        q = p + length[symbols[p]]
        while symbols[q] >= 0:
            key = pair_key(symbols[p], symbols[q])
            following = q + length[symbols[q]]
            wanted = following - p <= longest
            if wanted and (cells.size == 0 or cells[spread(key) & (CELLS - 1)] >= floor):
                slot = table_slot(table, key)
                if table[slot, 0] != key:
                    if n_found == found.shape[0]:
                        return n_found, word, p
                    table[slot, 0] = key
                    table[slot, 1] = n_found
                    found[n_found, KEY] = key
                    found[n_found, COUNT] = 0
                    found[n_found, END] = 0
                    n_found += 1
                row = table[slot, 1]
                found[row, COUNT] += word_counts[word]
                found[row, END] += 1
            p, q = q, following
        word, p = word + 1, np.int64(-1)
    return n_found, word, p

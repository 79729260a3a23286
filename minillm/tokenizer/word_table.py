"""A hash table of words and their counts, for compiled loops.

Four arrays: `slots` (the hash of a word in the upper half, its number in the lower), `arena` (the
bytes of the different words, end to end), `starts` (where each begins, and one more at the end) and
`counts`. The loop that fills them allocates nothing; it stops when something is full, and is called
again with more room. A table that has grown too large may forget its rarest words.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from minillm.jit import jit
from minillm.tokenizer.inner import inner
from minillm.tokenizer.queue import grown
from minillm.tokenizer.scanner import classes, word_end

EMPTY = -1
LOWER = 0xFFFFFFFF  # the half of a slot that holds the number of the word
OFTEN = 1 << 12  # words that occur so often are never forgotten
# The bytes of words end to end (uint8), their lengths and their counts (int64).
Words = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass
class WordTable:
    """Different words and how often each occurs."""

    slots: np.ndarray = field(default_factory=lambda: np.full(1 << 12, EMPTY, np.int64))
    starts: np.ndarray = field(default_factory=lambda: np.zeros(1 << 11, np.int64))
    counts: np.ndarray = field(default_factory=lambda: np.zeros(1 << 11, np.int64))
    arena: np.ndarray = field(default_factory=lambda: np.empty(1 << 14, np.uint8))
    size: int = 0

    def add(self, rules: int, data: np.ndarray, pieces: np.ndarray) -> None:
        """Count the words of `pieces` of `data`."""
        at = np.array([self.size, 0, pieces[0, 0] if len(pieces) else 0], np.int64)
        while True:
            need = _count(
                rules, data, pieces, classes(),
                self.slots, self.starts, self.counts, self.arena, at,
            )  # fmt: skip
            self.size = int(at[0])
            if need == 0:
                return
            self._grow(need)

    def merge(self, other: WordTable) -> None:
        """Add the counts of `other` to these."""
        at = np.array([self.size, 0], np.int64)
        while True:
            need = _merge(
                other.starts, other.counts, other.arena, other.size,
                self.slots, self.starts, self.counts, self.arena, at,
            )  # fmt: skip
            self.size = int(at[0])
            if need == 0:
                return
            self._grow(need)

    def _grow(self, word: int) -> None:
        """Room for more words, one of `word` bytes among them."""
        self.starts = grown(self.starts, self.size + 2 + self.size // 2)
        self.counts = grown(self.counts, self.size + 1 + self.size // 2)
        self.arena = grown(self.arena, int(self.starts[self.size]) + word)
        if 4 * self.size >= 3 * len(self.slots):
            self.slots = _spread(self.slots)

    def forget(self, words: int, size: int) -> int:
        """Drop the rarest, until there are at most `words` words of `size` bytes together.

        Of words that occur equally often all stay or all go. Returns how often the most frequent
        word that went had occurred.
        """
        rarity = _rarity(self.starts, self.counts, self.size)
        more = np.cumsum(rarity[::-1], axis=0)[::-1]  # words and bytes so frequent
        fits = (more[:, 0] <= words) & (more[:, 1] <= size)
        least = int(np.argmax(fits)) if fits.any() else OFTEN
        self.size = _keep(self.slots, self.starts, self.counts, self.arena, self.size, least)
        return least - 1

    def used(self) -> int:
        """The bytes of all words."""
        return int(self.starts[self.size])

    def words(self) -> Words:
        """All words, in the order in which they were met."""
        starts = self.starts[: self.size + 1]
        return self.arena[: starts[-1]], np.diff(starts), self.counts[: self.size]


@inner
def _hash(data, p, end):
    """31 bits (FNV-1a, folded)."""
    value = 2166136261
    while p < end:
        value = ((value ^ np.int64(data[p])) * 16777619) & 0xFFFFFFFF  # type: ignore[assignment]
        p += 1
    return (value ^ (value >> 15)) & 0x7FFFFFFF


@inner
def _note(data, p, end, count, slots, starts, counts, arena, at):
    """Add `count` to the word `data[p:end]`; 0, or the room needed where there is none."""
    mark = _hash(data, p, end)
    mask = slots.size - 1
    slot = mark & mask
    while slots[slot] != EMPTY:
        if slots[slot] >> 32 == mark:
            word = slots[slot] & LOWER
            start = starts[word]
            if starts[word + 1] - start == end - p:
                i = 0
                while i < end - p and arena[start + i] == data[p + i]:
                    i += 1
                if i == end - p:
                    counts[word] += count
                    return 0
        slot = (slot + 1) & mask
    word, used = at[0], starts[at[0]]
    if 4 * word >= 3 * slots.size or word + 2 > starts.size or word >= counts.size:
        return end - p
    if used + end - p > arena.size:
        return end - p
    for i in range(end - p):
        arena[used + i] = data[p + i]
    slots[slot] = mark << 32 | word
    counts[word] = count
    starts[word + 1] = used + end - p
    at[0] = word + 1
    return 0


@jit
def _count(rules, data, pieces, table, slots, starts, counts, arena, at):
    """Count from piece `at[1]`, byte `at[2]` on; returns 0 at the end, else the room needed."""
    piece, p = at[1], at[2]
    while piece < pieces.shape[0]:
        p = max(p, pieces[piece, 0])
        while p < pieces[piece, 1]:
            end = word_end(rules, data, p, pieces[piece, 2], table)
            need = _note(data, p, end, 1, slots, starts, counts, arena, at)
            if need:
                at[1], at[2] = piece, p
                return need
            p = end
        piece += 1
    at[1], at[2] = piece, p
    return 0


@jit
def _merge(from_starts, from_counts, from_arena, size, slots, starts, counts, arena, at):
    """`_note` of every word of another table from word `at[1]` on."""
    while at[1] < size:
        word = at[1]
        p, end = from_starts[word], from_starts[word + 1]
        need = _note(from_arena, p, end, from_counts[word], slots, starts, counts, arena, at)
        if need:
            return need
        at[1] += 1
    return 0


@jit
def _rarity(starts, counts, size):
    """How many words occur once, twice, ... and how many bytes they have: (OFTEN + 1, 2) int64."""
    rarity = np.zeros((OFTEN + 1, 2), np.int64)
    for word in range(size):
        count = min(counts[word], OFTEN)
        rarity[count, 0] += 1
        rarity[count, 1] += starts[word + 1] - starts[word]
    return rarity


@jit
def _keep(slots, starts, counts, arena, size, least):
    """Keep the words that occur `least` times or more, in place and in order; how many they are."""
    slots[:] = EMPTY
    mask = slots.size - 1
    kept, used, p = 0, 0, 0
    for word in range(size):
        end = starts[word + 1]
        if counts[word] >= least:
            sign = _hash(arena, p, end)
            slot = sign & mask
            while slots[slot] != EMPTY:
                slot = (slot + 1) & mask
            slots[slot] = sign << 32 | kept
            for i in range(end - p):
                arena[used + i] = arena[p + i]
            counts[kept] = counts[word]
            kept, used = kept + 1, used + end - p
            starts[kept] = used
        p = end
    return kept


@jit
def _spread(slots):
    """The hash table with twice the slots."""
    larger = np.full(2 * slots.size, EMPTY, np.int64)
    mask = larger.size - 1
    for entry in slots:
        if entry != EMPTY:
            slot = (entry >> 32) & mask
            while larger[slot] != EMPTY:
                slot = (slot + 1) & mask
            larger[slot] = entry
    return larger

"""Repetition: which share of a text has been said before in it.

    top n-gram          the letters that the most frequent run of n words covers (n = 2, 3, 4)
    duplicate n-grams   the letters that runs of n words cover which come more than once (5 to 10)
    duplicate lines     the lines, or their letters, that repeat an earlier line; also paragraphs

Every letter counts once, however many runs cover it, and spaces do not count. A run of n words is
known by a hash that follows from those of its words in constant time: with P(i) the hash of the
first i words, P(i+1) = P(i) b + h(i) modulo 2^64, the run from i on has P(i+n) - P(i) b^n.

Source: Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training
Gopher", table A1. Its thresholds are the defaults of `recipe.FilterConfig`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from minillm import backend
from minillm.jit import jit

SIZES = range(2, 11)  # of n-grams; up to TOP the most frequent one counts, above it all duplicates
TOP = 4
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, with bits all over: 2^64 divided by the golden ratio


def ngram_shares(text: str) -> np.ndarray:
    """The share of letters that repeated n-grams cover, float64 (9,), for n in `SIZES`.

    Words are what stands between spaces.

    >>> ngram_shares("one fish two fish one fish").round(2)[:2].tolist()
    [0.67, 0.0]
    """
    if not backend.fast():
        return ngram_shares_reference(text.split())
    shares = np.zeros(len(SIZES))
    _shares(*words_of(text.encode("utf-8", "replace")), shares)
    return shares


def ngram_shares_reference(words: Sequence[str]) -> np.ndarray:
    """The same in plain Python, from the words."""
    total = sum(map(len, words))
    shares = np.zeros(len(SIZES))
    for at, n in enumerate(SIZES):
        runs = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        counts = Counter(runs)
        wanted = {run for run, count in counts.items() if count > 1}
        if n <= TOP and wanted:  # the most frequent; of several the first in the text
            wanted = {max(counts, key=lambda run: counts[run])}
        covered = {i + j for i, run in enumerate(runs) if run in wanted for j in range(n)}
        shares[at] = sum(len(words[i]) for i in covered) / total if total else 0.0
    return shares


def words_of(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The words of a text in UTF-8: hashes (W,) uint64, and lengths in characters (W,) int64."""
    array = np.frombuffer(data, np.uint8)
    hashes = np.empty(len(data) // 2 + 1, np.uint64)
    lengths = np.empty(len(hashes), np.int64)
    count = _words(array, hashes, lengths)
    return hashes[:count], lengths[:count]


@jit
def _words(data, hashes, lengths):
    """Fill in the words between ASCII spaces; their number. FNV-1a, then mixed (splitmix64)."""
    count, inside = 0, False
    value = np.uint64(0)
    length = 0
    for i in range(len(data) + 1):
        byte = data[i] if i < len(data) else np.uint8(32)
        if byte == 32 or 9 <= byte <= 13 or 28 <= byte <= 31:  # what str.split takes for spaces
            if inside:
                value ^= value >> np.uint64(30)
                value *= np.uint64(0xBF58476D1CE4E5B9)
                value ^= value >> np.uint64(27)
                value *= np.uint64(0x94D049BB133111EB)
                hashes[count] = value ^ (value >> np.uint64(31))
                lengths[count] = length
                count += 1
                inside = False
            continue
        if not inside:
            value, length, inside = np.uint64(0xCBF29CE484222325), 0, True
        value = (value ^ np.uint64(byte)) * np.uint64(0x100000001B3)
        if byte & 0xC0 != 0x80:  # not the later bytes of a character
            length += 1
    return count


@jit
def _shares(hashes, lengths, shares):
    """Fill in `ngram_shares` from the words. One table serves all n, cleared in between."""
    words, total = len(hashes), lengths.sum()
    if total == 0:
        return
    bits = 1
    while 1 << bits < 2 * words:
        bits += 1
    slots = np.empty(1 << bits, np.int64)  # where a run stands first; -1: none
    counts = np.empty(words, np.int64)  # of the run that stands first at i
    first = np.empty(words, np.int64)  # where the run at i stands first
    runs = hashes.copy()  # hash of the run of n words from i on
    for n in range(2, 11):
        last = words - n
        if last < 0:
            break
        slots[:] = -1
        top = 0
        for i in range(last + 1):
            runs[i] = runs[i] * _BASE + hashes[i + n - 1]
            at = (runs[i] * _BASE) >> np.uint64(64 - bits)
            while slots[at] >= 0 and runs[slots[at]] != runs[i]:
                at = (at + np.uint64(1)) & np.uint64((1 << bits) - 1)
            if slots[at] < 0:
                slots[at] = i
                counts[i] = 0
            first[i] = slots[at]
            counts[first[i]] += 1
        for i in range(last + 1):
            if first[i] == i and counts[i] > counts[top]:
                top = i
        covered, end = 0, 0
        for i in range(last + 1):
            if counts[first[i]] > 1 and (n > 4 or first[i] == top):
                for j in range(max(i, end), i + n):
                    covered += lengths[j]
                end = i + n
        shares[n - 2] = covered / total


def duplicates(parts: Sequence[str]) -> tuple[float, float]:
    """The share of lines (or paragraphs) that repeat an earlier one, and of their letters.

    >>> duplicates(["a", "bcd", "a", "a"])
    (0.5, 0.3333333333333333)
    """
    counts = Counter(parts)
    letters = sum(map(len, parts))
    if len(counts) == len(parts) or not letters:
        return 0.0, 0.0
    again = sum(len(part) * (count - 1) for part, count in counts.items())
    return 1 - len(counts) / len(parts), again / letters

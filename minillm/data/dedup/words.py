"""Words of a text as 64-bit numbers, and runs of n words (shingles) as the set that is compared.

Two documents are near duplicates when they share most of their shingles. Case, spacing and
punctuation say little about that, so a word is a run of letters, digits and accents, in lower case.
Scripts that put no spaces between words (Chinese, Japanese, Thai, ...) give one word per character.

    hash of a letter c      T(c) = finish(seed xor c)
    hash of a word          h = 0; for every letter c: h = (h rotated left by 1) xor T(c)
    hash of a shingle       s_j = finish(h_j B^(n-1) + h_(j+1) B^(n-2) + ... + h_(j+n-1))  mod 2^64
    fingerprint of a text   sum_j s_j, sum_j (2 j + 1) s_j                                 mod 2^64

A text of fewer than n words is one shingle, one of no words is none, with the fingerprint 0, 0.
Equal fingerprints (128 bits) mean the same words in the same order. `finish` is MurmurHash3's
finalizer (Appleby 2011), a bijection that leaves no pattern. The hash of words is "cyclic
polynomials": Cohen 1997, "Recursive hashing functions for n-grams".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import TypeVar

import numpy as np

from minillm.tokenizer.inner import inner
from minillm.tokenizer.scanner import LETTER, LOWER, NUMBER, UPPER, character_at, classes

BETWEEN = 0  # in the table of characters: not of a word

SEED = np.uint64(0x9E3779B97F4A7C15)
BASE = np.uint64(0xA0761D6478BD642F)  # B above
FIRST, SECOND = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
THIRD, ONE, LAST = np.uint64(33), np.uint64(1), np.uint64(63)
NOTHING = np.uint64(0)

Numbers = TypeVar("Numbers", np.ndarray, np.uint64)

BATCH = 1 << 22  # bytes of text worked on at a time: they stay in the caches

# Scripts without spaces between words: each of their characters is a word.
_ALONE = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]+"


@cache
def characters() -> np.ndarray:
    """What every code point is, (0x110000,) int32.

    0 between words, else the lower-case letter that it counts as; negative: a word of its own.
    """
    import regex  # takes 50 ms to load

    kinds = classes()
    codes = np.arange(0x110000, dtype=np.int32)
    table = np.where(kinds & (UPPER | LOWER | LETTER | NUMBER), codes, BETWEEN)
    for code in np.flatnonzero((kinds & (UPPER | LOWER)) == UPPER).tolist():
        lower = chr(code).lower()
        if len(lower) == 1:
            table[code] = ord(lower)
    for run in regex.finditer(_ALONE, codes.tobytes().decode("utf-32-le", "surrogatepass")):
        table[run.start() : run.end()] = -codes[run.start() : run.end()]
    return table


@cache
def letters() -> np.ndarray:
    """T of the ASCII letters and digits, 0 for all else, (128,) uint64."""
    table = characters()[:128]
    return np.where(table == BETWEEN, NOTHING, finish_reference(SEED ^ table.astype(np.uint64)))


def batches(texts: Sequence[str]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Texts as UTF-8, end to end, about `BATCH` bytes at a time.

    Yields the number of the first text, the bytes (uint8), and where each text ends (int64).
    """
    first, size, coded = 0, 0, []
    for number, text in enumerate(texts):
        coded.append(text.encode("utf-8", "surrogatepass"))
        size += len(coded[-1])
        if size >= BATCH:
            yield first, *_joined(coded)
            first, size, coded = number + 1, 0, []
    if coded:
        yield first, *_joined(coded)


def _joined(coded: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    ends = np.cumsum(np.fromiter(map(len, coded), np.int64, len(coded)))
    return np.frombuffer(b"".join(coded), np.uint8), ends


# ------------------------------------------------------------------------------- reference


def words_reference(text: str) -> np.ndarray:
    """The hash of every word of `text` (uint64)."""
    table = characters()
    words, inside = [], False
    for kind in (int(table[ord(character)]) for character in text):
        if kind < 0 or (kind != BETWEEN and not inside):
            words.append(0)
        if kind != BETWEEN:
            turned = (words[-1] << 1 | words[-1] >> 63) % 2**64
            words[-1] = turned ^ int(finish_reference(SEED ^ np.uint64(abs(kind))))
        inside = kind > 0
    return np.array(words, np.uint64)


def finish_reference(values: Numbers) -> Numbers:
    """MurmurHash3's last step on uint64 numbers: every bit of each depends on all of its bits."""
    with np.errstate(over="ignore"):
        values = (values ^ values >> THIRD) * FIRST
        values = (values ^ values >> THIRD) * SECOND
    return values ^ values >> THIRD


def shingles_reference(words: np.ndarray, ngram: int) -> np.ndarray:
    """The hashes of all runs of `ngram` words, in order, repeats included (uint64)."""
    runs = len(words) - ngram + 1 if len(words) >= ngram else min(1, len(words))
    out = words[:runs]
    for k in range(1, min(ngram, len(words))):
        out = out * BASE + words[k : k + runs]
    return finish_reference(out)


def fingerprint_reference(shingles: np.ndarray) -> np.ndarray:
    """The fingerprint (2,) uint64 of a text by its shingles."""
    odd = np.arange(1, 2 * len(shingles), 2, dtype=np.uint64)
    return np.array([shingles.sum(), (shingles * odd).sum()], np.uint64)


# ------------------------------------------------------------------------------- fast twin
#
# One pass over the bytes without a string or an object. Where a word ends cannot be foreseen, and
# a processor that guesses wrong loses the time of a dozen letters; so nothing branches on it: every
# step writes the word so far, and moves on to the next place only after a whole word. The loops
# over shingles are independent of each other in every step, so they run on vectors.


@inner
def finish(value):
    value = (value ^ (value >> THIRD)) * FIRST
    value = (value ^ (value >> THIRD)) * SECOND
    return value ^ (value >> THIRD)


@inner
def read_words(data, p, end, table, ascii, words):
    """Write the hashes of the words of `data[p:end]` to `words`; returns how many.

    `table` and `ascii` are `characters()` and `letters()`. `words` needs `room_for(end - p)`.
    """
    count, word = 0, NOTHING
    while p < end:
        rest = data[p:end]
        stretch = rest.size  # bytes before the next character beyond ASCII
        for i in range(rest.size):
            if rest[i] >= 0x80:
                stretch = i
                break
            letter = ascii[rest[i]]
            ended = letter == NOTHING
            words[count] = word
            count += ended & (word != NOTHING)
            word = NOTHING if ended else (word << ONE | word >> LAST) ^ letter
        p += stretch
        if p < end:
            kind, size = character_at(data, p, end, table)
            letter = finish(SEED ^ np.uint64(abs(kind)))
            p += size
            if kind > 0:
                word = (word << ONE | word >> LAST) ^ letter
            else:
                words[count] = word
                count += word != NOTHING
                word = NOTHING
                if kind < 0:
                    words[count] = letter
                    count += 1
    words[count] = word
    return count + (word != NOTHING)


@inner
def room_for(size):
    """The most words in so many bytes, and one place more."""
    return size // 2 + 2


@inner
def hash_shingles(words, count, ngram, out):
    """Write the hashes of the runs of `ngram` of the first `count` words to `out`; how many."""
    runs = count - ngram + 1 if count >= ngram else min(1, count)
    out = out[:runs]
    for i in range(runs):
        out[i] = words[i]
    for k in range(1, min(ngram, count)):
        later = words[k:]
        for i in range(runs):
            out[i] = out[i] * BASE + later[i]
    for i in range(runs):
        out[i] = finish(out[i])
    return runs


@inner
def fingerprint(shingles, mark):
    """Write the fingerprint of a text with these shingles to the two places of `mark`."""
    plain, weighted, odd = NOTHING, NOTHING, ONE
    for shingle in shingles:
        plain += shingle
        weighted += odd * shingle
        odd += np.uint64(2)
    mark[0], mark[1] = plain, weighted

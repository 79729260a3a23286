"""Texts become numbers: split at white space, and number the different words as they are met.

A word is a run of bytes between white space (space, tab, newline, return, vertical tab, form feed
and NUL). No other rule: punctuation stays with its word unless the text was prepared otherwise.
Every text ends in one more word, `</s>`, so that even an empty text has something to go by.

Words are found by the 32-bit FNV-1a hash of their bytes,

    h <- 2166136261;    for each byte b:  h <- (h xor b) * 16777619  mod 2^32

where, as fastText has it, b counts as a signed number: bytes of 128 and above flip the upper 24
bits of h as well. The hash table compares bytes, so words of one hash are still told apart.

Sources: Fowler, Noll, Vo, "The FNV Non-Cryptographic Hash Algorithm" (IETF draft), variant 1a;
Bojanowski et al. 2017, "Enriching Word Vectors with Subword Information" (the word's pieces).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from minillm import backend
from minillm.jit import jit
from minillm.tokenizer.inner import inner

END = b"</s>"  # the word that ends every text; word 0 of every lexicon
SPACE = bytes([0, 9, 10, 11, 12, 13, 32])
IS_SPACE = np.zeros(256, np.bool_)
IS_SPACE[list(SPACE)] = True
FNV_START, FNV_PRIME = 2166136261, 16777619


@dataclass
class Lexicon:
    """Different words, numbered in the order in which they were met.

    `data` (uint8) holds their bytes: word w is `data[starts[w]:stops[w]]`. `hashes` (int64, below
    2^32) and `counts` (int64) belong to the same numbers.
    """

    data: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    hashes: np.ndarray
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def slots(self) -> np.ndarray:
        """The hash table (int64): 31 bits of the hash and 32 of the number, or FREE."""
        slots = np.full(2 << max(12, len(self).bit_length()), FREE, np.int64)
        _fill(slots, self.hashes)
        return slots

    def words(self) -> list[bytes]:
        """The bytes of every word."""
        data = self.data.tobytes()
        ranges = zip(self.starts.tolist(), self.stops.tolist(), strict=True)
        return [data[start:stop] for start, stop in ranges]

    def chosen(self, numbers: np.ndarray) -> Lexicon:
        """The lexicon of the words with the given numbers, in the given order."""
        words = self.words()
        data = np.frombuffer(b"".join([words[number] for number in numbers.tolist()]), np.uint8)
        stops = np.cumsum((self.stops - self.starts)[numbers])
        return spelled(data, stops, self.counts[numbers])

    def find(self, other: Lexicon) -> np.ndarray:
        """The number here of every word of `other` (int64), -1 where there is none."""
        if not backend.fast(self.data, other.data):
            numbers = {word: number for number, word in enumerate(self.words())}
            return np.array([numbers.get(word, FREE) for word in other.words()], np.int64)
        return _find_all(
            self.slots, self.starts, self.stops, self.data,
            other.hashes, other.starts, other.stops, other.data,
        )  # fmt: skip


def spelled(data: np.ndarray, stops: np.ndarray, counts: np.ndarray) -> Lexicon:
    """The lexicon of words that stand end to end in `data` (uint8) and end at `stops` (int64)."""
    starts = np.concatenate([np.zeros(1, np.int64), stops])[:-1]
    if backend.fast(data):
        hashes = _hash_all(data, starts, stops)
    else:
        hashes = np.zeros(len(stops), np.int64)
        for word in range(len(stops)):
            hashes[word] = fnv1a(data[starts[word] : stops[word]].tobytes())
    return Lexicon(data, starts, stops, hashes, counts)


def read(texts: Sequence[str], lowercase: bool = False) -> tuple[Lexicon, np.ndarray, np.ndarray]:
    """Split texts into words.

    Returns (lexicon, words, ends): the different words, the number of each word of all texts
    (int32), and where in it each text ends, `</s>` included (int64, one per text).
    """
    # A surrogate that stands alone is no character and has no bytes; "?" takes its place.
    pieces = [(text.lower() if lowercase else text).encode("utf-8", "replace") for text in texts]
    lengths = np.fromiter(map(len, pieces), np.int64, len(pieces))
    data = np.frombuffer(b"\n".join([END, *pieces]), np.uint8)
    stops = len(END) + np.cumsum(lengths + 1)
    return (number_fast if backend.fast(data) else number_reference)(data, stops)


def fnv1a(word: bytes) -> int:
    """The hash of a word as in the formula above."""
    value = FNV_START
    for byte in word:
        signed = byte if byte < 128 else byte - 256
        value = (value ^ (signed & 0xFFFFFFFF)) * FNV_PRIME & 0xFFFFFFFF
    return value


# ------------------------------------------------------------------------------- reference


def number_reference(
    data: np.ndarray, stops: np.ndarray
) -> tuple[Lexicon, np.ndarray, np.ndarray]:
    """Number the words of `data`, which starts with `</s>`; text i ends before byte `stops[i]`."""
    blanks = bytes.maketrans(SPACE, b" " * len(SPACE))
    text = data.tobytes().translate(blanks)
    found: dict[bytes, int] = {END: 0}
    starts, counts, words, ends = [0], [0], [], []
    at = len(END)
    for stop in stops.tolist():
        for word in text[at:stop].split(b" "):
            if word:
                number = found.setdefault(word, len(found))
                if number == len(starts):
                    starts.append(at)
                    counts.append(0)
                counts[number] += 1
                words.append(number)
            at += len(word) + 1
        counts[0] += 1
        words.append(0)
        ends.append(len(words))
        at = stop
    begins = np.array(starts, np.int64)
    sizes = np.array([len(word) for word in found], np.int64)
    hashes = np.array([fnv1a(word) for word in found], np.int64)
    lexicon = Lexicon(data, begins, begins + sizes, hashes, np.array(counts, np.int64))
    return lexicon, np.array(words, np.int32), np.array(ends, np.int64)


# ------------------------------------------------------------------------------- fast twin
#
# One walk over the bytes: while a word is read its hash grows, and the hash finds its number. The
# table is at most half full, and searched slot after slot. The walk allocates nothing: it stops
# where there is no room for another word, and is called again with twice as much.

FREE = -1
LOWER = 0xFFFFFFFF  # the half of a slot that is the word's number
TAG = 0x7FFFFFFF  # what the other half holds of the hash


def number_fast(data: np.ndarray, stops: np.ndarray) -> tuple[Lexicon, np.ndarray, np.ndarray]:
    words = np.empty(_count_words(data, stops, IS_SPACE), np.int32)
    ends = np.empty(len(stops), np.int64)
    # Of each word: start, stop, hash, count. `</s>` is there from the start.
    entries = np.array([[0, len(END), fnv1a(END), 0]], np.int64)
    at = np.array([1, 0, len(END), 0], np.int64)  # words so far, and text, byte and token to go on
    room = 1 << 12
    while True:
        entries = np.concatenate([entries, np.zeros((room - len(entries), 4), np.int64)])
        slots = np.full(2 * room, FREE, np.int64)
        _fill(slots, entries[: at[0], 2].copy())
        if _number(data, stops, IS_SPACE, slots, entries, words, ends, at):
            break
        room *= 2
    starts, finals, hashes, counts = entries[: at[0]].T.copy()
    return Lexicon(data, starts, finals, hashes, counts), words, ends


@jit
def _count_words(data, stops, is_space):
    """The words of all texts, `</s>` of each included."""
    count, at = 0, 4
    for text in range(stops.size):
        count += 1
        after_space = True
        while at < stops[text]:
            space = is_space[data[at]]
            if after_space and not space:
                count += 1
            after_space = space
            at += 1
    return count


@jit
def _number(data, stops, is_space, slots, entries, words, ends, at):
    """Go on numbering words until all are (True) or there is no room for the next (False)."""
    size, text, p, token = at
    while text < stops.size:
        stop = stops[text]
        while p < stop and is_space[data[p]]:
            p += 1
        if p == stop:
            words[token] = 0
            entries[0, 3] += 1
            token += 1
            ends[text] = token
            text += 1
            continue
        start, value = p, FNV_START
        while p < stop and not is_space[data[p]]:
            value = fnv_step(value, data[p])
            p += 1
        slot = _slot(slots, entries[:, 0], entries[:, 1], data, value, data, start, p)
        if slots[slot] == FREE:
            if size == len(entries):
                at[0], at[1], at[2], at[3] = size, text, start, token
                return False
            slots[slot] = (value & TAG) << 32 | size
            entries[size, 0], entries[size, 1], entries[size, 2] = start, p, value
            size += 1
        words[token] = slots[slot] & LOWER
        entries[words[token], 3] += 1
        token += 1
    at[0] = size
    return True


@inner
def fnv_step(value, byte):
    """The hash `value` (int64) after one more byte."""
    signed = np.int64(byte)
    if signed >= 128:
        signed |= 0xFFFFFF00
    return ((value ^ signed) * FNV_PRIME) & LOWER


@inner
def _hash(data, start, stop):
    value = FNV_START
    for i in range(start, stop):
        value = fnv_step(value, data[i])
    return value


@inner
def _home(slots, value):
    """Where the search for a word of hash `value` begins. (Similar words share the low bits.)"""
    return (value ^ (value >> 15)) & (slots.size - 1)


@inner
def _slot(slots, starts, stops, words, value, data, start, stop):
    """The slot of the word `data[start:stop]` of hash `value`, or the free one that it would take.

    The words of the table are spelled in `words`.
    """
    slot = _home(slots, value)
    while slots[slot] != FREE:
        if slots[slot] >> 32 == value & TAG:
            begin = starts[slots[slot] & LOWER]
            if stops[slots[slot] & LOWER] - begin == stop - start:
                i = 0
                while i < stop - start and words[begin + i] == data[start + i]:
                    i += 1
                if i == stop - start:
                    return slot
        slot = (slot + 1) & (slots.size - 1)
    return slot


@jit
def _fill(slots, hashes):
    """Enter words 0, 1, ... by their hashes into an empty table."""
    for word in range(hashes.size):
        slot = _home(slots, hashes[word])
        while slots[slot] != FREE:
            slot = (slot + 1) & (slots.size - 1)
        slots[slot] = (hashes[word] & TAG) << 32 | word


@jit
def _find_all(slots, starts, stops, data, hashes, other_starts, other_stops, other_data):
    """The number in the table of every word of another lexicon, FREE where there is none."""
    found = np.empty(hashes.size, np.int64)
    for word in range(hashes.size):
        start, stop = other_starts[word], other_stops[word]
        slot = _slot(slots, starts, stops, data, hashes[word], other_data, start, stop)
        found[word] = slots[slot] if slots[slot] == FREE else slots[slot] & LOWER
    return found


@jit
def _hash_all(data, starts, stops):
    hashes = np.empty(starts.size, np.int64)
    for word in range(starts.size):
        hashes[word] = _hash(data, starts[word], stops[word])
    return hashes

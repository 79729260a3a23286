"""What a classifier sees of a text: its words, pieces of words, and runs of words.

    words   each word of the vocabulary is a feature of its own, number 0 .. V-1.
    pieces  of a word with marks at both ends, "<where>", every run of `min_chars` to `max_chars`
            characters: for 3, "<wh", "whe", "her", "ere", "re>". So "colour" and "colours" have
            much in common, and a word never seen still has known pieces. (A lone "<" or ">" would
            say nothing and is left out.)
    runs    of 2 to `word_ngrams` words, so that "not good" differs from "good not".

There are too many pieces and runs to number them all, so they are *hashed*: feature V + (h mod
`buckets`), where strangers may share a bucket. For a piece, h is the FNV-1a hash of its bytes. For
a run of words with hashes h_1 .. h_n, each read as a signed 32-bit number,

    h = h_1;    for each next word:  h <- h * 116049371 + h_next  mod 2^64

These are fastText's features to the bit, so that its models and ours can be compared.

The words of a text repeat, so the features of each different word are listed once (`Features`).
Sources: Joulin et al. 2017, "Bag of Tricks for Efficient Text Classification"; Weinberger et al.
2009, "Feature Hashing for Large Scale Multitask Learning".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from minillm import backend
from minillm.data.classifier.config import ClassifierConfig
from minillm.data.classifier.lexicon import FNV_START, Lexicon, fnv1a, fnv_step
from minillm.jit import jit

RUN_FACTOR = 116049371


@dataclass
class Features:
    """The features of texts, each different word's listed once.

    Text i has the words `words[ends[i-1]:ends[i]]` (int32). Word w has the features
    `listed[list_ends[w-1]:list_ends[w]]` (int32). The runs that start at token t are
    `runs[t]` (int32, (tokens, word_ngrams - 1)), -1 where the text ends before the run does.
    """

    words: np.ndarray
    ends: np.ndarray
    listed: np.ndarray
    list_ends: np.ndarray
    runs: np.ndarray

    def __len__(self) -> int:
        return len(self.ends)

    def of(self, text: int) -> np.ndarray:
        """All features of one text (int32), as often as they occur."""
        first, last = (self.ends[text - 1] if text else 0), self.ends[text]
        lists = [
            self.listed[(self.list_ends[word - 1] if word else 0) : self.list_ends[word]]
            for word in self.words[first:last]
        ]
        runs = self.runs[first:last].ravel()
        return np.concatenate([*lists, runs[runs >= 0]])

    def sizes(self) -> np.ndarray:
        """How many features each text has (int64)."""
        each = np.diff(self.list_ends, prepend=0)[self.words] + (self.runs >= 0).sum(axis=1)
        return np.diff(np.concatenate([[0], np.cumsum(each)])[self.ends], prepend=0)

    def numbered(self, table: np.ndarray) -> Features:
        """The same features under other numbers: f becomes `table[f]` (int32)."""
        runs = np.where(self.runs < 0, self.runs, table[self.runs])
        return replace(self, listed=table[self.listed], runs=runs)


def features_of(
    lexicon: Lexicon,
    words: np.ndarray,
    ends: np.ndarray,
    numbers: np.ndarray,
    size: int,
    config: ClassifierConfig,
) -> Features:
    """The features of texts that `lexicon.read` has split into (lexicon, words, ends).

    `numbers` (int64) holds each word's number in the vocabulary of `size` words, -1 for strangers.
    Features `size` to `size + buckets - 1` are those of pieces and runs.
    """
    pieces, piece_ends = word_pieces(lexicon, config)
    known = numbers >= 0
    list_ends = piece_ends + np.cumsum(known)
    listed = np.empty(len(pieces) + int(known.sum()), np.int32)
    own = np.zeros(len(listed), np.bool_)  # the word itself stands before its pieces
    own[(list_ends - np.diff(piece_ends, prepend=0) - 1)[known]] = True
    listed[own], listed[~own] = numbers[known], pieces + size
    runs = word_runs(lexicon.hashes[words], ends, config)
    return Features(words, ends, listed, list_ends, np.where(runs < 0, runs, runs + size))


def met_buckets(features: Features, size: int, buckets: int) -> np.ndarray:
    """The buckets that occur, in rising order (int64)."""
    occurs = np.zeros(size + buckets, np.bool_)
    occurs[features.listed] = True
    occurs[features.runs[features.runs >= 0]] = True
    return np.flatnonzero(occurs[size:])


def row_table(size: int, met: np.ndarray, buckets: int) -> np.ndarray:
    """The row of every feature (int32): words first, then met buckets; all others share the last.

    `met` is in rising order.
    """
    table = np.full(size + buckets, size + len(met), np.int32)
    table[:size] = np.arange(size)
    table[size + met] = np.arange(size, size + len(met))
    return table


def word_runs(hashes: np.ndarray, ends: np.ndarray, config: ClassifierConfig) -> np.ndarray:
    """The buckets of the runs that start at each word, (tokens, word_ngrams - 1), int32.

    `hashes` (int64) are those of the words of texts that end at `ends`. Column j is the run of
    j + 2 words, -1 where the text ends before.
    """
    runs = np.full((len(hashes), config.word_ngrams - 1), -1, np.int32)
    signed = hashes.astype(np.uint32).astype(np.int32).astype(np.int64).astype(np.uint64)
    left = np.repeat(ends, np.diff(ends, prepend=0)) - np.arange(len(hashes))  # words to the end
    run = signed
    for extra in range(1, config.word_ngrams):
        run = run[:-1] * np.uint64(RUN_FACTOR) + signed[extra:]
        whole = np.flatnonzero(left[: len(run)] > extra)
        runs[whole, extra - 1] = run[whole] % np.uint64(config.buckets)
    return runs


def word_pieces(lexicon: Lexicon, config: ClassifierConfig) -> tuple[np.ndarray, np.ndarray]:
    """The buckets of the pieces of every word (int32), end to end, and where each word's end.

    Word 0, the end of the text, has no pieces.
    """
    if config.max_chars == 0:
        return np.empty(0, np.int32), np.zeros(len(lexicon), np.int64)
    if not backend.fast(lexicon.data):
        return word_pieces_reference(lexicon, config)
    room = np.cumsum((lexicon.stops - lexicon.starts + 2) * config.max_chars)
    pieces, ends = np.empty(int(room[-1]), np.int32), np.empty(len(lexicon), np.int64)
    count = _pieces(
        lexicon.data, lexicon.starts, lexicon.stops,
        config.min_chars, config.max_chars, config.buckets, pieces, ends,
    )  # fmt: skip
    return pieces[:count].copy(), ends


# ------------------------------------------------------------------------------- reference


def word_pieces_reference(
    lexicon: Lexicon, config: ClassifierConfig
) -> tuple[np.ndarray, np.ndarray]:
    """As `word_pieces`, character by character."""
    pieces: list[int] = []
    ends = []
    for number, word in enumerate(lexicon.words()):
        letters = [letter.encode() for letter in f"<{word.decode()}>"]
        for start in range(len(letters) if number else 0):
            last = min(start + config.max_chars, len(letters))
            for stop in range(start + config.min_chars, last + 1):
                if stop - start > 1 or 0 < start < len(letters) - 1:
                    pieces.append(fnv1a(b"".join(letters[start:stop])) % config.buckets)
        ends.append(len(pieces))
    return np.array(pieces, np.int32), np.array(ends, np.int64)


# ------------------------------------------------------------------------------- fast twin
#
# The hash of a piece goes on from that of the piece one character shorter, so each piece costs one
# more character. A byte that continues a character has 10 as its upper two bits.


@jit
def _pieces(data, starts, stops, least, most, buckets, pieces, ends):
    count = 0
    ends[0] = 0
    for word in range(1, starts.size):
        # Places -1 and size stand for the marks "<" and ">".
        begin, size = starts[word], stops[word] - starts[word]
        for i in range(-1, size + 1):
            if 0 <= i < size and data[begin + i] & 0xC0 == 0x80:
                continue
            j, value = i, FNV_START
            for length in range(1, most + 1):
                if j > size:
                    break
                value = fnv_step(value, _byte(data, begin, size, j))
                j += 1
                while 0 <= j < size and data[begin + j] & 0xC0 == 0x80:
                    value = fnv_step(value, _byte(data, begin, size, j))
                    j += 1
                if length >= least and (length > 1 or 0 <= i < size):
                    pieces[count] = value % buckets
                    count += 1
        ends[word] = count
    return count


@jit
def _byte(data, begin, size, i):
    if i < 0:
        return np.uint8(60)  # <
    return data[begin + i] if i < size else np.uint8(62)  # >

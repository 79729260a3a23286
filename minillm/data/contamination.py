"""Decontamination: training documents that share long n-grams with evaluation sets are removed.

A model that has seen the questions of an examination answers them by heart, and the result says
nothing. Thirteen words in a row that stand in an evaluation set are taken for a copy of it, as in
Brown et al. 2020, "Language Models are Few-Shot Learners", appendix C. Words are compared without
case and punctuation, as for near duplicates. A question of fewer words, but at least eight, is
looked for as a whole.

The n-grams of all sets are kept as sorted hashes of 64 bits in files that workers map into memory,
one for each number of words: 8 bytes for each word of the sets.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minillm import files
from minillm.data.dedup.jaccard import shingle_sets
from minillm.data.documents import Rejected
from minillm.data.extraction import extract
from minillm.data.reading import pieces, streams
from minillm.data.recipe import ExtractionConfig, ReadingConfig
from minillm.errors import InputError

FEWEST_WORDS = 8  # of a text shorter than an n-gram; below this it says nothing
SPARSE = 16  # see `Ngrams.of`


def write_index(folder: Path, evaluation: Iterable[str], ngram: int) -> int:
    """Write the hashes of all n-grams of evaluation texts, sorted; returns their number.

    They go to `ngrams-N.npy` for N = `ngram`, and for each number of words, `FEWEST_WORDS` or more,
    that a shorter text has: all of it is one N-gram then. Still shorter ones are left out.
    """
    fewest = min(FEWEST_WORDS, ngram)
    texts = [text for text in evaluation if text]
    counts = _words(texts, fewest, ngram)
    written = 0
    for size in range(fewest, ngram + 1):
        chosen = [texts[i] for i in np.flatnonzero(counts == size)]
        if chosen:
            hashes = np.unique(np.concatenate(list(_sets(chosen, size))))
            path = folder / f"ngrams-{size}.npy"
            with files.replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, hashes)
            written += len(hashes)
    return written


@dataclass(frozen=True)
class Ngrams:
    """All n-grams of one number of words, to look others up in."""

    size: int  # words
    hashes: np.ndarray  # sorted
    marks: np.ndarray  # for the upper bits of a hash, whether any of ours begins like that

    @classmethod
    def of(cls, size: int, hashes: np.ndarray) -> Ngrams:
        """About `SPARSE` marks for each hash, so that most others are told by their mark alone."""
        marks = np.zeros(1 << (SPARSE * len(hashes)).bit_length(), bool)
        found = cls(size, hashes, marks)
        marks[found._upper(hashes)] = True
        return found

    def has(self, hashes: np.ndarray) -> np.ndarray:
        """Whether each of these is among them, (N,) bool."""
        found = self.marks[self._upper(hashes)]
        likely = np.flatnonzero(found)
        asked = hashes[likely]
        places = np.minimum(np.searchsorted(self.hashes, asked), len(self.hashes) - 1)
        found[likely] = self.hashes[places] == asked
        return found

    def _upper(self, hashes: np.ndarray) -> np.ndarray:
        bits = len(self.marks).bit_length() - 1
        return hashes >> np.uint64(64 - bits)


def read_index(folder: Path) -> list[Ngrams]:
    """What `write_index` wrote, mapped."""
    return [
        Ngrams.of(int(path.stem.partition("-")[2]), np.load(path, mmap_mode="r"))
        for path in sorted(folder.glob("ngrams-*.npy"))
    ]


def shared(texts: Sequence[str], index: Iterable[Ngrams]) -> np.ndarray:
    """How many of the index's n-grams each text has, (N,) int64."""
    found = np.zeros(len(texts), np.int64)
    for known in index if texts else ():
        hashes, begins, counts = shingle_sets(texts, known.size)
        hits = np.concatenate([[0], np.cumsum(known.has(hashes))])
        found += hits[begins + counts] - hits[begins]
    return found


def _sets(texts: Sequence[str], ngram: int) -> Iterator[np.ndarray]:
    """The different n-grams of each text, as hashes; all of it where it has fewer words."""
    if texts:
        hashes, begins, counts = shingle_sets(texts, ngram)
        for begin, count in zip(begins, counts, strict=True):
            yield hashes[begin : begin + count]


def _words(texts: Sequence[str], fewest: int, most: int) -> np.ndarray:
    """How many words each text has, (N,) int64: `most` for more, `fewest` - 1 for fewer.

    All of a text is the one and the same n-gram for every n that is not below its words.
    """
    counts = np.full(len(texts), most)
    whole = list(_sets(texts, most))
    for size in range(most - 1, fewest - 2, -1):
        if size:
            same = [np.array_equal(*pair) for pair in zip(whole, _sets(texts, size), strict=True)]
            counts[same] = size
    return counts


def evaluation_texts(paths: Sequence[str]) -> Iterator[str]:
    """The texts of evaluation sets: whole documents, and every text in each line of JSON.

    Raises `InputError` where a path does not exist or a file cannot be read.
    """
    config = ReadingConfig(piece_bytes=1 << 60)
    for piece in pieces.plan({"": paths}, config).pieces:
        for part in piece:
            if pieces.kind(part.name) == "jsonl":
                yield from _strings_of_lines(Path(part.path), config)
                continue
            for found in pieces.read([part], config):
                if isinstance(found, Rejected):
                    raise InputError(f"the evaluation set {found.document.source}: {found.value}")
                page = extract(found, ExtractionConfig())
                if not isinstance(page, Rejected):
                    yield page.text


def _strings_of_lines(path: Path, config: ReadingConfig) -> Iterator[str]:
    """Every text in every line: questions, contexts and answers go by many names."""
    for line in streams.lines(streams.chunks(path, config.max_ratio), config.max_bytes):
        if isinstance(line, streams.Broken):
            raise InputError(f"the evaluation set {path}: {line.why}")
        if line.data.strip():
            try:
                yield from _strings(json.loads(line.data))
            except (ValueError, RecursionError) as error:
                raise InputError(f"the evaluation set {path}, byte {line.place}: {error}") from None


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _strings(list(value.values()))
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)

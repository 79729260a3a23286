"""Decontamination: training documents that share long n-grams with evaluation sets are removed.

A model that has seen the questions of an examination answers them by heart, and the result says
nothing. Thirteen words in a row that stand in an evaluation set are taken for a copy of it, as in
Brown et al. 2020, "Language Models are Few-Shot Learners", appendix C. Words are compared without
case and punctuation, as for near duplicates; a question shorter than that counts as a whole.

The n-grams of all sets are kept as sorted hashes of 64 bits in one file that workers map into
memory: 8 bytes for each word of the sets.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
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


def write_index(path: Path, evaluation: Iterable[str], ngram: int) -> int:
    """Write the hashes of all n-grams of evaluation texts, sorted; returns their number.

    A text of fewer than `ngram` words counts as one n-gram, one of fewer than `FEWEST_WORDS` not.
    """
    texts = [text for text in evaluation if len(text.split()) >= FEWEST_WORDS]
    hashes, begins, counts = shingle_sets(texts, ngram) if texts else ((), (), ())
    sets = [hashes[begin : begin + count] for begin, count in zip(begins, counts, strict=True)]
    hashes = np.unique(np.concatenate([np.empty(0, np.uint64), *sets]))
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, hashes)
    return len(hashes)


def shared(texts: Sequence[str], index: np.ndarray, ngram: int) -> np.ndarray:
    """How many of the index's n-grams each text has, (N,) int64."""
    if not len(index) or not texts:
        return np.zeros(len(texts), np.int64)
    hashes, begins, counts = shingle_sets(texts, ngram)
    places = np.minimum(np.searchsorted(index, hashes), len(index) - 1)
    hits = np.concatenate([[0], np.cumsum(index[places] == hashes)])
    return hits[begins + counts] - hits[begins]


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

"""Counting the words of texts of any size, in parallel.

Every thread counts in a table of its own, and the tables are added up at the end. So memory grows
with the number of different words, not with the text.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from minillm import backend
from minillm.tokenizer import patterns
from minillm.tokenizer.pieces import groups_of
from minillm.tokenizer.reading import Source, batches_of, blocks_of
from minillm.tokenizer.scanner import RULES
from minillm.tokenizer.word_table import Words, WordTable

Progress = Callable[[str, int, int], None]  # called with (what is being done, done so far, of all)


def count_words(
    sources: Iterable[Source],
    pattern: str,
    errors: str = "strict",
    progress: Progress | None = None,
) -> Words:
    """The different words of all sources, and how often each occurs.

    Args:
        sources: texts (str, bytes) and files (`Path`).
        pattern: a name of `patterns.PATTERNS` or a regular expression. Files are read a block at a
            time, except with a regular expression of one's own: where that may be cut nobody knows.
        errors: for files that are not UTF-8: "strict", "replace" or "bytes".
        progress: called after every block with ("counting", bytes so far, bytes in all, 0 where
            that is not known).

    Returns the words end to end (uint8), their lengths and their counts (int64).
    """
    total, done = _total_size(sources), 0
    if pattern not in RULES:
        counter: Counter[bytes] = Counter()
        for source in sources:
            data = b"".join(blocks_of(source, errors))
            counter.update(patterns.split(data, pattern))
            done += len(data)
            if progress is not None:
                progress("counting", done, total)
        return from_counter(counter)
    rules = RULES[pattern]
    tables = [WordTable() for _ in range(backend.threads())]
    for data, ends, until in batches_of(sources, rules, errors):
        _count_block(tables, rules, data, ends, until)
        done += until
        if progress is not None:
            progress("counting", done, total)
    while len(tables) > 1:
        tables[0].merge(tables.pop())
    return tables[0].words()


def from_counter(counter: Mapping[bytes, int]) -> Words:
    """The words of a dictionary, laid out as `count_words` returns them."""
    data = np.frombuffer(b"".join(counter), np.uint8)
    lengths = np.fromiter(map(len, counter), np.int64, len(counter))
    return data, lengths, np.fromiter(counter.values(), np.int64, len(counter))


def _count_block(
    tables: list[WordTable], rules: int, data: np.ndarray, ends: list[int], until: int
) -> None:
    """Count the words of `data[:until]`, each thread in a table of its own."""
    groups = groups_of(rules, data[:until], [min(end, until) for end in ends])
    for group in groups:
        group[group[:, 2] == until, 2] = ends[-1]  # the last words look ahead past `until`

    def work(table: WordTable) -> None:
        while groups:
            try:
                group = groups.pop()
            except IndexError:  # another thread took the last
                return
            table.add(rules, data, group)

    if len(groups) < 2:
        work(tables[0])
        return
    tables[0].add(rules, data, groups.pop())  # what has to be compiled is compiled here, once
    with ThreadPoolExecutor(len(tables)) as pool:
        list(pool.map(work, tables))


def _total_size(sources: Iterable[Source]) -> int:
    """The bytes of all files, 0 where that is not known."""
    if not isinstance(sources, list | tuple):
        return 0
    files = [source for source in sources if isinstance(source, os.PathLike)]
    return sum(os.path.getsize(file) for file in files if os.path.exists(file))

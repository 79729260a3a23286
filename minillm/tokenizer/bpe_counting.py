"""Counting the words of texts of any size, in parallel and in bounded memory.

Every thread counts in a table of its own, and the tables are added up at the end. So memory grows
with the number of different words, not with the text. That number has no bound either: a text of
gigabytes has millions of words that occur once or twice. So when the tables together hold `WORDS`
words, or `BYTES` bytes, they are added up, and if there really are so many, the rarest are
forgotten. What frequent words lose by that is little: one that was forgotten had occurred no more
often than the count that is reported. When it happens is decided by the text alone, between two
blocks, so the number of threads does not change the counts.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from minillm import backend
from minillm.tokenizer import patterns
from minillm.tokenizer.pieces import groups_of
from minillm.tokenizer.reading import Source, batches_of, blocks_of
from minillm.tokenizer.scanner import RULES, WHOLE
from minillm.tokenizer.word_table import Words, WordTable

WORDS, BYTES = 3 << 20, 3 << 23  # of different words in all tables together
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
        pattern: a name of `patterns.PATTERNS` or a regular expression.
        errors: for files that are not UTF-8: "strict", "replace" or "bytes".
        progress: called after every block with ("counting", bytes so far, bytes in all, 0 where
            that is not known).

    Warns (`UserWarning`) where words had to be forgotten. Returns the words end to end (uint8),
    their lengths and their counts (int64).
    """
    total, done = _total_size(sources), 0
    tables = [WordTable() for _ in range(backend.threads())]
    forgotten = 0
    for data, groups in _groups(sources, pattern, errors):
        done += sum(int(group[-1, 1] - group[0, 0]) for group in groups)
        _count_groups(tables, RULES.get(pattern, WHOLE), data, groups)
        forgotten = max(forgotten, _limit(tables))
        if progress is not None:
            progress("counting", done, total)
    _add_up(tables)
    if forgotten:
        _warn(forgotten)
    return tables[0].words()


def _warn(forgotten: int) -> None:
    warnings.warn(
        f"the text has more than {WORDS:,} different words, or {BYTES:,} bytes of them; some that "
        f"had occurred {forgotten} times or less were forgotten",
        stacklevel=3,
    )


def _groups(
    sources: Iterable[Source], pattern: str, errors: str
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Blocks of text, and for each the pieces to count (see `pieces.py`), in groups."""
    if pattern in RULES:
        for data, ends, until in batches_of(sources, RULES[pattern], errors):
            groups = groups_of(RULES[pattern], data[:until], [min(end, until) for end in ends])
            for group in groups:
                group[group[:, 2] == until, 2] = ends[-1]  # the last words look ahead past `until`
            yield data, groups
        return
    for source in sources:  # `regex` cuts; every word is a piece, and the rule is to take all of it
        for words in patterns.split_blocks(blocks_of(source, errors), pattern):
            stops = np.cumsum([len(word) for word in words], dtype=np.int64)
            starts = np.concatenate([[0], stops[:-1]])
            group = np.stack([starts, stops, stops], axis=1)
            yield np.frombuffer(b"".join(words), np.uint8), [group]


def _add_up(tables: list[WordTable]) -> None:
    """Bring all counts into the first table."""
    for number in range(1, len(tables)):
        tables[0].merge(tables[number])
        tables[number] = WordTable()


def _limit(tables: list[WordTable]) -> int:
    """Keep within `WORDS` and `BYTES`; how often the most frequent forgotten word had occurred."""

    def full(some: list[WordTable]) -> bool:
        return sum(table.size for table in some) > WORDS or sum(map(WordTable.used, some)) > BYTES

    if not full(tables):
        return 0
    _add_up(tables)
    return tables[0].forget(WORDS // 2, BYTES // 2) if full(tables[:1]) else 0


def from_counter(counter: Mapping[bytes, int]) -> Words:
    """The words of a dictionary, laid out as `count_words` returns them."""
    data = np.frombuffer(b"".join(counter), np.uint8)
    lengths = np.fromiter(map(len, counter), np.int64, len(counter))
    return data, lengths, np.fromiter(counter.values(), np.int64, len(counter))


def _count_groups(
    tables: list[WordTable], rules: int, data: np.ndarray, groups: list[np.ndarray]
) -> None:
    """Count the words of the pieces in `groups`, each thread in a table of its own."""

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

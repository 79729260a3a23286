"""Passages that occur more than once, inside a document or across documents, found and cut.

Near-duplicate detection compares whole documents. A licence, a menu or a famous speech in pages
that are otherwise different is found here: every run of at least `least_bytes` bytes that stood
somewhere before, wholly before the place where it is met again. The first copy stays.

All documents are joined, a byte between them that UTF-8 never uses, and their suffixes are sorted
(suffixes.py). Suffixes that begin with the same `least_bytes` bytes are then neighbours; in
each such group the smallest start is the first copy, and what is covered by the others is cut.
Source: Lee et al. 2021, "Deduplicating training data makes language models better", section 4.1.

Memory: about 13 bytes for every byte of text, 25 from 2 GiB on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minillm import backend
from minillm.data.dedup.suffixes import common_prefixes, suffix_array
from minillm.errors import InputError
from minillm.jit import jit

BETWEEN = b"\xff"  # no byte of UTF-8
NO_SPANS = np.empty((0, 5), np.int64)


def repeated_passages(documents: Sequence[str], least_bytes: int = 200) -> np.ndarray:
    """Find the passages that stood before, in the same document or in an earlier one.

    Args:
        documents: the texts, in an order that decides which copy is the first.
        least_bytes: the shortest passage that counts, in bytes of UTF-8.

    Returns spans (n, 5) int64 in the order of the text: document, start, stop, and the document and
    start of the first copy of what the span begins with. Starts and stops are bytes of UTF-8 at
    which characters begin. Spans of a document neither touch nor overlap.

    >>> repeated_passages(["to be or not", "I say: to be or so"], least_bytes=8).tolist()
    [[1, 7, 16, 0, 0]]
    """
    if isinstance(documents, str | bytes):
        raise InputError("one text was given; a list of texts is needed")
    coded = [document.encode("utf-8", "surrogatepass") for document in documents]
    symbols = np.frombuffer(BETWEEN.join([*coded, b""]), np.uint8)
    spans = _found(symbols, [len(code) for code in coded], least_bytes)
    starts = np.cumsum([0] + [len(code) + 1 for code in coded])[spans[:, 0]]
    for column, step in ((1, 1), (2, -1)):  # onto the beginnings of characters, inwards
        while len(inside := np.flatnonzero(symbols[starts + spans[:, column]] & 0xC0 == 0x80)):
            spans[inside, column] += step
            spans[inside, 4] += step == 1
    return spans[spans[:, 1] < spans[:, 2]]


def repeated_runs(documents: Sequence[np.ndarray], least: int) -> np.ndarray:
    """`repeated_passages` of sequences of whole numbers from 0 on: token ids, hashed words.

    >>> repeated_runs([np.array([7, 8, 9]), np.array([1, 7, 8, 9, 1])], least=3).tolist()
    [[1, 1, 4, 0, 0]]
    """
    between = max((int(document.max()) for document in documents if len(document)), default=0) + 1
    parts = [part for document in documents for part in (document, [between])]
    symbols = np.concatenate([*parts, []]).astype(np.int64)
    return _found(symbols, [len(document) for document in documents], least)


def cut_passages(documents: Sequence[str], spans: np.ndarray) -> list[str]:
    """The documents without the spans that `repeated_passages` found in them.

    >>> cut_passages(["to be or not", "I say: to be or so"], np.array([[1, 7, 16, 0, 0]]))
    ['to be or not', 'I say: so']
    """
    out = list(documents)
    edges = np.searchsorted(spans[:, 0], np.arange(len(out) + 1))
    for number in np.unique(spans[:, 0]).tolist():
        coded, kept, last = out[number].encode("utf-8", "surrogatepass"), [], 0
        for _, start, stop, *_ in spans[edges[number] : edges[number + 1]].tolist():
            kept.append(coded[last:start])
            last = stop
        kept.append(coded[last:])
        out[number] = b"".join(kept).decode("utf-8", "surrogatepass")
    return out


def _found(symbols: np.ndarray, lengths: list[int], least: int) -> np.ndarray:
    """Spans in documents of `lengths` that lie in `symbols`, each with one symbol after it."""
    if least < 1:
        raise InputError(f"passages of {least} were asked for; they have at least one symbol")
    ends = np.cumsum(np.array(lengths, np.int64) + 1) - 1
    if not backend.fast(symbols):
        return spans_reference(symbols, ends, least)
    order = suffix_array(symbols)
    common = common_prefixes(symbols, order)
    _within_documents(common, ends)
    first = np.full_like(order, -1)
    _first_copies(order, common, least, first)
    spans = np.empty((_spans(first, ends, least, NO_SPANS), 5), np.int64)
    _spans(first, ends, least, spans)
    return spans


# ------------------------------------------------------------------------------- reference


def spans_reference(symbols: np.ndarray, ends: np.ndarray, least: int) -> np.ndarray:
    """The spans by remembering every run of `least` symbols and where it was seen first."""
    seen: dict[bytes, tuple[int, int, int]] = {}
    spans: list[list[int]] = []
    begin = 0
    for number, end in enumerate(ends.tolist()):
        for start in range(begin, end - least + 1):
            here = start, number, start - begin
            first = seen.setdefault(symbols[start : start + least].tobytes(), here)
            if start - first[0] < least:
                continue
            if spans and spans[-1][0] == number and spans[-1][2] >= start - begin:
                spans[-1][2] = start - begin + least
            else:
                spans.append([number, start - begin, start - begin + least, *first[1:]])
        begin = end + 1
    return np.array(spans, np.int64).reshape(-1, 5)


# ------------------------------------------------------------------------------- fast twin
#
# One walk along the sorted suffixes and one along the text.


@jit
def _within_documents(common, ends):
    """Let no shared length reach past the end of its document."""
    begin = 0
    for end in ends:
        for i in range(begin, end):
            common[i] = min(np.int64(common[i]), end - i)
        common[end] = 0
        begin = end + 1


@jit
def _first_copies(order, common, least, first):
    """Write to `first[i]` where the passage at i stood first, if it was wholly before i."""
    begin = 0
    while begin < order.size:
        end = begin + 1
        smallest = np.int64(order[begin])
        while end < order.size and common[order[end]] >= least:
            smallest = min(smallest, np.int64(order[end]))
            end += 1
        for k in range(begin, end):
            if order[k] - smallest >= least:
                first[order[k]] = smallest
        begin = end


@jit
def _spans(first, ends, least, out):
    """Join passages that touch into spans; write as many as `out` holds, return how many."""
    count, begin = 0, 0
    for number in range(ends.size):
        stop = np.int64(-1)  # of the last span in this document
        for start in range(begin, ends[number]):
            if first[start] < 0:
                continue
            if start > stop:
                if count < out.shape[0]:
                    home = np.searchsorted(ends, np.int64(first[start]))
                    out[count, 0], out[count, 1], out[count, 3] = number, start - begin, home
                    out[count, 4] = first[start] - (ends[home - 1] + 1 if home else 0)
                count += 1
            stop = start + least
            if count <= out.shape[0]:
                out[count - 1, 2] = stop - begin
        begin = ends[number] + 1
    return count

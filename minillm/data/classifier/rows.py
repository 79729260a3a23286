"""Reading and changing rows of the embeddings: most of the time of training goes here.

A text's features are rows scattered over a matrix that no cache holds. Read one by one, each would
make the processor wait for memory. But the rows that will be needed are known long before: `fetch`
asks for the one AHEAD of the row at work, in the same text or the next, and it has arrived when its
turn comes. And a row that starts where a line of memory starts touches as few lines as it can.
Together they make the walk over a matrix of 120 MB more than three times as fast.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minillm import backend
from minillm.data.classifier.features import Features
from minillm.jit import jit
from minillm.kernels.packing import fetch

AHEAD = 32  # rows; less leaves memory too little time, more gains nothing
LINE = 64  # bytes that memory hands out at once


def aligned(rows: int, dim: int, dtype: Any = np.float32) -> np.ndarray:
    """Zeros (rows, at least dim), every row a whole number of memory's lines, at the start of one.

    The columns after `dim` stay 0 in training: their gradient is 0.
    """
    each = LINE // np.dtype(dtype).itemsize
    width = -(-dim // each) * each
    room = np.zeros(rows * width + each, dtype)
    first = -room.ctypes.data % LINE // room.itemsize
    return room[first : first + rows * width].reshape(rows, width)


def gather(
    features: Features, texts: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The features of `texts`, of which text i has `sizes[i]`, end to end (int32).

    Returns them, with AHEAD more entries that keep the look ahead inside the array, and where each
    text's end (int64).
    """
    stops = np.cumsum(sizes[texts])
    found = np.zeros((int(stops[-1]) if len(stops) else 0) + AHEAD, np.int32)
    if backend.fast(found):
        _gather(
            features.words, features.ends, features.listed, features.list_ends, features.runs,
            texts, found,
        )  # fmt: skip
    elif len(texts):
        found[: stops[-1]] = np.concatenate([features.of(text) for text in texts])
    return found, stops


@jit
def _gather(words, ends, listed, list_ends, runs, texts, found):
    count = 0
    for i in range(texts.size):
        text = texts[i]
        for token in range(ends[text - 1] if text > 0 else 0, ends[text]):
            word = words[token]
            for k in range(list_ends[word - 1] if word > 0 else 0, list_ends[word]):
                found[count] = listed[k]
                count += 1
        for token in range(ends[text - 1] if text > 0 else 0, ends[text]):
            for j in range(runs.shape[1]):
                if runs[token, j] >= 0:
                    found[count] = runs[token, j]
                    count += 1


@jit
def average(embeddings, found, start, stop, hidden):
    """Put the mean of the rows `found[start:stop]` into `hidden`; 0 where there are none."""
    hidden[:] = 0
    for i in range(start, stop):
        fetch(embeddings, found[i + AHEAD], 0, hidden.size)
        row = embeddings[found[i]]
        for d in range(hidden.size):
            hidden[d] += row[d]
    share = hidden.dtype.type(1) / hidden.dtype.type(max(1, stop - start))
    for d in range(hidden.size):
        hidden[d] *= share


@jit
def add_to_rows(embeddings, found, start, stop, change):
    """Add `change` (dim,) to the rows `found[start:stop]`, as often as they occur."""
    for i in range(start, stop):
        row = embeddings[found[i]]
        for d in range(change.size):
            row[d] += change[d]

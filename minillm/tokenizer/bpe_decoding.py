"""Ids to bytes in one pass over a table of all tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from minillm.jit import jit


class Spelling:
    """The bytes of every id, special tokens included, end to end."""

    def __init__(self, tokens: Sequence[bytes | None], special: Mapping[int, bytes]) -> None:
        size = max([len(tokens), *(number + 1 for number in special)])
        pieces: list[bytes | None] = [*tokens, *[None] * (size - len(tokens))]
        for number, spelling in special.items():
            pieces[number] = spelling
        self.data = np.frombuffer(b"".join(piece or b"" for piece in pieces), np.uint8)
        self.ends = np.cumsum([len(piece or b"") for piece in pieces], dtype=np.int64)
        self.known = np.array([piece is not None for piece in pieces])

    def lengths(self, ids: np.ndarray) -> np.ndarray:
        """The number of bytes of each of `ids`, int64."""
        return np.diff(self.ends, prepend=0)[ids]

    def join(self, ids: np.ndarray) -> bytes | int:
        """The bytes of `ids` (int64), or the first id that does not exist."""
        size = _joined_size(ids, self.ends, self.known)
        if size < 0:
            return int(ids[-1 - size])
        out = np.empty(size, np.uint8)
        _join(ids, self.data, self.ends, out)
        return out.tobytes()


@jit
def _joined_size(ids, ends, known):
    """The bytes of all ids together, or -1 - i where `ids[i]` does not exist."""
    size = 0
    for i in range(ids.size):
        token = ids[i]
        if token < 0 or token >= ends.size or not known[token]:
            return -1 - i
        size += ends[token] - (ends[token - 1] if token else 0)
    return size


@jit
def _join(ids, data, ends, out):
    place = 0
    for token in ids:
        for source in range(ends[token - 1] if token else 0, ends[token]):
            out[place] = data[source]
            place += 1

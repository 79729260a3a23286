"""Ids to bytes: one row of a table copied per token.

Most tokens are shorter than 16 bytes, and copying 16 is one instruction, where copying exactly as
many as there are is a loop. So the first 16 bytes of each token lie in a row of a table; the whole
row is copied, and the next token overwrites what was too much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minillm import backend
from minillm.jit import intrinsic, jit
from minillm.tokenizer.inner import inner
from minillm.tokenizer.pieces import in_parallel

ROW = 16
SHARE = 1 << 17  # ids for which a thread pays


class Spelling:
    """The bytes of every id, special tokens included."""

    def __init__(self, tokens: Sequence[bytes | None], special: Mapping[int, bytes]) -> None:
        size = max([len(tokens), *(number + 1 for number in special)])
        given: list[bytes | None] = [*tokens, *[None] * (size - len(tokens))]
        for number, spelling in special.items():
            given[number] = spelling
        pieces = [piece or b"" for piece in given]
        self.lengths = np.array([-1 if piece is None else len(piece) for piece in given], np.int32)
        self.data = np.frombuffer(b"".join(pieces), np.uint8)
        self.starts = np.cumsum([0, *map(len, pieces)], dtype=np.int64)
        rows = b"".join(piece[:ROW].ljust(ROW, b"\0") for piece in pieces)
        self.rows = np.frombuffer(rows, np.uint8).reshape(-1, ROW)

    def join(self, ids: np.ndarray) -> np.ndarray | int:
        """The bytes of `ids`, uint8, or the first id that does not exist."""
        shares = np.array_split(ids, min(backend.threads(), 1 + len(ids) // SHARE))
        sizes = in_parallel(lambda share: _size_of(share, self.lengths), shares)
        for share, size in zip(shares, sizes, strict=True):
            if size < 0:
                return int(share[-1 - size])
        ends = np.cumsum(sizes)
        out = np.empty(ends[-1], np.uint8)
        in_parallel(
            lambda number: _join(
                shares[number], self.starts, self.lengths, self.data, self.rows,
                out[ends[number] - sizes[number] : ends[number]],
            ),
            range(len(shares)),
        )  # fmt: skip
        return out


@jit
def _size_of(ids, lengths):
    """The bytes of all ids together, or -1 - i where `ids[i]` does not exist."""
    size = 0
    for i in range(ids.size):
        token = np.int64(ids[i])
        if token < 0 or token >= lengths.size or lengths[token] < 0:
            return -1 - i
        size += lengths[token]
    return size


def _copy_row_plain(out, place, rows, row):
    out[place : place + ROW] = rows[row]


@intrinsic(plain=_copy_row_plain)
def copy_row(typing, out, place, rows, row):
    """out[place : place + 16] = rows[row], as one vector loaded and stored."""
    from numba.core import types

    return types.void(out, types.intp, rows, types.intp), _write_copy_row


def _write_copy_row(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    from llvmlite import ir

    out, place, rows, row = arguments
    vector = ir.VectorType(ir.IntType(8), ROW).as_pointer()

    def address(array_type: Any, array: Any, offset: Any) -> Any:
        start = context.make_array(array_type)(context, builder, array).data
        return builder.bitcast(builder.gep(start, [offset]), vector)

    source = address(signature.args[2], rows, builder.mul(row, ir.Constant(row.type, ROW)))
    sixteen = builder.load(source, align=1)
    builder.store(sixteen, address(signature.args[0], out, place), align=1)
    return context.get_dummy_value()


@inner
def _copy(out, place, data, start, size):
    for i in range(size):
        out[place + i] = data[start + i]


@jit
def _join(ids, starts, lengths, data, rows, out):
    """Write the bytes of `ids` to `out`, which is exactly as long as they are."""
    place = 0
    for i in range(ids.size):
        token = np.int64(ids[i])
        size = np.int64(lengths[token])
        if size > ROW or place + ROW > out.size:
            _copy(out, place, data, starts[token], size)
        else:
            copy_row(out, place, rows, token)
        place += size  # type: ignore[assignment]

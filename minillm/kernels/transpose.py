"""The transpose of a small matrix that lies in cache: target (N, M) = source (M, N)^T.

Number by number it costs more than the arithmetic around it. In registers, a square of as many
rows as a vector has lanes is read row by row, turned by a few exchanges between vectors
(`Writer.turned` in vector_ir.py) and written row by row. What no square covers is copied singly.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minillm.jit import intrinsic, jit
from minillm.kernels.block_product import small_tile

_SOURCES = tuple(str(Path(__file__).with_name(name)) for name in ("tile.py", "vector_ir.py"))


@jit
def transpose(source, target, lanes):
    """target (N, M) = source (M, N) transposed; rows of both contiguous, `lanes` of their dtype."""
    M, N = source.shape
    rows, columns = M - M % lanes, N - N % lanes
    for i in range(0, rows, lanes):
        for j in range(0, columns, lanes):
            turn_square(source, i, j, target)
    for i in range(M):
        for j in range(columns if i < rows else 0, N):
            target[j, i] = source[i, j]


def _turn_square_plain(source, i, j, target):
    lanes = small_tile(source.dtype).lanes
    target[j : j + lanes, i : i + lanes] = source[i : i + lanes, j : j + lanes].T


@intrinsic(plain=_turn_square_plain, uses=_SOURCES)
def turn_square(typing, source, i, j, target):
    """The square of lanes x lanes numbers from source[i, j] on, transposed, to target[j, i]."""
    from numba.core import types

    return types.void(source, types.intp, types.intp, target), _write_turn_square


def _write_turn_square(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """The instructions of `turn_square`."""
    from minillm.kernels.vector_ir import Writer

    source, i, j, target = arguments
    source_type, target_type = signature.args[0], signature.args[3]
    lanes = small_tile(source_type.dtype.name).lanes
    write = Writer(context, builder)
    starts = [write.element(source_type, source, write.plus(i, row), j) for row in range(lanes)]
    turned = write.turned([write.load(start, lanes) for start in starts])
    for row, vector in enumerate(turned):
        write.store(vector, write.element(target_type, target, write.plus(j, row), i))
    return context.get_dummy_value()

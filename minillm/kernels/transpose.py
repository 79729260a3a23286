"""Small matrices from one place in cache to another: turned over, or row by row.

The transpose is target (N, M) = source (M, N)^T.

Number by number it costs more than the arithmetic around it. In registers, a square of as many
rows as a vector has lanes is read row by row, turned by a few exchanges between vectors
(`Writer.turned` in vector_ir.py) and written row by row. What no square covers is copied singly.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minillm.jit import intrinsic, jit
from minillm.kernels.block_product import small_tile

_NAMES = ("block_product.py", "processor.py", "tile.py", "vector_ir.py")
_SOURCES = tuple(str(Path(__file__).with_name(name)) for name in _NAMES)


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


def _copy_row_plain(source, here, target, there, scale):
    row, other = source[here], target[there]
    count = min(len(row), len(other))
    other[:count] = row[:count] * scale


@intrinsic(plain=_copy_row_plain, uses=_SOURCES)
def copy_row(typing, source, here, target, there, scale):
    """target[there] = source[here] * scale, as many numbers as both rows have, all side by side.

    `here` and `there`: tuples of an index for every axis but the last. Whole vectors are written:
    who reads the row as such vectors next gets each from the store that is still under way.
    """
    from numba.core import types

    return types.void(source, here, target, there, source.dtype), _write_copy_row


def _write_copy_row(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """The instructions of `copy_row`: whole vectors, then the rest singly."""
    from numba.core import cgutils

    from minillm.kernels.vector_ir import Writer

    source, here, target, there, scale = arguments
    source_type, _, target_type, _, _ = signature.args
    lanes = small_tile(source_type.dtype.name).lanes
    write = Writer(context, builder)
    zero = write.integer(0)
    start = write.element(source_type, source, *cgutils.unpack_tuple(builder, here), zero)
    place = write.element(target_type, target, *cgutils.unpack_tuple(builder, there), zero)
    count = write.smaller(
        write.length(source_type, source, source_type.ndim - 1),
        write.length(target_type, target, target_type.ndim - 1),
    )
    whole = builder.and_(count, write.integer(-lanes))
    for begin, end, width in ((zero, whole, lanes), (whole, count, 1)):
        factor, step = write.spread(scale, width), write.integer(width)
        with cgutils.for_range_slice(builder, begin, end, step) as (at, _):
            numbers = write.load(builder.gep(start, [at]), width)
            write.store(builder.fmul(numbers, factor), builder.gep(place, [at]))
    return context.get_dummy_value()


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

"""Small matrices from one place in cache to another: turned over, or row by row.

The transpose is target (N, M) = source (M, N)^T. Of bits of bfloat16 it may also be that of their
words (block_product.py), two neighbours of a row in each.

Number by number it costs more than the arithmetic around it. In registers, a square of as many
rows as a vector has lanes is read row by row, turned by a few exchanges between vectors
(`Writer.turned` in vector_ir.py) and written row by row. What no square covers is copied singly.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minillm.jit import intrinsic, jit
from minillm.kernels.bfloat16 import BITS, put_all, widen
from minillm.kernels.block_product import SMALL_WRITER, small_tile
from minillm.kernels.tile import words


@jit
def transpose(source, target, lanes):
    """target (N, M) = source (M, N) transposed; rows of both contiguous, `lanes` of their dtype.

    Or words target (N, M) = those of bits source (M, 2 N) transposed.
    """
    M, N = source.shape[0], target.shape[0]
    each = target.itemsize // source.itemsize
    rows, columns = M - M % lanes, N - N % lanes
    for i in range(0, rows, lanes):
        for j in range(0, columns, lanes):
            turn_square(source, i, j, target)
    for i in range(M):
        for j in range(columns if i < rows else 0, N):
            if each == 1:
                target[j, i] = source[i, j]
            else:
                low, high = np.uint32(source[i, 2 * j]), np.uint32(source[i, 2 * j + 1])
                target[j, i] = low | high << np.uint32(16)


def _copy_row_plain(source, here, target, there, scale):
    row, other = source[here], target[there]
    count = min(len(row), len(other))
    numbers = widen(row[:count]) if row.dtype == BITS else row[:count]
    numbers = numbers * numbers.dtype.type(scale)
    put_all(other[:count], numbers)


@intrinsic(plain=_copy_row_plain, uses=SMALL_WRITER)
def copy_row(typing, source, here, target, there, scale):
    """target[there] = source[here] * scale, as many numbers as both rows have, all side by side.

    `here` and `there`: tuples of an index for every axis but the last. Both rows may hold bits of
    bfloat16 in place of float32. Whole vectors are written: who reads the row as such vectors next
    gets each from the store that is still under way.
    """
    from numba.core import types

    factor = types.float64 if source.dtype == types.float64 else types.float32
    return types.void(source, here, target, there, factor), _write_copy_row


def _write_copy_row(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """The instructions of `copy_row`: whole vectors, then the rest singly."""
    from numba.core import cgutils

    from minillm.kernels.vector_ir import Writer

    source, here, target, there, scale = arguments
    source_type, _, target_type, _, _ = signature.args
    write, stored = Writer(context, builder), target_type.dtype.name
    lanes = small_tile(signature.args[4].name).lanes
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
            numbers = write.widen(write.load(builder.gep(start, [at]), width))
            numbers = write.as_words(builder.fmul(numbers, factor), stored)
            write.store(numbers, builder.gep(place, [at]))
    return context.get_dummy_value()


def _turn_square_plain(source, i, j, target):
    lanes, each = small_tile(target.dtype).lanes, target.itemsize // source.itemsize
    square = source[i : i + lanes, j * each : (j + lanes) * each]
    square = words(square.reshape(lanes, lanes, 2)) if each == 2 else square
    target[j : j + lanes, i : i + lanes] = square.T


@intrinsic(plain=_turn_square_plain, uses=SMALL_WRITER)
def turn_square(typing, source, i, j, target):
    """The square of lanes x lanes numbers of target[j, i], transposed from row i of source on."""
    from numba.core import types

    return types.void(source, types.intp, types.intp, target), _write_turn_square


def _write_turn_square(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """The instructions of `turn_square`."""
    from minillm.kernels.vector_ir import Writer

    source, i, j, target = arguments
    source_type, target_type = signature.args[0], signature.args[3]
    packed = target_type.dtype.name
    lanes, each = small_tile(packed).lanes, target_type.dtype.bitwidth // source_type.dtype.bitwidth
    write, vectors = Writer(context, builder), []
    column = builder.mul(j, write.integer(each))
    for row in range(lanes):
        start = write.element(source_type, source, write.plus(i, row), column)
        vectors.append(write.as_words(write.load(start, lanes * each), packed))
    for row, vector in enumerate(write.turned(vectors)):
        write.store(vector, write.element(target_type, target, write.plus(j, row), i))
    return context.get_dummy_value()

"""Products of small matrices that lie in cache: out = a @ b or out += a @ b, without packing.

The big product (matmul.py) copies its operands into panels first. Attention multiplies blocks of
some 64 x 32 numbers that it has just computed and will not see again: copying them would cost as
much as it saves. In the nearest cache an operand may as well be read where it lies, by its strides,
so that a transpose is only a view. What has to stay is the tile in registers:

    for k in range(depth):                          on AVX-512, float32: 8 x 32 sums
        b0, b1 = b[k, 0:16], b[k, 16:32]            2 loads, rows of b are contiguous
        for row in range(8):                        (unrolled)
            x = a[row, k] spread over 16 lanes      1 load, a has any strides
            sum[row, 0] += x * b0
            sum[row, 1] += x * b1

tile.py explains why this is fast and why it has to be written as LLVM instructions. 8 rows are
fewer than that tile has, still enough independent sums to keep the multipliers busy, and head sizes
are multiples of 8 more often than of 12.

bfloat16 operands come in words of two numbers of neighbouring k, as in tile.py. Where neighbouring
k are neighbours in memory (a product summed over the columns of `a`), rows of bfloat16 are such
words as they stand, and `a` may be given as its bits. Where they are not, `pair_rows` puts the
numbers of two neighbouring rows side by side:

    rows    x00 x01 x02 ..          words    x00 x10   x01 x11   x02 x12 ..
            x10 x11 x12 ..
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minillm.jit import by_types, intrinsic, jit
from minillm.kernels.bfloat16 import BITS, widen
from minillm.kernels.processor import WORD
from minillm.kernels.tile import WRITER, Tile, halves, machine, words

SMALL_WRITER = (*WRITER, __file__)  # the files that decide what intrinsics of small tiles write


def small_tile(dtype: Any) -> Tile:
    """The tile for small products of `dtype` on this processor."""
    this = machine()
    lanes = this.vector_bytes // np.dtype(dtype).itemsize
    return Tile(rows=8 if this.registers >= 32 else 4, columns=2 * lanes, lanes=lanes)


@jit(borrows=True)
def multiply(out, a, b, add, tile):
    """out (M, N) = a (M, K) @ b (K, N), or += with `add`.

    `tile` has the rows and columns of `small_tile(dtype)`; M and N are multiples of them. Rows of
    `out` and `b` are contiguous, `a` has any strides. All are float32 or float64; or `out` is
    float32, `b` words of two k each, and `a` such words or bits in contiguous rows (M, 2 K).
    """
    for column in range(0, out.shape[1], tile.columns):
        for row in range(0, out.shape[0], tile.rows):
            multiply_one(out, a, b, row, column, add)


def _multiply_one_plain(out, a, b, row, column, add):
    tile = small_tile(out.dtype)
    here = out[row : row + tile.rows, column : column + tile.columns]
    left = a[row : row + tile.rows]
    left = widen(left) if left.dtype == BITS else halves(left.T).T
    product = left @ halves(b[:, column : column + tile.columns])
    here[...] = here + product if add else product


@intrinsic(plain=_multiply_one_plain, uses=WRITER)
def multiply_one(typing, out, a, b, row, column, add):
    """The tile of out = or += a @ b whose first number is out[row, column]."""
    from numba.core import types

    signature = types.void(out, a, b, types.intp, types.intp, types.boolean)
    return signature, _write_multiply_one


def _write_multiply_one(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """LLVM instructions of `multiply_one`: clear or load the sums, loop over k, store the sums."""
    from llvmlite import ir
    from numba.core import cgutils

    from minillm.kernels.vector_ir import NUMBERS, Writer

    out, a, b, row, column, add = arguments
    out_type, a_type, b_type = signature.args[:3]
    this = small_tile(out_type.dtype.name)
    rows, vectors, lanes = this.rows, this.vectors, this.lanes
    write = Writer(context, builder)
    zeros = ir.Constant(ir.VectorType(NUMBERS[out_type.dtype.name], lanes), None)

    # The sums are variables on the stack, as a C compiler would declare them; LLVM moves them to
    # registers.
    places, sums = [], []
    for r in range(rows):
        start = write.element(out_type, out, write.plus(row, r), column)
        for v in range(vectors):
            places.append(write.ahead(start, v * lanes))
            before = builder.select(add, write.load(places[-1], lanes), zeros)
            sums.append(cgutils.alloca_once_value(builder, before))
    packed = b_type.dtype.name
    each = b_type.dtype.bitwidth // a_type.dtype.bitwidth  # numbers of `a` for one of b
    with cgutils.for_range(builder, write.length(b_type, b, 0)) as each_k:
        k = each_k.index
        right_start = write.element(b_type, b, k, column)
        right = [write.load(write.ahead(right_start, v * lanes), lanes) for v in range(vectors)]
        k_left = builder.mul(k, write.integer(each))
        for r in range(rows):
            left = write.load(write.element(a_type, a, write.plus(row, r), k_left), each)
            left = write.as_words(left, packed)
            left = write.pick(left, left, [0] * lanes)
            for v in range(vectors):
                variable = sums[r * vectors + v]
                total = write.multiply_add(left, right[v], builder.load(variable))
                builder.store(total, variable)
    for place, variable in zip(places, sums, strict=True):
        write.store(builder.load(variable), place)
    return context.get_dummy_value()


# ------------------------------------------------------------------------------- right operands


def _pairs_by_types(rows):
    if rows.dtype.name == BITS.name:
        return lambda rows: np.empty((rows.shape[0] // 2, rows.shape[1]), np.uint32)
    return lambda rows: rows


@by_types(_pairs_by_types)
def pairs_of(rows):
    """Room for what `pair_rows` makes of rows of bits; rows of numbers are that themselves."""
    return np.empty((len(rows) // 2, rows.shape[1]), WORD) if rows.dtype == BITS else rows


def _pair_rows_plain(rows, pairs):
    if pairs.dtype == WORD:
        both = rows[: 2 * len(pairs)].reshape(len(pairs), 2, -1)
        pairs[...] = words(both.swapaxes(1, 2))


@intrinsic(plain=_pair_rows_plain, uses=WRITER)
def pair_rows(typing, rows, pairs):
    """pairs (M / 2, N) = every two neighbouring rows of bits (M, N) as words.

    Rows of numbers are their own pairs: nothing is done.
    """
    from numba.core import types

    return types.void(rows, pairs), _write_pair_rows


def _write_pair_rows(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """The instructions of `pair_rows`: whole vectors, then the rest singly."""
    from numba.core import cgutils

    from minillm.kernels.vector_ir import Writer

    (rows_type, pairs_type), (rows, pairs) = signature.args, arguments
    if pairs_type.dtype == rows_type.dtype:
        return context.get_dummy_value()
    lanes = small_tile(pairs_type.dtype.name).lanes
    write = Writer(context, builder)
    zero, count = write.integer(0), write.length(pairs_type, pairs, 1)
    whole = builder.and_(count, write.integer(-lanes))
    with cgutils.for_range(builder, write.length(pairs_type, pairs, 0)) as each:
        first = builder.mul(each.index, write.integer(2))
        both = first, write.plus(first, 1)
        starts = [write.element(rows_type, rows, row, zero) for row in both]
        place = write.element(pairs_type, pairs, each.index, zero)
        for begin, end, width in ((zero, whole, lanes), (whole, count, 1)):
            with cgutils.for_range_slice(builder, begin, end, write.integer(width)) as (at, _):
                one, other = (write.load(builder.gep(start, [at]), width) for start in starts)
                pair = write.zipped(one, other, pairs_type.dtype.name)
                write.store(pair, builder.gep(place, [at]))
    return context.get_dummy_value()


# ------------------------------------------------------------------------------- arrays


def _stored_by_types(array, like):
    if array.dtype == like.dtype:
        return lambda array, like: array
    return lambda array, like: np.empty(array.shape, like.dtype)


@by_types(_stored_by_types)
def stored_as(array, like):
    """`array` if it has the dtype of `like`, else room of its shape for numbers that do."""
    return array if array.dtype == like.dtype else np.empty(array.shape, like.dtype)

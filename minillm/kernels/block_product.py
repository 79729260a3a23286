"""Products of small matrices that lie in cache: out = a @ b or out += a @ b, without packing.

The big product (matmul.py) copies its operands into panels first. Attention multiplies blocks of
some 64 x 64 numbers that it has just computed and will not see again: copying them would cost as
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
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from minillm.backend import Array
from minillm.jit import intrinsic, jit
from minillm.kernels.tile import Tile, machine

_NAMES = ("processor.py", "tile.py", "vector_ir.py")
_SOURCES = tuple(str(Path(__file__).with_name(name)) for name in _NAMES)


def small_tile(dtype: Any) -> Tile:
    """The tile for small products of `dtype` on this processor."""
    this = machine()
    lanes = this.vector_bytes // np.dtype(dtype).itemsize
    return Tile(rows=8 if this.registers >= 32 else 4, vectors=2, lanes=lanes)


@jit
def multiply(out, a, b, add, tile):
    """out (M, N) = a (M, K) @ b (K, N), or += with `add`.

    `tile` has the rows and columns of `small_tile(dtype)`; M and N are multiples of them. Rows of
    `out` and `b` are contiguous, `a` has any strides.
    """
    for column in range(0, out.shape[1], tile.columns):
        for row in range(0, out.shape[0], tile.rows):
            multiply_one(out, a, b, row, column, add)


def _multiply_one_plain(out, a, b, row, column, add):
    tile = small_tile(out.dtype)
    here = out[row : row + tile.rows, column : column + tile.columns]
    product = a[row : row + tile.rows] @ b[:, column : column + tile.columns]
    here[...] = here + product if add else product


@intrinsic(plain=_multiply_one_plain, uses=_SOURCES)
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
    rows, vectors, lanes = small_tile(out_type.dtype.name)
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
    shape = context.make_array(a_type)(context, builder, a).shape
    with cgutils.for_range(builder, builder.extract_value(shape, 1)) as each_k:
        k = each_k.index
        right_start = write.element(b_type, b, k, column)
        right = [write.load(write.ahead(right_start, v * lanes), lanes) for v in range(vectors)]
        for r in range(rows):
            left = builder.load(write.element(a_type, a, write.plus(row, r), k))
            left = write.spread(left, lanes)
            for v in range(vectors):
                variable = sums[r * vectors + v]
                total = write.multiply_add(left, right[v], builder.load(variable))
                builder.store(total, variable)
    for place, variable in zip(places, sums, strict=True):
        write.store(builder.load(variable), place)
    return context.get_dummy_value()


def side_by_side(x: Array) -> Array:
    """`x` if the numbers of its last axis are neighbours in memory, else a copy where they are."""
    return x if x.strides[-1] == x.itemsize else np.ascontiguousarray(x)


def _neighbours_plain(x):
    return x


@intrinsic(plain=_neighbours_plain)
def neighbours(typing, x):
    """`x` (N,), whose numbers must lie side by side, as an array that the compiler knows that of.

    Loops over an array of unknown stride are not made into vector instructions.
    """
    from numba.core import types

    known = types.Array(x.dtype, 1, "C", readonly=not x.mutable)
    return known(x), _write_neighbours


def _write_neighbours(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """The argument itself, with one more reference: Numba will drop that of the result too."""
    from numba.core.imputils import impl_ret_borrowed

    return impl_ret_borrowed(context, builder, signature.return_type, arguments[0])

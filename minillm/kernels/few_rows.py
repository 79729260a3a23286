"""Products with few rows: decoding, where one token meets all the weights.

    out[i, j] = sum_k a[i, k] * b[j, k]        few i, many j; both contiguous along k

The tile of tile.py earns its speed by using every number of b for many rows. With a row or two
there is nothing to use again: each weight is read from memory, multiplied once and forgotten, and
the time is that of the reading. So nothing is packed. Each thread walks over its rows of b from
first to last, as the hardware likes to read, and takes the dot product of each with every row of a,
which stays in cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.jit import intrinsic, jit, prange
from minillm.kernels.bfloat16 import round_to_bfloat16, widen
from minillm.kernels.processor import WORD
from minillm.kernels.tile import WRITER, tile

FEW = 8  # more rows than this are better packed
PART = 1 << 16  # multiplications that one task does at least: some 5 us


def suits(a: Array, b: Array) -> bool:
    """Whether a (n, M, K) @ b (n, K, N) has few rows or columns, and reads along memory."""
    few = min(a.shape[1], b.shape[2]) <= FEW
    return few and a.strides[2] == a.itemsize and b.strides[1] == b.itemsize


def product_fast(a: Array, b: Array, out: Array, add: bool, packed: str) -> None:
    """out (n, M, N) = or += a (n, M, K) @ b (n, K, N), for operands that it `suits`."""
    turned = out.shape[2] < out.shape[1]
    short, long = (b.swapaxes(1, 2), a) if turned else (a, b.swapaxes(1, 2))
    if packed == WORD and short.dtype != np.uint16:
        short = round_to_bfloat16(short)  # once; numbers of the long side are rounded when read
    span = tile(packed).lanes * tile(packed).per_word
    each = short.shape[1] * short.shape[2]
    tasks = max(1, min(backend.threads(), long.shape[1] * each // PART))
    multiply_few(short, long, out, add, turned, tasks, span)


@jit(reads=("short", "long"), parallel=True)
def multiply_few(short, long, out, add, turned, tasks, span):
    """out[n, i, j] = or += short[n, i] . long[n, j]; `turned`: out[n, j, i]."""
    if long.size * short.shape[1] < 2 * PART:  # waking a thread would take longer than the work
        for task in range(len(long) * tasks):
            multiply_part(short, long, out, add, turned, tasks, span, task)
    else:
        for task in prange(len(long) * tasks):
            multiply_part(short, long, out, add, turned, tasks, span, task)


@jit(forceinline=True)
def multiply_part(short, long, out, add, turned, tasks, span, task):
    """One task of `multiply_few`: one matrix, one in `tasks` of the rows of `long`."""
    few, depth, many = short.shape[1], short.shape[2], long.shape[1]
    n, part = task // tasks, task % tasks
    whole = depth // span  # vectors; the rest is padded with 0
    ends = np.zeros((1, few + 1, span), short.dtype)
    end = np.zeros((1, 1, span), long.dtype)
    for k in range(whole * span, depth):
        for i in range(few):
            ends[0, i, k - whole * span] = short[n, i, k]
    for j in range(many * part // tasks, many * (part + 1) // tasks):
        for k in range(whole * span, depth):
            end[0, 0, k - whole * span] = long[n, j, k]
        for i in range(few):
            total = dot(short, n, i, long, n, j, whole)
            if whole * span < depth:
                total += dot(ends, 0, i, end, 0, 0, 1)
            if turned:
                out[n, j, i] = out[n, j, i] + total if add else total
            else:
                out[n, i, j] = out[n, i, j] + total if add else total


def _dot_plain(a, n, i, b, m, j, vectors):
    bits = a.dtype == np.uint16
    packed = WORD if bits else a.dtype.name
    depth = vectors * tile(packed).lanes * tile(packed).per_word
    x, y = a[n, i, :depth], b[m, j, :depth]
    return widen(x) @ widen(y if y.dtype == np.uint16 else round_to_bfloat16(y)) if bits else x @ y


@intrinsic(plain=_dot_plain, uses=WRITER)
def dot(typing, a, n, i, b, m, j, vectors):
    """Dot product of the first `vectors` vectors of a[n, i] and b[m, j].

    float32 and float64 in their precision; where a holds bfloat16 bits (uint16), numbers of b are
    rounded to bfloat16 if they are not, and summed in float32.
    """
    from numba.core import types

    index = types.intp
    result = types.float64 if a.dtype.name == "float64" else types.float32
    return result(a, index, index, b, index, index, index), _write_dot


_SUMS = 4  # independent, so that the next multiply-add need not wait for the last


def _write_dot(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """The instructions of `dot`: _SUMS vectors at a time, then one, then the sum of the lanes."""
    from minillm.kernels.vector_ir import Writer

    a, n, i, b, m, j, vectors = arguments
    a_type, b_type = signature.args[0], signature.args[3]
    packed = WORD if a_type.dtype.name == "uint16" else a_type.dtype.name
    lanes, each = tile(packed).lanes, tile(packed).per_word
    write = Writer(context, builder)
    start_a = write.element(a_type, a, n, i, write.integer(0))
    start_b = write.element(b_type, b, m, j, write.integer(0))

    def add_products(at: Any, totals: list[Any]) -> list[Any]:
        """The sums after as many vectors, from vector `at` on."""
        results = []
        for ahead, total in enumerate(totals):
            offset = builder.mul(write.plus(at, ahead), write.integer(lanes * each))
            x, y = (
                write.as_words(write.load(builder.gep(start, [offset]), lanes * each), packed)
                for start in (start_a, start_b)
            )
            results.append(write.multiply_add(x, y, total))
        return results

    zero = write.zeros(signature.return_type.name, lanes)
    rounds = builder.sdiv(vectors, write.integer(_SUMS))
    done = builder.mul(rounds, write.integer(_SUMS))
    sums = write.loop(
        rounds,
        lambda r, sums: add_products(builder.mul(r, write.integer(_SUMS)), sums),
        [zero] * _SUMS,
    )
    rest = write.loop(
        builder.sub(vectors, done), lambda r, sums: add_products(builder.add(done, r), sums), [zero]
    )
    return write.sum_lanes([*sums, *rest])

"""Matrix product:  out[..., i, j] = sum_k a[..., i, k] * b[..., k, j].

Shapes: a (..., M, K), b (..., K, N), out (..., M, N); the leading axes broadcast.

Derivative. `out` is linear in each factor. A change da of a changes the loss by

    sum_ij dout[i,j] (da @ b)[i,j]  =  sum_ik da[i,k] (dout @ b^T)[i,k],

so the gradient of a is dout @ b^T, and in the same way the gradient of b is a^T @ dout. Where a
leading axis was broadcast, its gradient is summed over that axis.

Speed. 2 M N K arithmetic operations on only M K + K N + M N numbers: a fast product loads each
number once into each level of memory and uses it there as often as it can. From the inside out:

    registers   a tile of the output, e.g. 12 x 32 sums, multiplied up by tile.py
    L1 cache    a panel of a, 12 rows x DEPTH words: used for every tile in a row of tiles
    L2 cache    a block of b, DEPTH words x WIDE tiles: packed by the core that uses it, then used
                for all rows of a
    L3, memory  all of a, packed once before (packing.py); b itself and out

This order of loops is Goto and van de Geijn's, "Anatomy of high-performance matrix multiplication"
(2008). Threads take different blocks of the output. Every number of it is summed by one thread,
over k in order within DEPTH words, then over those partial sums in order: neither the number of
threads nor the other rows change a bit of it.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Iterator

import ml_dtypes
import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.errors import InputError
from minillm.jit import jit, prange
from minillm.kernels import few_rows
from minillm.kernels.packing import pack_groups, pack_rows
from minillm.kernels.tile import WORD, multiply_tile, per_word, tile

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

DEPTH = 256  # words of k between two visits to the output: a panel of a and two of b fit in L1
WIDE = 8  # tiles side by side in a block of b: DEPTH x WIDE tiles fill a quarter of L2
LONGEST = 2 * DEPTH  # words of k packed at once: the packed a is still in cache when it is used
ROOM = 1 << 22  # words of a packed at once, and the most memory that packing takes

# ------------------------------------------------------------------------------- reference


def forward_reference(a: Array, b: Array) -> Array:
    """a @ b, as the array module computes it."""
    xp = backend.array_module(a)
    return xp.matmul(a, b)


def product_reference(a: Array, b: Array, bfloat16: bool) -> Array:
    """a @ b; with `bfloat16`, of operands rounded to it, summed in float32."""
    return forward_reference(rounded(a), rounded(b)) if bfloat16 else forward_reference(a, b)


def rounded(x: Array) -> Array:
    """`x` as float32 with the precision of bfloat16: the upper half of its bits, ties to even."""
    xp = backend.array_module(x)
    if x.dtype == BFLOAT16:
        return x.astype(xp.float32)
    bits = xp.ascontiguousarray(x, dtype=xp.float32).view(xp.uint32)
    nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return xp.where(xp.isnan(x), x, nearest.view(xp.float32))


def backward_reference(dout: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """Gradients of `a` and `b`: dout @ b^T and a^T @ dout, summed over broadcast axes."""
    xp = backend.array_module(dout)
    da = xp.matmul(dout, xp.swapaxes(b, -1, -2))
    db = xp.matmul(xp.swapaxes(a, -1, -2), dout)
    return sum_to(da, a.shape), sum_to(db, b.shape)


def sum_to(gradient: Array, shape: tuple[int, ...]) -> Array:
    """`gradient` summed over the axes along which an array of `shape` was broadcast."""
    lead = gradient.ndim - len(shape)
    axes = tuple(range(lead)) + tuple(
        lead + axis
        for axis, size in enumerate(shape)
        if size == 1 and gradient.shape[lead + axis] != 1
    )
    return gradient.sum(axis=axes).reshape(shape) if axes else gradient


# ------------------------------------------------------------------------------- fast twin


@jit(reads=("b",), parallel=True)
def multiply_blocks(panels, b, blocks, out, grid, this, per_word, add):
    """out (n, M, N) = or += the packed a times b^T, for b (n, N, K).

    panels: a, packed by `pack_rows`. blocks (workers, panels, DEPTH, lanes): where each worker
    packs its part of b. grid: into how many (rows, columns) of blocks an output is cut.
    """
    count, M, N = out.shape
    workers, (cut_rows, cut_columns) = len(blocks), grid
    tile_rows = (M + this.rows - 1) // this.rows
    columns = this.vectors * this.lanes
    tile_columns = (N + columns - 1) // columns
    tasks = count * cut_rows * cut_columns
    for worker in prange(workers):
        for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
            n, r, c = (
                task // (cut_rows * cut_columns),
                task // cut_columns % cut_rows,
                task % cut_columns,
            )
            rows = (tile_rows * r // cut_rows, tile_rows * (r + 1) // cut_rows)
            span = (tile_columns * c // cut_columns, tile_columns * (c + 1) // cut_columns)
            multiply_block(
                panels, n * tile_rows, b[n], blocks[worker], out[n], rows, span, this, per_word, add
            )


@jit
def multiply_block(panels, base, b, block, out, rows, span, this, per_word, add):
    """The block of `out` (M, N) whose tiles lie in `rows` and in the columns `span`."""
    M, N = out.shape
    (top, bottom), (left, right) = rows, span
    columns, together = this.vectors * this.lanes, (this.rows + this.lanes - 1) // this.lanes
    edge = np.empty((this.rows, columns), out.dtype)
    depth = (b.shape[1] + per_word - 1) // per_word
    for start in range(0, depth, DEPTH):
        stop = min(start + DEPTH, depth)
        more = add or start > 0
        pack_groups(b, left, right, columns, start, stop, block, 0, this.vectors, per_word)
        for i in range(top, bottom):
            a_at, row = (base + i) * together, i * this.rows
            for j in range(left, right):
                b_at, column = (j - left) * this.vectors, j * columns
                if row + this.rows <= M and column + columns <= N:
                    multiply_tile(
                        panels, a_at, start, block, b_at, 0, stop - start, out, row, column, more
                    )
                else:  # a tile that hangs over the edge is made beside the output
                    multiply_tile(
                        panels, a_at, start, block, b_at, 0, stop - start, edge, 0, 0, False
                    )
                    put(edge, out[row:M, column:N], more)


@jit
def put(tile, out, add):
    """Copy as much of `tile` as fits to `out`, or add it."""
    for i in range(min(tile.shape[0], out.shape[0])):
        for j in range(min(tile.shape[1], out.shape[1])):
            out[i, j] = out[i, j] + tile[i, j] if add else tile[i, j]


def product_fast(a: Array, b: Array, out: Array, add: bool, packed: str) -> None:
    """out (n, M, N) = or += a (n, M, K) @ b (n, K, N); `out` is contiguous, a and b need not be."""
    this, each, workers = tile(packed), per_word(packed), backend.threads()
    n, M, N = out.shape
    K, turned = a.shape[2], b.swapaxes(1, 2)
    blocks = _memory("b", (workers, WIDE * this.vectors, DEPTH, this.lanes), packed)
    for k in range(0, K, LONGEST * each):
        ks = slice(k, min(k + LONGEST * each, K))
        words = -(-(ks.stop - k) // (each * this.lanes)) * this.lanes
        for some, rows in _pieces(n, M, words):
            part = out[some, rows]
            tiles = -(-part.shape[1] // this.rows)
            count = len(part) * tiles * -(-this.rows // this.lanes)
            panels = _memory("a", (count, words, this.lanes), packed)
            grid = _grid(len(part), tiles, -(-N // this.columns), workers)
            pack_rows(a[some, rows, ks], panels, this, each)
            more = add or k > 0
            multiply_blocks(panels, turned[some, :, ks], blocks, part, grid, this, each, more)


def _pieces(n: int, M: int, words: int) -> Iterator[tuple[slice, slice]]:
    """Pieces of n matrices of M rows that take at most ROOM words: several matrices, or rows."""
    rows = max(ROOM // max(words, 1), 64)
    if n > 1 and M <= rows:
        for i in range(0, n, rows // M):
            yield slice(i, min(i + rows // M, n)), slice(0, M)
    else:
        for i in range(n):
            for row in range(0, M, rows):
                yield slice(i, i + 1), slice(row, min(row + rows, M))


@functools.lru_cache(maxsize=4096)
def _grid(n: int, tile_rows: int, tile_columns: int, workers: int) -> tuple[int, int]:
    """Into how many (rows, columns) of blocks to cut n outputs so that the last worker ends first.

    A block is at most WIDE tiles wide. Each pays for packing its part of b, about as much as for
    one more row of tiles.
    """
    least = -(-tile_columns // WIDE)

    def time(cuts: tuple[int, int]) -> int:
        rounds = -(-n * cuts[0] * cuts[1] // workers)
        return rounds * (-(-tile_rows // cuts[0]) + 1) * -(-tile_columns // cuts[1])

    cuts = [
        (rows, columns)
        for rows in range(1, min(workers, tile_rows) + 1)
        for columns in range(least, min(least + workers, tile_columns + 1))
    ]
    return min(cuts, key=time)


class _Kept(threading.local):
    """Memory for packing, kept from one product to the next; each Python thread has its own."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}


_kept = _Kept()


def _memory(name: str, shape: tuple[int, ...], dtype: str) -> Array:
    """An uninitialised array at the start of a cache line, in the memory kept under `name`."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    kept = _kept.arrays.get(name)
    if kept is None or kept.size < size:
        raw = np.empty(size + 64, np.uint8)
        start = -raw.ctypes.data % 64
        kept = _kept.arrays[name] = raw[start : start + size]
    return kept[:size].view(dtype).reshape(shape)


# ------------------------------------------------------------------------------- the product


def product(
    a: Array,
    b: Array,
    out: Array | None = None,
    accumulate: bool = False,
    bfloat16: bool = False,
) -> Array:
    """a @ b over the last two axes, leading axes broadcast; written or added to `out`.

    a (..., M, K), b (..., K, N), any strides; float32, float64 or bfloat16 (ml_dtypes). The result
    (..., M, N) has their dtype; with bfloat16 operands, float32, in which they are summed.
    out: where to put it, not overlapping a or b. accumulate: add it to what `out` holds.
    bfloat16: round float32 operands to bfloat16, for the speed of its products.
    Raises `InputError` for shapes that do not fit.
    """
    shape = _shape(a, b, out)
    halved = bfloat16 or BFLOAT16 in (a.dtype, b.dtype)
    if not _has_twin(halved, a, b) or not backend.fast(a, b, a if out is None else out):
        return _put(product_reference(a, b, halved), out, accumulate)
    dtype = np.dtype(np.float32) if halved else np.result_type(a, b)
    into = out
    if out is None or not out.flags.c_contiguous or out.dtype != dtype:
        into = np.empty(shape, dtype)
    add = accumulate and into is out
    if a.shape[-1] == 0 and not add:
        into[...] = 0
    elif into.size:
        a, b = _stacks(_numbers(a, dtype), _numbers(b, dtype))
        run = few_rows.product_fast if few_rows.suits(a, b) else product_fast
        stack = into.reshape(len(a), a.shape[1], b.shape[2])
        run(a, b, stack, add, WORD.name if halved else dtype.name)
    return into if out is None or into is out else _put(into, out, accumulate)


def _shape(a: Array, b: Array, out: Array | None) -> tuple[int, ...]:
    """The shape of a @ b, checked."""
    if min(a.ndim, b.ndim) < 2 or a.shape[-1] != b.shape[-2]:
        raise InputError(
            f"a product needs shapes (.., M, K) and (.., K, N), but they are {a.shape} and {b.shape}"
        )
    lead = a.shape[:-2] if b.ndim == 2 else np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    shape = (*lead, a.shape[-2], b.shape[-1])
    if out is not None and out.shape != shape:
        raise InputError(f"the product has shape {shape}, but out has {out.shape}")
    return shape


def _has_twin(halved: bool, a: Array, b: Array) -> bool:
    """Whether the fast twin takes the dtypes of a and b."""
    taken = ("float32", "bfloat16") if halved else ("float32", "float64")
    return a.dtype.name in taken and b.dtype.name in taken


def _numbers(array: Array, dtype: np.dtype) -> Array:
    """`array` as the twin takes it: of `dtype`, or the bits of bfloat16."""
    if array.dtype == BFLOAT16:
        return array.view(np.uint16)
    return array if array.dtype == dtype else array.astype(dtype)


def _stacks(a: Array, b: Array) -> tuple[Array, Array]:
    """a and b as stacks of equally many matrices: (n, M, K) and (n, K, N)."""
    if b.ndim == 2:  # the same b for all rows of a: one product
        return a.reshape(1, math.prod(a.shape[:-1]), a.shape[-1]), b[None]
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (np.broadcast_to(x, (*lead, *x.shape[-2:])) for x in (a, b))
    n = math.prod(lead)
    return a.reshape(n, *a.shape[-2:]), b.reshape(n, *b.shape[-2:])


def _put(result: Array, out: Array | None, accumulate: bool) -> Array:
    """`result`, or `out` with `result` put into it or added."""
    if out is None:
        return result
    out[...] = out + result if accumulate else result
    return out


def forward(a: Array, b: Array) -> Array:
    """Matrix product over the last two axes; leading axes broadcast. See `product`.

    >>> forward(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0], [10.0]]))
    array([[21.],
           [43.]])
    """
    return product(a, b)


def backward(dout: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """Gradients of a (..., M, K) and b (..., K, N) for the upstream gradient dout (..., M, N)."""
    if b.ndim == 2 and a.ndim > 2:  # one product over all rows, instead of one a matrix and a sum
        rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
        db = product(rows.T, dout.reshape(len(rows), dout.shape[-1]))
        return product(dout, b.T), db
    da = product(dout, b.swapaxes(-1, -2))
    db = product(a.swapaxes(-1, -2), dout)
    return sum_to(da, a.shape), sum_to(db, b.shape)

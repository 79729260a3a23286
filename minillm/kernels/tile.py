"""The inner tile of the matrix product: the few lines that know which processor this is.

A processor multiplies fast only what is in its registers. The tile computes a small block of the
output whose sums stay in vector registers from the first k to the last. At every k it loads the
block's columns of b as vectors, spreads one number of a over a vector for each row, and does
rows x vectors fused multiply-adds on them. With AVX-512 and float32, 12 x 32 sums:

    for k in range(depth):
        b0, b1 = b[k, 0:16], b[k, 16:32]            2 loads
        for row in range(12):                       (unrolled)
            x = a[k, row] in all 16 lanes           1 load
            sum[row, 0] += x * b0                   24 multiply-adds of 16 lanes each
            sum[row, 1] += x * b1

So 14 loads feed 768 multiplications and additions; the triple loop over single numbers needs two
loads for two. A core starts two such instructions in a cycle and each takes four cycles: at least
eight independent sums are needed to keep it busy, and 24 of the 32 registers hold them.

LLVM does not find this arrangement in plain loops, so `multiply_tile` writes its instructions: it
is a Numba intrinsic, a function that appends to the code being compiled, and so are the copies of
packing.py. The loops around them (blocking.py) are ordinary Python and do not know the processor.

bfloat16 products use the same tile. Their packed panels hold 32-bit words, each with the numbers
of two neighbouring k, and one instruction (vdpbf16ps) multiplies both and adds both products to
the float32 sum. A processor without it expands the halves and does two multiply-adds.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minillm.jit import by_types, intrinsic
from minillm.kernels.processor import WORD, machine

# The files that decide what the intrinsics here, in packing.py, few_rows.py, bfloat16.py and
# block_product.py write.
WRITER = tuple(
    str(Path(__file__).with_name(f"{name}.py")) for name in ("processor", "tile", "vector_ir")
)


class Tile(NamedTuple):
    """The block of the output that one call of `multiply_tile` computes."""

    rows: int  # and the width of a panel of a
    columns: int  # and the width of a panel of b: whole vectors
    lanes: int  # numbers in a vector
    per_word: int = 1  # numbers of neighbouring k in a word of a panel: two of bfloat16

    @property
    def vectors(self) -> int:
        """Vectors of sums in each row."""
        return self.columns // self.lanes


@functools.cache
def tile(packed: str) -> Tile:
    """The tile for panels of dtype `packed`: float32, float64, or uint32 for bfloat16 pairs."""
    this = machine()
    lanes = this.vector_bytes // np.dtype(packed).itemsize
    # Two vectors of sums a row, and as many rows as leave registers for b and the spread a.
    rows = 12 if this.registers == 32 else 6
    return Tile(rows, 2 * lanes, lanes, 2 if packed == WORD else 1)


def _tile_by_types(panels):
    this = tile(panels.dtype.name)
    return lambda panels: this


@by_types(_tile_by_types)
def tile_of(panels):
    """The tile for these panels; compiled code has its sizes as constants."""
    return tile(panels.dtype.name)


def words(pairs: Any) -> Any:
    """bfloat16 bits (uint16), neighbouring k last, as packed words (plain Python's part)."""
    return np.ascontiguousarray(pairs).view(WORD)[..., 0]


def halves(packed: Any) -> Any:
    """Packed panels (.., depth, width) as float: words become two rows of float32 each."""
    if packed.dtype != WORD:
        return packed
    parts = np.stack([packed << 16, packed & 0xFFFF0000], axis=-2)  # (.., depth, 2, width)
    return parts.view(np.float32).reshape(*packed.shape[:-2], -1, packed.shape[-1])


def _multiply_tile_plain(a, i, k_a, b, j, k_b, depth, out, row, column, add):
    left, right = halves(a[i, k_a : k_a + depth]), halves(b[j, k_b : k_b + depth])
    block = out[row : row + left.shape[1], column : column + right.shape[1]]
    block[...] = left.T @ right + (block if add else 0)


@intrinsic(plain=_multiply_tile_plain, uses=WRITER)
def multiply_tile(typing, a, i, k_a, b, j, k_b, depth, out, row, column, add):
    """out[row:row+rows, column:column+columns] (+)= sum over `depth` words of a and b.

    a (panels, words, rows), b (panels, words, columns): packed, see packing.py. The tile's rows are
    panel i of a, from word k_a on, its columns panel j of b, from word k_b on.
    out (M, N): float32 or float64, the last axis contiguous, the whole tile inside it. `add` says
    whether to add to what `out` holds.
    """
    from numba.core import types

    index = types.intp
    inputs = (a, index, index, b, index, index, index)
    return types.void(*inputs, out, index, index, types.boolean), _write_multiply_tile


def _write_multiply_tile(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """The instructions of `multiply_tile`: the loop over k, then the sums into `out`.

    On the way what is needed next is fetched: the panel of a that follows, and the output's rows.
    """
    from minillm.kernels.vector_ir import Writer

    a, i, k_a, b, j, k_b, depth, out, row, column, add = arguments
    a_type, b_type, out_type = signature.args[0], signature.args[3], signature.args[7]
    this = tile(a_type.dtype.name)
    rows, lanes, vectors = this.rows, this.lanes, this.vectors
    write = Writer(context, builder)

    a_panel = write.element(a_type, a, i, k_a)
    following = write.element(a_type, a, write.plus(i, 1), k_a)
    b_panel = write.element(b_type, b, j, k_b)

    def step(k: Any, sums: list[Any]) -> list[Any]:
        """The sums after word k."""
        down, across = (builder.mul(k, write.integer(n)) for n in (rows, this.columns))
        left, right_start = builder.gep(a_panel, [down]), builder.gep(b_panel, [across])
        right = [write.load(write.ahead(right_start, v * lanes), lanes) for v in range(vectors)]
        for line in range(0, rows, 64 * 8 // a_type.dtype.bitwidth):
            write.fetch(write.ahead(builder.gep(following, [down]), line))
        results: list[Any] = []
        for r in range(rows):
            number = builder.load(write.ahead(left, r))
            x = write.spread(number, lanes)
            for v in range(vectors):
                results.append(write.multiply_add(x, right[v], sums[len(results)]))
        return results

    places = [
        write.ahead(write.element(out_type, out, write.plus(row, r), column), v * lanes)
        for r in range(rows)
        for v in range(vectors)
    ]
    for place in places:
        write.fetch(place, to_write=True)
    sums = write.loop(depth, step, [write.zeros(out_type.dtype.name, lanes)] * (rows * vectors))
    with builder.if_else(add) as (adding, storing):
        with adding:
            for place, total in zip(places, sums, strict=True):
                write.store(builder.fadd(write.load(place, lanes), total), place)
        with storing:
            for place, total in zip(places, sums, strict=True):
                write.store(total, place)
    return context.get_dummy_value()

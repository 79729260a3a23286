"""Packing: the operands of a matrix product, copied into the order in which the tile reads them.

At every k the tile (tile.py) reads as many numbers of a as it has rows, and as many of b as it has
columns. In the matrix these may lie a whole row apart, each in another cache line and another page.
Packing copies them once, side by side, a panel for each row or column of tiles; the product then
reads them from cache many times:

    panels[p, k, i] = source[p * width + i, k]          i < width, the tile's rows or columns

`source` is a, or b transposed: in both the summed index k is a column, so one function packs both.
Here also ends every other difference between operands: strides and transposes, bfloat16 or
float32, sizes that no tile divides. Where a panel has more rows than are left, it is filled up with
what is at hand, the last row again or what follows in memory (its products are computed and thrown
away); numbers past the last k are 0.

Speed: there are two good cases. Where numbers of neighbouring k lie side by side (x and weight in a
forward product), `turn_blocks` transposes squares of as many rows and words as a vector has lanes,
in registers. Where those of neighbouring rows do (both operands of a weight gradient), `copy_words`
copies vectors, for several panels at once: the memory of one row of tiles is e.g. 48 bytes at each
k, less than a cache line, and the next k lies kilobytes away. Everything else, rare or small, is
gathered number by number into a square first.

bfloat16: a word holds two numbers of neighbouring k, so panels are half as deep. float32 operands
are rounded to bfloat16 on the way, to nearest, ties to even.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minillm.jit import intrinsic, jit
from minillm.kernels.bfloat16 import round_to_bfloat16
from minillm.kernels.layout import on_stack
from minillm.kernels.tile import WRITER, tile, tile_of, words


@jit(borrows=True)
def pack(source, first, last, start, stop, panels, base, into):
    """Pack words start to stop of source (rows, K), for the tiles first to last along its rows.

    Each gets a panel as wide as it needs rows; the first is panel `base`, from word `into` on.
    `last` is at most the number of tiles that cover the rows.
    """
    this = tile_of(panels)
    rows, depth = source.shape
    width, lanes, k = panels.shape[2], this.lanes, start * this.per_word
    whole = max(0, min(stop, depth // this.per_word) - start) // lanes * lanes  # words
    done, beyond = first, 0  # up to this tile, and so many words of the next, by whole vectors
    if source.strides[1] == source.itemsize:
        for t in range(first, last):
            for i in range(0, width, lanes):
                row, panel = t * width + i, base + t - first
                turn_blocks(source, row, rows - 1, k, whole // lanes, panels, panel, into, i)
        done = last
    elif source.strides[0] == source.itemsize:
        done = max(first, min(last, rows // width))
        copy_words(source, first * width, k, whole, panels, base, into, done - first)
        if done < last and source.strides[1] >= width * source.itemsize:
            # A panel with too few rows is filled from those of the next k, if there is one.
            beyond = max(0, min(stop, (depth - 1) // this.per_word) - start) // lanes * lanes
            copy_words(source, done * width, k, beyond, panels, base + done - first, into, 1)
    square = on_stack(source)[: lanes * lanes * this.per_word].reshape((lanes, -1))
    for t in range(first, last):
        for i in range(0, width, lanes):
            for at in range(whole if t < done else beyond, stop - start, lanes):
                gather(source, t * width + i, k + at * this.per_word, square)
                turn_blocks(square, 0, lanes - 1, 0, 1, panels, base + t - first, into + at, i)


@jit(borrows=True)
def gather(source, row, k, block):
    """Copy the block of `source` at (row, k), the last row repeated, 0 past the last k."""
    rows, depth = source.shape
    for lane in range(block.shape[0]):
        for ahead in range(block.shape[1]):
            if k + ahead < depth:
                block[lane, ahead] = source[min(row + lane, rows - 1), k + ahead]
            else:
                block[lane, ahead] = 0


@jit(borrows=True)
def fetch_some(source, top, bottom, first, last, part, parts):
    """Have one of so many parts of source[top:bottom, first:last] brought to the caches.

    A matrix is read where its numbers lie side by side, row after row or column after column.
    Packing reads so many places at once that the processor does not foresee them: from main memory
    it takes about twice as long as from the caches.
    """
    bottom, last = min(bottom, source.shape[0]), min(last, source.shape[1])
    if source.strides[1] == source.itemsize:
        count, wide = max(bottom - top, 0), max(last - first, 0)
        for row in range(top + count * part // parts, top + count * (part + 1) // parts):
            fetch(source, row, first, wide)
    else:
        count, wide = max(last - first, 0), max(bottom - top, 0)
        for k in range(first + count * part // parts, first + count * (part + 1) // parts):
            fetch(source, top, k, wide)


# ------------------------------------------------------------------ blocks in vector registers


def _fetch_plain(source, row, k, count):
    """Nothing: a processor that is not asked brings what it needs when it needs it."""


@intrinsic(plain=_fetch_plain, uses=WRITER)
def fetch(typing, source, row, k, count):
    """Have `count` numbers that lie side by side in memory, from source[row, k] on, brought to the
    second-level cache, without waiting."""
    from numba.core import types

    return types.void(source, types.intp, types.intp, types.intp), _write_fetch


def _write_fetch(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """The instructions of `fetch`."""
    from minillm.kernels.vector_ir import Writer

    source, row, k, count = arguments
    write = Writer(context, builder)
    start = write.element(signature.args[0], source, row, k)
    line = 64 // signature.args[0].dtype.bitwidth * 8
    lines = builder.sdiv(write.plus(count, line - 1), write.integer(line))

    def step(at: Any, values: list[Any]) -> list[Any]:
        write.fetch(builder.gep(start, [builder.mul(at, write.integer(line))]))
        return values

    write.loop(lines, step, [])
    return context.get_dummy_value()


def _words_plain(source, rows, k, there):
    """In plain Python, the words of these rows from k on, for the part `there` of a panel."""
    per_word = tile(there.dtype.name).per_word
    numbers = source[rows, k : k + len(there) * per_word].reshape(len(rows), len(there), per_word)
    if per_word == 1:
        return numbers[..., 0].T
    return words(numbers if numbers.dtype == np.uint16 else round_to_bfloat16(numbers)).T


def _turn_blocks_plain(source, row, last, k, blocks, panels, panel, at, i):
    lanes = tile(panels.dtype.name).lanes
    there = panels[panel, at : at + blocks * lanes, i : i + lanes]
    rows = np.minimum(np.arange(row, row + there.shape[1]), last)
    there[...] = _words_plain(source, rows, k, there)


@intrinsic(plain=_turn_blocks_plain, uses=WRITER)
def turn_blocks(typing, source, row, last, k, blocks, panels, panel, at, i):
    """panels[panel, at + w, i + r] = word w, from k on, of row min(row + r, last) of `source`.

    Neighbouring k lie side by side in `source`: `blocks` squares of lanes x lanes words are read
    row by row, transposed in registers, and written, as many rows as the panel has room for.
    Nothing is written that is not final, for another thread may have packed the panel before.
    """
    from numba.core import types

    index = types.intp
    inputs = (source, index, index, index, index)
    return types.void(*inputs, panels, index, index, index), _write_turn_blocks


def _write_turn_blocks(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """The instructions of `turn_blocks`."""
    from minillm.kernels.vector_ir import Writer

    source, row, last, k, blocks, panels, panel, at, i = arguments
    source_type, panels_type = signature.args[0], signature.args[5]
    packed = panels_type.dtype.name
    this = tile(packed)
    write = Writer(context, builder)
    target = write.element(panels_type, panels, panel, at, i)
    width = write.length(panels_type, panels, 2)

    def turn(count: int) -> None:
        """The loop over blocks, for so many rows."""
        rows = [write.smaller(write.plus(row, r), last) for r in range(count)]
        starts = [write.element(source_type, source, r, k) for r in rows]
        numbers = this.lanes * this.per_word

        def step(block: Any, values: list[Any]) -> list[Any]:
            across = builder.mul(block, write.integer(numbers))
            found = [write.load(builder.gep(start, [across]), numbers) for start in starts]
            found = [write.as_words(vector, packed) for vector in found]
            # Lanes too many hold what belongs there, the first rows of the next word: others may be
            # reading the panel already.
            ahead = [*range(1, this.lanes), this.lanes - 1]
            more = [write.pick(v, v, ahead) for v in found[: this.lanes - count]]
            down = builder.mul(block, write.integer(this.lanes))
            place = builder.gep(target, [builder.mul(down, width)])
            for word, vector in enumerate(write.turned(found + more)):
                if count < this.lanes and (this.rows > this.lanes or word == this.lanes - 1):
                    vector = write.pick(vector, vector, [*range(count)])
                write.store(vector, place)
                place = builder.gep(place, [width])
            return values

        write.loop(blocks, step, [])

    few = builder.icmp_signed("<", builder.sub(width, i), write.integer(this.lanes))
    with builder.if_else(few) as (fewer, all_lanes):
        with fewer:
            if this.rows % this.lanes:
                turn(this.rows % this.lanes)
        with all_lanes:
            turn(this.lanes)
    return context.get_dummy_value()


def _copy_words_plain(source, row, k, size, panels, panel, at, count):
    for there in panels[panel : panel + count, at : at + size]:
        some = np.minimum(np.arange(row, row + there.shape[1]), len(source) - 1)
        there[...] = _words_plain(source, some, k, there)
        row += there.shape[1]


@intrinsic(plain=_copy_words_plain, uses=WRITER)
def copy_words(typing, source, row, k, size, panels, panel, at, count):
    """panels[panel + p, at + w, i] = word w, from k on, of row (row + p width + i) of `source`.

    For w < size, p < count, i < width: panels as wide as a tile has rows or columns. Neighbouring
    rows lie side by side in `source`: one stretch of memory for each k, as long as the panels are
    wide, also where that goes beyond the last row.
    """
    from numba.core import types

    index = types.intp
    inputs = (source, index, index, index)
    return types.void(*inputs, panels, index, index, index), _write_copy_words


def _write_copy_words(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """The instructions of `copy_words`."""
    from minillm.kernels.vector_ir import Writer

    source, row, k, size, panels, panel, at, count = arguments
    source_type, panels_type = signature.args[0], signature.args[4]
    packed = panels_type.dtype.name
    this = tile(packed)
    write = Writer(context, builder)

    def copy(width: int) -> None:
        """The loop over words, and in it the one over panels, which are as wide as that."""
        pieces = [(i, min(this.lanes, width - i)) for i in range(0, width, this.lanes)]

        def every_panel(w: Any, values: list[Any]) -> list[Any]:
            first = builder.add(k, builder.mul(w, write.integer(this.per_word)))
            lines = [
                write.element(source_type, source, row, write.plus(first, n))
                for n in range(this.per_word)
            ]
            there = builder.add(at, w)

            def one_panel(p: Any, values: list[Any]) -> list[Any]:
                along = builder.mul(p, write.integer(width))
                here = [builder.gep(line, [along]) for line in lines]
                place = write.element(panels_type, panels, builder.add(panel, p), there)
                for i, lanes in pieces:
                    found = [write.load(write.ahead(start, i), lanes) for start in here]
                    if this.per_word == 2:
                        found = [write.zipped(found[0], found[1], packed)]
                    write.store(found[0], write.ahead(place, i))
                return values

            return write.loop(count, one_panel, values)

        write.loop(size, every_panel, [])

    width = write.length(panels_type, panels, 2)
    with builder.if_else(builder.icmp_signed("==", width, write.integer(this.rows))) as sides:
        for side, wide in zip(sides, (this.rows, this.columns), strict=True):
            with side:
                copy(wide)
    return context.get_dummy_value()

"""Packing: the operands of a matrix product, copied into the order in which the tile reads them.

At every k the tile (tile.py) reads as many numbers of a as it has rows, and as many of b as it has
columns. In the matrix these may lie a whole row apart, each in another cache line and another page.
Packing copies them once, side by side, a panel for each row or column of tiles; the product then
reads them from cache many times:

    panels[p, k, i] = source[p * width + i, k]          i < width, the tile's rows or columns

`source` is a, or b transposed: in both the summed index k is a column, so one function packs both.
Here also ends every other difference between operands: strides and transposes, bfloat16 or
float32, sizes that no tile divides. Where a panel has more rows than are left, the last is repeated
(its products are computed and thrown away); numbers past the last k are 0.

Speed: as many rows and words as a vector has lanes are packed at a time, in registers. There are
two good cases. Where numbers of neighbouring k lie side by side (x and weight in a forward
product), `turn_blocks` transposes block after block; where neighbouring rows do (both operands of a
weight gradient), `copy_blocks` copies vectors. Everything else, rare or small, is first gathered
number by number.

bfloat16: a word holds two numbers of neighbouring k, so panels are half as deep. float32 operands
are rounded to bfloat16 on the way, to nearest, ties to even.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from minillm.jit import intrinsic, jit
from minillm.kernels.bfloat16 import round_to_bfloat16
from minillm.kernels.layout import on_stack
from minillm.kernels.processor import WORD
from minillm.kernels.tile import WRITER, tile, words


@jit(borrows=True)
def pack(source, first, last, start, stop, panels, base, into, this):
    """Pack words start to stop of source (rows, K), for the tiles first to last along its rows.

    Each gets a panel as wide as it needs rows; the first is panel `base`, from word `into` on.
    """
    width, lanes = panels.shape[2], this.lanes
    room = on_stack(source)[: lanes * lanes * this.per_word]
    square = room.reshape((lanes, lanes * this.per_word))
    # Read memory in long stretches: a panel at a time where k lies side by side, so that few rows
    # are read at once; all panels, a few k at a time, where rows do. For one panel it is the same.
    one = last - first == 1 or source.strides[1] == source.itemsize
    step = stop - start if one else lanes
    for at in range(start, stop, step):
        for t in range(first, last):
            for i in range(0, width, lanes):
                pack_strip(
                    source, t * width + i, at, min(at + step, stop), panels, base + t - first,
                    into + at - start, i, square, this,
                )  # fmt: skip


@jit(borrows=True)
def pack_strip(source, row, start, stop, panels, panel, at, i, square, this):
    """Pack words of the rows from `row` on to panels[panel, at:, i:]: a vector, or what fits."""
    rows, depth = source.shape
    lanes, k = this.lanes, start * this.per_word
    blocks = max(0, min(stop, depth // this.per_word) - start) // lanes
    if source.strides[1] == source.itemsize:
        turn_blocks(source, row, rows - 1, k, blocks, panels, panel, at, i)
    elif source.strides[0] == source.itemsize and row + min(lanes, panels.shape[2] - i) <= rows:
        copy_blocks(source, row, k, blocks, panels, panel, at, i)
    else:
        blocks = 0
    for done in range(blocks * lanes, stop - start, lanes):
        gather(source, row, k + done * this.per_word, square)
        turn_blocks(square, 0, lanes - 1, 0, 1, panels, panel, at + done, i)


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


def _as_words(numbers: np.ndarray, panels: np.ndarray) -> np.ndarray:
    """Numbers (.., per_word) as words (..) of the packed array, in plain Python."""
    if panels.dtype != WORD:
        return numbers[..., 0]
    return words(numbers if numbers.dtype == np.uint16 else round_to_bfloat16(numbers))


def _turn_blocks_plain(source, row, last, k, blocks, panels, panel, at, i):
    this = tile(panels.dtype.name)
    there = panels[panel, at : at + blocks * this.lanes, i : i + this.lanes]  # (words, rows)
    rows = np.minimum(np.arange(row, row + there.shape[1]), last)
    numbers = source[rows, k : k + len(there) * this.per_word]
    there[...] = _as_words(numbers.reshape(len(rows), -1, this.per_word), panels).T


@intrinsic(plain=_turn_blocks_plain, uses=WRITER)
def turn_blocks(typing, source, row, last, k, blocks, panels, panel, at, i):
    """panels[panel, at + w, i + r] = word w, from k on, of row min(row + r, last) of `source`.

    Neighbouring k lie side by side in `source`: `blocks` squares of lanes x lanes words are read
    row by row, transposed in registers, and written, as many rows as the panel has room for.
    """
    from numba.core import types

    index = types.intp
    inputs = (source, index, index, index, index)
    return types.void(*inputs, panels, index, index, index), _write_turn_blocks


def _write_turn_blocks(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """The instructions of `turn_blocks`."""
    source, row, last, k, blocks, *target = arguments
    source_type, panels_type = signature.args[0], signature.args[5]
    packed = panels_type.dtype.name
    this = tile(packed)

    def read(write: Any, count: int) -> Callable[[Any], Iterable[Any]]:
        rows = [write.smaller(write.plus(row, r), last) for r in range(count)]
        starts = [write.element(source_type, source, r, k) for r in rows]
        numbers = this.lanes * this.per_word

        def turned(block: Any) -> list[Any]:
            at = builder.mul(block, write.integer(numbers))
            found = [write.load(builder.gep(start, [at]), numbers) for start in starts]
            found = [write.as_words(vector, packed) for vector in found]
            return write.turned(found + found[-1:] * (this.lanes - count))

        return turned

    return _write_blocks(context, builder, panels_type, target, blocks, read)


def _copy_blocks_plain(source, row, k, blocks, panels, panel, at, i):
    _turn_blocks_plain(source, row, len(source) - 1, k, blocks, panels, panel, at, i)


@intrinsic(plain=_copy_blocks_plain, uses=WRITER)
def copy_blocks(typing, source, row, k, blocks, panels, panel, at, i):
    """As `turn_blocks`, where neighbouring rows lie side by side in `source`: no transpose.

    All rows that the panel has room for have to be there.
    """
    from numba.core import types

    index = types.intp
    inputs = (source, index, index, index)
    return types.void(*inputs, panels, index, index, index), _write_copy_blocks


def _write_copy_blocks(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """The instructions of `copy_blocks`."""
    source, row, k, blocks, *target = arguments
    source_type, panels_type = signature.args[0], signature.args[4]
    packed = panels_type.dtype.name
    this = tile(packed)

    def read(write: Any, count: int) -> Callable[[Any], Iterable[Any]]:
        every = [min(lane, count - 1) for lane in range(this.lanes)]

        def row_of(at: Any) -> Any:
            found = write.load(write.element(source_type, source, row, at), count)
            return found if count == this.lanes else write.pick(found, found, every)

        def copied(block: Any) -> Iterator[Any]:
            numbers = this.lanes * this.per_word
            first = builder.add(k, builder.mul(block, write.integer(numbers)))
            for n in range(0, numbers, this.per_word):
                found = [row_of(write.plus(first, n + other)) for other in range(this.per_word)]
                yield found[0] if this.per_word == 1 else write.zipped(*found, packed)

        return copied

    return _write_blocks(context, builder, panels_type, target, blocks, read)


def _write_blocks(
    context: Any, builder: Any, panels_type: Any, target: Any, blocks: Any,
    read: Callable[[Any, int], Callable[[Any], Iterable[Any]]],
) -> Any:  # fmt: skip
    """Store the vectors read(write, count)(block), one for each word, for all blocks.

    `target`: panels, panel, at, i. `count` lanes of a vector have a place in the panel: all, or in
    one that is as wide as a tile is high the fewer that are left, known while this is compiled.
    """
    from minillm.kernels.vector_ir import Writer

    panels, panel, at, i = target
    this = tile(panels_type.dtype.name)
    write = Writer(context, builder)
    start = write.element(panels_type, panels, panel, at, i)
    width = write.length(panels_type, panels, 2)

    def store(count: int) -> None:
        vectors_of = read(write, count)

        def step(block: Any, values: list[Any]) -> list[Any]:
            before = builder.mul(block, write.integer(this.lanes))
            place = builder.gep(start, [builder.mul(before, width)])
            for word, vector in enumerate(vectors_of(block)):
                # Lanes too many are harmless where the next word's are written over them.
                if count < this.lanes and (this.rows > this.lanes or word == this.lanes - 1):
                    vector = write.pick(vector, vector, [*range(count)])
                write.store(vector, place)
                place = builder.gep(place, [width])
            return values

        write.loop(blocks, step, [])

    few = builder.icmp_signed("<", builder.sub(width, i), write.integer(this.lanes))
    with builder.if_else(few) as (fewer, whole):
        with fewer:
            if this.rows % this.lanes:
                store(this.rows % this.lanes)
        with whole:
            store(this.lanes)
    return context.get_dummy_value()

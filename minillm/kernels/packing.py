"""Packing: the operands of a matrix product, copied into the order in which the tile reads them.

At every k the tile (tile.py) reads `lanes` neighbouring numbers of one panel. In the matrix these
may lie a whole row apart, each in another cache line and another page. Packing copies them once,
side by side; the product then reads them from cache many times:

    panels[p, k, lane] = source[first_row(p) + lane, k]

`source` is a, or b transposed: in both the summed index k is a column, so one function packs both.
Here also ends every other difference between operands: strides and transposes, bfloat16 or
float32, sizes that no tile divides. Lanes past the last row repeat it (their products are computed
and thrown away); numbers past the last k are 0.

Speed: `lanes` rows and `lanes` words are packed at a time, in registers. There are two good cases.
Where numbers of neighbouring k lie side by side (x and weight in a forward product), `turn_block`
transposes the block; where neighbouring rows do (both operands of a weight gradient), `copy_block`
copies vectors. Everything else, rare or small, is first gathered number by number.

bfloat16: a word holds two numbers of neighbouring k, so panels are half as deep. float32 operands
are rounded to bfloat16 on the way, to nearest, ties to even.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minillm.jit import intrinsic, jit
from minillm.kernels.bfloat16 import round_to_bfloat16
from minillm.kernels.layout import on_stack
from minillm.kernels.processor import WORD
from minillm.kernels.tile import WRITER, per_word, tile, words


@jit(borrows=True)
def pack_groups(source, first, last, step, start, stop, panels, base, into, together, per_word):
    """Pack words start to stop of the row groups first to last of source (rows, K).

    Group g holds the rows from g * step on, in `together` panels; the first goes to panel `base`,
    from word `into` on.
    """
    lanes = panels.shape[2]
    end = base + (last - first) * together
    gathered = on_stack(source)[: lanes * lanes * per_word].reshape((lanes, lanes * per_word))
    # Read memory in long stretches: panel after panel where k lies side by side, so that few rows
    # are read at a time; all panels at once where rows do.
    width = 1 if source.strides[1] == source.itemsize else end - base
    for left in range(base, end, width):
        for at in range(start, stop, lanes):
            for panel in range(left, min(left + width, end)):
                group, extra = first + (panel - base) // together, (panel - base) % together
                row = group * step + extra * lanes
                pack_block(source, row, at, panels, panel, into + at - start, gathered)


@jit(borrows=True, forceinline=True)
def pack_block(source, row, word, panels, panel, at, gathered):
    """Pack the block of `source` at (row, word) to panels[panel, at]."""
    rows, depth = source.shape
    lanes, numbers = gathered.shape
    k = word * (numbers // lanes)
    whole = k + numbers <= depth
    if whole and source.strides[1] == source.itemsize:
        turn_block(source, row, rows - 1, k, panels, panel, at)
    elif whole and source.strides[0] == source.itemsize and row + lanes <= rows:
        copy_block(source, row, k, panels, panel, at)
    else:
        gather(source, row, k, gathered)
        turn_block(gathered, 0, lanes - 1, 0, panels, panel, at)


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


def _turn_block_plain(source, row, last, k, panels, panel, at):
    lanes = panels.shape[2]
    rows = np.minimum(np.arange(row, row + lanes), last)
    each = per_word(panels.dtype.name)
    numbers = source[rows, k : k + lanes * each].reshape(lanes, lanes, each)
    panels[panel, at : at + lanes] = _as_words(numbers, panels).T


@intrinsic(plain=_turn_block_plain, uses=WRITER)
def turn_block(typing, source, row, last, k, panels, panel, at):
    """panels[panel, at + w, lane] = word w, from k on, of row min(row + lane, last) of `source`.

    Neighbouring k lie side by side in `source`: a square of lanes x lanes words is read row by
    row, transposed in registers, and written.
    """
    from numba.core import types

    index = types.intp
    return types.void(source, index, index, index, panels, index, index), _write_turn_block


def _write_turn_block(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """The instructions of `turn_block`."""
    from minillm.kernels.vector_ir import Writer

    source, row, last, k, panels, panel, at = arguments
    source_type, panels_type = signature.args[0], signature.args[4]
    packed = panels_type.dtype.name
    lanes, each = tile(packed).lanes, per_word(packed)
    write = Writer(context, builder)
    vectors = []
    for lane in range(lanes):
        address = write.element(source_type, source, write.smaller(write.plus(row, lane), last), k)
        vectors.append(write.as_words(write.load(address, lanes * each), packed))
    target = write.element(panels_type, panels, panel, at)
    for word, vector in enumerate(write.turned(vectors)):
        write.store(vector, write.ahead(target, word * lanes))
    return context.get_dummy_value()


def _copy_block_plain(source, row, k, panels, panel, at):
    lanes = panels.shape[2]
    each = per_word(panels.dtype.name)
    numbers = source[row : row + lanes, k : k + lanes * each].T.reshape(lanes, each, lanes)
    panels[panel, at : at + lanes] = _as_words(numbers.swapaxes(1, 2), panels)


@intrinsic(plain=_copy_block_plain, uses=WRITER)
def copy_block(typing, source, row, k, panels, panel, at):
    """As `turn_block`, where neighbouring rows lie side by side in `source`: no transpose."""
    from numba.core import types

    index = types.intp
    return types.void(source, index, index, panels, index, index), _write_copy_block


def _write_copy_block(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """The instructions of `copy_block`."""
    from minillm.kernels.vector_ir import Writer

    source, row, k, panels, panel, at = arguments
    source_type, panels_type = signature.args[0], signature.args[3]
    packed = panels_type.dtype.name
    lanes, each = tile(packed).lanes, per_word(packed)
    write = Writer(context, builder)
    target = write.element(panels_type, panels, panel, at)
    for word in range(lanes):
        first = write.plus(k, word * each)
        numbers = write.load(write.element(source_type, source, row, first), lanes)
        if each == 2:  # x0 y0 x1 y1 ..: the two k of each row become neighbours
            second = write.load(
                write.element(source_type, source, row, write.plus(first, 1)), lanes
            )
            zipped = [lane + half * lanes for lane in range(lanes) for half in range(2)]
            numbers = write.pick(numbers, second, zipped)
        write.store(write.as_words(numbers, packed), write.ahead(target, word * lanes))
    return context.get_dummy_value()

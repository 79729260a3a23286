"""From tiles to whole matrices: the loops that keep a matrix product's data in the caches.

2 M N K arithmetic operations on only M K + K N + M N numbers: a fast product brings each number
into each level of memory few times and uses it there often. From the inside out:

    registers   a tile of the output, e.g. 12 x 32 sums (tile.py)
    L1 cache    a panel of a, one tile high and DEPTH words deep: used for all tiles beside it
    L2 cache    a block of b, DEPTH words deep and WIDE tiles wide: packed by the core that uses it
                just before, then used for all rows of a; meanwhile what is packed next is on its
                way from main memory
    L3 cache    as much of a as has been packed (packing.py): used for all of b

Where the output is tall, and so narrow that one block is as wide as all of it, no other core needs
the same rows of a. Then, if they lie along memory, each packs its own in its L2 cache, a few tiles
at a time.

This order of loops is that of Goto and van de Geijn, "Anatomy of high-performance matrix
multiplication" (2008), with the parts of a and b exchanged.

Threads take different blocks of the output, whoever is free the next one: cores differ in speed, by
design or because other programs need them too. Each number of it is summed by one thread: over the
k of DEPTH words in order, then over such partial sums in order. So neither the number of threads
nor the other rows and columns change a bit of it.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.jit import intrinsic, jit, prange
from minillm.kernels.epilogue import Epilogue, finish
from minillm.kernels.layout import on_stack
from minillm.kernels.packing import fetch_some, pack_groups
from minillm.kernels.tile import multiply_tile, per_word, tile

DEPTH = 384  # words of k from one visit to the output to the next: 24 KB of a, 48 KB of b
WIDE = 6  # tiles side by side in a block of b: with DEPTH, 288 KB of packed words
LONGEST = 2 * DEPTH  # words of k packed at once
ROOM = 3 << 19  # words of a packed at once; b is packed anew for each such piece
TOGETHER = 8  # tiles of a that are packed at a time
ALONE = 8  # rows of tiles for each worker that make it worth packing them alone
SMALL = 1 << 18  # multiplications that are not worth a second thread


def product_fast(
    a: Array, b: Array, out: Array, add: bool, packed: str, end: Epilogue
) -> None:
    """out (n, M, N) = or += a (n, M, K) @ b (n, K, N), then the epilogue `end`.

    `out` is contiguous, a and b need not be; K is not 0. packed: the dtype of panels, "float32",
    "float64", or WORD for bfloat16 products; then a and b hold float32 or the bits of bfloat16.
    """
    this, threads = tile(packed), backend.threads()
    room = _kept.memory("a", packed, (ROOM,))
    # A worker's own memory: a block of b, and rows of a where it packs those itself.
    panels = WIDE * this.vectors + TOGETHER * -(-this.rows // this.lanes)
    own = _kept.memory("own", packed, (threads, panels, DEPTH, this.lanes))
    workers = 1 if out.size * a.shape[2] < SMALL else threads
    multiply(a, b.swapaxes(1, 2), out, room, own, this, per_word(packed), workers, add, end)


class _Kept(threading.local):
    """Memory for packing, kept from one product to the next; each Python thread has its own."""

    def __init__(self) -> None:
        self.arrays: dict[tuple[str, str], Array] = {}

    def memory(self, name: str, dtype: str, shape: tuple[int, ...]) -> Array:
        """An array of `shape` that starts at a cache line and holds whatever it holds."""
        kept = self.arrays.get((name, dtype))
        if kept is None or kept.shape != shape:
            raw = np.empty(np.prod(shape) * np.dtype(dtype).itemsize + 64, np.uint8)
            start = -raw.ctypes.data % 64
            kept = self.arrays[name, dtype] = (
                raw[start : raw.size - 64 + start].view(dtype).reshape(shape)
            )
        return kept


_kept = _Kept()


@jit(reads=("a", "b"))
def multiply(a, b, out, room, own, this, per_word, workers, add, end):
    """out (n, M, N) = or += a (n, M, K) times b (n, N, K) transposed.

    All workers pack a piece of a, then all multiply it; or each one packs what it alone needs.
    """
    count, M, N = out.shape
    height = (this.rows + this.lanes - 1) // this.lanes  # panels that hold the rows of a tile
    narrow = N <= WIDE * this.vectors * this.lanes and count * M >= ALONE * this.rows * workers
    if narrow and a.strides[2] == a.itemsize:  # else all rows for a few k are read faster
        multiply_piece(
            room[:0].reshape((0, 0, this.lanes)), a, b, out, 0, 0, M, own, this, per_word, workers,
            add, True, end,
        )  # fmt: skip
        return
    step, whole = LONGEST * per_word, per_word * this.lanes
    for k in range(0, a.shape[2], step):
        stop = min(k + step, a.shape[2])
        words = (stop - k + whole - 1) // whole * this.lanes
        # As many rows as there is room for; if all of them, then as many matrices.
        most = room.size // (words * this.lanes * height)
        tiles = min((M + this.rows - 1) // this.rows, most)
        some = most // tiles if tiles * this.rows >= M else 1
        for n in range(0, count, some):
            more = min(n + some, count)
            for row in range(0, M, tiles * this.rows):
                bottom = min(row + tiles * this.rows, M)
                high = (bottom - row + this.rows - 1) // this.rows
                panels = (more - n) * high * height
                packed = room[: panels * words * this.lanes].reshape((panels, words, this.lanes))
                pack_tiles(a[n:more, row:bottom, k:stop], packed, this, per_word, workers)
                multiply_piece(
                    packed, a, b[n:more, :, k:stop], out, n, row, bottom, own, this, per_word,
                    workers, add or k > 0, stop == a.shape[2], end,
                )  # fmt: skip


@jit(parallel=True)
def pack_tiles(a, packed, this, per_word, workers):
    """Pack a piece of a (n, rows, K) in small tasks, each along its memory."""
    tiles = (a.shape[1] + this.rows - 1) // this.rows
    tasks = len(a)
    if a.strides[2] == a.itemsize:
        tasks *= (tiles + TOGETHER - 1) // TOGETHER
    else:  # neighbouring rows lie side by side: all of them, for a few k
        tasks *= (packed.shape[1] + this.lanes - 1) // this.lanes
    if workers == 1:
        for task in range(tasks):
            pack_some(a, packed, this, per_word, task, tasks // len(a))
    else:
        for task in prange(tasks):
            pack_some(a, packed, this, per_word, task, tasks // len(a))


@jit(borrows=True)
def pack_some(a, packed, this, per_word, task, tasks):
    """One task of `pack_tiles`: some of the tiles, or a few words of all tiles."""
    tiles, words = (a.shape[1] + this.rows - 1) // this.rows, packed.shape[1]
    height = (this.rows + this.lanes - 1) // this.lanes
    n, part = task // tasks, task % tasks
    if a.strides[2] == a.itemsize:
        first = part * TOGETHER
        last, panel = min(first + TOGETHER, tiles), (n * tiles + first) * height
        pack_groups(a[n], first, last, this.rows, 0, words, packed, panel, 0, height, per_word)
    else:
        start = part * this.lanes
        stop = min(start + this.lanes, words)
        pack_groups(
            a[n], 0, tiles, this.rows, start, stop, packed, n * tiles * height, start, height,
            per_word,
        )


def _draw_plain(tickets):
    tickets[0] += 1
    return tickets[0] - 1


@intrinsic(plain=_draw_plain)
def draw(typing, tickets):
    """tickets[0], which is one more for the next thread: 0, 1, 2, .., each drawn once."""
    from numba.core import types

    return types.int64(tickets), _write_draw


def _write_draw(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """The instruction of `draw`: read, add one and write, with no other thread in between."""
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    one = context.get_constant(signature.return_type, 1)
    return builder.atomic_rmw("add", array.data, one, "monotonic")


@jit(parallel=True)
def multiply_piece(
    packed, a, b, out, first, row, bottom, own, this, per_word, workers, add, last, end
):  # fmt: skip
    """Rows row to bottom of outputs from `first` on = or += the packed piece times b transposed.

    `packed` may be empty: then workers pack the rows of `a` that they need, which nobody else does.
    `last`: whether this piece of k completes the sums.
    """
    columns = this.vectors * this.lanes
    tiles = ((bottom - row + this.rows - 1) // this.rows, (out.shape[2] + columns - 1) // columns)
    cuts = cut(len(b), tiles, workers, len(packed) == 0)
    tasks = len(b) * cuts[0] * cuts[1]
    if workers == 1:
        for task in range(tasks):
            multiply_block(
                packed, a, b, out, first, row, bottom, own[0], this, per_word, add, last, end,
                tiles, cuts, task, task + 1,
            )  # fmt: skip
    else:
        tickets = np.zeros(1, np.int64)
        for worker in prange(workers):
            task = draw(tickets)
            while task < tasks:
                multiply_block(
                    packed, a, b, out, first, row, bottom, own[worker], this, per_word, add, last,
                    end, tiles, cuts, task, task + workers,
                )  # fmt: skip
                task = draw(tickets)


@jit
def cut(count, tiles, workers, whole_rows):
    """Into how many (rows, columns) of blocks to cut `count` outputs of (rows, columns) `tiles`.

    Blocks are at most WIDE tiles wide, and the worker with most to do has as little as possible;
    packing its part of b costs a block about as much as one more row of tiles. `whole_rows`: cut
    no more columns than that asks for, so that a narrow output is cut into rows alone.
    """
    best, least = (1, 1), -1
    fewest = (tiles[1] + WIDE - 1) // WIDE
    most = fewest if whole_rows else min(fewest + workers - 1, tiles[1])
    for rows in range(1, min(workers, tiles[0]) + 1):
        for columns in range(fewest, most + 1):
            rounds = (count * rows * columns + workers - 1) // workers
            high, wide = (tiles[0] + rows - 1) // rows, (tiles[1] + columns - 1) // columns
            time = rounds * (high + 1) * wide
            if least < 0 or time < least:
                best, least = (rows, columns), time
    return best


@jit
def place(task, tiles, cuts):
    """The block of a task: of which output, from which row and column of tiles to which."""
    which, at = task // (cuts[0] * cuts[1]), task % (cuts[0] * cuts[1])
    i, j = at // cuts[1], at % cuts[1]
    up, down = tiles[0] * i // cuts[0], tiles[0] * (i + 1) // cuts[0]
    left, right = tiles[1] * j // cuts[1], tiles[1] * (j + 1) // cuts[1]
    return which, up, down, left, right


@jit(borrows=True)
def multiply_block(
    packed, a, b, out, first, row, bottom, own, this, per_word, add, last, end, tiles, cuts, task,
    later,
):  # fmt: skip
    """One task of `multiply_piece`: one block of one output.

    `later` is the task that this thread will probably draw next.
    """
    which, up, down, left, right = place(task, tiles, cuts)
    that, beginning, ending = which, right, right
    if later < len(b) * cuts[0] * cuts[1]:
        that, _, _, beginning, ending = place(later, tiles, cuts)
    columns, height = this.vectors * this.lanes, (this.rows + this.lanes - 1) // this.lanes
    words, here = (b.shape[2] + per_word - 1) // per_word, out[first + which]
    block, ahead = own[: WIDE * this.vectors], own[WIDE * this.vectors :]
    for start in range(0, words, DEPTH):
        stop, more = min(start + DEPTH, words), add or start > 0
        pack_groups(
            b[which], left, right, columns, start, stop, block, 0, 0, this.vectors, per_word
        )
        # What is packed next: the words that follow, or the columns of the next block.
        follow = which, left, right, stop
        if stop == words:
            follow = that, beginning, ending, 0
        for i in range(up, down):
            fetch_some(
                b[follow[0]], follow[1] * columns, follow[2] * columns, follow[3] * per_word,
                (follow[3] + DEPTH) * per_word, i - up, down - up,
            )  # fmt: skip
            panels, panel, word = packed, (which * tiles[0] + i) * height, start
            if len(packed) == 0:
                panels, panel, word = ahead, (i - up) % TOGETHER * height, 0
                pack_ahead(a[which], i, up, down, start, stop, ahead, this, per_word)
            y = row + i * this.rows
            over, beyond = min(y + this.rows, bottom), min(right * columns, out.shape[2])
            finishing = last and stop == words and end.kind + end.bias.size > 0
            if finishing and end.kind > 0:  # what lies beside the output is needed after the tiles
                fetch_some(end.beside[first + which], y, over, left * columns, beyond, 0, 1)
            multiply_row(
                panels, panel, word, block, left, right, stop - start, here, y, bottom, this, more
            )
            if finishing:
                finish(out, end, first + which, y, over, left * columns, beyond)


@jit(borrows=True)
def pack_ahead(a, i, up, down, start, stop, ahead, this, per_word):
    """Pack the group of rows of tiles that begins with row i, if one does, into a worker's `ahead`.

    Meanwhile a part of the next group is fetched. Groups are counted from row `up` of a block,
    which ends at row `down`.
    """
    turn, height = (i - up) % TOGETHER, (this.rows + this.lanes - 1) // this.lanes
    after = i - turn + TOGETHER
    if turn == 0:
        pack_groups(a, i, min(after, down), this.rows, start, stop, ahead, 0, 0, height, per_word)
    fetch_some(
        a, after * this.rows, min(after + TOGETHER, down) * this.rows, start * per_word,
        stop * per_word, turn, TOGETHER,
    )  # fmt: skip


@jit(borrows=True)
def multiply_row(panels, panel, word, block, left, right, depth, out, y, bottom, this, add):
    """The tiles left to right of one row of them, whose first row of `out` is `y`."""
    columns = this.vectors * this.lanes
    edge = on_stack(out)[: this.rows * columns].reshape((this.rows, columns))
    for j in range(left, right):
        beside, x = (j - left) * this.vectors, j * columns
        if y + this.rows <= bottom and x + columns <= out.shape[1]:
            multiply_tile(panels, panel, word, block, beside, 0, depth, out, y, x, add)
        else:  # a tile that hangs over the edge is made beside the output
            multiply_tile(panels, panel, word, block, beside, 0, depth, edge, 0, 0, False)
            put_edge(edge, out[y:bottom, x:], add)


@jit(borrows=True)
def put_edge(tile, out, add):
    """Copy as much of `tile` to `out` as it takes, or add it."""
    for i in range(min(tile.shape[0], out.shape[0])):
        for j in range(min(tile.shape[1], out.shape[1])):
            out[i, j] = out[i, j] + tile[i, j] if add else tile[i, j]

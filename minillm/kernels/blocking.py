"""From tiles to whole matrices: the loops that keep a matrix product's data in the caches.

2 M N K arithmetic operations on only M K + K N + M N numbers: a fast product brings each number
into each level of memory few times and uses it there often. From the inside out:

    registers   a tile of the output, e.g. 12 x 32 sums (tile.py)
    L1 cache    a panel of a, one tile high and DEPTH words deep: used for all tiles beside it
    L2 cache    a block of b, DEPTH words deep and WIDE tiles wide or more: packed by the core that
                uses it just before, then used for all rows of a; meanwhile what is packed next is
                on its way from main memory
    L3 cache    as much of a as has been packed (packing.py): used for all of b

This order of loops is that of Goto and van de Geijn, "Anatomy of high-performance matrix
multiplication" (2008), with the parts of a and b exchanged.

Packing a is no step of its own: it would wait for memory, while the multipliers wait for it. A
panel of a is packed by whichever core needs it first, its numbers on their way since the row of
tiles before; where a is transposed, a group of panels at a time (packing.py). Cores begin with
different rows, and find those of the others packed when they come to them. Where two need a panel
at the same moment, both pack it; so nobody waits for anybody.

Threads take different blocks of the output, each first those of its own share (shares.py). Blocks
are counted along rows, and outputs that are not very wide rather cut into rows than into columns:
then a thread mostly has the rows that it had in the product and the kernels before, and its core
what it wrote there.

Each number of the output is summed by one thread: over the k of DEPTH words in order, then over
such partial sums in order. So neither the number of threads nor the other rows and columns change a
bit of it.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.jit import jit, prange
from minillm.kernels.epilogue import Epilogue, finish
from minillm.kernels.layout import on_stack
from minillm.kernels.packing import fetch_some, pack
from minillm.kernels.shares import draw, drawn, next_task
from minillm.kernels.tile import multiply_tile, tile, tile_of

DEPTH = 384  # words of k from one visit to the output to the next: 18 KB of a, 48 KB of b
WIDE = 6  # tiles side by side in a block of b of that depth, 288 KB; more where k ends earlier
GROUP = 8  # panels of a that are packed at a time where their rows lie side by side
LONGEST = 3 * DEPTH  # words of k in a piece of a product
ROOM = 3 << 19  # words of a that a piece keeps packed; b is packed anew for each piece
SMALL = 1 << 18  # multiplications that are not worth a second thread


def product_fast(
    a: Array, b: Array, out: Array, add: bool, packed: str, end: Epilogue
) -> None:
    """out (n, M, N) = or += a (n, M, K) @ b (n, K, N), then the epilogue `end`.

    `out` is contiguous, a and b need not be; K is not 0. packed: the dtype of panels, "float32",
    "float64", or WORD for bfloat16 products; then a and b hold float32 or the bits of bfloat16.
    """
    threads = backend.threads()
    room, blocks = _kept.memory(packed, threads)
    workers = 1 if out.size * a.shape[2] < SMALL else threads
    multiply(a, b.swapaxes(1, 2), out, room, blocks, workers, add, end.kind, end.bias, end.beside)


class _Kept(threading.local):
    """Memory for packing, kept from one product to the next; each Python thread has its own."""

    def __init__(self) -> None:
        self.arrays: dict[str, tuple[Array, Array]] = {}

    def memory(self, packed: str, threads: int) -> tuple[Array, Array]:
        """Room for panels of a, and a block of b for each thread; they hold whatever they hold."""
        kept = self.arrays.get(packed)
        if kept is None or kept[0].size != ROOM or len(kept[1]) != threads:
            size = DEPTH * WIDE * tile(packed).columns
            kept = _aligned(ROOM, packed), _aligned(threads * size, packed).reshape(threads, size)
            self.arrays[packed] = kept
        return kept


def _aligned(size: int, dtype: str) -> Array:
    """An array of so many numbers that starts at a cache line."""
    raw = np.empty(size * np.dtype(dtype).itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : raw.size - 64 + start].view(dtype)


_kept = _Kept()


class Piece(NamedTuple):
    """The part of a product that is multiplied from one filling of the room for panels of a."""

    packed: Array  # panels of a: (outputs * rows of tiles, words, rows of a tile)
    group: int  # how many panels are packed at a time
    ready: Array  # not 0 where one is packed, DEPTH words after the other; of a group, the first
    a: Array  # (n, rows, k)
    b: Array  # (n, N, k): transposed
    first: int  # the output that the first of them makes
    top: int  # and its row that the first row of a makes
    bottom: int  # up to this row
    add: bool  # to what the output holds
    last: bool  # whether this piece of k completes the sums


@jit(reads=("a", "b"))
def multiply(a, b, out, room, blocks, workers, add, kind, bias, beside):
    """out (n, M, N) = or += a (n, M, K) times b (n, N, K) transposed, piece by piece."""
    this, end = tile_of(room), Epilogue(kind, bias, beside)
    count, M, _ = out.shape
    depth = (a.shape[2] + this.per_word - 1) // this.per_word  # words
    pieces = (depth + LONGEST - 1) // LONGEST
    longest = (depth + pieces * DEPTH - 1) // (pieces * DEPTH) * DEPTH
    words = (min(depth, longest) + this.lanes - 1) // this.lanes * this.lanes
    words, step = odd(words, this.lanes), longest * this.per_word
    group = GROUP if a.strides[1] == a.itemsize != a.strides[2] else 1
    parts = (words + DEPTH - 1) // DEPTH
    # As many rows as there is room for, shared out evenly; if all of them, then as many matrices.
    most, tiles = room.size // (words * this.rows), (M + this.rows - 1) // this.rows
    some, turns = max(1, most // tiles), (tiles + most - 1) // most
    tiles = (tiles + turns - 1) // turns
    for k in range(0, a.shape[2], step):
        stop = min(k + step, a.shape[2])
        for n in range(0, count, some):
            more = min(n + some, count)
            for row in range(0, M, tiles * this.rows):
                bottom = min(row + tiles * this.rows, M)
                panels = (more - n) * ((bottom - row + this.rows - 1) // this.rows)
                packed = room[: panels * words * this.rows].reshape((panels, words, this.rows))
                piece = Piece(
                    packed, group, np.zeros(panels * parts, np.int64),
                    a[n:more, row:bottom, k:stop], b[n:more, :, k:stop],
                    n, row, bottom, add or k > 0, stop == a.shape[2],
                )  # fmt: skip
                multiply_piece(piece, out, blocks, workers, end)


@jit
def odd(words, lanes):
    """So many words or `lanes` more, so that they fill an odd number of vectors.

    Panels of that length that are written side by side do not all fall into one set of the
    first-level cache, as they do a multiple of 4 KB apart.
    """
    return words | lanes


@jit(parallel=True)
def multiply_piece(piece, out, blocks, workers, end):
    """All workers multiply a piece of a by all of b."""
    this = tile_of(piece.packed)
    tiles = (len(piece.packed) // len(piece.b), (out.shape[2] + this.columns - 1) // this.columns)
    widest = WIDE * DEPTH // min(DEPTH, piece.packed.shape[1])
    cuts = cut(len(piece.b), tiles, workers, widest)
    tickets = np.zeros(workers, np.int64)
    if workers == 1:
        work(piece, out, blocks, end, tiles, cuts, tickets, 0)
    else:
        for worker in prange(workers):
            work(piece, out, blocks, end, tiles, cuts, tickets, np.int64(worker))


@jit(borrows=True)
def work(piece, out, blocks, end, tiles, cuts, tickets, worker):
    """What one worker does: block after block, as they are shared out."""
    tasks = len(piece.b) * cuts[0] * cuts[1]
    # Where among a block's rows to begin: those who share them begin with different ones.
    offset = tasks * worker // len(tickets) % cuts[1] / cuts[1]
    task, last = next_task(tickets, worker, tasks)
    while task >= 0:
        multiply_block(piece, out, blocks[worker], end, tiles, cuts, task, last, offset)
        task, last = next_task(tickets, worker, tasks)


@jit
def cut(count, tiles, workers, widest):
    """Into how many (rows, columns) of blocks to cut `count` outputs of (rows, columns) `tiles`.

    Blocks are at most `widest` tiles wide, and the worker with most to do has as little as
    possible: the tiles of its blocks; for each block as much as two more rows of tiles, to pack its
    part of b; and for each row of its own as much as two more tiles, for the panel of a comes from
    memory. Workers that share rows all go through all of them, mostly more than a core's caches
    hold: a quarter of a tile for each row of each block.
    """
    best, least = (1, 1), -1
    fewest = (tiles[1] + widest - 1) // widest
    for rows in range(1, min(workers, tiles[0]) + 1):
        own = (count * rows + workers - 1) // workers  # parts of rows that a worker has to do with
        for columns in range(fewest, min(fewest + workers - 1, tiles[1]) + 1):
            rounds = (count * rows * columns + workers - 1) // workers
            high, wide = (tiles[0] + rows - 1) // rows, (tiles[1] + columns - 1) // columns
            quarters = 4 * rounds * (high + 2) * wide + 8 * own * high
            if count * rows < workers:
                quarters += rounds * high
            if least < 0 or quarters < least:
                best, least = (rows, columns), quarters
    return best


@jit
def place(task, tiles, cuts):
    """The block of a task: of which output, from which row and column of tiles to which.

    Tasks that follow each other mostly have the same rows: a worker finds the panels it has packed.
    """
    which, at = task // (cuts[0] * cuts[1]), task % (cuts[0] * cuts[1])
    i, j = at // cuts[1], at % cuts[1]
    up, down = tiles[0] * i // cuts[0], tiles[0] * (i + 1) // cuts[0]
    left, right = tiles[1] * j // cuts[1], tiles[1] * (j + 1) // cuts[1]
    return which, up, down, left, right


@jit(borrows=True)
def multiply_block(piece, out, own, end, tiles, cuts, task, last, offset):
    """One task of `work`: one block of one output, with a worker's `own` memory for panels of b.

    The tasks up to `last` are of the same share. `offset`, from 0 to 1: where among the block's
    rows to begin.
    """
    this = tile_of(piece.packed)
    which, up, down, left, right = place(task, tiles, cuts)
    that, beginning, ending = which, right, right
    if task + 1 < last:
        that, _, _, beginning, ending = place(task + 1, tiles, cuts)
    b, here = piece.b[which], out[piece.first + which]
    words, columns = (b.shape[1] + this.per_word - 1) // this.per_word, this.columns
    depth = min(DEPTH, piece.packed.shape[1])
    block = own[: own.size // (depth * columns) * depth * columns].reshape((-1, depth, columns))
    begin = up + int(offset * (down - up))
    for start in range(0, words, DEPTH):
        stop, more = min(start + DEPTH, words), piece.add or start > 0
        fetch_panel(piece, which, begin, start, stop)
        pack(b, left, right, start, stop, block, 0, 0)
        # What is packed next: the words that follow, or the columns of the next block.
        follow = which, left, right, stop
        if stop == words:
            follow = that, beginning, ending, 0
        for turn in range(down - up):
            i = up + (begin - up + turn) % (down - up)
            fetch_some(
                piece.b[follow[0]], follow[1] * columns, follow[2] * columns,
                follow[3] * this.per_word, (follow[3] + DEPTH) * this.per_word, turn, down - up,
            )  # fmt: skip
            fetch_panel(piece, which, up + (i + 1 - up) % (down - up), start, stop)
            pack_panel(piece, which, i, up, down, start, stop)
            y = piece.top + i * this.rows
            over, beyond = min(y + this.rows, piece.bottom), min(right * columns, out.shape[2])
            finishing = piece.last and stop == words and end.kind + end.bias.size > 0
            if finishing and end.kind > 0:  # what lies beside the output is needed after the tiles
                beside = end.beside[piece.first + which]
                fetch_some(beside, y, over, left * columns, beyond, 0, 1)
            multiply_row(
                piece.packed, panel_of(piece, which, i), start, block, left, right, stop - start,
                here, y, piece.bottom, more,
            )  # fmt: skip
            if finishing:
                finish(out, end, piece.first + which, y, over, left * columns, beyond)


@jit(borrows=True)
def panel_of(piece, which, i):
    """The panel of a for row i of tiles of an output."""
    return which * (len(piece.packed) // len(piece.b)) + i


@jit(borrows=True)
def mark_of(piece, which, i, start):
    """Where `ready` has the words from `start` on of the panel for row i of tiles."""
    parts = (piece.packed.shape[1] + DEPTH - 1) // DEPTH
    return panel_of(piece, which, i) * parts + start // DEPTH


@jit(borrows=True)
def fetch_panel(piece, which, i, start, stop):
    """Have what `pack_panel` will pack brought to the caches.

    Not for a group, which is read in long stretches and is more than the caches hold beside b.
    """
    this = tile_of(piece.packed)
    if piece.group == 1 and drawn(piece.ready, mark_of(piece, which, i, start)) == 0:
        fetch_some(
            piece.a[which], i * this.rows, (i + 1) * this.rows, start * this.per_word,
            stop * this.per_word, 0, 1,
        )  # fmt: skip


@jit(borrows=True)
def pack_panel(piece, which, i, up, down, start, stop):
    """See that words start to stop of the panel for row i of tiles are packed, with its group.

    Groups are counted from the block's first row `up` and end at its last, `down`. A panel that
    another worker is packing is packed once more: both write the same numbers to the same place,
    and nothing else in between (packing.py).
    """
    low = up + (i - up) // piece.group * piece.group
    at = mark_of(piece, which, low, start)
    if drawn(piece.ready, at) == 0:
        high, panel = min(low + piece.group, down), panel_of(piece, which, low)
        pack(piece.a[which], low, high, start, stop, piece.packed, panel, start)
        draw(piece.ready, at)  # whoever sees that sees what was packed


@jit(borrows=True)
def multiply_row(panels, panel, word, block, left, right, depth, out, y, bottom, add):
    """The tiles left to right of one row of them, whose first row of `out` is `y`."""
    this = tile_of(panels)
    edge = on_stack(out)[: this.rows * this.columns].reshape((this.rows, this.columns))
    for j in range(left, right):
        x = j * this.columns
        if y + this.rows <= bottom and x + this.columns <= out.shape[1]:
            multiply_tile(panels, panel, word, block, j - left, 0, depth, out, y, x, add)
        else:  # a tile that hangs over the edge is made beside the output
            multiply_tile(panels, panel, word, block, j - left, 0, depth, edge, 0, 0, False)
            put_edge(edge, out[y:bottom, x:], add)


@jit(borrows=True)
def put_edge(tile, out, add):
    """Copy as much of `tile` to `out` as it takes, or add it."""
    for i in range(min(tile.shape[0], out.shape[0])):
        for j in range(min(tile.shape[1], out.shape[1])):
            out[i, j] = out[i, j] + tile[i, j] if add else tile[i, j]

"""Attention in tiles: the fast twin of attention.py, which never holds a (T, T) array.

The queries are cut into tiles of 32, and the keys that some query of a tile sees into blocks of 64.
Scores exist for one tile and one block at a time, 64 x 32 numbers that stay in the nearest cache
from the product that makes them to the product that uses them up. Keys that no query of the tile
sees are never visited, which halves the work under a causal mask. Tiles are no larger than the
products need, for in the block on the diagonal the half above it is computed and thrown away.

Online softmax. A row's softmax seems to need all of its scores before the first weight is known.
It does not (Milakov and Gimelshein 2018). Keep, for what was seen so far, the largest score m, the
sum l = sum_j exp(s_j - m) and the weighted values a = sum_j exp(s_j - m) v_j. When a block brings a
larger score m', then exp(s_j - m') = exp(s_j - m) exp(m - m') for every earlier j, so

    l <- l exp(m - m') + sum over the block of exp(s_j - m')
    a <- a exp(m - m') + sum over the block of exp(s_j - m') v_j        and then m <- m'

After the last block, l and a are the very sums that the plain softmax has, taken in another order:
out = a / l and lse = m + log l differ from the reference by rounding only.

Backward (Dao 2023, "FlashAttention-2", algorithm 2) keeps no weights either: those of a block are
computed again, as exp(s - lse), already normalised.

Layout. Scores lie transposed, (keys, queries): a query is a lane of the vectors. So the largest
score, the sum and the mask are work between vectors, never inside one, and the weights p are at
once the right operand of one product and the left operand of another (block_product.py):

    s    = k @ q^T       (keys, queries)        dv   += p @ dout       (keys, D)
    o^T += v^T @ p       (D, queries)           dk   += ds @ q         (keys, D)
    dp   = v @ dout^T    (keys, queries)        dq^T += k^T @ ds       (D, queries)

The copy of k that a task works on is multiplied by the scale already, so that s and dq are right as
they come; only dk is multiplied in the end.

Names end in _t where an array is transposed. Only q and dout have to be turned over, once per tile;
k^T and v^T are views. Sizes are rounded up to whole register tiles and filled with zeros.

bfloat16. With `backend.precision("bfloat16")` the operands of the products are rounded to it: q, v,
dout and the scaled k as they are copied, p and ds as the softmax writes them. (Scaled keys are as
far from their bfloat16 as keys are; a scale that is a power of two costs stored bfloat16 nothing.)
Scores, totals, lse, delta and what the products add up to stay float32, and the totals are those of
the weights before rounding. Delta is made from the rounded dout, as dp is, or ds would not add up
to 0. A product takes two numbers of its summed index at a time. Neighbours in a row are two as they
lie; where two rows are to be summed over, a copy has them side by side. Its name ends in _pairs; in
float32 and float64 it is no copy but the rows themselves.

Heads that share keys are queries like any other: number t * R + r of a group is query t of its head
r < R = H / G, so that a tile reads the shared keys once for all of them.

Parallel: a task is one group of heads of one text or, when those are few, every n-th tile of one.
How many depends on the shape alone. Each adds up its dk and dv by itself, tile after tile, and the
parts of a group are summed in order: the bits do not depend on the number of threads. A thread does
its tasks one after another in the same scratch memory, which stays in its cache.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.jit import jit, prange
from minillm.kernels.attention_decode import forward_few
from minillm.kernels.attention_queries import (
    copy_rows,
    finish,
    gather,
    intervals,
    of_queries,
    scatter,
)
from minillm.kernels.attention_softmax import (
    hide,
    raise_top,
    scale_columns,
    softmax_gradient,
    weigh,
)
from minillm.kernels.bfloat16 import BFLOAT16, BITS, computed_in, raw
from minillm.kernels.block_product import (
    multiply,
    pair_rows,
    pairs_of,
    small_tile,
    stored_as,
)
from minillm.kernels.layout import side_by_side
from minillm.kernels.shares import next_task

TASKS = 16  # wanted at least: enough to share out evenly, few enough parts of dk and dv
QUERIES, KEYS = 32, 64  # queries of a tile and keys of a block: 8 KB of scores in float32
SHARE = 64  # queries that a task has at least
FEW = 8  # queries on the same keys that are better served without tiles

Gradients = tuple[Array, Array, Array]  # of q, k and v


class Plan(NamedTuple):
    """How the work is cut."""

    parts: int  # tasks per group of heads
    queries: int  # of a tile
    keys: int  # of a block
    rows: int  # of the tile in registers
    columns: int
    lanes: int  # of a vector
    pair: int  # numbers of an operand that a product takes at a time


def plan(q: Array, k: Array, like: Array) -> Plan:
    """The plan for queries `q` (B, H, T, D) and keys `k` (B, G, S, D), from their shapes alone.

    `like`: an array whose dtype is that of the products' operands.
    """
    B, H, T, _ = q.shape
    G, tile = k.shape[1], small_tile(computed_in(q))
    count = H // G * T
    queries = min(QUERIES, round_up(count, tile.columns))
    parts = min(-(-TASKS // (B * G)), -(-count // SHARE))
    pair = 2 if like.dtype == BITS else 1
    return Plan(parts, queries, KEYS, tile.rows, tile.columns, tile.lanes, pair)


def in_bfloat16(q: Array, k: Array, v: Array) -> bool:
    """Whether the products round their operands to bfloat16.

    As in linear layers, but a few queries take as long as reading the keys does: they stay exact.
    """
    few = q.shape[1] // max(1, k.shape[1]) * q.shape[2] <= FEW
    return not few and (q.dtype == BFLOAT16 or backend.bfloat16_products(q, k, v))


def _like(q: Array, k: Array, v: Array) -> Array:
    """An empty array of the dtype that operands are brought to: bits, or that of the results."""
    return np.empty(0, BITS if in_bfloat16(q, k, v) else computed_in(q))


def forward_fast(
    q: Array, k: Array, v: Array, first: Array, last: Array, scale: float
) -> tuple[Array, Array]:
    B, H, T, D = q.shape
    q, k, v = side_by_side(q), side_by_side(k), side_by_side(v)
    if 0 < H // max(1, k.shape[1]) * T <= FEW:
        return forward_few(q, k, v, first, last, scale)
    like, dtype = _like(q, k, v), computed_in(q)
    out, lse = np.empty((B, T, H, D), dtype), np.empty((B, H, T), dtype)
    if out.size:
        cut, arrays = plan(q, k, like), (raw(x) for x in (q, k, v))
        workers = min(backend.threads(), B * k.shape[1] * cut.parts)
        _forward_tasks(*arrays, like, first, last, dtype.type(scale), out, lse, workers, cut)
    return out.swapaxes(1, 2), lse


def backward_fast(
    dout: Array,
    q: Array,
    k: Array,
    v: Array,
    out: Array,
    lse: Array,
    first: Array,
    last: Array,
    scale: float,
    into: Gradients | None = None,
) -> Gradients:
    like, dtype = _like(q, k, v), computed_in(q)
    dq, dk, dv = into or [
        np.empty((B, T, heads, D), dtype).swapaxes(1, 2)
        for B, heads, T, D in (q.shape, k.shape, v.shape)
    ]
    if q.size == 0 or k.size == 0:
        dq[...], dk[...], dv[...] = 0, 0, 0
        return dq, dk, dv
    cut = plan(q, k, like)
    parts = [
        x[None] if cut.parts == 1 else np.empty((cut.parts, *x.shape), x.dtype) for x in (dk, dv)
    ]
    arrays = [raw(side_by_side(x)) for x in (dout, q, k, v, out)]
    workers, rows = min(backend.threads(), k.shape[0] * k.shape[1] * cut.parts), dq.swapaxes(1, 2)
    _backward_tasks(*arrays, lse, like, first, last, dtype.type(scale), rows, *parts, workers, cut)
    if cut.parts > 1:
        for x, part in zip((dk, dv), parts, strict=True):
            part.sum(axis=0, out=x)
    return dq, dk, dv


@jit
def tile_at(turn, part, parts):
    """Which tile a part takes at a turn.

    The parts take turns there and back (0 1 2 2 1 0 0 1 2 ..), for later tiles see more keys.
    """
    return turn * parts + (part if turn % 2 == 0 else parts - 1 - part)


@jit
def round_up(size, multiple):
    return -(-size // multiple) * multiple


# --------------------------------------------------------------------------------- forward


@jit(parallel=True, reads=("q", "k", "v", "first", "last"))
def _forward_tasks(q, k, v, like, first, last, scale, out, lse, workers, cut):
    seen = intervals(first, last, q.shape[1] // k.shape[1], k.shape[2], cut.queries)
    tickets = np.zeros(workers, np.int64)
    for worker in prange(workers):
        # Numba's own type for `worker` is unsigned: the function would be compiled for both.
        _forward_worker(q, k, v, like, seen, scale, out, lse, np.int64(worker), tickets, cut)


@jit
def _forward_worker(q, k, v, like, seen, scale, out, lse, worker, tickets, cut):
    """Task after task, as they are shared out, in the same scratch memory.

    The scratch: `room` keys and values, S rounded up, of `depth` numbers, D rounded up to rows of a
    tile; a tile of `size` queries and its sums, transposed (`_t`); the scores of cut.keys keys. In
    backward dkeys, dvalues, queries and douts have `width` numbers, D rounded up to columns.
    """
    B, G, S, D = k.shape
    low, high, ranges = seen
    R, tiles, pair, one = q.shape[1] // G, low.shape[1], cut.pair, lse.dtype.type(1)
    room, depth, size = round_up(S + cut.rows, pair), round_up(D, cut.rows), cut.queries
    keys, values = np.zeros((room, depth), like.dtype), np.zeros((room, depth), like.dtype)
    queries, value_pairs = np.zeros((size, depth), like.dtype), pairs_of(values)
    queries_t = pairs_of(np.empty((depth, size), like.dtype))
    block, sums_t = np.empty((cut.keys, size), lse.dtype), np.empty((depth, size), lse.dtype)
    weights, rows = stored_as(block, like), stored_as(queries, lse)
    weight_pairs = pairs_of(weights)
    top, total = np.empty(size, lse.dtype), np.empty(size, lse.dtype)
    shrink = np.empty(size, lse.dtype)
    while True:
        task, _ = next_task(tickets, worker, B * G * cut.parts)
        if task < 0:
            break
        b, g, part = task // (G * cut.parts), task // cut.parts % G, task % cut.parts
        h, mask = g * R, b % low.shape[0]
        q_here, lse_here = q[b, h : h + R], lse[b, h : h + R]  # (R, T, D), (R, T)
        out_here = out[b, :, h : h + R]  # (T, R, D)
        low_here, high_here = low[mask], high[mask]
        copy_rows(k[b, g], scale, keys)
        copy_rows(v[b, g], one, values)
        pair_rows(values, value_pairs)
        for turn in range(-(-tiles // cut.parts)):
            tile = tile_at(turn, part, cut.parts)
            if tile >= tiles:
                break
            start, stop = ranges[mask, tile, 0] // pair * pair, ranges[mask, tile, 1]
            all_from, all_to = ranges[mask, tile, 2], ranges[mask, tile, 3]
            gather(q_here, tile, queries, queries_t, cut.lanes)
            top[:] = np.finfo(lse.dtype).min  # not -inf, whose differences are NaN
            total[:] = 0
            if start >= stop:
                sums_t[:] = 0  # of weighted values
            for j in range(start, stop, cut.keys):
                end = j + round_up(min(cut.keys, stop - j), cut.rows)
                scores = block[: end - j]
                multiply(scores, keys[j:end], queries_t, False, cut)
                hide(scores, j, low_here, high_here, tile, all_from, all_to, cut.columns)
                raise_top(scores, top, shrink, cut.columns)
                weigh(scores, weights, top, shrink, total, cut.columns)
                if j > start:
                    scale_columns(sums_t, shrink, cut.columns)
                there, here = slice(j // pair, end // pair), slice((end - j) // pair)
                pair_rows(weights, weight_pairs[here])
                multiply(sums_t, value_pairs[there].T, weight_pairs[here], j > start, cut)
            finish(sums_t, top, total, low_here, high_here, tile, lse_here, cut.columns)
            scatter(sums_t, tile, rows, out_here, cut.lanes)


# -------------------------------------------------------------------------------- backward


@jit(
    parallel=True,
    reads=("dout", "q", "k", "v", "out", "lse", "first", "last"),
    writes=("dq", "dk", "dv"),
)
def _backward_tasks(dout, q, k, v, out, lse, like, first, last, scale, dq, dk, dv, workers, cut):
    seen = intervals(first, last, q.shape[1] // k.shape[1], k.shape[2], cut.queries)
    tickets = np.zeros(workers, np.int64)
    for worker in prange(workers):
        _backward_worker(
            dout, q, k, v, out, lse, like, seen, scale, dq, dk, dv, np.int64(worker), tickets, cut
        )


@jit
def _backward_worker(dout, q, k, v, out, lse, like, seen, scale, dq, dk, dv, worker, tickets, cut):
    """As `_forward_worker`, with dq (B, T, H, D) and dk, dv (parts, B, G, S, D)."""
    B, G, S, D = k.shape
    low, high, ranges = seen
    R, tiles, pair, one = q.shape[1] // G, low.shape[1], cut.pair, lse.dtype.type(1)
    room, size = round_up(S + cut.rows, pair), cut.queries
    depth, width = round_up(D, cut.rows), round_up(D, cut.columns)
    keys, values = np.zeros((room, depth), like.dtype), np.zeros((room, depth), like.dtype)
    dkeys, dvalues = np.empty((room, width), lse.dtype), np.empty((room, width), lse.dtype)
    queries, douts = np.zeros((size, width), like.dtype), np.zeros((size, width), like.dtype)
    queries_t = pairs_of(np.empty((depth, size), like.dtype))
    douts_t = pairs_of(np.empty((depth, size), like.dtype))
    block, dblock = np.empty((cut.keys, size), lse.dtype), np.empty((cut.keys, size), lse.dtype)
    dqueries_t = np.empty((depth, size), lse.dtype)
    log_total, delta = np.empty(size, lse.dtype), np.empty(size, lse.dtype)
    weights, dscores = stored_as(block, like), stored_as(dblock, like)
    key_pairs, query_pairs, dout_pairs = pairs_of(keys), pairs_of(queries), pairs_of(douts)
    dscore_pairs, rows = pairs_of(dscores), stored_as(queries, lse)
    while True:
        task, _ = next_task(tickets, worker, B * G * cut.parts)
        if task < 0:
            break
        b, g, part = task // (G * cut.parts), task // cut.parts % G, task % cut.parts
        h, mask = g * R, b % low.shape[0]
        q_here, dout_here, out_here = q[b, h : h + R], dout[b, h : h + R], out[b, h : h + R]
        lse_here, dq_here = lse[b, h : h + R], dq[b, :, h : h + R]
        low_here, high_here = low[mask], high[mask]
        copy_rows(k[b, g], scale, keys)
        copy_rows(v[b, g], one, values)
        pair_rows(keys, key_pairs)
        dkeys[:] = 0
        dvalues[:] = 0
        for turn in range(-(-tiles // cut.parts)):
            tile = tile_at(turn, part, cut.parts)
            if tile >= tiles:
                break
            start, stop = ranges[mask, tile, 0] // pair * pair, ranges[mask, tile, 1]
            all_from, all_to = ranges[mask, tile, 2], ranges[mask, tile, 3]
            gather(q_here, tile, queries, queries_t, cut.lanes)
            gather(dout_here, tile, douts, douts_t, cut.lanes)
            pair_rows(queries, query_pairs)
            pair_rows(douts, dout_pairs)
            of_queries(douts, out_here, lse_here, low_here, high_here, tile, log_total, delta)
            if start >= stop:
                dqueries_t[:] = 0
            for j in range(start, stop, cut.keys):
                end = j + round_up(min(cut.keys, stop - j), cut.rows)
                scores, dweights = block[: end - j], dblock[: end - j]
                multiply(scores, keys[j:end], queries_t, False, cut)
                multiply(dweights, values[j:end], douts_t, False, cut)
                hide(scores, j, low_here, high_here, tile, all_from, all_to, cut.columns)
                softmax_gradient(scores, weights, dweights, dscores, log_total, delta, cut.columns)
                multiply(dvalues[j:end], weights, dout_pairs, True, cut)
                multiply(dkeys[j:end], dscores, query_pairs, True, cut)
                there, here = slice(j // pair, end // pair), slice((end - j) // pair)
                pair_rows(dscores, dscore_pairs[here])
                multiply(dqueries_t, key_pairs[there].T, dscore_pairs[here], j > start, cut)
            scatter(dqueries_t, tile, rows, dq_here, cut.lanes)
        copy_rows(dkeys, scale, dk[part, b, g])
        copy_rows(dvalues, one, dv[part, b, g])

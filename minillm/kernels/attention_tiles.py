"""Attention in tiles: the fast twin of attention.py, which never holds a (T, T) array.

The queries are cut into tiles of 64, and the keys that some query of a tile sees into blocks of 64.
Scores exist for one tile and one block at a time, 64 x 64 numbers that stay in the nearest cache
from the product that makes them to the product that uses them up. Blocks that no query of the tile
sees are never visited, which halves the work under a causal mask.

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

Names end in _t where an array is transposed. Only q and dout have to be turned over, once per tile;
k^T and v^T are views. Sizes are rounded up to whole register tiles and filled with zeros.

Heads that share keys are queries like any other: number t * R + r of a group is query t of its head
r < R = H / G, so that a tile reads the shared keys once for all of them.

Parallel: a task is one group of heads of one text or, when those are few, every n-th tile of one.
How many depends on the shape alone. Each adds up its dk and dv by itself, tile after tile, and the
parts of a group are summed in order: the bits do not depend on the number of threads.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minillm.backend import Array
from minillm.jit import jit, prange
from minillm.kernels.attention_decode import forward_few
from minillm.kernels.block_product import multiply, neighbours, side_by_side, small_tile
from minillm.kernels.transpose import transpose
from minillm.kernels.vector_math import exp

TASKS = 16  # wanted at least: enough to share out evenly, few enough parts of dk and dv
BLOCK = 64  # queries of a tile and keys of a block: 16 KB of scores in float32
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


def plan(q: Array, k: Array) -> Plan:
    """The plan for queries `q` (B, H, T, D) and keys `k` (B, G, S, D), from their shapes alone."""
    B, H, T, _ = q.shape
    G, tile = k.shape[1], small_tile(q.dtype)
    count = H // G * T
    queries = min(BLOCK, round_up(count, tile.columns))
    parts = min(-(-TASKS // (B * G)), -(-count // queries))
    return Plan(parts, queries, BLOCK, tile.rows, tile.columns, tile.lanes)


def forward_fast(
    q: Array, k: Array, v: Array, first: Array, last: Array, scale: float
) -> tuple[Array, Array]:
    B, H, T, D = q.shape
    q, k, v = side_by_side(q), side_by_side(k), side_by_side(v)
    if 0 < H // max(1, k.shape[1]) * T <= FEW:
        return forward_few(q, k, v, first, last, scale)
    out, lse = np.empty((B, T, H, D), q.dtype), np.empty((B, H, T), q.dtype)
    if out.size:
        _forward_tasks(q, k, v, first, last, q.dtype.type(scale), out, lse, plan(q, k))
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
    dq, dk, dv = into or [
        np.empty((B, T, heads, D), q.dtype).swapaxes(1, 2)
        for B, heads, T, D in (q.shape, k.shape, v.shape)
    ]
    if q.size == 0 or k.size == 0:
        dq[...], dk[...], dv[...] = 0, 0, 0
        return dq, dk, dv
    cut = plan(q, k)
    parts = [
        x[None] if cut.parts == 1 else np.empty((cut.parts, *x.shape), x.dtype) for x in (dk, dv)
    ]
    dout, q, k, v, out = (side_by_side(x) for x in (dout, q, k, v, out))
    scale = q.dtype.type(scale)
    _backward_tasks(dout, q, k, v, out, lse, first, last, scale, dq.swapaxes(1, 2), *parts, cut)
    if cut.parts > 1:
        for x, part in zip((dk, dv), parts, strict=True):
            part.sum(axis=0, out=x)
    return dq, dk, dv


# ------------------------------------------------------------------- what both directions share


@jit
def round_up(size, multiple):
    return -(-size // multiple) * multiple


@jit
def padded(x, multiple):
    """A copy of `x` (S, D) in D rounded up, and so many more rows, all zeros."""
    S, D = x.shape
    copy = np.zeros((S + multiple, round_up(D, multiple)), x.dtype)
    for s in range(S):
        row = neighbours(x[s])
        for d in range(D):
            copy[s, d] = row[d]
    return copy


@jit
def first_query(turn, part, parts, queries):
    """Where the tile begins that a part takes at a turn.

    The parts take turns there and back (0 1 2 2 1 0 0 1 2 ..), for later tiles see more keys.
    """
    return queries * (turn * parts + (part if turn % 2 == 0 else parts - 1 - part))


@jit
def gather(x, at, tile, tile_t, scale, lanes):
    """Put the queries of `x` (R, T, D) from number `at` on in `tile`, and scaled in `tile_t`."""
    R, T, D = x.shape
    for i in range(tile.shape[0]):
        t, r = divmod(at + i, R)
        if t < T:
            row = neighbours(x[r, t])
            for d in range(D):
                tile[i, d] = row[d]
        else:
            tile[i] = 0
    transpose(tile[:, :D], tile_t[:D], lanes)
    for d in range(D):
        for i in range(tile.shape[0]):
            tile_t[d, i] *= scale


@jit
def scatter(tile_t, at, tile, x, lanes):
    """Put the rows of `tile_t` (D, queries) in the places of x (T, R, D) from query `at` on.

    `tile` (queries, D or more) is overwritten on the way.
    """
    T, R, D = x.shape
    transpose(tile_t[:D], tile[:, :D], lanes)
    for i in range(min(tile.shape[0], R * T - at)):
        t, r = divmod(at + i, R)
        row = neighbours(x[t, r])
        for d in range(D):
            row[d] = tile[i, d]


@jit
def intervals(first, last, R, S, at, low, high):
    """Fill in which keys, low <= j <= high, each query of a tile sees; none beyond the last query.

    Returns the range of keys that some query sees, and the range that all do.
    """
    some_from, some_to, all_from, all_to = S, 0, 0, S
    for i in range(low.shape[0]):
        t = (at + i) // R
        low[i], high[i] = S, -1
        if t < first.shape[0]:
            low[i], high[i] = max(first[t], 0), min(last[t], S - 1)
        all_from, all_to = max(all_from, low[i]), min(all_to, high[i] + 1)
        if low[i] <= high[i]:
            some_from, some_to = min(some_from, low[i]), max(some_to, high[i] + 1)
    return some_from, some_to, all_from, all_to


@jit
def hide(scores, j, low, high):
    """Set scores (keys from j on, queries) outside of the queries' intervals to -inf."""
    for row in range(scores.shape[0]):
        for i in range(scores.shape[1]):
            if j + row < low[i] or j + row > high[i]:
                scores[row, i] = -np.inf


# --------------------------------------------------------------------------------- forward


@jit(parallel=True, reads=("q", "k", "v", "first", "last"))
def _forward_tasks(q, k, v, first, last, scale, out, lse, cut):
    B, G = k.shape[:2]
    R = q.shape[1] // G
    for task in prange(B * G * cut.parts):
        b, g, part = task // (G * cut.parts), task // cut.parts % G, task % cut.parts
        h, mask = g * R, b % first.shape[0]
        _forward_task(
            q[b, h : h + R], k[b, g], v[b, g], first[mask], last[mask], scale,
            out[b, :, h : h + R], lse[b, h : h + R], part, cut,
        )  # fmt: skip


@jit
def _forward_task(q, k, v, first, last, scale, out, lse, part, cut):
    """The tiles of one part of a group: q (R, T, D), k, v (S, D), out (T, R, D), lse (R, T)."""
    R, T, D = q.shape
    keys, values = padded(k, cut.rows), padded(v, cut.rows)
    depth, size = keys.shape[1], cut.queries
    queries, queries_t = np.empty((size, D), q.dtype), np.zeros((depth, size), q.dtype)
    block, sums_t = np.empty((cut.keys, size), q.dtype), np.empty((depth, size), q.dtype)
    top, total, shrink = np.empty(size, q.dtype), np.empty(size, q.dtype), np.empty(size, q.dtype)
    low, high = np.empty(size, np.int64), np.empty(size, np.int64)
    for turn in range(-(-R * T // (size * cut.parts))):
        at = first_query(turn, part, cut.parts, size)
        gather(q, at, queries, queries_t, scale, cut.lanes)
        start, stop, all_from, all_to = intervals(first, last, R, k.shape[0], at, low, high)
        top[:] = np.finfo(q.dtype).min  # not -inf, whose differences are NaN
        total[:] = 0
        sums_t[:] = 0  # of weighted values
        for j in range(start, stop, cut.keys):
            end = j + round_up(min(cut.keys, stop - j), cut.rows)
            weights = block[: end - j]
            multiply(weights, keys[j:end], queries_t, False, cut)
            if j < all_from or end > all_to:
                hide(weights, j, low, high)
            online_softmax(weights, top, total, shrink, sums_t)
            multiply(sums_t, values[j:end].T, weights, True, cut)
        finish(sums_t, top, total, low, high, at, lse)
        scatter(sums_t, at, queries, out, cut.lanes)


@jit
def online_softmax(scores, top, total, shrink, sums_t):
    """Scores (keys, queries) become weights; what was summed before is shrunk to the new top."""
    keys, queries = scores.shape
    for i in range(queries):
        shrink[i] = top[i]
    for row in range(keys):
        for i in range(queries):
            top[i] = max(top[i], scores[row, i])
    for i in range(queries):
        shrink[i] = exp(shrink[i] - top[i])
        total[i] *= shrink[i]
    for row in range(keys):
        for i in range(queries):
            weight = exp(scores[row, i] - top[i])
            scores[row, i] = weight
            total[i] += weight
    for d in range(sums_t.shape[0]):
        for i in range(queries):
            sums_t[d, i] *= shrink[i]


@jit
def finish(sums_t, top, total, low, high, at, lse):
    """Divide the sums of a tile's queries by their totals, and put down their lse."""
    R, T = lse.shape
    for i in range(low.shape[0]):
        share = total[i]
        if low[i] <= high[i]:  # else it saw nothing and its sums are 0
            share = total.dtype.type(1) / total[i]
        if at + i < R * T:
            t, r = divmod(at + i, R)
            lse[r, t] = top[i] + np.log(total[i]) if low[i] <= high[i] else -np.inf
        total[i] = share
    for d in range(sums_t.shape[0]):
        for i in range(low.shape[0]):
            sums_t[d, i] *= total[i]


# -------------------------------------------------------------------------------- backward


@jit(parallel=True, reads=("dout", "q", "k", "v", "out", "lse", "first", "last"))
def _backward_tasks(dout, q, k, v, out, lse, first, last, scale, dq, dk, dv, cut):
    B, G = k.shape[:2]
    R = q.shape[1] // G
    for task in prange(B * G * cut.parts):
        b, g, part = task // (G * cut.parts), task // cut.parts % G, task % cut.parts
        h, mask = g * R, b % first.shape[0]
        _backward_task(
            dout[b, h : h + R], q[b, h : h + R], k[b, g], v[b, g], out[b, h : h + R],
            lse[b, h : h + R], first[mask], last[mask], scale,
            dq[b, :, h : h + R], dk[part, b, g], dv[part, b, g], part, cut,
        )  # fmt: skip


@jit
def _backward_task(dout, q, k, v, out, lse, first, last, scale, dq, dk, dv, part, cut):
    """As `_forward_task`, with dout, out (R, T, D), dq (T, R, D) and dk, dv (S, D)."""
    R, T, D = q.shape
    keys, values = padded(k, cut.rows), padded(v, cut.rows)
    (room, depth), size = keys.shape, cut.queries
    width = round_up(D, cut.columns)
    dkeys, dvalues = np.zeros((room, width), q.dtype), np.zeros((room, width), q.dtype)
    queries, queries_t = np.zeros((size, width), q.dtype), np.zeros((depth, size), q.dtype)
    douts, douts_t = np.zeros((size, width), q.dtype), np.zeros((depth, size), q.dtype)
    block, dblock = np.empty((cut.keys, size), q.dtype), np.empty((cut.keys, size), q.dtype)
    dqueries_t = np.empty((depth, size), q.dtype)
    log_total, delta = np.empty(size, q.dtype), np.empty(size, q.dtype)
    low, high = np.empty(size, np.int64), np.empty(size, np.int64)
    for turn in range(-(-R * T // (size * cut.parts))):
        at = first_query(turn, part, cut.parts, size)
        gather(q, at, queries, queries_t, scale, cut.lanes)
        gather(dout, at, douts, douts_t, q.dtype.type(1), cut.lanes)
        start, stop, all_from, all_to = intervals(first, last, R, k.shape[0], at, low, high)
        of_queries(douts, out, lse, at, low, high, log_total, delta)
        dqueries_t[:] = 0
        for j in range(start, stop, cut.keys):
            end = j + round_up(min(cut.keys, stop - j), cut.rows)
            weights, dscores = block[: end - j], dblock[: end - j]
            multiply(weights, keys[j:end], queries_t, False, cut)
            multiply(dscores, values[j:end], douts_t, False, cut)
            if j < all_from or end > all_to:
                hide(weights, j, low, high)
            softmax_gradient(weights, dscores, log_total, delta)
            multiply(dvalues[j:end], weights, douts, True, cut)
            multiply(dkeys[j:end], dscores, queries, True, cut)
            multiply(dqueries_t, keys[j:end].T, dscores, True, cut)
        for d in range(D):
            for i in range(size):
                dqueries_t[d, i] *= scale
        scatter(dqueries_t, at, queries, dq, cut.lanes)
    for s in range(k.shape[0]):
        dkey, dvalue = neighbours(dk[s]), neighbours(dv[s])
        for d in range(D):
            dkey[d] = dkeys[s, d] * scale
            dvalue[d] = dvalues[s, d]


@jit
def of_queries(douts, out, lse, at, low, high, log_total, delta):
    """Fill in a tile's lse, and delta = dout . out; 0 for a query that sees nothing."""
    R, _, D = out.shape
    for i in range(low.shape[0]):
        log_total[i] = 0
        delta[i] = 0
        t, r = divmod(at + i, R)
        if low[i] <= high[i]:
            log_total[i] = lse[r, t]
            row = neighbours(out[r, t])
            for d in range(D):
                delta[i] += douts[i, d] * row[d]


@jit
def softmax_gradient(scores, dweights, log_total, delta):
    """Scores (keys, queries) become weights, and the gradient of weights that of scores."""
    for row in range(scores.shape[0]):
        for i in range(scores.shape[1]):
            weight = exp(scores[row, i] - log_total[i])
            scores[row, i] = weight
            dweights[row, i] = weight * (dweights[row, i] - delta[i])

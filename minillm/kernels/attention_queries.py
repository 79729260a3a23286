"""Where queries stand and what they see: attention's tiles, filled and emptied.

The queries of the heads that share keys are numbered t * R + r: query t of head r < R = H / G. A
tile is a run of these numbers. Here they come together from their places in x (R, T, D), and go
back; and here the intervals of keys that they see (attention.py) become those of tiles.
"""

from __future__ import annotations

import numpy as np

from minillm.jit import jit
from minillm.kernels.attention_softmax import scale_columns
from minillm.kernels.bfloat16 import take
from minillm.kernels.layout import neighbours
from minillm.kernels.transpose import copy_row, transpose


@jit
def intervals(first, last, R, S, size):
    """Which keys the queries of each tile see, from first, last (masks, T).

    Returns int32 (masks, tiles, size) `low` and `high`: a query sees the keys low <= j <= high, and
    none where it stands beyond the last query; and `ranges` (masks, tiles, 4): from which key to
    which some query of the tile sees keys, and from which to which all do.
    """
    masks, T = first.shape
    tiles = -(-R * T // size)
    low, high = np.empty((masks, tiles, size), np.int32), np.empty((masks, tiles, size), np.int32)
    ranges = np.empty((masks, tiles, 4), np.int64)
    for mask in range(masks):
        for tile in range(tiles):
            some_from, some_to, all_from, all_to = S, 0, 0, S
            for i in range(size):
                t, start, stop = (tile * size + i) // R, S, 0
                if t < T:
                    start, stop = max(first[mask, t], 0), min(last[mask, t] + 1, S)
                if start < stop:
                    some_from, some_to = min(some_from, start), max(some_to, stop)
                all_from, all_to = max(all_from, start), min(all_to, stop)
                low[mask, tile, i], high[mask, tile, i] = start, stop - 1
            ranges[mask, tile, 0], ranges[mask, tile, 1] = some_from, some_to
            ranges[mask, tile, 2], ranges[mask, tile, 3] = all_from, all_to
    return low, high, ranges


@jit(borrows=True)
def copy_rows(x, scale, copy):
    """copy[s, d] = x[s, d] * scale, for x (S, D); the rest of `copy` stays as it is."""
    for s in range(min(x.shape[0], copy.shape[0])):
        copy_row(x, (s,), copy, (s,), scale)


@jit(borrows=True)
def gather(x, tile, queries, queries_t, lanes):
    """Put a tile of the queries of `x` (R, T, D) in `queries`, and transposed in `queries_t`.

    `queries` (queries, D or more): of what is beyond D nothing is written.
    """
    R, T = x.shape[:2]
    t, r = divmod(tile * queries.shape[0], R)
    for i in range(queries.shape[0]):
        if t < T:
            copy_row(x, (r, t), queries, (i,), 1)
        else:
            queries[i] = 0
        r += 1
        if r == R:
            t, r = t + 1, 0
    transpose(queries, queries_t, lanes)


@jit(borrows=True)
def scatter(queries_t, tile, queries, x, lanes):
    """Put the rows of `queries_t` (D, queries) in the places of a tile in x (T, R, D).

    `queries` (queries, D or more) is overwritten on the way.
    """
    T, R, D = x.shape
    transpose(queries_t[:D], queries[:, :D], lanes)
    at = tile * queries.shape[0]
    t, r = divmod(at, R)
    for i in range(min(queries.shape[0], R * T - at)):
        copy_row(queries, (i,), x, (t, r), 1)
        r += 1
        if r == R:
            t, r = t + 1, 0


@jit(borrows=True)
def finish(sums_t, top, total, low, high, tile, lse, columns):
    """Divide the sums of a tile's queries by their totals, and put down their lse."""
    R, T = lse.shape
    t, r = divmod(tile * top.shape[0], R)
    for i in range(top.shape[0]):
        if t < T:
            seen = low[tile, i] <= high[tile, i]
            lse[r, t] = top[i] + np.log(total[i]) if seen else -np.inf
        r += 1
        if r == R:
            t, r = t + 1, 0
    for i in range(top.shape[0]):
        if low[tile, i] <= high[tile, i]:
            total[i] = total.dtype.type(1) / total[i]
        else:
            total[i] = 0  # without keys its sums are 0
    scale_columns(sums_t, total, columns)


@jit(borrows=True)
def of_queries(douts, out, lse, low, high, tile, log_total, delta):
    """Fill in a tile's lse, and delta = dout . out; 0 for a query that sees nothing."""
    R, _, D = out.shape
    t, r = divmod(tile * delta.shape[0], R)
    for i in range(delta.shape[0]):
        log_total[i] = 0
        delta[i] = 0
        if low[tile, i] <= high[tile, i]:
            log_total[i] = lse[r, t]
            row, drow = neighbours(out[r, t]), neighbours(douts[i])
            total = delta.dtype.type(0)
            for d in range(D):
                total += take(drow, d) * take(row, d)
            delta[i] = total
        r += 1
        if r == R:
            t, r = t + 1, 0

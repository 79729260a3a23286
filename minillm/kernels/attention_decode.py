"""Attention of a few queries over many keys: the other fast twin, for writing token by token.

A model that writes asks with one query per head and text, over all the keys in its cache. There is
nothing to tile: each key and each value is read once and used for a handful of multiplications, so
the time is that of reading memory. The tiles of attention_tiles.py would copy the keys and fill
whole vectors with queries that do not exist; here the scores of a head are one pass over its keys,
the output is one pass over its values, and vectors run along D.

The result is the reference's up to rounding: the scores of a query all fit in memory (S numbers),
so its softmax is the plain one. Heads that share keys take turns at each block of them, while the
block is in cache. Parallel over texts and groups of heads.
"""

from __future__ import annotations

import numpy as np

from minillm.backend import Array
from minillm.jit import jit, prange
from minillm.kernels.bfloat16 import computed_in, raw, take
from minillm.kernels.layout import neighbours
from minillm.kernels.softmax import LANES, largest, normalize

BLOCK = 64  # keys that one query after another looks at


def forward_few(
    q: Array, k: Array, v: Array, first: Array, last: Array, scale: float
) -> tuple[Array, Array]:
    """As `attention.forward`; the numbers of the last axis of q, k and v lie side by side."""
    (B, H, T, D), dtype = q.shape, computed_in(q)
    out, lse = np.empty((B, T, H, D), dtype), np.empty((B, H, T), dtype)
    _forward_tasks(raw(q), raw(k), raw(v), first, last, dtype.type(scale), out, lse)
    return out.swapaxes(1, 2), lse


@jit(parallel=True, reads=("q", "k", "v", "first", "last"))
def _forward_tasks(q, k, v, first, last, scale, out, lse):
    B, G = k.shape[:2]
    R = q.shape[1] // G
    for task in prange(B * G):
        b, g = task // G, task % G
        h, mask = g * R, b % first.shape[0]
        _forward_task(
            q[b, h : h + R], k[b, g], v[b, g], first[mask], last[mask], scale,
            out[b, :, h : h + R], lse[b, h : h + R],
        )  # fmt: skip


@jit(forceinline=True)
def _forward_task(q, k, v, first, last, scale, out, lse):
    """One group of heads: q (R, T, D), k, v (S, D), first, last (T,), out (T, R, D), lse (R, T)."""
    R, T, D = q.shape
    S = k.shape[0]
    scores, sums = np.empty((T, R, S), lse.dtype), np.zeros((T, R, D), lse.dtype)
    for start in range(0, S, BLOCK):
        for t in range(T):
            for r in range(R):
                query = neighbours(q[r, t])
                for j in range(max(start, first[t]), min(start + BLOCK, S, last[t] + 1)):
                    key = neighbours(k[j])
                    score = lse.dtype.type(0)
                    for d in range(D):
                        score += take(query, d) * take(key, d)
                    scores[t, r, j] = score * scale
    lanes = np.empty(LANES, lse.dtype)
    for t in range(T):
        for r in range(R):
            seen = scores[t, r, max(0, first[t]) : max(0, min(S, last[t] + 1))]
            lse[r, t] = -np.inf
            if seen.shape[0] > 0:
                top = largest(seen, lanes)
                lse[r, t] = top + np.log(normalize(seen, seen, top))
    for start in range(0, S, BLOCK):
        for t in range(T):
            for r in range(R):
                for j in range(max(start, first[t]), min(start + BLOCK, S, last[t] + 1)):
                    value, weight = neighbours(v[j]), scores[t, r, j]
                    for d in range(D):
                        sums[t, r, d] += weight * take(value, d)
    for t in range(T):
        for r in range(R):
            for d in range(D):
                out[t, r, d] = sums[t, r, d]

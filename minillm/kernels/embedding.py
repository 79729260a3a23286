"""Embedding: row `ids[...]` of a table, and the scatter-add that is its derivative.

    out[...] = weight[ids[...]]              dweight[r] = sum over all places where ids is r of dout

A lookup is a product with one-hot rows, never made. So its derivative adds each row of `dout` to the
row of `dweight` that it was read from; rows that nobody read get 0.

Shapes: weight, dweight (V, C), ids (...), out, dout (..., C). Source: Bengio et al. 2003, "A neural
probabilistic language model", section 2 (the shared matrix C).
"""

from __future__ import annotations

import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.jit import jit, prange

# ------------------------------------------------------------------------------- reference


def forward_reference(weight: Array, ids: Array) -> Array:
    """Rows `ids` (...) of `weight` (V, C): (..., C)."""
    return weight[ids]


def backward_reference(dout: Array, ids: Array, vocab_size: int) -> Array:
    """Gradient (V, C) of the table from `dout` (..., C)."""
    xp = backend.array_module(dout)
    C = dout.shape[-1]
    dweight = xp.zeros((vocab_size, C), dout.dtype)
    xp.add.at(dweight, ids.reshape(-1), dout.reshape(ids.size, C))
    return dweight


# ------------------------------------------------------------------------------- fast twin
#
# Two threads must not add to one row at a time, and sums must keep their order. So the places are
# sorted by the row they belong to (a stable sort keeps equal ones in order); then each run of equal
# ids is one row, added up by one thread. Rows that nobody read cost only their zeros.


def forward_fast(weight: Array, ids: Array) -> Array:
    flat = np.ascontiguousarray(ids).reshape(-1)
    out = np.empty((flat.size, weight.shape[1]), weight.dtype)
    if out.size > SERIAL:
        _gather_parallel(np.ascontiguousarray(weight), flat, out)
    else:
        np.take(weight, flat, axis=0, out=out)
    return out.reshape(*ids.shape, weight.shape[1])


SERIAL = 1 << 14  # numbers; below, starting threads would take longer than copying


@jit(parallel=True)
def _gather_parallel(weight, ids, out):
    for n in prange(ids.size):
        out[n] = weight[ids[n]]


def backward_fast(dout: Array, ids: Array, vocab_size: int) -> Array:
    C = dout.shape[-1]
    dweight = np.zeros((vocab_size, C), dout.dtype)
    if dout.size:
        flat = np.ascontiguousarray(ids).reshape(-1)
        order = np.argsort(flat, kind="stable")
        sorted_ids = flat[order]
        runs = np.flatnonzero(np.diff(sorted_ids, prepend=sorted_ids[0] - 1))
        _add_runs(dweight, np.ascontiguousarray(dout).reshape(-1, C), order, sorted_ids,
                  np.append(runs, flat.size))  # fmt: skip
    return dweight


@jit(parallel=True)
def _add_runs(dweight, dout, order, sorted_ids, runs):
    for run in prange(runs.size - 1):
        row = dweight[sorted_ids[runs[run]]]
        for place in range(runs[run], runs[run + 1]):
            source = dout[order[place]]
            for c in range(row.size):
                row[c] += source[c]


# ---------------------------------------------------------------------------------- public


def forward(weight: Array, ids: Array) -> Array:
    """Rows of `weight` (V, C), float32 or float64, at the whole numbers `ids` (...): (..., C).

    The ids are trusted to lie below V and at or above 0; `functional.embedding` checks them.
    """
    return forward_fast(weight, ids) if backend.fast(weight, ids) else forward_reference(weight, ids)


def backward(dout: Array, ids: Array, vocab_size: int) -> Array:
    """Gradient (vocab_size, C) of the table from `dout` (..., C)."""
    backward = backward_fast if backend.fast(dout, ids) else backward_reference
    return backward(dout, ids, vocab_size)

"""Embedding: row `ids[...]` of a table, and the scatter-add that is its derivative.

    out[...] = weight[ids[...]]              dweight[r] = sum over all places where ids is r of dout

A lookup is a product with one-hot rows, never made. So its derivative adds each row of `dout` to
the row of `dweight` that it was read from; rows that nobody read get 0.

Shapes: weight, dweight (V, C), ids (...), out, dout (..., C). Source: Bengio et al. 2003, "A neural
probabilistic language model", section 2 (the shared matrix C).
"""

from __future__ import annotations

import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.jit import jit, prange
from minillm.kernels.layout import PART, flat, rows

# ------------------------------------------------------------------------------- reference


def forward_reference(weight: Array, ids: Array) -> Array:
    """Rows `ids` (...) of `weight` (V, C): (..., C)."""
    return weight[ids]


def backward_reference(dout: Array, ids: Array, dweight: Array) -> None:
    """Add the gradient of the table from `dout` (..., C) to `dweight` (V, C)."""
    xp = backend.array_module(dout)
    xp.add.at(dweight, ids.reshape(-1), dout.reshape(ids.size, dout.shape[-1]))


# ------------------------------------------------------------------------------- fast twin
#
# Two threads must not add to one number at a time, and sums must keep their order. So each thread
# has columns of its own and walks over all places, from the first to the last. Rows that nobody
# read cost nothing.

COLUMNS = 128  # that one thread adds at a time


def forward_fast(weight: Array, ids: Array) -> Array:
    out = np.empty((*ids.shape, weight.shape[1]), weight.dtype)
    if out.size:
        _gather(rows(weight), flat(ids), out.reshape(ids.size, -1))
    return out


def backward_fast(dout: Array, ids: Array, dweight: Array) -> None:
    if dout.size:
        _scatter(rows(dout), flat(ids), dweight)


@jit(parallel=True)
def _gather(weight, ids, out):
    if out.size < 2 * PART:
        for n in range(ids.size):
            _copy(weight[ids[n]], out[n])
    else:
        for n in prange(ids.size):
            _copy(weight[ids[n]], out[n])


@jit(forceinline=True)
def _copy(row, out):
    for c in range(row.size):
        out[c] = row[c]


@jit(parallel=True)
def _scatter(dout, ids, dweight):
    width = dout.shape[1]
    if width <= COLUMNS:
        _add_rows(dout, ids, dweight, 0, width)
    else:
        for part in prange((width + COLUMNS - 1) // COLUMNS):
            _add_rows(dout, ids, dweight, part * COLUMNS, min((part + 1) * COLUMNS, width))


@jit(forceinline=True)
def _add_rows(dout, ids, dweight, left, right):
    for n in range(ids.size):
        row, more = dweight[ids[n], left:right], dout[n, left:right]
        for c in range(row.size):
            row[c] += more[c]


# ---------------------------------------------------------------------------------- public


def forward(weight: Array, ids: Array) -> Array:
    """Rows of `weight` (V, C), float32 or float64, at the whole numbers `ids` (...): (..., C).

    The ids are trusted to lie below V and at or above 0; `functional.embedding` checks them.
    """
    if backend.fast(weight, ids):
        return forward_fast(weight, ids)
    return forward_reference(weight, ids)


def backward(dout: Array, ids: Array, dweight: Array) -> None:
    """Add the gradient of the table from `dout` (..., C) to `dweight` (V, C)."""
    backward = backward_fast if backend.fast(dout, ids, dweight) else backward_reference
    backward(dout, ids, dweight)

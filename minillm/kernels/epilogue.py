"""The end of a product: what is done to its output while that is still in the nearest cache.

A linear layer hardly ever ends with its product. A bias is added, then an activation follows, or
the sum with what came into the branch. Each of these is little arithmetic, but done by itself it is
a pass over memory. Here it is done to a few rows of the output right after their last tile is
stored (blocking.py calls `finish`). `p` stands for the numbers of the product a @ b:

    NOTHING        out = p + bias
    ADD            out = p + bias + beside
    GELU           beside = p + bias,            out = gelu(beside)
    GELU_BACK      out = p gelu'(beside),        then beside = gelu(beside)

`beside` is an array of the output's shape: the other summand; or what GELU's derivative will need.
It may be stored in bfloat16 where the output is float32.

GELU_BACK is for the way back through a feed-forward layer: the product is the gradient of GELU's
output, which becomes that of its input; and GELU's output is computed again for the product that
makes the gradient of the next weight, so that nobody has to keep it (feed_forward.py).

GELU is the one of gelu.py, in either form: GELU and GELU_BACK plus TANH is the second.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from minillm.backend import Array
from minillm.jit import jit
from minillm.kernels import gelu
from minillm.kernels.bfloat16 import BFLOAT16, put, raw, take
from minillm.kernels.gelu import NORMAL_CLIP, PEAK, TANH_CLIP, A, B, erf_both, tanh_both
from minillm.kernels.layout import flat

NOTHING, ADD, GELU, GELU_BACK = 0, 1, 2, 4
TANH = 1  # GELU + TANH and GELU_BACK + TANH


class Epilogue(NamedTuple):
    """What to do to the output of a product; `bias` (N,) and `beside` are empty where not used."""

    kind: int
    bias: Array
    beside: Array  # of the output's shape; GELU and GELU_BACK write to it


@functools.cache
def _nothing(dtype: np.dtype) -> Epilogue:
    return Epilogue(NOTHING, flat(np.empty(0, dtype)), np.empty((0, 0, 0), dtype))


def epilogue(
    bias: Array | None, kind: int = NOTHING, beside: Array | None = None
) -> Epilogue | None:
    """The epilogue that adds `bias` and then does what `kind` says; None where it is nothing."""
    if kind == NOTHING and bias is None:
        return None
    none = _nothing(np.dtype(np.float32))
    return Epilogue(
        kind, none.bias if bias is None else bias, none.beside if beside is None else beside
    )


def fitted(end: Epilogue | None, out: Array) -> Epilogue:
    """`end` with its arrays as the twin takes them, for an output (n, M, N)."""
    none = _nothing(out.dtype)
    if end is None:
        return none
    bias = flat(np.asarray(end.bias, out.dtype)) if end.bias.size else none.bias
    beside = none.beside
    if end.kind:
        stored = BFLOAT16 if end.beside.dtype == BFLOAT16 else out.dtype
        beside = end.beside
        if beside.dtype != stored or not beside.flags.carray:  # it is slow to say no
            beside = np.require(beside, stored, ["C", "W"])
        beside = raw(beside).reshape(out.shape)
    return Epilogue(end.kind, bias, beside)


def name_of(kind: int) -> str:
    """GELU's `approximate` in an epilogue of this kind."""
    return "tanh" if kind & TANH else "none"


# ------------------------------------------------------------------------------- reference


def finish_reference(out: Array, end: Epilogue) -> Array:
    """`out`, with the epilogue done to all of it."""
    if end.bias.size:
        out = out + end.bias
    if end.kind == ADD:
        return out + end.beside.reshape(out.shape)
    if end.kind in (GELU, GELU + TANH):
        end.beside[...] = out.reshape(end.beside.shape)
        return gelu.forward_reference(out, name_of(end.kind))
    if end.kind in (GELU_BACK, GELU_BACK + TANH):
        before = end.beside.reshape(out.shape).astype(out.dtype)
        value = gelu.forward_reference(before, name_of(end.kind))
        end.beside[...] = value.reshape(end.beside.shape)
        return gelu.backward_reference(out, before, name_of(end.kind))
    return out


# ------------------------------------------------------------------------------- fast twin
#
# A row at a time: loops over two rows are what the compiler turns into vectors. The kind is looked
# at once a row, so that one compiled product serves all kinds.


@jit(borrows=True)
def finish(out, end, n, top, bottom, left, right):
    """Do the epilogue to rows top to bottom, columns left to right, of out[n]."""
    for i in range(top, bottom):
        row = out[n, i, left:right]
        if end.bias.size > 0:
            add(row, end.bias[left:right])
        if end.kind == ADD:
            add(row, end.beside[n, i, left:right])
        elif end.kind == GELU:
            gelu_row(row, end.beside[n, i, left:right])
        elif end.kind == GELU + TANH:
            gelu_tanh_row(row, end.beside[n, i, left:right])
        elif end.kind == GELU_BACK:
            gelu_back_row(row, end.beside[n, i, left:right])
        elif end.kind == GELU_BACK + TANH:
            gelu_tanh_back_row(row, end.beside[n, i, left:right])


@jit(borrows=True)
def finish_all(out, end):
    """Do the epilogue to a whole output (n, M, N)."""
    for n in range(out.shape[0]):
        finish(out, end, n, 0, out.shape[1], 0, out.shape[2])


@jit(borrows=True)
def add(row, other):
    """row (N,) += other (N,), numbers or bits of bfloat16."""
    for j in range(row.size):
        row[j] += take(other, j)


@jit(borrows=True)
def gelu_row(row, before):
    """before (N,) = row, which may be rounded to bits, and row = gelu(row)."""
    peak, clip = row.dtype.type(PEAK), row.dtype.type(NORMAL_CLIP)
    for j in range(row.size):
        put(before, j, row[j])
        row[j] = erf_both(row[j], peak, clip)[0]


@jit(borrows=True)
def gelu_back_row(row, before):
    """row (N,), a gradient, times gelu'(before); before (N,) = gelu(before)."""
    peak, clip = row.dtype.type(PEAK), row.dtype.type(NORMAL_CLIP)
    for j in range(row.size):
        value, slope = erf_both(take(before, j), peak, clip)
        row[j] *= slope
        put(before, j, value)


@jit(borrows=True)
def gelu_tanh_row(row, before):
    """`gelu_row` with the GELU made of tanh."""
    one, twice_a = row.dtype.type(1), row.dtype.type(2 * A)
    b, clip = row.dtype.type(B), row.dtype.type(TANH_CLIP)
    for j in range(row.size):
        put(before, j, row[j])
        row[j] = tanh_both(row[j], one, twice_a, b, clip)[0]


@jit(borrows=True)
def gelu_tanh_back_row(row, before):
    """`gelu_back_row` with the GELU made of tanh."""
    one, twice_a = row.dtype.type(1), row.dtype.type(2 * A)
    b, clip = row.dtype.type(B), row.dtype.type(TANH_CLIP)
    for j in range(row.size):
        value, slope = tanh_both(take(before, j), one, twice_a, b, clip)
        row[j] *= slope
        put(before, j, value)

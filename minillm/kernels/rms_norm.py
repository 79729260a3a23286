"""RMS norm: each row is divided by its root mean square, then scaled.

    rstd = 1 / sqrt((1/C) sum_c x_c^2 + eps),     n_c = x_c rstd,     out_c = weight_c n_c

Layer norm without the mean (layer_norm.py): cheaper, and as good in practice.

Derivative. With d_c = dout_c weight_c, the gradient of n_c, all that the norm takes away is the
part of d along n, because stretching a row changes nothing:

    dx_c = rstd (d_c - n_c (1/C) sum_k d_k n_k),      dweight_c = sum over rows of dout_c n_c

Shapes: x, out, dout, dx (..., C); weight (C,); rstd (...). Source: Zhang and Sennrich 2019,
"Root mean square layer normalization", equation 4.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.jit import jit, prange
from minillm.kernels.bfloat16 import put, raw
from minillm.kernels.layer_norm import CHUNK_ROWS, MOST_CHUNKS, add_up
from minillm.kernels.layout import rows

# ------------------------------------------------------------------------------- reference


def forward_reference(
    x: Array, weight: Array, eps: float, stored: Any = None
) -> tuple[Array, Array]:
    """out (..., C), and rstd (...) for backward."""
    xp = backend.array_module(x)
    rstd = 1 / xp.sqrt((x * x).sum(axis=-1) / max(1, x.shape[-1]) + eps)
    out = x * rstd[..., None] * weight
    return out.astype(stored or out.dtype, copy=False), rstd


def backward_reference(dout: Array, x: Array, weight: Array, rstd: Array) -> tuple[Array, Array]:
    """dx (..., C) and dweight (C,)."""
    n = x * rstd[..., None]
    d = dout * weight
    along = (d * n).sum(axis=-1) / max(1, x.shape[-1])
    dx = rstd[..., None] * (d - n * along[..., None])
    return dx, (dout * n).sum(axis=tuple(range(x.ndim - 1)))


# ------------------------------------------------------------------------------- fast twin
#
# As in layer_norm.py: rows in parallel, each read from memory once, and dweight added up by chunks
# of rows whose number depends on the shape alone.


def forward_fast(x: Array, weight: Array, eps: float, stored: Any = None) -> tuple[Array, Array]:
    if x.size == 0:
        return forward_reference(x, weight, eps, stored)
    C = x.shape[-1]
    out, rstd = np.empty(x.shape, stored or x.dtype), np.empty(x.shape[:-1], x.dtype)
    _forward(rows(x), rows(weight), x.dtype.type(eps), raw(out).reshape(-1, C), rstd.reshape(-1))
    return out, rstd


def backward_fast(dout: Array, x: Array, weight: Array, rstd: Array) -> tuple[Array, Array]:
    if x.size == 0:
        return backward_reference(dout, x, weight, rstd)
    C = x.shape[-1]
    dx, dweight = np.empty(x.shape, x.dtype), np.empty(C, x.dtype)
    _backward(rows(dout), rows(x), rows(weight), rstd.reshape(-1), dx.reshape(-1, C), dweight)
    return dx, dweight


@jit(parallel=True)
def _forward(x, weight, eps, out, rstd):
    count = x.shape[0]
    chunks = min(MOST_CHUNKS, (count + CHUNK_ROWS - 1) // CHUNK_ROWS)
    if chunks == 1:
        _forward_rows(x, weight[0], eps, out, rstd)
    else:
        for chunk in prange(chunks):
            i, j = chunk * count // chunks, (chunk + 1) * count // chunks
            _forward_rows(x[i:j], weight[0], eps, out[i:j], rstd[i:j])


@jit(forceinline=True)
def _forward_rows(x, weight, eps, out, rstd):
    C, number = x.shape[1], x.dtype.type
    for n in range(x.shape[0]):
        squares = number(0)
        for c in range(C):
            squares += x[n, c] * x[n, c]
        factor, row = number(1) / np.sqrt(squares / number(C) + eps), out[n]
        for c in range(C):
            put(row, c, x[n, c] * factor * weight[c])
        rstd[n] = factor


@jit(parallel=True)
def _backward(dout, x, weight, rstd, dx, dweight):
    count, C = x.shape
    chunks = min(MOST_CHUNKS, (count + CHUNK_ROWS - 1) // CHUNK_ROWS)
    if chunks == 1:
        _backward_rows(dout, x, weight[0], rstd, dx, dweight)
    else:
        parts = np.empty((chunks, C), x.dtype)
        for chunk in prange(chunks):
            i, j = chunk * count // chunks, (chunk + 1) * count // chunks
            _backward_rows(dout[i:j], x[i:j], weight[0], rstd[i:j], dx[i:j], parts[chunk])
        add_up(parts, dweight)


@jit(forceinline=True)
def _backward_rows(dout, x, weight, rstd, dx, dweight):
    C, number = x.shape[1], x.dtype.type
    dweight[:] = 0
    for n in range(x.shape[0]):
        factor, along = rstd[n], number(0)
        for c in range(C):
            normed = x[n, c] * factor
            along += dout[n, c] * weight[c] * normed
        along /= number(C)
        for c in range(C):
            normed = x[n, c] * factor
            dx[n, c] = factor * (dout[n, c] * weight[c] - normed * along)
            dweight[c] += dout[n, c] * normed


# ---------------------------------------------------------------------------------- public


def forward(x: Array, weight: Array, eps: float = 1e-6, stored: Any = None) -> tuple[Array, Array]:
    """Divide `x` (..., C) by its root mean square over the last axis and scale by `weight` (C,).

    float32 or float64, of one dtype. Returns out (..., C), and rstd (...), which backward needs.
    `stored` is the dtype of out, if not that of x: bfloat16 for what goes into products that
    round it anyway.
    """
    run = forward_fast if backend.fast(x) else forward_reference
    return run(x, weight, eps, stored)


def backward(dout: Array, x: Array, weight: Array, rstd: Array) -> tuple[Array, Array]:
    """Gradients (dx (..., C), dweight (C,)) from `dout` (..., C)."""
    if backend.fast(dout, x):
        return backward_fast(dout, x, weight, rstd)
    return backward_reference(dout, x, weight, rstd)

"""Layer norm: each row is brought to mean 0 and variance 1, then scaled and shifted.

    mean = (1/C) sum_c x_c,   rstd = 1 / sqrt((1/C) sum_c (x_c - mean)^2 + eps)
    n_c = (x_c - mean) rstd
    out_c = weight_c n_c + bias_c

Derivative. Let d_c = dout_c weight_c be the gradient of n_c. x_c acts on the loss in three ways:
through its own n_c, through the mean, and through the variance. The mean takes away the average
of d; the variance takes away the part of d that points along n, for stretching a row along n is
just what the norm undoes:

    dx_c = rstd (d_c - (1/C) sum_k d_k - n_c (1/C) sum_k d_k n_k)

and, summed over all rows,  dweight_c = sum dout_c n_c,  dbias_c = sum dout_c.

Shapes: x, out, dout, dx (..., C); weight, bias (C,) or None; mean, rstd (...). Source: Ba, Kiros
and Hinton 2016, "Layer normalization", equation 4.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.jit import jit, prange
from minillm.kernels.bfloat16 import put, raw
from minillm.kernels.layout import rows

# ------------------------------------------------------------------------------- reference


def forward_reference(
    x: Array, weight: Array | None, bias: Array | None, eps: float, stored: Any = None
) -> tuple[Array, Array, Array]:
    """out (..., C), and mean and rstd (...) for backward."""
    xp = backend.array_module(x)
    mean = x.sum(axis=-1) / max(1, x.shape[-1])
    centred = x - mean[..., None]
    variance = (centred * centred).sum(axis=-1) / max(1, x.shape[-1])
    rstd = 1 / xp.sqrt(variance + eps)
    out = centred * rstd[..., None]
    out = out if weight is None else out * weight
    out = out if bias is None else out + bias
    return out.astype(stored or out.dtype, copy=False), mean, rstd


def backward_reference(
    dout: Array, x: Array, weight: Array | None, mean: Array, rstd: Array
) -> tuple[Array, Array, Array]:
    """dx (..., C), dweight (C,), dbias (C,); the last two mean something where the two exist."""
    C = max(1, x.shape[-1])
    n = (x - mean[..., None]) * rstd[..., None]
    d = dout if weight is None else dout * weight
    along = n * ((d * n).sum(axis=-1) / C)[..., None]
    dx = rstd[..., None] * (d - (d.sum(axis=-1) / C)[..., None] - along)
    lead = tuple(range(x.ndim - 1))
    return dx, (dout * n).sum(axis=lead), dout.sum(axis=lead)


# ------------------------------------------------------------------------------- fast twin
#
# Rows run in parallel; a row is read from memory once and stays in the first-level cache for the
# second sweep over it. In backward a chunk of rows adds its dweight and dbias into a row of its
# own, and the chunks are added up in order at the end. There are as many chunks as the number of
# rows asks for, whatever the number of threads, and so the sums are the same on any of them.

CHUNK_ROWS, MOST_CHUNKS = 16, 64


def forward_fast(
    x: Array, weight: Array | None, bias: Array | None, eps: float, stored: Any = None
) -> tuple[Array, Array, Array]:
    if x.size == 0:
        return forward_reference(x, weight, bias, eps, stored)
    C = x.shape[-1]
    out = np.empty(x.shape, stored or x.dtype)
    mean, rstd = np.empty(x.shape[:-1], x.dtype), np.empty(x.shape[:-1], x.dtype)
    weight = np.ones(C, x.dtype) if weight is None else weight
    bias = np.zeros(C, x.dtype) if bias is None else bias
    _forward(
        rows(x), rows(weight), rows(bias), x.dtype.type(eps),
        raw(out).reshape(-1, C), mean.reshape(-1), rstd.reshape(-1),
    )  # fmt: skip
    return out, mean, rstd


def backward_fast(
    dout: Array, x: Array, weight: Array | None, mean: Array, rstd: Array
) -> tuple[Array, Array, Array]:
    if x.size == 0:
        return backward_reference(dout, x, weight, mean, rstd)
    C = x.shape[-1]
    dx, sums = np.empty(x.shape, x.dtype), np.empty(2 * C, x.dtype)
    weight = np.ones(C, x.dtype) if weight is None else weight
    _backward(
        rows(dout), rows(x), rows(weight), mean.reshape(-1), rstd.reshape(-1),
        dx.reshape(-1, C), sums,
    )  # fmt: skip
    return dx, sums[:C], sums[C:]


@jit(parallel=True)
def _forward(x, weight, bias, eps, out, mean, rstd):
    count = x.shape[0]
    chunks = min(MOST_CHUNKS, (count + CHUNK_ROWS - 1) // CHUNK_ROWS)
    if chunks == 1:
        _forward_rows(x, weight[0], bias[0], eps, out, mean, rstd)
    else:
        for chunk in prange(chunks):
            i, j = chunk * count // chunks, (chunk + 1) * count // chunks
            _forward_rows(x[i:j], weight[0], bias[0], eps, out[i:j], mean[i:j], rstd[i:j])


@jit(forceinline=True)
def _forward_rows(x, weight, bias, eps, out, mean, rstd):
    C, number = x.shape[1], x.dtype.type
    share = number(1) / number(C)
    for n in range(x.shape[0]):
        total = number(0)
        for c in range(C):
            total += x[n, c]
        middle = total * share
        squares = number(0)
        for c in range(C):
            squares += (x[n, c] - middle) * (x[n, c] - middle)
        factor, row = number(1) / np.sqrt(squares * share + eps), out[n]
        for c in range(C):
            put(row, c, (x[n, c] - middle) * factor * weight[c] + bias[c])
        mean[n], rstd[n] = middle, factor


@jit(parallel=True)
def _backward(dout, x, weight, mean, rstd, dx, sums):
    count, C = x.shape
    chunks = min(MOST_CHUNKS, (count + CHUNK_ROWS - 1) // CHUNK_ROWS)
    if chunks == 1:
        _backward_rows(dout, x, weight[0], mean, rstd, dx, sums[:C], sums[C:])
    else:
        parts = np.empty((chunks, 2 * C), x.dtype)
        for chunk in prange(chunks):
            i, j = chunk * count // chunks, (chunk + 1) * count // chunks
            _backward_rows(
                dout[i:j], x[i:j], weight[0], mean[i:j], rstd[i:j], dx[i:j],
                parts[chunk, :C], parts[chunk, C:],
            )  # fmt: skip
        add_up(parts, sums)


@jit(forceinline=True)
def _backward_rows(dout, x, weight, mean, rstd, dx, dweight, dbias):
    C, number = x.shape[1], x.dtype.type
    share = number(1) / number(C)
    dweight[:] = 0
    dbias[:] = 0
    for n in range(x.shape[0]):
        middle, factor = mean[n], rstd[n]
        total, along = number(0), number(0)
        for c in range(C):
            normed = (x[n, c] - middle) * factor
            d = dout[n, c] * weight[c]
            total += d
            along += d * normed
        total, along = total * share, along * share
        for c in range(C):
            normed = (x[n, c] - middle) * factor
            dx[n, c] = factor * (dout[n, c] * weight[c] - total - normed * along)
            dweight[c] += dout[n, c] * normed
            dbias[c] += dout[n, c]


@jit(forceinline=True)
def add_up(parts, sums):
    """The sum of the rows of `parts` (N, C) in their order, into `sums` (C,)."""
    sums[:] = 0
    for n in range(parts.shape[0]):
        for c in range(sums.size):
            sums[c] += parts[n, c]


# ---------------------------------------------------------------------------------- public


def forward(
    x: Array, weight: Array | None, bias: Array | None, eps: float = 1e-5, stored: Any = None
) -> tuple[Array, Array, Array]:
    """Normalize `x` (..., C) over its last axis, scale by `weight` (C,) and add `bias` (C,).

    float32 or float64, all of one dtype; None for no weight or no bias. Returns out (..., C), and
    mean and rstd (...), which backward needs. `stored` is the dtype of out, if not that of x:
    bfloat16 for what goes into products that round it anyway.
    """
    run = forward_fast if backend.fast(x) else forward_reference
    return run(x, weight, bias, eps, stored)


def backward(
    dout: Array, x: Array, weight: Array | None, mean: Array, rstd: Array
) -> tuple[Array, Array, Array]:
    """Gradients (dx (..., C), dweight (C,), dbias (C,)) from `dout` (..., C)."""
    if backend.fast(dout, x):
        return backward_fast(dout, x, weight, mean, rstd)
    return backward_reference(dout, x, weight, mean, rstd)

"""Logarithm of the softmax over the last axis: log-probabilities without a detour through zero.

    y_i = x_i - m - log sum_j exp(x_j - m),        m = max_j x_j

log(softmax(x)) computed in two steps gives -inf as soon as a probability is too small for its
dtype; in one step it is exact to rounding for any finite x.

Derivative. dy_i/dx_j = 1[i = j] - softmax(x)_j, and softmax(x) = exp(y), so

    dx_j = dout_j - exp(y_j) sum_i dout_i

Shapes: x, y, dout, dx (..., N). Source: the logarithm of softmax.py's formula.
"""

from __future__ import annotations

import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.jit import jit, prange
from minillm.kernels.layout import PART, rows
from minillm.kernels.softmax import LANES, largest
from minillm.kernels.vector_math import exp

# ------------------------------------------------------------------------------- reference


def forward_reference(x: Array) -> Array:
    """Log-softmax of `x` (..., N) over its last axis."""
    xp = backend.array_module(x)
    if x.size == 0:  # no maximum to take
        return xp.empty_like(x)
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - xp.log(xp.exp(shifted).sum(axis=-1, keepdims=True))


def backward_reference(dout: Array, y: Array) -> Array:
    """Gradient of the input from the gradient of the output and the output `y`, all (..., N)."""
    xp = backend.array_module(dout, y)
    return dout - xp.exp(y) * dout.sum(axis=-1, keepdims=True)


# ------------------------------------------------------------------------------- fast twin
#
# As softmax.py: parallel over rows, each read from memory once. The exponentials are summed and
# forgotten; only the differences are written.


def forward_fast(x: Array) -> Array:
    y = np.empty(x.shape, x.dtype)
    if x.size:
        _forward(rows(x), y.reshape(-1, x.shape[-1]))
    return y


def backward_fast(dout: Array, y: Array) -> Array:
    dx = np.empty(y.shape, y.dtype)
    if y.size:
        _backward(rows(dout), rows(y), dx.reshape(-1, y.shape[-1]))
    return dx


@jit(parallel=True)
def _forward(x, y):
    count = x.shape[0]
    parts = min(count, x.size // PART)
    if parts < 2:
        _forward_rows(x, y)
    else:
        for part in prange(parts):
            i, j = part * count // parts, (part + 1) * count // parts
            _forward_rows(x[i:j], y[i:j])


@jit(forceinline=True)
def _forward_rows(x, y):
    lanes = np.empty(LANES, x.dtype)
    for i in range(x.shape[0]):
        _log_softmax(x[i], y[i], largest(x[i], lanes))


@jit(forceinline=True)
def _log_softmax(x, y, top):
    total = x.dtype.type(0)
    for j in range(x.shape[0]):
        total += exp(x[j] - top)
    _less(x, y, top, np.log(total))


@jit(forceinline=True, fastmath=False)
def _less(x, y, top, log_total):
    """First the largest, then the logarithm: their sum would lose digits of the smaller one."""
    for j in range(x.shape[0]):
        y[j] = (x[j] - top) - log_total


@jit(parallel=True)
def _backward(dout, y, dx):
    count = y.shape[0]
    parts = min(count, y.size // PART)
    if parts < 2:
        _backward_rows(dout, y, dx)
    else:
        for part in prange(parts):
            i, j = part * count // parts, (part + 1) * count // parts
            _backward_rows(dout[i:j], y[i:j], dx[i:j])


@jit(forceinline=True)
def _backward_rows(dout, y, dx):
    for i in range(y.shape[0]):
        _log_softmax_gradient(dout[i], y[i], dx[i])


@jit(forceinline=True)
def _log_softmax_gradient(dout, y, dx):
    total = y.dtype.type(0)
    for j in range(y.shape[0]):
        total += dout[j]
    for j in range(y.shape[0]):
        dx[j] = dout[j] - exp(y[j]) * total


# ---------------------------------------------------------------------------------- public


def forward(x: Array) -> Array:
    """Log-softmax over the last axis.

    `x`: (..., N), float32 or float64. Returns the same shape and dtype.
    """
    return forward_fast(x) if backend.fast(x) else forward_reference(x)


def backward(dout: Array, y: Array) -> Array:
    """Gradient of `forward`'s input; `dout` and the forward's result `y` are (..., N)."""
    return backward_fast(dout, y) if backend.fast(dout, y) else backward_reference(dout, y)

"""Softmax over the last axis: scores become positive weights that sum to one.

    y_i = exp(x_i - m) / sum_j exp(x_j - m),        m = max_j x_j

Subtracting m changes nothing in exact arithmetic (it cancels) and keeps every exponent at or below
zero, so nothing overflows and the largest term is exactly 1.

Derivative. From log y_i = x_i - log sum_j exp x_j comes dy_i/dx_j = y_i (1[i = j] - y_j), and so

    dx_j = sum_i dout_i dy_i/dx_j = y_j (dout_j - sum_i dout_i y_i)

which needs only the output. A score of -inf is a masked one: weight 0, gradient 0. A row of nothing
but -inf has no answer and is NaN, as in PyTorch.

Shapes: x, y, dout, dx (..., N). Source: Bridle 1990, "Probabilistic interpretation of feedforward
classification network outputs", equation 4.
"""

from __future__ import annotations

import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.jit import jit, prange
from minillm.kernels.layout import PART, on_stack, rows
from minillm.kernels.vector_math import exp

# ------------------------------------------------------------------------------- reference


def forward_reference(x: Array) -> Array:
    """Softmax of `x` (..., N) over its last axis."""
    xp = backend.array_module(x)
    if x.size == 0:  # no maximum to take
        return xp.empty_like(x)
    exponentials = xp.exp(x - x.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def backward_reference(dout: Array, y: Array) -> Array:
    """Gradient of the input from the gradient of the output and the output `y`, all (..., N)."""
    return y * (dout - (dout * y).sum(axis=-1, keepdims=True))


# ------------------------------------------------------------------------------- fast twin
#
# Rows run in parallel. A row is read from memory once: the passes over it that follow the first
# find it in cache. The exponential is plain arithmetic (vector_math.py), so the loop around it
# works on whole vectors.

LANES = 64  # of the search for the largest score: several vectors, on any processor


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
        normalize(x[i], y[i], largest(x[i], lanes))


@jit(forceinline=True)
def normalize(x, y, top):
    """The softmax of `x` (N,), whose largest number is `top`, in `y`; returns its divisor.

    The exponentials go through memory that is known to lie apart from `x`. Summed while they are
    written to `y`, they would be taken as vectors or one by one, whichever the distance of `x` and
    `y` in memory allows, and the last bits of the sum would tell which.
    """
    total, block = x.dtype.type(0), on_stack(x)
    for start in range(0, x.shape[0], block.size):
        scores, result = x[start : start + block.size], y[start : start + block.size]
        for j in range(scores.size):
            block[j] = exp(scores[j] - top)
            total += block[j]
        for j in range(scores.size):
            result[j] = block[j]
    share = x.dtype.type(1) / total
    for j in range(x.shape[0]):
        y[j] *= share
    return total


@jit(forceinline=True)
def largest(x, lanes):
    """The largest number of `x` (N,), passing over NaN. `lanes` is scratch.

    Each lane keeps the largest of every LANES-th number. A single running maximum would make the
    compiler work on one number at a time, for unlike a sum it may not be reordered around NaN.
    """
    lanes[:] = -np.inf
    whole = x.shape[0] // LANES * LANES
    for start in range(0, whole, LANES):
        for lane in range(LANES):
            lanes[lane] = max(lanes[lane], x[start + lane])
    for j in range(whole, x.shape[0]):
        lanes[0] = max(lanes[0], x[j])
    for lane in range(1, LANES):
        lanes[0] = max(lanes[0], lanes[lane])
    return lanes[0]


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
        _softmax_gradient(dout[i], y[i], dx[i])


@jit(forceinline=True)
def _softmax_gradient(dout, y, dx):
    mean = y.dtype.type(0)  # of dout, weighted by y
    for j in range(y.shape[0]):
        mean += dout[j] * y[j]
    for j in range(y.shape[0]):
        dx[j] = y[j] * (dout[j] - mean)


# ---------------------------------------------------------------------------------- public


def forward(x: Array) -> Array:
    """Softmax over the last axis.

    `x`: (..., N), float32 or float64. Returns the same shape and dtype.
    """
    return forward_fast(x) if backend.fast(x) else forward_reference(x)


def backward(dout: Array, y: Array) -> Array:
    """Gradient of `forward`'s input; `dout` and the forward's result `y` are (..., N)."""
    return backward_fast(dout, y) if backend.fast(dout, y) else backward_reference(dout, y)

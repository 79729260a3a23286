"""ReLU: negative numbers become 0.

    out = max(x, 0),        dx = dout where x > 0, else 0

At x = 0, where there is no derivative, 0 is taken, as everybody does. NaN stays NaN in both
directions.

Shapes: all (...). Source: Nair and Hinton 2010, "Rectified linear units improve restricted
Boltzmann machines"; in a Transformer: Vaswani et al. 2017, equation 2.
"""

from __future__ import annotations

import numpy as np

from minillm import backend
from minillm.backend import Array
from minillm.jit import jit, prange
from minillm.kernels.layout import PART, flat

# ------------------------------------------------------------------------------- reference


def forward_reference(x: Array) -> Array:
    """max(x, 0) for every number of `x` (...)."""
    xp = backend.array_module(x)
    return xp.maximum(x, x.dtype.type(0))


def backward_reference(dout: Array, x: Array) -> Array:
    """Gradient of `x` (...) from `dout` (...)."""
    xp = backend.array_module(x)
    return xp.where(x <= 0, dout.dtype.type(0), xp.where(x > 0, dout, x))  # the last: NaN


# ------------------------------------------------------------------------------- fast twin
#
# One pass over memory, in parts that run in parallel.


def forward_fast(x: Array) -> Array:
    out = np.empty(x.shape, x.dtype)
    _forward(flat(x), out.reshape(-1))
    return out


def backward_fast(dout: Array, x: Array) -> Array:
    dx = np.empty(x.shape, x.dtype)
    _backward(flat(dout), flat(x), dx.reshape(-1))
    return dx


@jit(forceinline=True)
def _forward_part(x, out):
    zero = x.dtype.type(0)
    for i in range(x.size):
        out[i] = max(x[i], zero)  # NaN stays: it is not smaller


@jit(parallel=True)
def _forward(x, out):
    if x.size < 2 * PART:
        _forward_part(x, out)
    else:
        for part in prange((x.size + PART - 1) // PART):
            i, j = part * PART, min((part + 1) * PART, x.size)
            _forward_part(x[i:j], out[i:j])


@jit(forceinline=True)
def _backward_part(dout, x, dx):
    zero = x.dtype.type(0)
    for i in range(x.size):
        kept = dout[i] if x[i] > zero else x[i]
        dx[i] = zero if x[i] <= zero else kept


@jit(parallel=True)
def _backward(dout, x, dx):
    if x.size < 2 * PART:
        _backward_part(dout, x, dx)
    else:
        for part in prange((x.size + PART - 1) // PART):
            i, j = part * PART, min((part + 1) * PART, x.size)
            _backward_part(dout[i:j], x[i:j], dx[i:j])


# ---------------------------------------------------------------------------------- public


def forward(x: Array) -> Array:
    """max(x, 0) for every number of `x` (...), float32 or float64."""
    return forward_fast(x) if backend.fast(x) else forward_reference(x)


def backward(dout: Array, x: Array) -> Array:
    """Gradient of `forward`'s input; `dout` and the input `x` are (...)."""
    return backward_fast(dout, x) if backend.fast(dout, x) else backward_reference(dout, x)
